"""What is probed: a recipe's model, a few of its captioned images, and the ways to look at them that probes share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL.Image import Image
from torch import Tensor

from cutline.check.watch import CrossEntropies
from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.families.base import Batch, Family, Generation
from cutline.families.common.loss import IGNORED
from cutline.families.forced_decoding import ForcedDecoding
from cutline.families.settings import GenerateSettings
from cutline.images.open import ImageProblem, open_image
from cutline.train.settings import TrainSettings
from cutline.train.trainable import PartSummary, open_parts

if TYPE_CHECKING:
    from cutline.data.dataset import Dataset

#: Captioned images that are looked at.
IMAGES = 4


@dataclass(frozen=True)
class Row:
    """One caption as training scores it.

    Attributes:
        labels: its n label tokens, as the batch has them.
        first: the label that the first row of logits was scored against: 0, or 1 where the first label is lost.
        logits: [n - first, V], one row for each scored label.
    """

    labels: list[int]
    first: int
    logits: Tensor


@dataclass(frozen=True)
class Said:
    """One caption as generation was made to say it; ``logits`` [tokens, V] are the model's own."""

    generation: Generation
    logits: Tensor


class Taught(NamedTuple):
    """A batch as training sees it.

    Attributes:
        loss: in nats.
        rows: each caption; None where the scored tokens aren't the captions' labels.
        scored: whether a cross-entropy over tokens was seen at all.
    """

    loss: float
    rows: list[Row] | None
    scored: bool


class Subject:
    """A family with what is needed to probe it.

    Args:
        family: opened; probes of training change its weights.
        samples: captioned images, in the order of the dataset; a few are taken.
        train: the ``[train]`` section; None for a recipe that trains nothing.
        generate: the ``[generate]`` section.
        fresh: opens the same family anew.
        whole: opens it with all weights in 16 or 32 bits, where some are kept in 4 or 8; None where none are.
        tiny: whether the family is a random miniature.
        scratch: folder for what probes write.
        dataset: all data, for the probes of the data; None: they don't apply.
    """

    def __init__(
        self,
        family: Family,
        samples: Sequence[Sample],
        *,
        train: TrainSettings | None,
        generate: GenerateSettings,
        fresh: Callable[[], Family],
        tiny: bool,
        scratch: Path,
        dataset: Dataset | None = None,
        whole: Callable[[], Family] | None = None,
    ):
        self.family = family.eval()
        self.train = train
        self.generate = generate
        self.fresh = fresh
        self.whole = whole
        self.tiny = tiny
        self.scratch = scratch
        self.dataset = dataset
        #: What one probe found out and another wants to know, too.
        self.notes: dict[str, Any] = {}
        self.samples, self.pictures = _choose(samples)

    # ---- what training sees

    def batch(
        self, samples: Sequence[Sample], pictures: Sequence[Image], *, targets: bool, family: Family | None = None
    ) -> Batch:
        """A batch on the model's device."""
        family = family or self.family
        made = family.collate(samples, with_targets=targets, images=pictures)
        return {name: tensor.to(family.device) for name, tensor in made.items()}

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The precision of training: trained weights are float32, and the rest may be in 16 bits."""
        dtypes = {p.dtype for p in self.family.parameters() if p.is_floating_point()}
        low = next((dtype for dtype in dtypes if dtype != torch.float32), None)
        device = self.family.device.type
        with torch.autocast(device, dtype=low) if low is not None and len(dtypes) > 1 else nullcontext():
            yield

    @property
    def low_precision(self) -> bool:
        """Whether anything is computed in fewer than 32 bits."""
        return any(p.is_floating_point() and p.dtype != torch.float32 for p in self.family.parameters())

    @property
    def tolerance(self) -> float:
        """How far numbers that should be the same may lie apart when a batch has another shape, as a share."""
        return 5e-2 if self.low_precision else 1e-4

    def teach(self, samples: Sequence[Sample], pictures: Sequence[Image]) -> Taught:
        """The loss of a batch, and each caption as it was scored."""
        batch = self.batch(samples, pictures, targets=True)
        with torch.no_grad(), self.arithmetic(), CrossEntropies() as seen:
            loss = float(self.family.loss(batch).nll)
        return Taught(loss, _rows(labels_of(batch), seen), bool(seen.targets))

    @cached_property
    def alone(self) -> list[Taught]:
        """Each of the samples, taught by itself."""
        return [self.teach([sample], [picture]) for sample, picture in self.pairs]

    @cached_property
    def rows(self) -> list[Row] | None:
        """Each of the samples' captions, taught by itself."""
        whole = [row for taught in self.alone for row in taught.rows or ()]
        return whole if len(whole) == len(self.samples) else None

    @property
    def sensitivity(self) -> float:
        """The smallest share by which numbers of the same computation can be said to differ."""
        return 1e-3 if self.low_precision else 1e-6

    @property
    def pairs(self) -> list[tuple[Sample, Image]]:
        return list(zip(self.samples, self.pictures, strict=True))

    @cached_property
    def labels(self) -> list[list[int]]:
        """The label tokens of each sample's caption."""
        return labels_of(self.batch(self.samples, self.pictures, targets=True))

    def labels_of(self, captions: Sequence[str]) -> list[list[int]]:
        """The label tokens of any captions, on the first picture."""
        sample = replace(self.samples[0], captions=tuple(captions))
        return labels_of(self.batch([sample], self.pictures[:1], targets=True))

    # ---- what generation does

    def force(
        self, samples: Sequence[Sample], pictures: Sequence[Image], tokens: Sequence[Sequence[int]]
    ) -> list[Said] | None:
        """Makes generation say given tokens; None for a family whose generation can't be made to."""
        batch = self.batch(samples, pictures, targets=False)
        forced = ForcedDecoding(tokens)
        with self.arithmetic():
            settings = GenerateSettings(max_new_tokens=max(map(len, tokens)))
            made = self.family.generate(batch, settings, forced=forced)
        if len(forced.scores) < max(map(len, tokens)):
            return None
        steps = torch.stack(forced.scores, 1)
        return [
            Said(generation, steps[row, : len(said)])
            for row, (generation, said) in enumerate(zip(made, tokens, strict=True))
        ]

    @property
    def ends(self) -> list[int]:
        """Tokens that end a caption: as the family says, or else the checkpoint's generation settings."""
        known = getattr(self.family, "end_ids", None)
        ends = self.family.model.generation_config.eos_token_id if known is None else known
        return [] if ends is None else list(ends) if isinstance(ends, list | tuple) else [int(ends)]

    def text_of(self, tokens: Sequence[int]) -> str:
        """Label tokens as text, their end token and other markers left out."""
        return str(self.family.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()

    def spelled(self, caption: str) -> str:
        """A caption as its tokenizer gives it back: some know no capitals, and some not every word."""
        return self.text_of(self.family.tokenizer(caption, add_special_tokens=False)["input_ids"])

    # ---- what is trained

    @cached_property
    def parts(self) -> list[PartSummary]:
        """Opens the parts as the recipe says, once, and says what was opened."""
        assert self.train is not None
        settings = self.train
        return open_parts(self.family, settings.parts, settings.lora, for_captions=not settings.retrieval)


def labels_of(batch: Batch) -> list[list[int]]:
    """Each row's label tokens, without what is not a target."""
    return [row[row != IGNORED].tolist() for row in batch["labels"].cpu()]


def far(one: Tensor, other: Tensor) -> float:
    """The largest difference between two tensors, as a share of the largest number in the first."""
    scale = float(one[one.isfinite()].abs().max()) if one.isfinite().any() else 0.0
    same = (one == other) | (one.isnan() & other.isnan())
    apart = torch.where(same, torch.zeros_like(one), (one - other).abs())
    return float(apart.max()) / max(scale, 1e-12) if apart.numel() else 0.0


def _rows(labels: list[list[int]], seen: CrossEntropies) -> list[Row] | None:
    """Says which logits belong to which caption: all labels were scored, or all but each caption's first."""
    for first in (0, 1):
        if [token for row in labels for token in row[first:]] == seen.targets:
            pieces = torch.split(seen.logits, [len(row) - first for row in labels])
            return [Row(row, first, piece) for row, piece in zip(labels, pieces, strict=True)]
    return None


def _choose(samples: Sequence[Sample]) -> tuple[list[Sample], list[Image]]:
    """A few captioned images whose captions differ, in length too, and whose pictures differ in shape."""
    chosen: list[Sample] = []
    pictures: list[Image] = []
    lengths: set[int] = set()
    for want_new_length in (True, False):
        for sample in samples:
            caption = next((text for text in sample.captions if text.strip()), "")
            known = any(one.id == sample.id or one.captions == (caption,) for one in chosen)
            if not caption or known or len(chosen) == IMAGES or (want_new_length and len(caption.split()) in lengths):
                continue
            try:
                picture = open_image(sample.image)
            except ImageProblem:
                continue
            lengths.add(len(caption.split()))
            chosen.append(replace(sample, captions=(caption,), extra={}))
            pictures.append(picture)
    if len(chosen) < 2:
        raise DataError("Probing needs two readable images with different captions.", "Give the recipe more data.")
    # the second is cropped to half its width: models of native resolution then have rows of different lengths
    width, height = pictures[1].size
    pictures[1] = pictures[1].crop((0, 0, max(1, width // 2), height))
    return chosen, pictures
