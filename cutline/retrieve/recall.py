"""From ranks to recall, mean and median rank, with intervals over images.

The best-rank rule: with several right candidates (an image's captions) the best one's rank counts. A tie counts
against: wrong candidates with the same score stand before the right one. A caption of another image is wrong even where
it reads the same, as in the published evaluations; how many queries hang on ties is counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray

from cutline.core.records import Score, ScoreInfo
from cutline.metrics.significance import Floats, draws, group_sums, interval
from cutline.retrieve.gallery import Gallery

Ranks = NDArray[np.int64]

#: The usual cuts of recall.
CUTS = (1, 5, 10)


def beyond(candidates: int) -> int:
    """The rank of what can't be found, since the picture is lost: worse than the last, and a miss at every cut."""
    return max(candidates, *CUTS) + 1


def text_ranks(gallery: Gallery, picture: int, scores: Floats) -> dict[int, tuple[int, int, int]]:
    """Ranks of the captions of a picture's images among all M.

    Args:
        picture: place in ``gallery.pictures``.
        scores: float64 [D], the picture's with each distinct text.

    Returns:
        Image's place in ``gallery.samples`` → (rank with ties against, rank with ties for it, place of its best text).
    """
    many = np.bincount(gallery.text_of, minlength=len(gallery.texts))
    found = {}
    for sample in np.flatnonzero(gallery.picture_of == picture).tolist():
        own = gallery.text_of[gallery.sample_of == sample]
        wrong = many - np.bincount(own, minlength=len(many))
        best = int(own[scores[own].argmax()])
        against = 1 + int(wrong[scores >= scores[best]].sum())
        found[sample] = (against, 1 + int(wrong[scores > scores[best]].sum()), best)
    return found


def image_ranks(gallery: Gallery, text: int, scores: Floats) -> dict[int, tuple[int, int]]:
    """Ranks of the images that a text was written for, among all N.

    Args:
        text: place in ``gallery.texts``.
        scores: float64 [U], the text's with each distinct picture.

    Returns:
        Caption's place (of M) → (rank with ties against, rank with ties for it).
    """
    there = gallery.picture_of[gallery.picture_of >= 0]
    many = np.bincount(there, minlength=len(scores))
    found = {}
    for caption in np.flatnonzero(gallery.text_of == text).tolist():
        right = int(gallery.picture_of[gallery.sample_of[caption]])
        if right < 0:
            found[caption] = (beyond(len(gallery.samples)),) * 2
            continue
        wrong = many.copy()
        wrong[right] -= 1
        against = 1 + int(wrong[scores >= scores[right]].sum())
        found[caption] = (against, 1 + int(wrong[scores > scores[right]].sum()))
    return found


def recalls(text_ranks: Ranks, image_ranks: Ranks) -> dict[str, float]:
    """Shares of queries whose rank is at most 1, 5 and 10, and the mean of the six.

    Args:
        text_ranks: [N], of images that ask for texts.
        image_ranks: [M], of captions that ask for images.

    Returns:
        ``tr_recall_at_1``, ``…_5``, ``…_10``, ``ir_recall_at_1`` …, ``mean_recall``.
    """
    values = {
        f"{direction}_recall_at_{k}": float((ranks <= k).mean())
        for direction, ranks in (("tr", text_ranks), ("ir", image_ranks))
        for k in CUTS
    }
    return values | {"mean_recall": sum(values.values()) / len(values)}


def score(
    direction: str, ranks: Ranks, sample_of: Ranks, groups: Sequence[Hashable], resamples: int, signature: str
) -> dict[str, Score]:
    """Recall at 1, 5 and 10, mean and median rank of one direction.

    Args:
        direction: "tr" or "ir", in the scores' names.
        ranks: [Q], of queries; 1 is best.
        sample_of: [Q], the image that each query belongs to; images are what is drawn for the intervals.
        groups: a name an image; images of one name are drawn together.
        resamples: 0 for no interval.
    """
    names = [*(f"{direction}_recall_at_{k}" for k in CUTS), f"{direction}_mean_rank", f"{direction}_median_rank"]
    columns = np.stack([*(ranks <= k for k in CUTS), ranks, np.ones(len(ranks))], axis=1).astype(np.float64)
    per_image = np.zeros((len(groups), columns.shape[1]))
    np.add.at(per_image, sample_of, columns)
    sums = group_sums(per_image, groups)
    numbers = {name: number for number, name in enumerate(dict.fromkeys(groups))}
    order = np.argsort(ranks, kind="stable")
    group_of = np.array([numbers[groups[sample]] for sample in sample_of[order].tolist()])

    def values(weights: Floats) -> Floats:
        total = weights @ sums
        middle = _medians(ranks[order], weights[:, group_of])
        return np.concatenate([total[:, :-1] / total[:, -1:], middle[:, None]], axis=1)

    whole = values(np.ones((1, len(sums))))[0]
    low = high = whole
    if resamples:
        low, high = interval(np.concatenate([values(weights) for weights in draws(len(sums), resamples, 0)]))
    shares = per_image[:, : len(CUTS)] / np.maximum(per_image[:, -1:], 1)
    return {
        name: Score(
            metric=name, value=float(whole[k]), low=float(low[k]), high=float(high[k]), n=len(groups),
            signature=signature, info=score_info(name), per_image=tuple(shares[:, k].tolist()) if k < len(CUTS) else (),
        )
        for k, name in enumerate(names)
    }  # fmt: skip


def score_info(name: str) -> ScoreInfo:
    """What a retrieval score means, by its name: "tr_recall_at_5", "ir_mean_rank"."""
    direction, _, what = name.partition("_")
    query, right = ("an image", "one of its captions") if direction == "tr" else ("a caption", "its image")
    if what.startswith("recall"):
        meaning = f"Share of queries ({query}) that have {right} among the first {name.rpartition('_')[2]}."
        return ScoreInfo(name, name, meaning)
    return ScoreInfo(
        name, name, f"{what.split('_')[0].capitalize()} rank of {right}, for {query}.", higher_is_better=False
    )


def _medians(ordered: Ranks, weights: Floats) -> Floats:
    """[R] medians of ascending values [Q], each taken as often as its weight [R, Q] says."""
    upto = weights.cumsum(axis=1)
    total = upto[:, -1]
    lower = [np.searchsorted(row, many / 2) for row, many in zip(upto, total, strict=True)]
    upper = [np.searchsorted(row, many / 2, side="right") for row, many in zip(upto, total, strict=True)]
    return np.asarray((ordered[lower] + ordered[upper]) / 2, np.float64)


def chance(gallery: Gallery) -> dict[str, float]:
    """What ranking at random would give: recall, and mean rank."""
    images, captions = len(gallery.samples), len(gallery.text_of)
    own = np.bincount(gallery.sample_of).tolist()
    found: dict[str, float] = {}
    for k in CUTS:
        missed = [comb(captions - c, k) / comb(captions, k) if k <= captions else 0.0 for c in own]
        found[f"tr_recall_at_{k}"] = 1 - sum(missed) / len(missed)
    found["tr_mean_rank"] = sum((captions + 1) / (c + 1) for c in own) / len(own)
    found |= {f"ir_recall_at_{k}": min(k / images, 1.0) for k in CUTS}
    found["ir_mean_rank"] = (images + 1) / 2
    return found


def ceiling(places: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """The recall that no second stage can exceed: the share of queries with a right candidate, by direction."""
    return {f"{direction}_ceiling": float(kept.mean()) for direction, kept in places.items()}
