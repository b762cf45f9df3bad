"""What is probed: a recipe's model, a few captioned images, and the measurements that several probes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from cutline.check.recorders import CrossEntropyRecorder
from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.families.base import Batch, Family
from cutline.families.common.loss import IGNORED
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.outputs import Generation
from cutline.families.settings import GenerateSettings
from cutline.images.open import ImageProblem, open_image
from cutline.train.settings import TrainSettings
from cutline.train.trainable import PartSummary, open_parts

if TYPE_CHECKING:
    from cutline.data.dataset import Dataset

#: Number of captioned images that most probes use.
IMAGES = 4


@dataclass(frozen=True)
class ScoredCaption:
    """A caption as the training loss scores it.

    Attributes:
        labels: its n label tokens, as in the batch.
        first_scored: index of the first label that is scored: 0, or 1 if the model's shift drops the first label.
        logits: [n - first_scored, V], one row for each scored label.
    """

    labels: list[int]
    first_scored: int
    logits: Tensor


class ScoredBatch(NamedTuple):
    """A batch as the training loss scores it.

    Attributes:
        loss: the sum over the batch, in nats.
        captions: one entry for each caption; None if the scored tokens are not the captions' labels.
        has_cross_entropy: whether the loss computes a cross-entropy over tokens.
    """

    loss: float
    captions: list[ScoredCaption] | None
    has_cross_entropy: bool


@dataclass(frozen=True)
class ForcedCaption:
    """A caption that ``generate`` was forced to emit; ``logits`` [tokens, V] are the model's own."""

    generation: Generation
    logits: Tensor


class ProbeSubject:
    """A model with all that is needed to probe it.

    Args:
        family: the opened model. Probes of training change its weights.
        samples: captioned images, in the order of the dataset. Probes use a few of them.
        train: the ``[train]`` section; None if the recipe trains nothing.
        generate: the ``[generate]`` section.
        reopen: opens the same model again, with its original weights.
        open_unquantized: opens the model with all weights in 16 or 32 bits; None if no weights are quantized.
        tiny: whether the model is a random miniature.
        scratch: folder for files that probes write.
        dataset: the whole dataset; None: probes of the data don't apply.

    Raises:
        DataError: there are no two readable images with different captions.
    """

    def __init__(
        self,
        family: Family,
        samples: Sequence[Sample],
        *,
        train: TrainSettings | None,
        generate: GenerateSettings,
        reopen: Callable[[], Family],
        tiny: bool,
        scratch: Path,
        dataset: Dataset | None = None,
        open_unquantized: Callable[[], Family] | None = None,
    ):
        self.family = family.eval()
        self.train = train
        self.generate = generate
        self.reopen = reopen
        self.open_unquantized = open_unquantized
        self.tiny = tiny
        self.scratch = scratch
        self.dataset = dataset
        #: Results that several probes share. A probe that changes weights clears it.
        self.cache: dict[str, Any] = {}
        self.all_samples = samples
        self.samples, self.images = _choose(samples)

    # ---- training

    def batch(
        self, samples: Sequence[Sample], images: Sequence[Image], *, targets: bool, family: Family | None = None
    ) -> Batch:
        """A batch on the model's device; ``family`` is the subject's own by default."""
        family = family or self.family
        batch = family.collate(samples, with_targets=targets, images=images)
        return {name: tensor.to(family.device) for name, tensor in batch.items()}

    @contextmanager
    def autocast(self, family: Family | None = None) -> Iterator[None]:
        """The precision of training: trained weights are float32, and the others may have 16 bits."""
        family = family or self.family
        dtypes = {p.dtype for p in family.parameters() if p.is_floating_point()}
        low = next((dtype for dtype in dtypes if dtype != torch.float32), None)
        with torch.autocast(family.device.type, dtype=low) if low is not None and len(dtypes) > 1 else nullcontext():
            yield

    @property
    def low_precision(self) -> bool:
        """Whether any weights have fewer than 32 bits."""
        return any(p.is_floating_point() and p.dtype != torch.float32 for p in self.family.parameters())

    @property
    def tolerance(self) -> float:
        """The largest relative difference between equal results that were computed in batches of different shapes."""
        return 5e-2 if self.low_precision else 1e-4

    @property
    def sensitivity(self) -> float:
        """The smallest relative difference that shows that two results of the same computation differ."""
        return 1e-3 if self.low_precision else 1e-6

    def score(self, samples: Sequence[Sample], images: Sequence[Image]) -> ScoredBatch:
        """The training loss of a batch, and how it scores each caption."""
        batch = self.batch(samples, images, targets=True)
        with torch.no_grad(), self.autocast(), CrossEntropyRecorder() as recorder:
            loss = float(self.family.loss(batch).nll)
        return ScoredBatch(loss, _by_caption(labels_of(batch), recorder), bool(recorder.targets))

    @cached_property
    def scored_alone(self) -> list[ScoredBatch]:
        """Each sample, scored in a batch of its own."""
        return [self.score([sample], [image]) for sample, image in self.pairs]

    @cached_property
    def scored_captions(self) -> list[ScoredCaption] | None:
        """Each sample's caption, scored in a batch of its own; None if any could not be matched with its logits."""
        captions = [caption for batch in self.scored_alone for caption in batch.captions or ()]
        return captions if len(captions) == len(self.samples) else None

    @property
    def pairs(self) -> list[tuple[Sample, Image]]:
        return list(zip(self.samples, self.images, strict=True))

    @cached_property
    def labels(self) -> list[list[int]]:
        """The label tokens of each sample's caption."""
        return labels_of(self.batch(self.samples, self.images, targets=True))

    def labels_of(self, captions: Sequence[str]) -> list[list[int]]:
        """The label tokens of any captions, on the first image."""
        sample = replace(self.samples[0], captions=tuple(captions))
        return labels_of(self.batch([sample], self.images[:1], targets=True))

    # ---- generation

    def force(
        self,
        samples: Sequence[Sample],
        images: Sequence[Image],
        tokens: Sequence[Sequence[int]],
        *,
        family: Family | None = None,
    ) -> list[ForcedCaption] | None:
        """Forces ``generate`` to emit given tokens.

        Returns:
            One entry for each sample; None if the family's ``generate`` can't be forced.
        """
        family = family or self.family
        batch = self.batch(samples, images, targets=False, family=family)
        forced = ForcedDecoding(tokens)
        steps = max(map(len, tokens))
        with self.autocast(family):
            generations = family.generate(batch, GenerateSettings(max_new_tokens=steps), forced=forced)
        if len(forced.scores) < steps:
            return None
        logits = torch.stack(forced.scores, 1)  # [R, steps, V]
        return [
            ForcedCaption(generation, logits[row, : len(tokens[row])]) for row, generation in enumerate(generations)
        ]

    @property
    def end_ids(self) -> list[int]:
        """Tokens that end a caption: those of the family, or else of the checkpoint's generation config."""
        of_family = getattr(self.family, "end_ids", None)
        ids = self.family.model.generation_config.eos_token_id if of_family is None else of_family
        if ids is None:
            return []
        return list(ids) if isinstance(ids, list | tuple) else [int(ids)]

    def text_of(self, tokens: Sequence[int]) -> str:
        """Label tokens as text, without the end token and other special tokens."""
        return str(self.family.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def normalized(self, caption: str) -> str:
        """A caption after encoding and decoding: some tokenizers have no capitals, and some don't know every word."""
        return self.text_of(self.family.tokenizer(caption, add_special_tokens=False)["input_ids"])

    # ---- what is trained

    @cached_property
    def parts(self) -> list[PartSummary]:
        """Freezes and opens the parts as the recipe says, at the first access, and summarizes them."""
        assert self.train is not None
        settings = self.train
        return open_parts(self.family, settings.parts, settings.lora, for_captions=not settings.retrieval)

    @cached_property
    def typical(self) -> tuple[list[Sample], list[Image]]:
        """Two images with captions of about median length, in tokens. Both captions and images differ.

        The few samples of the other probes have captions of different lengths, so they may include the longest of all.
        """
        captioned = [(sample, text) for sample in self.all_samples if (text := _caption(sample))]
        tokenized = self.family.tokenizer([text for _, text in captioned], add_special_tokens=False)["input_ids"]
        lengths = [len(tokens) for tokens in tokenized]
        middle = median(lengths)
        samples: list[Sample] = []
        images: list[Image] = []
        for index in sorted(range(len(captioned)), key=lambda index: abs(lengths[index] - middle)):
            sample, text = captioned[index]
            if any(self.normalized(text) == self.normalized(other.captions[0]) for other in samples):
                continue
            try:
                image = open_image(sample.image)
            except ImageProblem:
                continue
            if any(image.size == other.size and image.tobytes() == other.tobytes() for other in images):
                continue
            samples.append(replace(sample, captions=(text,), extra={}))
            images.append(image)
            if len(samples) == 2:
                return samples, images
        return self.samples[:2], self.images[:2]


def labels_of(batch: Batch) -> list[list[int]]:
    """The label tokens of each row, without ignored positions."""
    return [row[row != IGNORED].tolist() for row in batch["labels"].cpu()]


def relative_difference(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors, as a share of the largest finite number in the first."""
    scale = float(one[one.isfinite()].abs().max()) if one.isfinite().any() else 0.0
    same = (one == other) | (one.isnan() & other.isnan())
    difference = torch.where(same, torch.zeros_like(one), (one - other).abs())
    return float(difference.max()) / max(scale, 1e-12) if difference.numel() else 0.0


def _by_caption(labels: list[list[int]], recorder: CrossEntropyRecorder) -> list[ScoredCaption] | None:
    """Splits the recorded logits by caption. Either all labels were scored, or all but the first of each caption."""
    for first in (0, 1):
        if [token for row in labels for token in row[first:]] == recorder.targets:
            logits = torch.split(recorder.logits, [len(row) - first for row in labels])
            return [ScoredCaption(row, first, of_row) for row, of_row in zip(labels, logits, strict=True)]
    return None


def _caption(sample: Sample) -> str:
    """The first caption that isn't empty."""
    return next((text for text in sample.captions if text.strip()), "")


def _choose(samples: Sequence[Sample]) -> tuple[list[Sample], list[Image]]:
    """A few captioned images whose captions differ, preferably in length too, and whose images differ in shape."""
    chosen: list[Sample] = []
    images: list[Image] = []
    lengths: set[int] = set()
    for want_new_length in (True, False):
        for sample in samples:
            caption = _caption(sample)
            known = any(other.id == sample.id or other.captions == (caption,) for other in chosen)
            if not caption or known or len(chosen) == IMAGES or (want_new_length and len(caption.split()) in lengths):
                continue
            try:
                image = open_image(sample.image)
            except ImageProblem:
                continue
            lengths.add(len(caption.split()))
            chosen.append(replace(sample, captions=(caption,), extra={}))
            images.append(image)
    if len(chosen) < 2:
        raise DataError("Probing needs two readable images with different captions.", "Add more data to the recipe.")
    # the second is cropped to half its width: models of native resolution then have rows of different lengths
    width, height = images[1].size
    images[1] = images[1].crop((0, 0, max(1, width // 2), height))
    return chosen, images
