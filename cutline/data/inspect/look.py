"""Looking through a prepared dataset or a source, image by image."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.core.threads import cores, prefetch
from cutline.data import readers
from cutline.data.addresses import is_address
from cutline.data.captions import tidy
from cutline.data.dataset import Dataset
from cutline.data.inspect.captions import CaptionFacts, Captions, languages
from cutline.data.inspect.contexts import ContextFacts, Contexts, Names, names_in
from cutline.data.inspect.findings import Finding, findings
from cutline.data.inspect.pictures import PictureFacts, Pictures
from cutline.data.problem import Problem
from cutline.data.settings import DataSettings
from cutline.data.splits import canonical, divided, rank
from cutline.images.open import MAX_PIXELS, ImageFacts, ImageProblem, read_bytes
from cutline.images.perceptual import Look
from cutline.images.perceptual_cache import PerceptualHashCache

#: Called with how many images are done, and how many there are (0: unknown).
Progress = Callable[[int, int], None]

#: Samples that are shown.
SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """All that was found.

    Attributes:
        name: of the dataset or source.
        prepared: whether it is a prepared dataset.
        findings: leaks, problems and notes, the worst first.
        problems: reason → rows lost before their image was looked at, and what preparing noted.
        languages: language → images, of those asked; None when nobody could be asked.
        shown: samples drawn by their names, the same each time.
        frequent_images: of each of ``captions.frequent``, paths of images that have it.
    """

    name: str
    prepared: bool
    captions: CaptionFacts
    pictures: PictureFacts
    contexts: ContextFacts | None
    divided: Mapping[str, Mapping[str, int]]
    problems: Mapping[str, int]
    languages: Mapping[str, int] | None
    findings: tuple[Finding, ...]
    shown: tuple[Sample, ...]
    frequent_images: tuple[tuple[str, ...], ...]

    @property
    def leaks(self) -> bool:
        """Whether a score on this dataset would be too good."""
        return any(finding.level == "leak" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name, "prepared": self.prepared, "leaks": self.leaks,
            "findings": [finding.to_json() for finding in self.findings],
            "captions": self.captions.to_json(), "pictures": self.pictures.to_json(),
            "context": self.contexts.to_json() if self.contexts else None,
            "groups_in_several_splits": {group: dict(splits) for group, splits in self.divided.items()},
            "lost_rows": dict(self.problems), "languages": dict(self.languages) if self.languages is not None else None,
        }  # fmt: skip


def inspect_dataset(
    dataset: Dataset,
    name: str = "",
    progress: Progress | None = None,
    names: Names = names_in,
    named_by: str = "capitals and numbers",
) -> Inspection:
    """Looks through a prepared dataset. Every image is read, and decoded unless the same bytes were before.

    Args:
        progress: called after each image.
        names: finds the names in a text, for what the context gives away.
        named_by: what that is called.
    """
    problems = {reason: int(count) for reason, count in dataset.marker.get("problems", {}).items()}
    viewer = _Viewer(names, named_by, len(dataset), progress)
    viewer.go(iter(dataset))
    return viewer.result(name or dataset.path.resolve().name, True, problems)


def inspect_source(
    settings: DataSettings,
    progress: Progress | None = None,
    names: Names = names_in,
    named_by: str = "capitals and numbers",
) -> Inspection:
    """Looks through a source of any format as it is, before any step; images are opened as in ``inspect_dataset``.

    Raises:
        RecipeError: no source, an unknown format or column.
        DataError: the source can't be read, or has no rows.
    """
    problems: Counter[str] = Counter()
    viewer = _Viewer(names, named_by, 0, progress)
    viewer.go(_usable(settings, problems), settings.max_pixels)
    path = Path(str(settings.source))
    return viewer.result(path.name if path.is_dir() else path.stem, False, problems)


def _usable(settings: DataSettings, problems: Counter[str]) -> Iterator[Sample]:
    """A source's samples as preparing would read them: captions tidied, splits renamed; no id twice."""
    seen: set[int] = set()
    for item in islice(readers.read(settings), settings.max_samples):
        if isinstance(item, Problem):
            problems[item.reason] += 1
            continue
        key = hash(item.id)
        if key in seen:
            problems["duplicate_id"] += 1
            continue
        seen.add(key)
        captions = tuple(text for caption in item.captions if (text := tidy(caption)))
        problems["empty_caption"] += len(item.captions) - len(captions)
        yield replace(
            item, captions=captions, split=canonical(item.split, settings.rename_splits), group=item.group or item.id
        )


class _Viewer:
    """Gives each sample to all that count."""

    def __init__(self, names: Names, named_by: str, total: int, progress: Progress | None):
        self.captions, self.pictures, self.contexts = Captions(), Pictures(), Contexts(names, named_by)
        self.texts = _Evenly()
        self.total, self.progress = total, progress
        self.groups: list[str] = []
        self.splits: list[str] = []
        self.images: list[str] = []
        self.shown: list[tuple[bytes, str, Sample]] = []

    def go(self, samples: Iterator[Sample], max_pixels: int = MAX_PIXELS) -> None:
        threads = cores()

        def open_one(sample: Sample) -> tuple[ImageFacts, Look] | Problem | None:
            return view(sample, looks, max_pixels)

        with PerceptualHashCache() as looks:
            self._count(prefetch(open_one, samples, 4 * threads + 16, threads))

    def _count(self, seen_samples: Iterator[tuple[Sample, tuple[ImageFacts, Look] | Problem | None]]) -> None:
        for done, (sample, seen) in enumerate(seen_samples, 1):
            self.captions.add(sample)
            self.pictures.add(sample, seen)
            self.contexts.add(sample)
            self.texts.add(sample)
            self.groups.append(sample.group or sample.id)
            self.splits.append(sample.split)
            self.images.append(sample.image)
            insort(self.shown, (rank(0, sample.id), sample.id, sample), key=lambda item: item[:2])
            del self.shown[SHOWN:]
            if self.progress:
                self.progress(done, self.total)

    def result(self, name: str, prepared: bool, problems: Mapping[str, int]) -> Inspection:
        """
        Raises:
            DataError: there was no sample.
        """
        if not self.images:
            raise DataError(f"{name} has no images that can be looked at.", "Is it the right file or folder?")
        captions, pictures, contexts = self.captions.facts(), self.pictures.facts(), self.contexts.facts()
        problems = {reason: count for reason, count in problems.items() if count}
        torn = divided(self.groups, self.splits)
        spoken = languages(self.texts.kept)
        return Inspection(
            name=name, prepared=prepared, captions=captions, pictures=pictures, contexts=contexts, divided=torn,
            problems=problems, languages=spoken, shown=tuple(sample for *_, sample in self.shown),
            findings=findings(captions, pictures, contexts, torn, problems, spoken),
            frequent_images=tuple(
                tuple(self.images[place] for place in found.first) for found in captions.frequent
            ),
        )  # fmt: skip


class _Evenly:
    """Keeps some of the texts, evenly drawn from all, however many come."""

    def __init__(self, most: int = 4000):
        self.most, self.step, self.seen = most, 1, 0
        self.kept: list[str] = []

    def add(self, sample: Sample) -> None:
        if sample.captions:
            if self.seen % self.step == 0:
                self.kept.append(" ".join(dict.fromkeys(sample.captions)))
            self.seen += 1
            if len(self.kept) >= self.most:
                self.kept, self.step = self.kept[::2], 2 * self.step


def view(
    sample: Sample, looks: PerceptualHashCache, max_pixels: int = MAX_PIXELS
) -> tuple[ImageFacts, Look] | Problem | None:
    """What an image shows when it is opened: size, hash and look, or why it can't be; None for an address."""
    if is_address(sample.image):
        return None
    try:
        return looks.get(read_bytes(sample.image), sample.image, max_pixels)
    except ImageProblem as problem:
        return Problem(id=sample.id, reason=problem.reason, detail=problem.detail)
