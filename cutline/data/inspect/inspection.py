"""Inspecting a prepared dataset or a source, image by image."""

from __future__ import annotations

from bisect import insort
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from cutline.core.errors import DataError
from cutline.core.progress import Progress
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
from cutline.images.perceptual import PerceptualHash
from cutline.images.perceptual_cache import PerceptualHashCache

#: An image's facts and hash, or why it can't be decoded; None for a URL.
Opened = tuple[ImageFacts, PerceptualHash] | Problem | None

#: How many samples the page shows.
SHOWN = 12


@dataclass(frozen=True, kw_only=True)
class Inspection:
    """The statistics and findings of a dataset or source.

    Attributes:
        name: of the dataset or source.
        prepared: whether it is a prepared dataset.
        findings: leaks, problems and notes, most serious first.
        problems: reason → rows that were lost before their image was opened; for a dataset, what preparing counted.
        languages: language → images, of a sample of them; None when languages can't be detected.
        shown: samples chosen by the hash of their ids, the same each time.
        frequent_images: for each of ``captions.frequent``, paths of images that have it.
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
        """Whether a score on this dataset would be too high."""
        return any(finding.level == "leak" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "prepared": self.prepared,
            "leaks": self.leaks,
            "findings": [finding.to_json() for finding in self.findings],
            "captions": self.captions.to_json(),
            "pictures": self.pictures.to_json(),
            "context": self.contexts.to_json() if self.contexts else None,
            "groups_in_several_splits": {group: dict(splits) for group, splits in self.divided.items()},
            "lost_rows": dict(self.problems),
            "languages": dict(self.languages) if self.languages is not None else None,
        }


def inspect_dataset(
    dataset: Dataset,
    name: str = "",
    progress: Progress | None = None,
    names: Names = names_in,
    named_by: str = "capitals and numbers",
) -> Inspection:
    """Inspects a prepared dataset. Reads every image, and decodes those whose bytes were never decoded before.

    Args:
        progress: called after each image.
        names: recognises the names in a text, for what the context gives away.
        named_by: what it is called, for people.
    """
    problems = {reason: int(count) for reason, count in dataset.marker.get("problems", {}).items()}
    inspector = _Inspector(names, named_by, len(dataset), progress)
    inspector.add_all(iter(dataset))
    return inspector.result(name or dataset.path.resolve().name, True, problems)


def inspect_source(
    settings: DataSettings,
    progress: Progress | None = None,
    names: Names = names_in,
    named_by: str = "capitals and numbers",
) -> Inspection:
    """Inspects a source of any format before any step. Images are opened as in :func:`inspect_dataset`.

    Raises:
        RecipeError: no source, an unknown format or column.
        DataError: the source can't be read, or has no rows.
    """
    problems: Counter[str] = Counter()
    inspector = _Inspector(names, named_by, 0, progress)
    inspector.add_all(_usable(settings, problems), settings.max_pixels)
    path = Path(str(settings.source))
    return inspector.result(path.name if path.is_dir() else path.stem, False, problems)


def _usable(settings: DataSettings, problems: Counter[str]) -> Iterator[Sample]:
    """A source's samples as preparing would read them: captions tidied, splits renamed, duplicate ids left out."""
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


class _Inspector:
    """Passes each sample to the collectors of statistics."""

    def __init__(self, names: Names, named_by: str, total: int, progress: Progress | None):
        self.captions, self.pictures, self.contexts = Captions(), Pictures(), Contexts(names, named_by)
        self.texts = _EvenSample()
        self.total, self.progress = total, progress
        self.groups: list[str] = []
        self.splits: list[str] = []
        self.images: list[str] = []
        self.shown: list[tuple[bytes, str, Sample]] = []

    def add_all(self, samples: Iterator[Sample], max_pixels: int = MAX_PIXELS) -> None:
        threads = cores()

        def open_one(sample: Sample) -> Opened:
            return open_image(sample, hashes, max_pixels)

        with PerceptualHashCache() as hashes:
            self._collect(prefetch(open_one, samples, 4 * threads + 16, threads))

    def _collect(self, samples: Iterator[tuple[Sample, Opened]]) -> None:
        for done, (sample, opened) in enumerate(samples, 1):
            self.captions.add(sample)
            self.pictures.add(sample, opened)
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
            raise DataError(f"{name} has no images that can be inspected.", "Is it the right file or folder?")
        captions, pictures, contexts = self.captions.facts(), self.pictures.facts(), self.contexts.facts()
        problems = {reason: count for reason, count in problems.items() if count}
        groups = divided(self.groups, self.splits)
        by_language = languages(self.texts.kept)
        return Inspection(
            name=name,
            prepared=prepared,
            captions=captions,
            pictures=pictures,
            contexts=contexts,
            divided=groups,
            problems=problems,
            languages=by_language,
            shown=tuple(sample for *_, sample in self.shown),
            findings=findings(captions, pictures, contexts, groups, problems, by_language),
            frequent_images=tuple(
                tuple(self.images[index] for index in caption.first) for caption in captions.frequent
            ),
        )


class _EvenSample:
    """Keeps the captions of evenly spaced samples, however many samples are added."""

    def __init__(self, limit: int = 4000):
        self.limit, self.step, self.seen = limit, 1, 0
        self.kept: list[str] = []

    def add(self, sample: Sample) -> None:
        if sample.captions:
            if self.seen % self.step == 0:
                self.kept.append(" ".join(dict.fromkeys(sample.captions)))
            self.seen += 1
            if len(self.kept) >= self.limit:
                self.kept, self.step = self.kept[::2], 2 * self.step


def open_image(sample: Sample, hashes: PerceptualHashCache, max_pixels: int = MAX_PIXELS) -> Opened:
    """Opens a sample's image."""
    if is_address(sample.image):
        return None
    try:
        return hashes.get(read_bytes(sample.image), sample.image, max_pixels)
    except ImageProblem as problem:
        return Problem(id=sample.id, reason=problem.reason, detail=problem.detail)
