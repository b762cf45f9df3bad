"""Ranks from half precision, made those of float32 where they could be other ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cutline.families.base import Batch
from cutline.families.common.matching import Matching
from cutline.progress import Progress
from cutline.retrieve.gallery import Gallery
from cutline.retrieve.rerank import Candidates

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
    right = torch.zeros(len(gallery.pictures), len(gallery.texts), dtype=torch.bool)
    there = torch.from_numpy(gallery.picture_of[gallery.sample_of])
    right[there[there >= 0], torch.from_numpy(gallery.text_of)[there >= 0]] = True
    tables = [(of_images, right.gather(1, of_images.places)), (of_texts, right.T.gather(1, of_texts.places))]
    exact: dict[int, dict[int, float]] = {}  # picture → text → float32 score
    chance = torch.Generator().manual_seed(0)
    some = torch.randperm(of_images.places.numel(), generator=chance)[:PROBED]
    columns = of_images.places.shape[1]
    wanted = {(int(slot) // columns, int(of_images.places.flatten()[slot])) for slot in some}
    off, pairs = 0.0, 0
    while wanted:
        off = max(off, _replace(wanted, matching, features, tables, exact))
        pairs += len(wanted)
        if progress:
            progress(pairs, pairs)
        near = {pair for table, answers in enumerate(tables) for pair in _near(*answers, 2 * off, by_image=table == 0)}
        wanted = {pair for pair in near if pair[1] not in exact.get(pair[0], {})}
    return Verified(pairs, off)


def _near(ours: Candidates, right: Tensor, margin: float, *, by_image: bool) -> set[tuple[int, int]]:
    """Pairs (picture, text) whose score is within the margin of the best right candidate's."""
    scores = ours.scores()
    best = scores.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
    near = ((scores - best).abs() <= margin) | (right & (scores >= best - margin))
    near &= near.sum(1, keepdim=True) > 1  # a right candidate that nothing is near to keeps its rank
    rows, slots = near.nonzero(as_tuple=True)
    places = ours.places[rows, slots]
    one, other = (rows, places) if by_image else (places, rows)
    return set(zip(one.tolist(), other.tolist(), strict=True))


def _replace(
    wanted: set[tuple[int, int]],
    matching: Matching,
    features: Callable[[int], Batch],
    tables: list[tuple[Candidates, Tensor]],
    exact: dict[int, dict[int, float]],
) -> float:
    """Computes pairs and puts them where they belong; returns the largest change."""
    off = 0.0
    by_picture: dict[int, list[int]] = {}
    for picture, text in sorted(wanted):
        by_picture.setdefault(picture, []).append(text)
    (of_images, _), (of_texts, _) = tables
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
