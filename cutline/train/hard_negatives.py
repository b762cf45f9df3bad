"""The pairs that image–text matching learns from: the true ones, and for each an image and a text that are easily taken
for them.

Source: ALBEF (Li et al. 2021, arXiv:2107.07651, section 3.2), BLIP (Li et al. 2022, arXiv:2201.12086): negatives are
drawn with the probability that the contrastive similarities give them.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Pairs(NamedTuple):
    """P pairs, ordered by image.

    Attributes:
        images, texts: int64 [P], indices into the images and the texts that were drawn from.
        labels: int64 [P], 1 for a true pair.
    """

    images: Tensor
    texts: Tensor
    labels: Tensor

    def of_images(self, first: int, last: int) -> Pairs:
        """The pairs of a range of images, which are counted from its first on."""
        chosen = (self.images >= first) & (self.images < last)
        return Pairs(self.images[chosen] - first, self.texts[chosen], self.labels[chosen])


def draw(
    logits: Tensor,
    true: Tensor,
    rows: Tensor,
    generator: torch.Generator | None = None,
    share: float = 1.0,
    hardness: float = 1.0,
) -> Pairs:
    """Each text with its image, with another's image, and each text's image with another's text.

    A text or image to which everything in the batch is true has no negative.

    Args:
        logits: [N, R] of images with texts, scaled as the contrastive loss scales them.
        true: bool [N, R], true pairs; never drawn.
        rows: int64 [R], the image of each text.
        generator: random numbers for the draws.
        share: of the texts, drawn again each time, that have pairs; the others stay candidates.
        hardness: factor of the logits; 0 draws any negative as often as any other, 1 is as published.
    """
    logits = hardness * logits
    asked = torch.arange(len(rows), device=rows.device)
    if share < 1:
        count = max(1, round(share * len(rows)))
        asked = torch.randperm(len(rows), generator=generator, device=rows.device)[:count].sort().values
    # scores of a softmax over all, the true ones taken out: as published
    rows = rows[asked]  # of the A texts asked for
    to_texts = logits.softmax(1).masked_fill(true, 0)[rows]  # [A, R]
    to_images = logits.softmax(0).masked_fill(true, 0).T[asked]  # [A, N]
    some_text, some_image = (
        _possible(weights, ~mask) for weights, mask in ((to_texts, true[rows]), (to_images, true.T[asked]))
    )
    images, texts = [rows], [asked]
    if len(other := (some_text.sum(1) > 0).nonzero()[:, 0]):
        images.append(rows[other])
        texts.append(torch.multinomial(some_text[other], 1, generator=generator)[:, 0])
    if len(other := (some_image.sum(1) > 0).nonzero()[:, 0]):
        images.append(torch.multinomial(some_image[other], 1, generator=generator)[:, 0])
        texts.append(asked[other])
    labels = torch.zeros(sum(map(len, images)), dtype=torch.int64, device=rows.device)
    labels[: len(rows)] = 1
    order = torch.cat(images).argsort(stable=True)
    return Pairs(torch.cat(images)[order], torch.cat(texts)[order], labels[order])


def _possible(weights: Tensor, allowed: Tensor) -> Tensor:
    """Weights to draw by; where all that may be drawn has vanished beside a true pair, each alike."""
    vanished = (weights.sum(1, keepdim=True) <= 0) & allowed
    return torch.where(vanished, allowed.to(weights.dtype), weights)
