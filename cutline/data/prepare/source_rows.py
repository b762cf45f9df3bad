"""What preparing keeps while it works: the source's samples on disk, and the list of what was lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType

from cutline.core import jsonl
from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data.captions import tidy
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.splits import canonical


class ProblemLog:
    """Lists problems in a file as they come, counts them, and remembers one example of each.

    Attributes:
        counts: number of problems by reason.
        rows: number of those that lost a row.
        dropped: number of samples that steps took out, as the recipe wants.
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self.path = path
        self.counts: Counter[str] = Counter()
        self.rows = 0
        self.dropped = 0
        self._examples: dict[str, Problem] = {}
        self._file = open(path, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 - closed by __exit__

    def add(self, problem: Problem) -> None:
        self.counts[problem.reason] += 1
        self.rows += problem.loses_row
        self.dropped += bool(problem.step)
        self._examples.setdefault(problem.reason, problem)
        self._file.write(json.dumps(problem.to_json()) + "\n")

    def top(self, most: int = 3) -> str:
        """The most frequent problems in words, each with one example."""
        found = [(count, self._examples[reason]) for reason, count in self.counts.most_common()]
        found = [(count, example) for count, example in found if example.loses_row or example.step]
        return "; ".join(
            f"{count} {example.reason} ({example.id}: {example.detail})" for count, example in found[:most]
        )

    def __enter__(self) -> ProblemLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


class SourceRows:
    """The samples of a source, in its order: their text on disk, what splitting needs in memory.

    Attributes:
        rows: rows of the source, lost ones included.
        ids, groups, splits: of the samples.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows = 0
        self.ids: list[str] = []
        self.groups: list[str] = []
        self.splits: list[str] = []

    def __len__(self) -> int:
        return len(self.ids)

    def samples(self, kept: Collection[int]) -> Iterator[Sample]:
        """The samples with these indices, with their final splits and groups."""
        for index, row in enumerate(jsonl.read(self.path)):
            if index in kept:
                row |= {"id": self.ids[index], "captions": tuple(row["captions"])}  # one string each, whoever keeps it
                yield replace(Sample(**row), split=self.splits[index], group=self.groups[index])


def read_source(source: Iterator[Sample | Problem], settings: DataSettings, path: Path, log: ProblemLog) -> SourceRows:
    """Reads a source to its end: captions tidied, splits renamed, samples that can't be used listed as lost.

    Raises:
        DataError: the source can't be read.
    """
    source_rows = SourceRows(path)
    seen: set[int] = set()
    names: dict[str, str] = {}
    with open(path, "wb") as out:
        for item in source:
            if isinstance(item, Problem):
                source_rows.rows += item.loses_row or bool(item.step)
                log.add(item)
                continue
            source_rows.rows += 1
            sample = _usable(item, settings, seen, log)
            line = _line(sample, log) if sample else None
            if sample is None or line is None:
                continue
            source_rows.ids.append(sample.id)
            # the same few names again and again: one string each
            split = canonical(sample.split, settings.rename_splits)
            source_rows.splits.append(names.setdefault(split, split))
            source_rows.groups.append(sample.id if sample.group in ("", sample.id) else sample.group)
            out.write(line)
    return source_rows


def _usable(sample: Sample, settings: DataSettings, seen: set[int], log: ProblemLog) -> Sample | None:
    """The sample with tidy captions; None when it is lost."""
    key = hash(sample.id)  # 64 bits: a million ids meet by chance once in thirty million sources
    if key in seen:
        log.add(Problem(id=sample.id, reason="duplicate_id", detail=f"its image is {Path(sample.image).name}"))
        return None
    seen.add(key)
    captions = tuple(text for caption in sample.captions if (text := tidy(caption)))
    for _ in range(len(sample.captions) - len(captions)):
        log.add(Problem(id=sample.id, reason="empty_caption", detail=f"one of {len(sample.captions)}"))
    if not captions and settings.captions_required:
        log.add(Problem(id=sample.id, reason="no_caption", detail="nothing to learn from or to compare with"))
        return None
    return replace(sample, captions=captions)


def _line(sample: Sample, log: ProblemLog) -> bytes | None:
    """The sample as a line of JSON; None, and a loss, when its text can't be written as UTF-8 (a broken file name)."""
    try:
        return (json.dumps(asdict(sample), ensure_ascii=False, default=str) + "\n").encode()
    except UnicodeEncodeError:
        log.add(Problem(id=sample.id, reason="bad_row", detail="a name or text in it is not valid Unicode"))
        return None


def refuse_large_loss(log: ProblemLog, max_lost_share: float, rows: int, lost_in_reading: int, checked: int) -> None:
    """Stops when too much of a source is lost.

    With ``max_samples`` only some images are looked at, so the share of bad ones among these counts for all.

    Args:
        rows: rows of the source.
        lost_in_reading: rows lost before any image was opened.
        checked: images that were looked at.

    Raises:
        DataError: nothing is left, or the lost share is more than ``max_lost_share``.
    """
    if rows == 0:
        raise DataError("The source has no rows.", "Is [data] source the right file or folder?")
    bad = log.rows - lost_in_reading
    kept = (1 - lost_in_reading / rows) * (1 - bad / checked if checked else 0)
    if kept > 0 and 1 - kept <= max_lost_share + 1e-12:
        return
    share = f"{1 - kept:.1%} of the rows (more than max_lost_share = {max_lost_share:.0%})"
    amount = "Every row" if kept == 0 else share
    remedy = f"All are listed in {log.path}. "
    if log.counts["missing"] * 2 >= log.rows:
        remedy += "Is [data] images the folder with the images?"
    elif log.counts["no_caption"] * 2 >= log.rows:
        remedy += "Is [data.columns] caption right? captions_required = false keeps images without captions."
    else:
        remedy += "Fix the source" + (", or raise [data] max_lost_share." if kept > 0 else ".")
    raise DataError(f"{amount} would be lost: {log.top()}.", remedy)
