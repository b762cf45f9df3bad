"""Recall, mean and median rank from ranks, with bootstrap intervals over images.

With several correct candidates (the captions of an image) the best rank counts. Ties count against: wrong candidates
with the same score rank before the correct one. A caption of another image is wrong even if it has the same text, as in
the published evaluations. The number of queries whose rank depends on ties is reported.
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

#: The k of recall at k.
CUTS = (1, 5, 10)


def beyond(candidates: int) -> int:
    """The rank of an image that can't be opened: after all candidates, and a miss at every cut."""
    return max(candidates, *CUTS) + 1


def text_ranks(gallery: Gallery, picture: int, scores: Floats) -> dict[int, tuple[int, int, int]]:
    """Best rank, among all M captions, of the captions of each image that has this picture.

    Args:
        picture: index into ``gallery.pictures``.
        scores: float64 [D], of the picture with each distinct text.

    Returns:
        Index into ``gallery.samples`` → (rank with ties against, rank with ties for it, index of its best text).
    """
    copies = np.bincount(gallery.text_of, minlength=len(gallery.texts))
    ranks = {}
    for sample in np.flatnonzero(gallery.picture_of == picture).tolist():
        own = gallery.text_of[gallery.sample_of == sample]
        wrong = copies - np.bincount(own, minlength=len(copies))
        best = int(own[scores[own].argmax()])
        against = 1 + int(wrong[scores >= scores[best]].sum())
        ranks[sample] = (against, 1 + int(wrong[scores > scores[best]].sum()), best)
    return ranks


def image_ranks(gallery: Gallery, text: int, scores: Floats) -> dict[int, tuple[int, int]]:
    """Rank, among all N images, of the image of each caption that has this text.

    Args:
        text: index into ``gallery.texts``.
        scores: float64 [U], of the text with each distinct picture.

    Returns:
        Caption index (of M) → (rank with ties against, rank with ties for it).
    """
    copies = np.bincount(gallery.picture_of[gallery.picture_of >= 0], minlength=len(scores))
    ranks = {}
    for caption in np.flatnonzero(gallery.text_of == text).tolist():
        correct = int(gallery.picture_of[gallery.sample_of[caption]])
        if correct < 0:
            ranks[caption] = (beyond(len(gallery.samples)),) * 2
            continue
        wrong = copies.copy()
        wrong[correct] -= 1
        against = 1 + int(wrong[scores >= scores[correct]].sum())
        ranks[caption] = (against, 1 + int(wrong[scores > scores[correct]].sum()))
    return ranks


def recalls(text_ranks: Ranks, image_ranks: Ranks) -> dict[str, float]:
    """Recall at 1, 5 and 10 in both directions, and the mean of the six.

    Args:
        text_ranks: [N], best rank of a caption of each image.
        image_ranks: [M], rank of the image of each caption.

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
        direction: "tr" or "ir"; prefix of the scores' names.
        ranks: [Q], of the queries; 1 is best.
        sample_of: [Q], image index of each query; the intervals resample images.
        groups: group of each image; images of one group are resampled together.
        resamples: number of bootstrap resamples; 0: no interval.
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
    """Label, meaning, unit and direction of a retrieval score such as "tr_recall_at_5" or "ir_mean_rank"."""
    direction, _, kind = name.partition("_")
    if direction == "tr":
        arrow, query, correct = "image → text", "an image", "the best of its captions"
    else:
        arrow, query, correct = "text → image", "a caption", "its image"
    label = f"{kind.replace('_at_', '@').replace('_', ' ')}, {arrow}"
    if kind.startswith("recall"):
        cut = kind.rpartition("_")[2]
        where = "is the first result" if cut == "1" else f"is among the first {cut} results"
        return ScoreInfo(name, label, f"How often {correct} {where} for {query}.", "share")
    meaning = f"{kind.split('_')[0].capitalize()} rank of {correct} in the results for {query}."
    return ScoreInfo(name, label, meaning, higher_is_better=False)


def _medians(ordered: Ranks, weights: Floats) -> Floats:
    """Weighted medians [R] of ascending values [Q] with integer weights [R, Q]."""
    cumulative = weights.cumsum(axis=1)
    total = cumulative[:, -1]
    lower = [np.searchsorted(row, count / 2) for row, count in zip(cumulative, total, strict=True)]
    upper = [np.searchsorted(row, count / 2, side="right") for row, count in zip(cumulative, total, strict=True)]
    return np.asarray((ordered[lower] + ordered[upper]) / 2, np.float64)


def chance(gallery: Gallery) -> dict[str, float]:
    """Expected recall and mean rank of a random ranking."""
    images, captions = len(gallery.samples), len(gallery.text_of)
    own = np.bincount(gallery.sample_of).tolist()
    expected: dict[str, float] = {}
    for k in CUTS:
        missed = [comb(captions - c, k) / comb(captions, k) if k <= captions else 0.0 for c in own]
        expected[f"tr_recall_at_{k}"] = 1 - sum(missed) / len(missed)
    expected["tr_mean_rank"] = sum((captions + 1) / (c + 1) for c in own) / len(own)
    expected |= {f"ir_recall_at_{k}": min(k / images, 1.0) for k in CUTS}
    expected["ir_mean_rank"] = (images + 1) / 2
    return expected


def ceiling(kept: Mapping[str, NDArray[np.bool_]]) -> dict[str, float]:
    """Upper bound of recall after re-ranking, by direction: share of queries with a correct candidate."""
    return {f"{direction}_ceiling": float(queries.mean()) for direction, queries in kept.items()}
