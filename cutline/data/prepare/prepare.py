"""Preparing: a source of captioned images becomes a dataset in which every image opens and is captioned.

read → reading steps → tidy captions → split → limit → download → decode every image → checked steps → write → end steps

It can be killed at any moment and resumes when started again: images are stored under the hash of their bytes,
results on them are kept in ``.work/checked.jsonl``, what became of addresses in ``downloads.sqlite``, the rest is made
again from the source, and the marker is written last. Images that shall lie in tars alone are files until then.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cutline.core import jsonl
from cutline.core.errors import DataError, RecipeError
from cutline.core.files import locked, write_atomically
from cutline.core.fingerprint import checkpoint_fingerprint, fingerprint
from cutline.core.progress import Progress
from cutline.core.records import Sample
from cutline.data import dataset, readers, steps, tars
from cutline.data import splits as splitting
from cutline.data.addresses import is_address
from cutline.data.download.downloader import Downloader
from cutline.data.download.ledger import NAME as DOWNLOADS
from cutline.data.prepare.decode import ImageDecoder
from cutline.data.prepare.decoded import DecodedImages
from cutline.data.prepare.duplicates import DuplicateImages
from cutline.data.prepare.source_rows import ProblemLog, SourceRows, read_source, refuse_large_loss
from cutline.data.prepare.work import Engine, Work, checked
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.step import OpenScorer
from cutline.data.steps.context import FIELDS
from cutline.data.steps.split import refuse as refuse_split
from cutline.data.steps.split import stratified, stratum


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The result of preparing; ``dataset.json`` holds the same, except ``decoded`` and ``unchanged``.

    Attributes:
        rows: rows of the source; an image with several captions is one.
        samples: samples in the dataset.
        lost: rows that are not in it because of a problem.
        left_out: samples that ``max_samples`` left out.
        dropped: samples that steps took out, as the recipe wants.
        splits: number of samples by split.
        split_by: "source" or "seed": what divided them.
        columns: "image", "captions", "split" … → the source's columns that they were read from; {} without columns.
        problems: number of problems by reason (see ``cutline.data.problem``); ``problems.jsonl`` lists them.
        steps: what each step did: how many samples it let through, and how many it dropped, by reason.
        decoded: images decoded in this run; the others were known from an earlier one.
        unchanged: the dataset was finished already, and nothing was done.
    """

    rows: int
    samples: int
    lost: int
    left_out: int
    splits: Mapping[str, int]
    split_by: str
    problems: Mapping[str, int]
    dropped: int = 0
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    decoded: int = 0
    unchanged: bool = False


def prepare(
    settings: DataSettings,
    folder: str | Path,
    progress: Progress | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    engine: Engine = "threads",
    scorer: OpenScorer | None = None,
) -> Report:
    """Makes a dataset of the source that the settings name, or resumes it. Returns at once when nothing has changed.

    Args:
        folder: of the dataset: new, empty, or prepared before.
        workers: threads that decode; by default one a core. The result doesn't depend on it.
        retry_failed: fetch again what failed in an earlier run.
        engine: "ray" spreads the work over a cluster (see ``ray_engine``); the dataset is the same.
        scorer: opens the model that [data.steps.filter] names; with Ray a function at the top level of a module.

    Raises:
        RecipeError: an unknown format or column.
        DataError: the source can't be read, nothing is left, or more than ``max_lost_share`` of it is lost.
    """
    folder = Path(folder)
    if settings.source is None:
        raise RecipeError("data.source is missing.", "Name a file or folder with captioned images.")
    source = Path(settings.source)
    readers.check_present(source)
    _refuse_folder(source, folder)
    with _locked(folder):
        made_from = {
            "settings": fingerprint(settings.model_dump(mode="json", exclude={"dataset"})),
            "source": _state(source),
        }
        if model := getattr(settings.steps.chosen().get("filter"), "model", ""):
            made_from["filter"] = checkpoint_fingerprint(model)
        known = _marker(folder)
        if known and known.get("made_from") == made_from and not retry_failed:
            return _report(known, unchanged=True)
        tars.unpack(folder)
        marker, decoded = Preparation(settings, source, folder, progress, workers, retry_failed, engine, scorer)()
        marker["made_from"] = made_from
        write_atomically(folder / dataset.MARKER, json.dumps(marker, indent=2) + "\n")
        return _report(marker, decoded=decoded)


class Preparation(Work):
    """One run of everything but the marker."""

    def __call__(self) -> tuple[dict[str, Any], int]:
        """Returns the content of the marker, and the number of images decoded."""
        duplicates = DuplicateImages()
        with ProblemLog(self.scratch / dataset.PROBLEMS) as log:
            source_rows = self._read(log)
            lost_in_reading = log.rows
            split_by = _divide(source_rows, self.settings, log)
            chosen = self.settings.steps.chosen()
            if "split" in chosen:
                new_fields = FIELDS if "context" in chosen else ()
                refuse_split(chosen["split"], split_by, source_rows.samples(range(len(source_rows))), new_fields)
            kept: Collection[int] = range(len(source_rows))
            if self.settings.max_samples is not None:
                kept = frozenset(
                    splitting.draw(source_rows.ids, source_rows.splits, self.settings.max_samples, self.settings.seed)
                )
            decoded = self._images(source_rows, kept, log, duplicates)
            if split_by == "source":
                for problem in duplicates.divided():
                    log.add(problem)
        refuse_large_loss(log, self.settings.max_lost_share, source_rows.rows, lost_in_reading, len(kept))
        moves = duplicates.moves(source_rows.groups, source_rows.splits) if split_by == "seed" else {}
        if "split" in self.settings.steps.chosen("end"):
            moves = self._stratified(moves)
        whole = self._write(duplicates, moves, log)
        layout = self.settings.steps.chosen("end").get("layout")
        if layout and layout.tars:
            self.counts["layout"] = tars.write(whole, layout)
            if not layout.folders:
                whole = tars.pack(whole, layout.samples_per_tar, self.store)
        else:
            tars.remove(self.folder)
        marker = {
            "format_version": dataset.FORMAT_VERSION,
            "rows": source_rows.rows,
            "samples": len(whole),
            "lost": log.rows,
            "left_out": len(source_rows) - len(kept),
            "dropped": log.dropped,
            "splits": whole.splits(),
            "split_by": split_by,
            "columns": readers.columns(self.settings),
            "problems": dict(sorted(log.counts.items())),
            "steps": self.counts,
            "fingerprint": whole.fingerprint,
        }
        return marker, decoded

    def _read(self, log: ProblemLog) -> SourceRows:
        with steps.Chain(self.settings.steps, "reading", self.workspace) as chain:
            source = through(chain, readers.read(self.settings))
            source_rows = read_source(source, self.settings, self.scratch / "rows.jsonl", log)
            self.note(chain)
        return source_rows

    def _images(
        self, source_rows: SourceRows, kept: Collection[int], log: ProblemLog, duplicates: DuplicateImages
    ) -> int:
        """Downloads, decodes and stores the images; writes the rows of those that stay. Returns how many it decoded."""
        if not self.settings.steps.chosen("images").get("download"):
            _refuse_addresses(source_rows, kept)
        if self.engine == "ray":
            from cutline.data.prepare import ray_engine

            return ray_engine.images(self, source_rows, kept, log, duplicates)
        with ExitStack() as stack:
            # first, so that a model that isn't there is known before hours of downloading
            chain = stack.enter_context(steps.Chain(self.settings.steps, "checked", self.workspace))
            downloader = self._download(source_rows, kept, stack)
            ledger = stack.enter_context(DecodedImages(self.scratch / "checked.jsonl", self.store.made))
            decoder = ImageDecoder(self.store, ledger, self.workers, downloader.find if downloader else None)
            results = checked(decoder, chain, self.settings, source_rows.samples(kept), self.counter(len(kept)))
            self.write(results, chain, log, duplicates)
        return decoder.decoded

    def _download(self, source_rows: SourceRows, kept: Collection[int], stack: ExitStack) -> Downloader | None:
        settings = self.settings.steps.chosen("images").get("download")
        if settings is None:
            return None
        downloader = stack.enter_context(Downloader(settings, self.store, self.workers))
        if self.retry_failed:
            downloader.ledger.retry_failed()
        downloader.run(source_rows.samples(kept), self.counter(len(kept)))
        self.counts["download"] = dict(downloader.ledger.counts())
        return downloader

    def _stratified(self, moves: Mapping[str, dict[str, str]]) -> dict[str, dict[str, str]]:
        """Group → its final group and split, each split with the same mix of the column's values."""
        column = self.settings.steps.chosen("end")["split"].stratify
        groups, strata = [], []
        for row in jsonl.read(self.scratch / "accepted.jsonl"):
            groups.append(moves.get(row["group"], row)["group"])
            strata.append(stratum(column, json.loads(row["context"]), json.loads(row["extra"])))
        if not any(strata):
            raise DataError(f"No sample has a {column!r} to divide by.", "Fix stratify in [data.steps.split].")
        splits = stratified(groups, strata, self.settings.val, self.settings.test, self.settings.seed)
        final = {group: {"group": group, "split": split} for group, split in splits.items()}
        return final | {old: final[new["group"]] for old, new in moves.items() if new["group"] in final}

    def _write(
        self, duplicates: DuplicateImages, moves: Mapping[str, dict[str, str]], log: ProblemLog
    ) -> dataset.Dataset:
        accepted = self.scratch / "accepted.jsonl"
        if accepted.stat().st_size == 0:
            raise DataError(f"The steps leave nothing: {log.top()}.", "Make [data.steps.filter] more lenient.")
        (self.folder / dataset.MARKER).unlink(missing_ok=True)  # from here on the old dataset is no longer whole
        dataset.write_table(self.folder, (row | moves.get(row["group"], {}) for row in jsonl.read(accepted)))
        os.replace(log.path, self.folder / dataset.PROBLEMS)
        self.store.sweep(duplicates, aside=(self.folder / DOWNLOADS).exists())
        for name in ("rows.jsonl", "accepted.jsonl"):
            (self.scratch / name).unlink()
        return dataset.Dataset(self.folder)


def through(chain: steps.Chain, source: Iterator[Sample | Problem]) -> Iterator[Sample | Problem]:
    """A source's samples as they come out of the steps."""
    for item in source:
        yield chain(item) if isinstance(item, Sample) else item


def _refuse_addresses(source_rows: SourceRows, kept: Collection[int]) -> None:
    """Raises a DataError where images are URLs; called where the recipe has no step that downloads them."""
    if addresses := sum(is_address(sample.image) for sample in source_rows.samples(kept)):
        raise DataError(
            f"{addresses:,} images are URLs, and no step downloads them.",
            "Add [data.steps.download] to the recipe, or --set data.steps.download={}.",
        )


def _divide(source_rows: SourceRows, settings: DataSettings, log: ProblemLog) -> str:
    """Gives every sample its final split; returns what decided it: "source" or "seed"."""
    if not any(source_rows.splits):
        source_rows.splits = splitting.assign(source_rows.groups, settings.val, settings.test, settings.seed)
        return "seed"
    for name, split in zip(source_rows.ids, source_rows.splits, strict=True):
        if not split:
            log.add(Problem(id=name, reason="no_split", detail="the source names one for others"))
    source_rows.splits = splitting.complete(source_rows.groups, source_rows.splits)
    for group, counts in splitting.divided(source_rows.groups, source_rows.splits).items():
        detail = ", ".join(f"{split}: {count}" for split, count in counts.items())
        log.add(Problem(id=group, reason="divided_group", detail=detail))
    return "source"


def _refuse_folder(source: Path, folder: Path) -> None:
    """
    Raises:
        DataError: the dataset and its source overlap, or the folder holds other files.
    """
    inside, outside = folder.resolve(), source.resolve()
    if inside == outside or outside.is_relative_to(inside) or (source.is_dir() and inside.is_relative_to(outside)):
        raise DataError(
            f"The dataset {folder} and its source {source} overlap.",
            "Give another folder in [data] dataset.",
        )
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file.", "Give a folder in [data] dataset.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / ".work").is_dir():
        raise DataError(f"{folder} already holds other files.", "Give an empty folder in [data] dataset.")


def _state(source: Path) -> str:
    """Changes when the source does: names, sizes and times of its files. Images elsewhere are not looked at."""
    if str(source).startswith("hub:"):  # what the hub has is known when it is loaded
        return str(source)
    if source.is_file():
        files = [source]
    elif (source / dataset.MARKER).is_file():  # a prepared dataset: its table names every image by its hash
        files = [source / dataset.MARKER, source / dataset.TABLE]
    else:
        files = sorted(Path(directory) / name for directory, _, names in os.walk(source) for name in names)
    parts = []
    for file in files:
        state = file.stat() if file.exists() else None
        parts.append([ascii(str(file)), state and state.st_size, state and state.st_mtime_ns])
    return fingerprint(parts)


def _marker(folder: Path) -> dict[str, Any]:
    """The content of ``dataset.json`` of a finished dataset; {} otherwise."""
    try:
        return dataset.Dataset.open(folder).marker
    except DataError:
        return {}


def _report(marker: Mapping[str, Any], **facts: Any) -> Report:
    return Report(**{name: marker[name] for name in Report.__slots__ if name in marker}, **facts)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    busy = DataError(
        f"Another process is preparing {folder}.", "Wait for it, or give another folder in [data] dataset."
    )
    with locked(folder / ".work/lock", busy):
        yield
