"""Preparing: a source of captioned images becomes a dataset in which every image opens and is captioned.

read → tidy captions → split → limit → decode every image → write

It can be killed at any moment and goes on when started again: images are stored under the hash of their bytes, verdicts
on them are kept in ``.work/checked.jsonl``, the rest is made again from the source, and the marker is written last.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cutline import jsonl
from cutline.data import dataset, readers
from cutline.data import split as splitting
from cutline.data.check import Checker
from cutline.data.ledger import Ledger
from cutline.data.pictures import Pictures
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.spool import Losses, Spool, read_source, refuse_large_loss
from cutline.errors import DataError, RecipeError
from cutline.runs import fingerprint

#: Called with (images done, images in all) after each image.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What preparing came to; ``dataset.json`` holds the same, except ``decoded`` and ``unchanged``.

    Attributes:
        rows: rows of the source; an image with several captions is one.
        samples: samples in the dataset.
        lost: rows that are not in it because of a problem.
        left_out: samples that ``limit`` left out.
        splits: number of samples by split.
        split_by: "source" or "seed": who divided them.
        problems: number of problems by reason (see ``cutline.data.problem``); ``problems.jsonl`` lists them.
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
    decoded: int = 0
    unchanged: bool = False


def prepare(
    settings: DataSettings, folder: str | Path, progress: Progress | None = None, workers: int | None = None
) -> Report:
    """Makes a dataset of the source that the settings name, or goes on with it; at once when nothing has changed.

    Args:
        folder: of the dataset: new, empty, or prepared before.
        workers: threads that decode; by default one a core. The result doesn't depend on it.

    Raises:
        RecipeError: an unknown format or column.
        DataError: the source can't be read, nothing is left, or more than ``max_lost`` of it is lost.
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
        known = _marker(folder)
        if known and known.get("made_from") == made_from:
            return _report(known, unchanged=True)
        marker, decoded = _prepare(settings, source, folder, progress, workers)
        marker["made_from"] = made_from
        jsonl.write_atomically(folder / dataset.MARKER, json.dumps(marker, indent=2) + "\n")
        return _report(marker, decoded=decoded)


def _prepare(
    settings: DataSettings, source: Path, folder: Path, progress: Progress | None, workers: int | None
) -> tuple[dict[str, Any], int]:
    """Everything but the marker; returns what the marker is to say, and the number of images decoded."""
    work = folder / ".work"
    accepted = work / "accepted.jsonl"
    with Losses(work / dataset.PROBLEMS) as losses:
        spool = read_source(readers.read(settings), settings, work / "rows.jsonl", losses)
        lost_in_reading = losses.rows
        split_by = _divide(spool, settings, losses)
        kept = list(range(len(spool)))
        if settings.limit is not None:
            kept = splitting.draw(spool.ids, spool.splits, settings.limit, settings.seed)
        pictures = Pictures()
        done = 0

        def step() -> None:
            nonlocal done
            done += 1
            if progress:
                progress(done, len(kept))

        accepted.unlink(missing_ok=True)
        with Ledger(work / "checked.jsonl") as ledger, jsonl.Appender(accepted) as out:
            checker = Checker(folder, ledger, settings.max_pixels, workers)
            for sample, verdict in checker.check(spool.samples(set(kept)), step):
                if isinstance(verdict, Problem):
                    losses.add(replace(verdict, id=sample.id))
                else:
                    pictures.add(sample, verdict)
                    out.write([dataset.table_row(sample, verdict, _named(sample.image, source, settings))])
        if split_by == "source":
            for problem in pictures.divided():
                losses.add(problem)
    moves = pictures.moves(spool.groups, spool.splits) if split_by == "seed" else {}
    refuse_large_loss(losses, settings.max_lost, spool.rows, lost_in_reading, len(kept))

    (folder / dataset.MARKER).unlink(missing_ok=True)  # from here on the old dataset is no longer whole
    dataset.write_table(folder, (row | moves.get(row["group"], {}) for row in jsonl.read(accepted)))
    os.replace(losses.path, folder / dataset.PROBLEMS)
    _sweep(folder, pictures)
    for name in ("rows.jsonl", "accepted.jsonl"):
        (work / name).unlink()
    whole = dataset.Dataset(folder)
    marker = {
        "format_version": dataset.FORMAT_VERSION,
        "rows": spool.rows,
        "samples": len(whole),
        "lost": losses.rows,
        "left_out": len(spool) - len(kept),
        "splits": whole.splits(),
        "split_by": split_by,
        "problems": dict(sorted(losses.counts.items())),
        "fingerprint": whole.fingerprint,
    }
    return marker, checker.decoded


def _divide(spool: Spool, settings: DataSettings, losses: Losses) -> str:
    """Gives every sample its final split; says who decided it."""
    if not any(spool.splits):
        spool.splits = splitting.assign(spool.groups, settings.val, settings.test, settings.seed)
        return "seed"
    for identity, split in zip(spool.ids, spool.splits, strict=True):
        if not split:
            losses.add(Problem(id=identity, reason="no_split", detail="the source names one for others"))
    spool.splits = splitting.complete(spool.groups, spool.splits)
    for group, counts in splitting.divided(spool.groups, spool.splits).items():
        detail = ", ".join(f"{split}: {count}" for split, count in counts.items())
        losses.add(Problem(id=group, reason="divided_group", detail=detail))
    return "source"


def _named(image: str, source: Path, settings: DataSettings) -> str:
    """What the image is called where it comes from: relative, so that a dataset tells nothing of the machine."""
    roots = [source if source.is_dir() else source.parent, *([Path(settings.images)] if settings.images else [])]
    path = Path(image)
    return next((path.relative_to(root).as_posix() for root in roots if path.is_relative_to(root)), path.name)


def _sweep(folder: Path, pictures: Pictures) -> None:
    """Removes stored images that no row names any more, and what a kill left half-written."""
    for part in (folder / "images").iterdir():
        if re.fullmatch("[0-9a-f]{2}", part.name):
            for path in part.iterdir():
                name = re.fullmatch(r"([0-9a-f]{64})\.\w+|\.[0-9a-f]{64}\..*\.tmp", path.name)
                if name and (name[1] is None or name[1] not in pictures):
                    path.unlink()


def _refuse_folder(source: Path, folder: Path) -> None:
    """
    Raises:
        DataError: the dataset would lie in its own source, or among files that are no dataset.
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
        raise DataError(f"{folder} holds other things already.", "Give an empty folder in [data] dataset.")


def _state(source: Path) -> str:
    """Changes when the source does: names, sizes and times of its files. Images elsewhere are not looked at."""
    if source.is_file():
        files = [source]
    elif (source / dataset.MARKER).is_file():  # a prepared dataset: its table names every image by its hash
        files = [source / dataset.MARKER, source / dataset.TABLE]
    else:
        files = sorted(Path(place) / name for place, _, names in os.walk(source) for name in names)
    parts = []
    for file in files:
        state = file.stat() if file.exists() else None
        parts.append([ascii(str(file)), state and state.st_size, state and state.st_mtime_ns])
    return fingerprint(parts)


def _marker(folder: Path) -> dict[str, Any]:
    """What ``dataset.json`` says when it belongs to a whole dataset; {} otherwise."""
    try:
        return dataset.Dataset.open(folder).marker
    except DataError:
        return {}


def _report(marker: Mapping[str, Any], **facts: Any) -> Report:
    return Report(**{name: marker[name] for name in Report.__slots__ if name in marker}, **facts)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    (folder / ".work").mkdir(parents=True, exist_ok=True)
    with open(folder / ".work" / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise DataError(
                f"Another process is preparing {folder}.", "Wait for it, or give another folder in [data] dataset."
            ) from error
        yield
