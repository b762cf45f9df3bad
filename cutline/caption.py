"""Captioning images: in batches, surviving bad images and full memory, and never inventing a caption.

Every image that goes in comes out as one ``Prediction``: with a caption, or with the reason why there is none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch
from PIL.Image import Image, Resampling

from cutline.data.ahead import ahead
from cutline.data.images import MAX_PIXELS, ImageProblem, open_image
from cutline.errors import CheckpointError
from cutline.families.base import Family, Generation
from cutline.families.settings import GenerateSettings
from cutline.features import FeatureCache
from cutline.records import Prediction, Sample

#: Batches whose images are opened, and sorted by size, together.
WINDOW = 8

#: A model that fails on so many images, and never succeeded, is broken; the images are not to blame.
HOPELESS = 20

#: What is captioned: the sample, and its picture when it was given as one instead of a file.
Item = tuple[Sample, Image | None]
Anything = TypeVar("Anything")


def caption(
    family: Family,
    samples: Iterable[Sample],
    settings: GenerateSettings,
    *,
    done: Collection[str] = (),
    max_pixels: int = MAX_PIXELS,
) -> Iterator[list[Prediction]]:
    """Captions image files, batch by batch.

    Batches are put together from the whole list, also when some of it is ``done``, and a batch that is begun is
    computed whole, so a resumed job gives the same captions as an unbroken one.

    Args:
        family: the model.
        samples: what to caption; only id, image and context are looked at.
        settings: how.
        done: ids that need no caption any more.
        max_pixels: images with more are refused.

    Yields:
        The predictions of one batch at a time, as soon as they are made.
    """
    worker = _Captioner(family, settings)
    for window in _chunks(samples, WINDOW * settings.batch_size):
        if all(sample.id in done for sample in window):
            continue
        opened: list[tuple[Sample, Image]] = []
        for sample, picture in ahead(lambda sample: _open(sample, max_pixels), window, depth=settings.batch_size):
            if isinstance(picture, Prediction):
                if sample.id not in done:
                    yield [picture]
            else:
                opened.append((sample, picture))
        # pictures of one size waste no padding; the sort is stable, so the batches are the same at every start
        opened.sort(key=lambda item: (item[1].width * item[1].height, item[1].width))
        for batch in _chunks(opened, settings.batch_size):
            if any(sample.id not in done for sample, _ in batch):
                made = worker.predict([sample for sample, _ in batch], [picture for _, picture in batch])
                yield [prediction for prediction in made if prediction.id not in done]


def caption_pictures(
    family: Family, samples: Sequence[Sample], pictures: Sequence[Image], settings: GenerateSettings
) -> list[Prediction]:
    """Captions pictures that are in memory; the samples give ids and context."""
    worker = _Captioner(family, settings)
    made = []
    for batch in _chunks(list(zip(samples, pictures, strict=True)), settings.batch_size):
        made += worker.predict([sample for sample, _ in batch], [picture.convert("RGB") for _, picture in batch])
    return made


def caption_cached(
    family: Family, samples: Sequence[Sample], cache: FeatureCache, settings: GenerateSettings
) -> Iterator[list[Prediction]]:
    """Captions samples whose features are cached already; for validation during training."""
    worker = _Captioner(family, settings)
    for batch in _chunks(samples, settings.batch_size):
        yield worker.predict(batch, None, cache)


def _open(sample: Sample, max_pixels: int) -> Image | Prediction:
    try:
        return open_image(sample.image, max_pixels)
    except ImageProblem as problem:
        return failure(sample.id, f"{problem.reason}: {problem.detail}")


def failure(id: str, error: str) -> Prediction:
    """The prediction of an image that has no caption."""
    return Prediction(id=id, status="failed", error=error)


def _chunks(items: Iterable[Anything], size: int) -> Iterator[list[Anything]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


@dataclass
class _Captioner:
    """Runs batches; remembers how many images the memory holds, and whether the model ever worked."""

    family: Family
    settings: GenerateSettings
    fits: int = field(init=False)
    succeeded: bool = False
    failed: int = 0

    def __post_init__(self) -> None:
        self.fits = self.settings.batch_size

    def predict(
        self, samples: Sequence[Sample], pictures: Sequence[Image] | None, cache: FeatureCache | None = None
    ) -> list[Prediction]:
        """One prediction a sample, in order. Never raises for one image's sake."""
        size = min(self.fits, len(samples))
        made: list[Prediction] = []
        while len(made) < len(samples):
            part = slice(len(made), len(made) + size)
            chosen = pictures[part] if pictures is not None else None
            try:
                made += self._generate(samples[part], chosen, cache)
                self.succeeded = True
            except Exception as error:
                full = is_out_of_memory(error)
                _free_memory()
                if size > 1:  # half as many; or, where one image is to blame, each by itself
                    size = size // 2 if full else 1
                    self.fits = size if full else self.fits
                else:
                    alone = pictures[part.start] if pictures is not None else None
                    made.append(self._alone(samples[part.start], alone, error, full))
        return made

    def _alone(self, sample: Sample, picture: Image | None, error: Exception, full: bool) -> Prediction:
        """What becomes of one image that failed by itself."""
        if full and picture is not None and max(picture.size) > 64:
            half = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Resampling.BICUBIC)
            try:
                return self._generate([sample], [half], None)[0]
            except Exception as again:
                error, full = again, is_out_of_memory(again)
                _free_memory()
        self.failed += 1
        if self.failed >= HOPELESS and not self.succeeded:
            raise CheckpointError(
                f"The model failed on each of the first {self.failed} images: {type(error).__name__}: {error}",
                "Try it on one image with --debug, which shows where.",
            ) from error
        size = f" ({picture.width} × {picture.height} px)" if picture is not None else ""
        reason = "out_of_memory" if full else "model_error"
        return failure(sample.id, f"{reason}: {type(error).__name__}: {str(error).splitlines()[0][:200]}{size}")

    def _generate(
        self, samples: Sequence[Sample], pictures: Sequence[Image] | None, cache: FeatureCache | None
    ) -> list[Prediction]:
        features = cache.get(samples) if cache else None
        batch = self.family.encode(samples, with_targets=False, images=pictures, features=features)
        batch = {name: tensor.to(self.family.device) for name, tensor in batch.items()}
        if self.settings.sample:  # the same draw for the same batch, also after a restart
            torch.manual_seed(_seed(self.settings.seed, samples[0].id))
        generations = self.family.generate(batch, self.settings)
        return [_prediction(sample, made) for sample, made in zip(samples, generations, strict=True)]


def _prediction(sample: Sample, made: Generation) -> Prediction:
    return Prediction(
        id=sample.id, caption=made.text, logprob=round(made.logprob, 4), tokens=made.tokens, finished=made.finished
    )


def _seed(seed: int, id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {id}".encode()).digest()[:8]) >> 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the GPU or of the machine is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
