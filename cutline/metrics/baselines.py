"""Captions written without the image: what a score has to beat to mean something.

The constant caption and the captions of another image say how much of a score comes from knowing what captions of this
collection look like; the human one, how far people agree with each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from cutline.metrics.base import Floats, References
from cutline.metrics.cider import Cider, length_penalty
from cutline.metrics.text.tokenize import Tokenizer

CONSTANT = "one constant caption"
SHUFFLED = "captions of another image"
CONTEXT = "copy of the context"
HUMAN = "human, one reference left out"

_SHORTLIST = 32
_MOST_IMAGES = 10_000


def constant_caption(training: Sequence[Sequence[str]], tokenizer: Tokenizer | None = None, seed: int = 0) -> str:
    """The training caption with the highest CIDEr when it is given to every training image.

    All captions are ranked by their mean cosine with the references (one matrix product: the clipping of CIDEr-D left
    out, its length penalty taken on average), and the best 32 are scored exactly. Beyond 10,000 images, on 10,000 of
    them drawn by the seed. Only training captions are looked at.

    Args:
        training: the captions of each training image.
    """
    images = [texts for texts in training if texts]
    if len(images) > _MOST_IMAGES:
        chosen = np.random.default_rng(seed).choice(len(images), _MOST_IMAGES, replace=False)
        images = [images[number] for number in sorted(chosen.tolist())]
    references = References({str(number): texts for number, texts in enumerate(images)}, tokenizer)
    captions = [text for texts in references.captions for text in texts]
    ranked = np.argsort(-_mean_cosine(references), kind="stable").tolist()
    shortlist = list({references.tokens[number]: captions[number] for number in reversed(ranked)}.values())
    shortlist = shortlist[: -_SHORTLIST - 1 : -1]  # the last in are the best; equal ones once
    metric = Cider(references)
    scores = [metric.values(references.candidates([text] * len(references))).mean() for text in shortlist]
    best: str = shortlist[int(np.argmax(scores))]
    return best


def _mean_cosine(references: References) -> Floats:
    """float64 [R]: each reference caption's mean tf-idf cosine with all images' references, times a length penalty."""
    index = references.ngrams
    share = 1.0 / (index.per_image * index.images)[index.image_of]
    total = np.zeros(len(index.lengths))
    for order in index.orders:
        pair = np.repeat(np.arange(len(order.image)), order.size)
        name = np.repeat(np.arange(len(order.keys)), np.diff(order.first_pair))[pair]
        caption = order.caption + index.start[order.image[pair]]
        norm = order.norm[caption]
        weight = order.count * order.idf(name)
        weight = np.divide(weight, norm, out=np.zeros_like(weight), where=norm != 0)
        centre = np.bincount(name, weight * share[caption], minlength=len(order.keys))
        total += np.bincount(caption, weight * centre[name], minlength=len(total))
    lengths, inverse = np.unique(index.lengths, return_inverse=True)
    penalty = length_penalty(lengths[:, None] - lengths) @ np.bincount(inverse, share)
    scored: Floats = total * penalty[inverse]
    return scored


def derangement(groups: Sequence[Hashable], seed: int) -> list[int] | None:
    """A permutation that gives each image the caption of an image of another group.

    Images are shuffled, laid out group by group, and shifted by the size of the largest group.

    Returns:
        For each of the n images, the index of the image whose caption it gets; None when one group has more than half
        of the images.
    """
    random = np.random.default_rng([seed, 2])
    order = random.permutation(len(groups)).tolist()
    first: dict[Hashable, int] = {}
    sizes: dict[Hashable, int] = {}
    for position in order:
        first.setdefault(groups[position], len(first))
        sizes[groups[position]] = sizes.get(groups[position], 0) + 1
    largest = max(sizes.values())
    if largest * 2 > len(groups):
        return None
    order.sort(key=lambda position: first[groups[position]])
    other = [0] * len(groups)
    for position, giver in zip(order, [*order[largest:], *order[:largest]], strict=True):
        other[position] = giver
    return other
