"""Which texts are true for which images, so that no loss pushes a true pair apart.

A picture's captions are true for it wherever they come: written for it, written for another sample of the same
picture, or the same words written for another picture.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cutline.core.records import Sample
from cutline.core.text import split_words


class Truth:
    """Pictures and texts of a dataset by numbers, and the pairs of them that are true.

    Pictures are the same when their files are, byte for byte; texts when they have the same words, whatever their case
    and punctuation.

    Args:
        samples: images with their captions, all of them.
    """

    def __init__(self, samples: Sequence[Sample]):
        numbers: dict[str, int] = {}
        self._texts: dict[str, int] = {}
        #: The picture of each sample.
        self.pictures: list[int] = []
        pairs = set()
        for sample in samples:
            picture = numbers.setdefault(str(sample.extra.get("sha256") or sample.image), len(numbers))
            self.pictures.append(picture)
            for caption in sample.captions:
                pairs.add((picture, self._texts.setdefault(_words(caption), len(self._texts))))
        self._known = torch.tensor(sorted(picture * len(self._texts) + text for picture, text in pairs))

    def texts(self, captions: Sequence[str]) -> list[int]:
        """The numbers of captions of these samples."""
        return [self._texts[_words(caption)] for caption in captions]

    def __call__(self, pictures: Tensor, texts: Tensor) -> Tensor:
        """bool [N, R], whether each text is true for each picture.

        Args:
            pictures: int64 [N] numbers.
            texts: int64 [R] numbers.
        """
        self._known = known = self._known.to(pictures.device)
        pairs = pictures[:, None] * len(self._texts) + texts
        places = torch.searchsorted(known, pairs).clamp(max=len(known) - 1)
        return known[places] == pairs


def _words(caption: str) -> str:
    return " ".join(split_words(caption.casefold())) or caption.strip()
