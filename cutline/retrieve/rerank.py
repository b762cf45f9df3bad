"""The two stages of image–text retrieval: the nearest by cosine, re-ranked by matching scores.

Source: the published evaluation of BLIP (Li et al. 2022, arXiv:2201.12086): the k nearest candidates of each
query by cosine are scored by cosine + matching logit, and no other candidate counts. The published code computes a pair
once for each direction; here each distinct pair is computed once, and all pairs of an image together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutline.families.base import Batch
from cutline.families.common.matching import Matching


@dataclass
class TopK:
    """The K nearest candidates of Q queries, nearest first.

    Attributes:
        indices: int64 [Q, K] of the candidates.
        cosines: float32 [Q, K]; -inf where there is no candidate, because copies of earlier ones fill the k already.
        matches: float32 [Q, K] raw matching logits; None before the second stage.
    """

    indices: Tensor
    cosines: Tensor
    matches: Tensor | None = None

    def scores(self) -> Tensor:
        """Ranking scores, float32 [Q, K]: cosine, plus the matching logit once there is one."""
        return self.cosines if self.matches is None else self.cosines + self.matches


def nearest(cosines: Tensor, k: int, copies: Tensor | None = None) -> TopK:
    """The k nearest candidates of each query, or all where there are fewer.

    Args:
        cosines: [Q, M] of queries and candidates.
        k: number of candidates.
        copies: int64 [M], number of captions or images that each candidate stands for; duplicates are stored once.
            Every copy counts towards k, as in the published evaluation. A candidate is kept when fewer than k copies
            come before it, so copies of one candidate are kept or dropped together.
    """
    best = cosines.topk(min(k, cosines.shape[1]), dim=1)
    indices, values = best.indices.cpu(), best.values.float().cpu()
    if copies is not None:
        counts = copies[indices]
        values = values.masked_fill(counts.cumsum(1) - counts >= k, -torch.inf)
    return TopK(indices, values)


def rerank(
    matching: Matching,
    features: Callable[[int], Batch],
    texts_of_images: TopK,
    images_of_texts: TopK,
    done: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Computes ``matches`` in both directions, one image at a time.

    Args:
        matching: scorer of the M texts.
        features: image index → output of ``encode_images`` for that image.
        texts_of_images: [N, K] candidates of images.
        images_of_texts: [M, K'] candidates of texts.
        done: image index → scores that an earlier pass over the same candidates yielded.

    Yields:
        For each image that wasn't done: its index, and its scores with the distinct texts it is paired with, in
        ascending order of the texts.
    """
    texts_of_images.matches = torch.full(texts_of_images.indices.shape, float("nan"))
    images_of_texts.matches = torch.full(images_of_texts.indices.shape, float("nan"))
    columns = images_of_texts.indices.shape[1]
    flat = images_of_texts.matches.view(-1)
    for image, slots in enumerate(_slots(images_of_texts, len(texts_of_images.indices))):
        own, queries = texts_of_images.indices[image], slots // columns
        texts, inverse = torch.unique(torch.cat([own, queries]), return_inverse=True)
        known = (done or {}).get(image)
        if known is None or len(known) != len(texts):
            scores = matching.scores(features(image), texts).cpu() if len(texts) else torch.zeros(0)
        else:
            scores = known
        texts_of_images.matches[image] = scores[inverse[: len(own)]]
        flat[slots] = scores[inverse[len(own) :]]
        if scores is not known:
            yield image, scores


def _slots(images_of_texts: TopK, images: int) -> Sequence[Tensor]:
    """Image index → the positions in the flattened ``images_of_texts`` where it is a candidate."""
    by_image = images_of_texts.indices.flatten().sort(stable=True)
    counts = torch.bincount(by_image.values, minlength=images)
    return torch.split(by_image.indices, counts.tolist())


def distinct_pairs(texts_of_images: TopK, images_of_texts: TopK) -> int:
    """Number of distinct image–text pairs in both directions."""
    images, texts = len(texts_of_images.indices), len(images_of_texts.indices)
    text_pairs = torch.arange(images)[:, None] * texts + texts_of_images.indices
    image_pairs = images_of_texts.indices * texts + torch.arange(texts)[:, None]
    return len(torch.unique(torch.cat([text_pairs.flatten(), image_pairs.flatten()])))
