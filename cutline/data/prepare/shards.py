"""Preparing in shards, which other processes or machines work on: the same steps, each shard by itself.

A shard is some hundred samples in a file. Whoever takes it fetches, decodes, resizes and stores its images, takes it
through the steps, and writes what came of it into one file, last and whole: a shard that has this file, made from the
same, is finished. Steps that compare samples with each other (dedup) are taken afterwards, over all shards in order.

    .work/shards/000000/samples.jsonl    what to do
    .work/shards/000000/downloads.sqlite checked.jsonl    what is known of its images, also after a kill
    .work/shards/000000/result.jsonl     counts, then a line for each sample
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from cutline.core import jsonl
from cutline.core.files import write_atomically
from cutline.core.fingerprint import fingerprint
from cutline.core.records import Sample
from cutline.data import steps
from cutline.data.download.downloader import Downloader
from cutline.data.download.ledger import NAME as DOWNLOADS
from cutline.data.image_store import ImageStore
from cutline.data.prepare.decode import ImageDecoder
from cutline.data.prepare.decoded import DecodedImages
from cutline.data.prepare.work import Checked, checked
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.step import OpenScorer, Workspace
from cutline.images.open import ImageFacts

_RESULT, _SAMPLES = "result.jsonl", "samples.jsonl"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One shard's work.

    Attributes:
        folder: of the dataset; ``shard_folder``: of the shard, in it. All who work must see both under the same path.
        settings: of the data, as JSON.
        made_from: fingerprint of the settings and the samples.
        retry_failed: fetch again what failed.
    """

    folder: str
    shard_folder: str
    settings: str
    made_from: str
    retry_failed: bool = False

    @property
    def result(self) -> Path:
        return Path(self.shard_folder) / _RESULT

    @property
    def finished(self) -> bool:
        if self.retry_failed or not self.result.exists():
            return False
        head: bool = next(jsonl.read(self.result))["made_from"] == self.made_from
        return head


def divide(
    samples: Iterable[Sample], size: int, folder: Path, settings: DataSettings, retry_failed: bool = False
) -> list[Shard]:
    """Writes the shards' files; those of the same samples stay as they are."""
    text = settings.model_dump_json()
    shards: list[Shard] = []
    rest = iter(samples)
    while chunk := list(islice(rest, size)):
        path = folder / f".work/shards/{len(shards):06d}"
        path.mkdir(parents=True, exist_ok=True)
        lines = "".join(json.dumps(asdict(sample), default=str) + "\n" for sample in chunk)
        write_atomically(path / _SAMPLES, lines)
        made_from = fingerprint(settings.model_dump(mode="json", exclude={"dataset"}), lines)
        shards.append(Shard(folder=str(folder), shard_folder=str(path), settings=text, made_from=made_from,
                            retry_failed=retry_failed))  # fmt: skip
    return shards


def across() -> list[str]:
    """Steps that compare samples with each other, so that no shard can take them by itself."""
    return [name for name in steps.names() if getattr(steps.load(name), "ACROSS", False)]


def work(shard: Shard, scorer: OpenScorer | None = None) -> None:
    """Does one shard, or resumes it. Returns at once when it is finished.

    Raises:
        DataError: as ``prepare``.
    """
    if shard.finished:
        return
    settings = DataSettings.model_validate_json(shard.settings)
    folder, path = Path(shard.folder), Path(shard.shard_folder)
    chosen = settings.steps.chosen()
    store = ImageStore(folder, settings.max_pixels, chosen.get("resize"), notes="context" in chosen)
    samples = list(_samples(path))
    lines: list[dict[str, Any]] = []
    counts: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        (path / ".work").mkdir(exist_ok=True)
        mine = settings.steps.only([name for name in chosen if name not in across()])
        chain = stack.enter_context(steps.Chain(mine, "checked", Workspace(path, store, scorer)))
        downloader = None
        if "download" in chosen:
            downloader = stack.enter_context(
                Downloader(chosen["download"], store, ledger=path / DOWNLOADS, known=folder / DOWNLOADS)
            )
            if shard.retry_failed:
                downloader.ledger.retry_failed()
            downloader.run(samples)
        ledger = stack.enter_context(DecodedImages(path / "checked.jsonl", store.made))
        decoder = ImageDecoder(store, ledger, downloaded=downloader.find if downloader else None)
        lines.extend(_line(result) for result in checked(decoder, chain, settings, samples, lambda: None))
        counts |= {name: dict(found) for name, found in chain.counts.items()}
        for name, facts in chain.facts():
            counts[name] |= facts
    head = {"made_from": shard.made_from, "counts": counts, "decoded": decoder.decoded}
    write_atomically(shard.result, "".join(json.dumps(line) + "\n" for line in [head, *lines]))


def _samples(path: Path) -> Iterator[Sample]:
    for row in jsonl.read(path / _SAMPLES):
        yield Sample(**row | {"captions": tuple(row["captions"])})


def _line(result: Checked | Problem) -> dict[str, Any]:
    """What became of one sample, as a line of the result."""
    if isinstance(result, Problem):
        return {"problem": result.to_json()}
    sample = json.loads(json.dumps(asdict(result.sample), default=str))
    return {"sample": sample, "facts": result.facts.to_json(), "source": result.source}


def results(shards: Iterable[Shard]) -> Iterator[Checked | Problem]:
    """What came of every sample of finished shards, in their order: the sample, its image, what that was called."""
    for shard in shards:
        for row in islice(jsonl.read(shard.result), 1, None):
            if "problem" in row:
                yield Problem(**row["problem"])
            else:
                sample = Sample(**row["sample"] | {"captions": tuple(row["sample"]["captions"])})
                yield Checked(sample, ImageFacts.from_json(row["facts"]), row["source"])


def counts(shards: Iterable[Shard]) -> tuple[dict[str, dict[str, Any]], int]:
    """What the steps of all shards counted together, and how many images were decoded."""
    told: dict[str, dict[str, Any]] = {}
    decoded = 0
    for shard in shards:
        head = next(jsonl.read(shard.result))
        decoded += head["decoded"]
        for name, found in head["counts"].items():
            _add(told.setdefault(name, {}), found)
    return told, decoded


def _add(total: dict[str, Any], found: Mapping[str, Any]) -> None:
    for key, value in found.items():
        if isinstance(value, dict):
            _add(total.setdefault(key, {}), value)
        elif key == "oracle":  # a fact, not a count
            total[key] = value
        else:
            total[key] = total.get(key, 0) + value
