"""Recall at k: how often a true candidate is among the k best of a query.

Source: the published evaluations of image–text retrieval (Karpathy & Fei-Fei 2015, arXiv:1412.2306; BLIP, Li et al.
2022, arXiv:2201.12086): of several true candidates the best placed one counts.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from cutline.retrieve.rerank import Candidates

#: Where recall is measured.
CUTS = (1, 5, 10)


def best_ranks(found: Candidates, query_of: Tensor, truth_of: Tensor) -> Tensor:
    """The place of each query's best true candidate.

    Args:
        found: candidates of Q queries.
        query_of: int64 [Q], whose each query is: two things of one owner (an image and its captions) are a true pair.
        truth_of: int64 [M], whose each candidate is.

    Returns:
        int64 [Q], 1 is best; M + 1 where no true one is among the candidates. A true candidate
        comes behind all others that have the same score, so that a model which says the same of everything finds
        nothing.
    """
    scores = found.scores()  # [Q, K]
    true = truth_of[found.places] == query_of[:, None]
    best = scores.masked_fill(~true, -torch.inf).amax(1, keepdim=True)
    ranks = 1 + ((scores >= best) & ~true).sum(1)
    return torch.where(true.any(1), ranks, len(truth_of) + 1)


def recalls(text_ranks: Tensor, image_ranks: Tensor) -> Mapping[str, float]:
    """Shares of queries whose rank is at most 1, 5 and 10, and the mean of the six.

    Args:
        text_ranks: int64 [N], ranks of texts found for images (``best_ranks``).
        image_ranks: int64 [M], ranks of images found for texts.

    Returns:
        ``tr_recall_at_1``, ``…_5``, ``…_10`` (text retrieval), ``ir_recall_at_1`` … (image retrieval), ``mean_recall``.
    """
    values = {
        f"{name}_recall_at_{cut}": float((ranks <= cut).double().mean())
        for name, ranks in (("tr", text_ranks), ("ir", image_ranks))
        for cut in CUTS
    }
    return values | {"mean_recall": sum(values.values()) / len(values)}
