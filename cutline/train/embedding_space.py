"""The space that image and text vectors share while a family trains for retrieval, and the batches put into it.

Shapes: N images, R texts, E width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import get_device_states, set_device_states

from cutline.families.base import Batch
from cutline.families.common.retrieval import RetrievalFamily
from cutline.train.lengths import by_length
from cutline.train.positives import PositivePairs


@dataclass
class RetrievalBatch:
    """N images with their R captions. Pixels stay in main memory until their chunk is embedded.

    Attributes:
        visual: pixels or features, the first dimension N.
        captions: R texts, those of an image together, in the order of images.
        rows: int64 [R], the image of each text.
        images: int64 [N], numbers of the images in ``PositivePairs``.
        texts: int64 [R], numbers of the texts.
        extra: what objectives collated, by their name.
    """

    visual: Batch
    captions: list[str]
    rows: Tensor
    images: Tensor
    texts: Tensor
    extra: dict[str, Any] = field(default_factory=dict)


class Vectors(NamedTuple):
    images: Tensor  # [N, E], or [N, Q, E]
    texts: Tensor  # [R, E]


#: What cosines are multiplied by, and what is added to them, if anything.
Scale = tuple[Tensor, Tensor | None]


@dataclass
class Chunk:
    """A range of a batch's images with their captions: one forward and backward pass.

    Attributes:
        batch: the whole batch.
        first, last: the range of images.
        batches: batches of this process that make one optimizer step together.
        plans: what objectives know of it, by their name.
        random: the random state in which it was embedded the first time.
        cached_gradients: by objective, the gradient of its loss for the vectors of the range, and in the last chunk for
            scale and offset, too; None: the batch is one chunk, and its gradients aren't cached.
        values: losses of the whole batch, to log with the last chunk.
    """

    batch: RetrievalBatch
    first: int
    last: int
    batches: int = 1
    plans: dict[str, Any] = field(default_factory=dict)
    random: RandomState | None = None
    cached_gradients: dict[str, tuple[Tensor | None, ...]] | None = None
    values: dict[str, Tensor] = field(default_factory=dict)

    @property
    def texts(self) -> tuple[int, int]:
        """The range of its captions."""
        first, last = torch.searchsorted(self.batch.rows, torch.tensor([self.first, self.last])).tolist()
        return first, last


class EmbeddingSpace(nn.Module):
    """Image and text vectors of a family, the scale of their similarities, and which pairs are true.

    Args:
        family: in training.
        positives: the true pairs of the training data.
    """

    def __init__(self, family: RetrievalFamily, positives: PositivePairs):
        super().__init__()
        #: for families that keep none in their model; 0.07 and learnt, as published
        self.temperature = nn.Parameter(torch.tensor(0.07, device=family.device)) if family.scale() is None else None
        self.family = family
        self.positives = positives

    def scale(self) -> Scale:
        """What cosines are multiplied by, and what is added to them, if anything."""
        if self.temperature is not None:
            return 1 / self.temperature, None
        scale = self.family.scale()
        assert scale is not None
        return scale

    def bound_scale(self) -> None:
        """Keeps the learnt scale within the published bounds; between two steps."""
        with torch.no_grad():
            self.family.bound_scale()
            if self.temperature is not None:
                self.temperature.clamp_(0.001, 0.5)

    def embed(self, chunk: Chunk, family: RetrievalFamily | None = None) -> tuple[Vectors, Batch]:
        """The vectors of a chunk, and its image features.

        Args:
            chunk: images and captions.
            family: embeds them; by default the one in training.
        """
        family = family or self.family
        part = slice(chunk.first, chunk.last)
        visual = {name: tensor[part].to(family.device) for name, tensor in chunk.batch.visual.items()}
        features = {"features": family.with_image_features(visual)["features"]}
        first, last = chunk.texts
        texts = family.encode_texts(chunk.batch.captions[first:last])
        vectors = by_length(texts, lambda some, _: family.embed_texts(some))
        return Vectors(family.embed_images(features), vectors), features

    def exact(self) -> torch.autocast:
        """Turns autocast off: similarities are computed in float32 also where the rest is not."""
        return torch.autocast(self.family.device.type, enabled=False)


class RandomState:
    """The state of the random numbers of the CPU and of a device at this moment, so that dropout is the same again."""

    def __init__(self, device: torch.device):
        self._device = device
        self._cpu = torch.get_rng_state()
        if device.type == "mps":  # which get_device_states doesn't know
            self._mps = torch.mps.get_rng_state()
        else:
            self._devices, self._states = get_device_states(torch.empty(0, device=device))

    def restore(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._device.type == "mps":
            torch.mps.set_rng_state(self._mps)
        elif self._devices:
            set_device_states(self._devices, self._states, device_type=self._device.type)

    @contextmanager
    def again(self) -> Iterator[None]:
        """While this lasts, random numbers come as they did then; afterwards they continue where they were."""
        now = RandomState(self._device)
        self.restore()
        try:
            yield
        finally:
            now.restore()
