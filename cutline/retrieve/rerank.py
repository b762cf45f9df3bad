"""The two stages of image–text retrieval: the nearest by cosine, ranked anew by matching scores.

Source: the published evaluation of BLIP (Li et al. 2022, arXiv:2201.12086): of each query the k nearest candidates by
cosine are scored by cosine + matching logit, and no other candidate counts. There each pair is computed for both
directions; here each distinct pair once, all pairs of an image together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutline.families.base import Batch
from cutline.families.common.matching import Matching


@dataclass
class Candidates:
    """The candidates of Q queries, nearest first.

    Attributes:
        places: int64 [Q, K] of the candidates.
        cosines: float32 [Q, K]; -inf where the place is none, since copies of those before it fill the k already.
        matches: float32 [Q, K] raw matching logits; None before the second stage.
    """

    places: Tensor
    cosines: Tensor
    matches: Tensor | None = None

    def scores(self) -> Tensor:
        """float32 [Q, K], what candidates are ranked by."""
        return self.cosines if self.matches is None else self.cosines + self.matches


def nearest(cosines: Tensor, k: int, copies: Tensor | None = None) -> Candidates:
    """The k nearest of each row, or all where there are fewer.

    Args:
        cosines: [Q, M] of queries with candidates.
        k: how many.
        copies: int64 [M], how many captions or images each candidate stands for, where the equal ones are kept as one.
            All of them count among the k, as in the published evaluation, which knows no copies; a candidate has fewer
            than k before it, so that copies are in or out together.
    """
    best = cosines.topk(min(k, cosines.shape[1]), dim=1)
    places, values = best.indices.cpu(), best.values.float().cpu()
    if copies is not None:
        many = copies[places]
        values = values.masked_fill(many.cumsum(1) - many >= k, -torch.inf)
    return Candidates(places, values)


def rerank(
    matching: Matching,
    features: Callable[[int], Batch],
    texts_of_images: Candidates,
    images_of_texts: Candidates,
    done: Mapping[int, Tensor] | None = None,
) -> Iterator[tuple[int, Tensor]]:
    """Fills ``matches`` in both directions, an image at a time.

    Args:
        matching: of the M texts.
        features: image → what ``encode_images`` says of it alone.
        texts_of_images: [N, K] candidates of images.
        images_of_texts: [M, K'] candidates of texts.
        done: image → its scores from an earlier pass over the same candidates, as they were yielded.

    Yields:
        Each image that wasn't done, and its scores with the distinct texts that it is matched with, in their order.
    """
    texts_of_images.matches = torch.full(texts_of_images.places.shape, float("nan"))
    images_of_texts.matches = torch.full(images_of_texts.places.shape, float("nan"))
    columns = images_of_texts.places.shape[1]
    flat = images_of_texts.matches.view(-1)
    for image, slots in enumerate(_slots(images_of_texts, len(texts_of_images.places))):
        own, asking = texts_of_images.places[image], slots // columns
        texts, back = torch.unique(torch.cat([own, asking]), return_inverse=True)
        known = (done or {}).get(image)
        if known is None or len(known) != len(texts):
            scores = matching.scores(features(image), texts).cpu() if len(texts) else torch.zeros(0)
        else:
            scores = known
        texts_of_images.matches[image] = scores[back[: len(own)]]
        flat[slots] = scores[back[len(own) :]]
        if scores is not known:
            yield image, scores


def _slots(images_of_texts: Candidates, images: int) -> Sequence[Tensor]:
    """Image → the places in ``images_of_texts``, flat, where it is a candidate."""
    wanted_by = images_of_texts.places.flatten().sort(stable=True)
    counts = torch.bincount(wanted_by.values, minlength=images)
    return torch.split(wanted_by.indices, counts.tolist())


def distinct_pairs(texts_of_images: Candidates, images_of_texts: Candidates) -> int:
    """How many pairs both directions have together, each counted once."""
    images, texts = len(texts_of_images.places), len(images_of_texts.places)
    one = torch.arange(images)[:, None] * texts + texts_of_images.places
    other = images_of_texts.places * texts + torch.arange(texts)[:, None]
    return len(torch.unique(torch.cat([one.flatten(), other.flatten()])))
