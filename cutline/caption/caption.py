"""Captioning images: in batches, surviving bad images and full memory, and never inventing a caption.

Every image that goes in comes out as one ``Prediction``: with a caption, or with the reason why there is none.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

import torch
from PIL.Image import Image, Resampling

from cutline.core.errors import CheckpointError
from cutline.core.records import Prediction, Sample
from cutline.core.threads import prefetch
from cutline.families.base import Batch, Family
from cutline.families.common.feature_cache import FeatureCache
from cutline.families.outputs import Generation
from cutline.families.seeding import seeded
from cutline.families.settings import GenerateSettings
from cutline.images.open import MAX_PIXELS, ImageProblem, as_seen, image_size, open_image

#: Batches whose images are sorted by size together.
WINDOW = 8

#: A model that fails on so many images, and never succeeded, is broken; the images are not to blame.
HOPELESS = 20

#: Batches without trouble after which a batch that was halved for want of memory may grow again.
CALM = 8

#: Threads that open images and make pixels of them while the model computes.
THREADS = 2

Anything = TypeVar("Anything")


@dataclass(frozen=True)
class _Item:
    """An image on its way: its pixels, or its cached features, and how to get the picture again."""

    sample: Sample
    pixels: Batch | None
    picture: Callable[[], Image] | None


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

    def prepare(place: tuple[int, Sample]) -> _Item | Prediction:
        return _prepare(family, place[1], partial(open_image, place[1].image, max_pixels))

    in_a_row = ((len(batch), sample) for batch in _batches(samples, settings.batch_size, done) for sample in batch)
    opened: list[_Item | Prediction] = []
    held: list[Prediction] = []
    for (size, _), item in prefetch(prepare, in_a_row, settings.batch_size, THREADS):
        opened.append(item)
        if len(opened) == size:
            made = [item for item in opened if isinstance(item, Prediction)]
            held += worker.predict([item for item in opened if isinstance(item, _Item)])
            opened = []
            if worker.succeeded:  # until then it may be the model's fault, and the images are to be tried again
                made, held = made + held, []
            yield [prediction for prediction in made if prediction.id not in done]
    if held:
        yield [prediction for prediction in held if prediction.id not in done]


def _batches(samples: Iterable[Sample], size: int, done: Collection[str]) -> Iterator[list[Sample]]:
    """Batches of images of like size, which waste no padding in models of native resolution; finished ones left out."""

    def todo(some: Sequence[Sample]) -> bool:
        return any(sample.id not in done for sample in some)

    for window in filter(todo, _chunks(samples, WINDOW * size)):
        yield from filter(todo, _chunks(sorted(window, key=_area), size))  # stable: the same batches at every start


def _area(sample: Sample) -> int:
    """Number of pixels, from the dataset or else from the file's header; 0 when it can't be known."""
    if "width" in sample.extra and "height" in sample.extra:
        return int(sample.extra["width"]) * int(sample.extra["height"])
    try:
        width, height = image_size(sample.image)
    except ImageProblem:
        return 0
    return width * height


def caption_pictures(
    family: Family, samples: Sequence[Sample], pictures: Sequence[Image], settings: GenerateSettings
) -> list[Prediction]:
    """Captions pictures that are in memory; the samples give ids and context."""
    worker = _Captioner(family, settings)
    made: list[Prediction] = []
    for batch in _chunks(zip(samples, pictures, strict=True), settings.batch_size):
        opened = [_prepare(family, sample, partial(as_seen, picture)) for sample, picture in batch]
        made += [item for item in opened if isinstance(item, Prediction)]
        made += worker.predict([item for item in opened if isinstance(item, _Item)])
    return made


def caption_cached(
    family: Family, samples: Sequence[Sample], cache: FeatureCache, settings: GenerateSettings
) -> Iterator[list[Prediction]]:
    """Captions samples whose features are cached already; for validation during training."""
    worker = _Captioner(family, settings, cache)
    for batch in _chunks(samples, settings.batch_size):
        yield worker.predict([_Item(sample, None, None) for sample in batch])


def _prepare(family: Family, sample: Sample, picture: Callable[[], Image]) -> _Item | Prediction:
    """An image's pixels, or why there are none."""
    try:
        opened = picture()
    except ImageProblem as problem:
        return failure(sample.id, f"{problem.reason}: {problem.detail}")
    try:
        return _Item(sample, family.pixels([opened]), picture)
    except Exception as error:  # processors refuse some shapes (Qwen: 200 times as wide as high)
        size = f"{opened.width} × {opened.height} px"
        return failure(sample.id, f"unusable: the model's processor refuses {size}: {_words(error)}")


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
    cache: FeatureCache | None = None
    fits: int = field(init=False)
    calm: int = 0
    succeeded: bool = False
    failed: int = 0

    def __post_init__(self) -> None:
        self.fits = self.settings.batch_size

    def predict(self, items: Sequence[_Item]) -> list[Prediction]:
        """One prediction an image, in order. Never raises for one image's sake."""
        if self.calm >= CALM:  # it may have been one large image
            self.fits, self.calm = min(2 * self.fits, self.settings.batch_size), 0
        size = min(self.fits, len(items))
        made: list[Prediction] = []
        self.calm += 1
        while len(made) < len(items):
            part = items[len(made) : len(made) + size]
            try:
                rows = self._generate(part)
            except Exception as error:
                full = is_out_of_memory(error)
                _free_memory()
                if len(part) > 1:  # half as many; or, where one image is to blame, each by itself
                    size = len(part) // 2 if full else 1
                    self.fits, self.calm = (size, 0) if full else (self.fits, self.calm)
                    continue
                rows = [self._alone(part[0], error, full)]
            self._judge(rows)
            made += rows
        return made

    def _judge(self, rows: Sequence[Prediction]) -> None:
        """
        Raises:
            CheckpointError: nothing worked yet, and too much failed for it to be the images' fault.
        """
        lost = [row for row in rows if row.status == "failed"]
        self.succeeded = self.succeeded or len(lost) < len(rows)
        self.failed += len(lost)
        if self.failed >= HOPELESS and not self.succeeded:
            raise CheckpointError(
                f"The model failed on each of the first {self.failed} images: {lost[-1].error}",
                "Look at the checkpoint; nothing of this was written.",
            )

    def _alone(self, item: _Item, error: Exception, full: bool) -> Prediction:
        """What becomes of one image that failed by itself."""
        size = ""
        if full and item.picture is not None:
            try:
                picture = item.picture()
                size = f" ({picture.width} × {picture.height} px, and half as large)"
                half = picture.resize((max(1, picture.width // 2), max(1, picture.height // 2)), Resampling.BICUBIC)
                return self._generate([_Item(item.sample, self.family.pixels([half]), None)])[0]
            except Exception as again:
                error, full = again, is_out_of_memory(again)
                _free_memory()
        reason = "out_of_memory" if full else "model_error"
        return failure(item.sample.id, f"{reason}: {type(error).__name__}: {_words(error)}{size}")

    def _generate(self, items: Sequence[_Item]) -> list[Prediction]:
        samples = [item.sample for item in items]
        pixels = [item.pixels for item in items if item.pixels is not None]
        features = self.cache.get(samples) if self.cache else None
        batch = self.family.collate(samples, with_targets=False, pixels=pixels or None, features=features)
        batch = {name: tensor.to(self.family.device) for name, tensor in batch.items()}
        # the same draw for the same batch, also after a restart
        draws = seeded(_seed(self.settings.seed, samples[0].id)) if self.settings.do_sample else nullcontext()
        with draws:
            generations = self.family.generate(batch, self.settings)
        return [_prediction(sample, made) for sample, made in zip(samples, generations, strict=True)]


def _prediction(sample: Sample, made: Generation) -> Prediction:
    if not math.isfinite(made.logprob):
        return failure(sample.id, f"model_error: the caption's log-probability is {made.logprob}, so it means nothing")
    return Prediction(
        id=sample.id, caption=made.text, logprob=round(made.logprob, 4), tokens=made.tokens, finished=made.finished
    )


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def _seed(seed: int, id: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {id}".encode(errors="surrogateescape")).digest()[:8]) >> 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the GPU or of the machine is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def _free_memory() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
