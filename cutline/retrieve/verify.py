"""Corrects ranks that were computed in half precision, wherever float32 could give another rank."""

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
from cutline.retrieve.rerank import TopK

#: Queries: their rows among the candidates [Q], and which of the candidates are correct, bool [Q, K].
Queries = tuple[Tensor, Tensor]

#: Random pairs to compute in both precisions first, to estimate the error of half precision.
PROBED = 256


@dataclass(frozen=True)
class Verified:
    """Number of pairs computed in both precisions, and the largest difference between the two scores of a pair."""

    pairs: int
    max_error: float

    @property
    def counts(self) -> dict[str, int]:
        return {"float32_pairs": self.pairs}


def verify(
    matching: Matching,
    features: Callable[[int], Batch],
    gallery: Gallery,
    of_images: TopK,
    of_texts: TopK,
    progress: Progress | None = None,
) -> Verified:
    """Replaces matching scores, in both directions, that could change the rank of a correct candidate.

    These are the scores of correct candidates and of all candidates within twice the largest difference seen between
    the precisions. That difference may grow as pairs are computed, and then more pairs are computed.

    Args:
        matching: float32 scorer of the gallery's texts.
        features: picture index → its float32 features.
        of_images, of_texts: the candidates; their ``matches`` are changed in place.
    """
    of_sample, of_caption = _queries(gallery, of_images, of_texts)
    exact: dict[int, dict[int, float]] = {}  # picture → text → float32 score
    generator = torch.Generator().manual_seed(0)
    probed = torch.randperm(of_images.indices.numel(), generator=generator)[:PROBED]
    columns = of_images.indices.shape[1]
    wanted = {(int(slot) // columns, int(of_images.indices.flatten()[slot])) for slot in probed}
    error, pairs = 0.0, 0
    while wanted:
        error = max(error, _replace(wanted, matching, features, of_images, of_texts, exact))
        pairs += len(wanted)
        if progress:
            progress(pairs, pairs)
        near = set(_near(of_images, *of_sample, 2 * error))
        near |= {(picture, text) for text, picture in _near(of_texts, *of_caption, 2 * error)}
        wanted = {pair for pair in near if pair[1] not in exact.get(pair[0], {})}
    return Verified(pairs, error)


def _queries(gallery: Gallery, of_images: TopK, of_texts: TopK) -> tuple[Queries, Queries]:
    """The queries of each image, then of each caption; images that share a picture keep captions of their own."""
    readable = np.flatnonzero(gallery.picture_of >= 0)
    rows = torch.from_numpy(gallery.picture_of[readable])
    indices = of_images.indices[rows]
    correct = torch.zeros(indices.shape, dtype=torch.bool)
    starts = np.searchsorted(gallery.sample_of, readable)
    counts = np.searchsorted(gallery.sample_of, readable, side="right") - starts
    for nth in range(int(counts.max(initial=0))):
        own = gallery.text_of[starts + np.minimum(nth, counts - 1)]
        correct |= indices == torch.from_numpy(own)[:, None]
    pictures = gallery.picture_of[gallery.sample_of]
    queries = torch.from_numpy(gallery.text_of[pictures >= 0])
    pictures_of_queries = torch.from_numpy(pictures[pictures >= 0])
    return (rows, correct), (queries, of_texts.indices[queries] == pictures_of_queries[:, None])


def _near(candidates: TopK, rows: Tensor, correct: Tensor, margin: float) -> Iterator[tuple[int, int]]:
    """Yields (row, candidate) where the candidate scores within the margin of the best correct one of its query."""
    scores = candidates.scores()[rows]
    best = scores.masked_fill(~correct, -torch.inf).amax(1, keepdim=True)
    near = (scores - best).abs() <= margin  # never where no candidate is correct
    near &= near.sum(1, keepdim=True) > 1  # a correct candidate with nothing near it keeps its rank
    queries, slots = near.nonzero(as_tuple=True)
    yield from zip(rows[queries].tolist(), candidates.indices[rows[queries], slots].tolist(), strict=True)


def _replace(
    wanted: set[tuple[int, int]],
    matching: Matching,
    features: Callable[[int], Batch],
    of_images: TopK,
    of_texts: TopK,
    exact: dict[int, dict[int, float]],
) -> float:
    """Computes the wanted pairs in float32 and replaces their scores; returns the largest change."""
    error = 0.0
    by_picture: dict[int, list[int]] = {}
    for picture, text in sorted(wanted):
        by_picture.setdefault(picture, []).append(text)
    assert of_images.matches is not None
    assert of_texts.matches is not None
    for picture, texts in by_picture.items():
        scores = matching.scores(features(picture), torch.tensor(texts)).cpu()
        for text, value in zip(texts, scores.tolist(), strict=True):
            exact.setdefault(picture, {})[text] = value
            for candidates, query, candidate in ((of_images, picture, text), (of_texts, text, picture)):
                assert candidates.matches is not None
                slot = (candidates.indices[query] == candidate).nonzero().flatten()
                if len(slot):
                    error = max(error, abs(float(candidates.matches[query, slot[0]]) - value))
                    candidates.matches[query, slot[0]] = value
    return error
