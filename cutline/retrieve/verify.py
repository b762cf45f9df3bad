"""Ranks from half precision, made those of float32 where they could be other ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutline.core.progress import Progress
from cutline.families.base import Batch
from cutline.families.common.matching import Matching
from cutline.retrieve.gallery import Gallery
from cutline.retrieve.rerank import Candidates

#: The row of each question among the candidates, and which candidates are right.
Question = tuple[Tensor, Tensor]

#: Pairs that are computed in both precisions before anything else, to see how far off the half one is.
PROBED = 256


@dataclass(frozen=True)
class Verified:
    """What was found. ``off``: the largest difference between the two precisions among the pairs computed in both."""

    pairs: int
    off: float

    @property
    def counts(self) -> dict[str, int]:
        return {"pairs_computed_in_float32_too": self.pairs}


def verify(
    matching: Matching,
    features: Callable[[int], Batch],
    gallery: Gallery,
    of_images: Candidates,
    of_texts: Candidates,
    progress: Progress | None = None,
) -> Verified:
    """Replaces, in both directions' matches, those that could change the rank of a right candidate.

    Those are the right candidates themselves and all within twice the largest difference seen between the precisions;
    as pairs are computed that difference may grow, and then more pairs are.

    Args:
        matching: in float32, of the gallery's texts.
        features: in float32, of a picture.
        of_images, of_texts: the candidates; their ``matches`` are changed in place.
    """
    of_sample, of_caption = _questions(gallery, of_images, of_texts)
    exact: dict[int, dict[int, float]] = {}  # picture → text → float32 score
    chance = torch.Generator().manual_seed(0)
    some = torch.randperm(of_images.places.numel(), generator=chance)[:PROBED]
    columns = of_images.places.shape[1]
    wanted = {(int(slot) // columns, int(of_images.places.flatten()[slot])) for slot in some}
    off, pairs = 0.0, 0
    while wanted:
        off = max(off, _replace(wanted, matching, features, of_images, of_texts, exact))
        pairs += len(wanted)
        if progress:
            progress(pairs, pairs)
        near = set(_near(of_images, *of_sample, 2 * off))
        near |= {(picture, text) for text, picture in _near(of_texts, *of_caption, 2 * off)}
        wanted = {pair for pair in near if pair[1] not in exact.get(pair[0], {})}
    return Verified(pairs, off)


def _questions(gallery: Gallery, of_images: Candidates, of_texts: Candidates) -> tuple[Question, Question]:
    """What is asked for each image, then for each caption; images of one picture have captions of their own."""
    there = np.flatnonzero(gallery.picture_of >= 0)
    rows = torch.from_numpy(gallery.picture_of[there])
    places = of_images.places[rows]
    right = torch.zeros(places.shape, dtype=torch.bool)
    starts = np.searchsorted(gallery.sample_of, there)
    many = np.searchsorted(gallery.sample_of, there, side="right") - starts
    for nth in range(int(many.max(initial=0))):
        own = gallery.text_of[starts + np.minimum(nth, many - 1)]
        right |= places == torch.from_numpy(own)[:, None]
    pictures = gallery.picture_of[gallery.sample_of]
    asking = torch.from_numpy(gallery.text_of[pictures >= 0])
    wanted = torch.from_numpy(pictures[pictures >= 0])
    return (rows, right), (asking, of_texts.places[asking] == wanted[:, None])


def _near(ours: Candidates, rows: Tensor, right: Tensor, margin: float) -> Iterator[tuple[int, int]]:
    """Of each question the candidates whose score is within the margin of the best right one's: (row, place)."""
    scores = ours.scores()[rows]
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    near = (scores - best).abs() <= margin  # never where no right one is among the candidates
    near &= near.sum(1, keepdim=True) > 1  # a right candidate that nothing is near to keeps its rank
    asked, slots = near.nonzero(as_tuple=True)
    yield from zip(rows[asked].tolist(), ours.places[rows[asked], slots].tolist(), strict=True)


def _replace(
    wanted: set[tuple[int, int]],
    matching: Matching,
    features: Callable[[int], Batch],
    of_images: Candidates,
    of_texts: Candidates,
    exact: dict[int, dict[int, float]],
) -> float:
    """Computes pairs and puts them where they belong; returns the largest change."""
    off = 0.0
    by_picture: dict[int, list[int]] = {}
    for picture, text in sorted(wanted):
        by_picture.setdefault(picture, []).append(text)
    assert of_images.matches is not None
    assert of_texts.matches is not None
    for picture, texts in by_picture.items():
        scores = matching.scores(features(picture), torch.tensor(texts)).cpu()
        for text, value in zip(texts, scores.tolist(), strict=True):
            exact.setdefault(picture, {})[text] = value
            for ours, query, place in ((of_images, picture, text), (of_texts, text, picture)):
                assert ours.matches is not None
                slot = (ours.places[query] == place).nonzero().flatten()
                if len(slot):
                    off = max(off, abs(float(ours.matches[query, slot[0]]) - value))
                    ours.matches[query, slot[0]] = value
    return off
