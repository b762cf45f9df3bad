"""Which texts are true for which images, so that no loss pushes a true pair apart.

An image's captions are true for it wherever they occur: written for it, written for another sample of the same image,
or the same words written for another image.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cutline.core.records import Sample
from cutline.core.text import split_words


class PositivePairs:
    """The true pairs of a dataset: its images and texts by number, and which of them belong together.

    Images have the same number when their files are equal, byte for byte; texts when they have the same words, whatever
    their case and punctuation.

    Args:
        samples: images with their captions, all of them.
    """

    def __init__(self, samples: Sequence[Sample]):
        numbers: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        #: The number of each sample's image.
        self.images: list[int] = []
        pairs = set()
        for sample in samples:
            image = numbers.setdefault(str(sample.extra.get("sha256") or sample.image), len(numbers))
            self.images.append(image)
            for caption in sample.captions:
                pairs.add((image, self._texts.setdefault(_words(caption), len(self._texts))))
        self._known = torch.tensor(sorted(image * len(self._texts) + text for image, text in pairs))

    def texts(self, captions: Sequence[str]) -> list[int]:
        """The numbers of captions of these samples."""
        return [self._texts[_words(caption)] for caption in captions]

    def __call__(self, images: Tensor, texts: Tensor) -> Tensor:
        """bool [N, R], whether each text is true for each image.

        Args:
            images: int64 [N] numbers.
            texts: int64 [R] numbers.
        """
        self._known = known = self._known.to(images.device)
        pairs = images[:, None] * len(self._texts) + texts
        indices = torch.searchsorted(known, pairs).clamp(max=len(known) - 1)
        return known[indices] == pairs


def _words(caption: str) -> str:
    return " ".join(split_words(caption.casefold())) or caption.strip()
