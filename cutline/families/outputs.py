"""What a family returns: the loss of a batch, and a generated caption."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Loss(NamedTuple):
    """Sums over a batch, so that the trainer can normalise over the tokens of a whole accumulated step.

    Attributes:
        nll: negative log-likelihood of all label tokens, in nats, label smoothing included.
        penalty: regularisation that is to be divided by the same number of tokens; 0 for most families.
        tokens: number of label tokens.
    """

    nll: Tensor
    penalty: Tensor
    tokens: Tensor


class Generation(NamedTuple):
    """One generated caption: text, log-probability in nats, number of new tokens, whether the end token came."""

    text: str
    logprob: float
    tokens: int
    finished: bool
