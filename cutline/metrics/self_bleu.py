"""Self-BLEU: how alike several captions of the same image are. Lower means more varied.

Zhu et al. 2018, "Texygen": BLEU-4 of each caption with the other captions of its image as references; here COCO's
BLEU, over all captions of all images together (mBLEU of Shetty et al. 2017). Left out if no image has several
captions. Images with one caption don't count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, References
from cutline.metrics.bleu import Bleu, bleu


class SelfBleu(Metric):
    """Statistics an image: those of BLEU, summed over its captions; then how many captions."""

    scores = (
        ScoreInfo(
            "self_bleu4",
            "Self-BLEU-4",
            "How similar several captions of the same image are to each other, as BLEU-4.",
            higher_is_better=False,
        ),
    )
    compares = False
    unknown: ClassVar[Mapping[str, str]] = {"self_bleu4": "no image has several captions to compare with each other"}

    def statistics(self, candidates: Candidates) -> Floats:
        rows = np.zeros((len(candidates.captions), 11))
        several = {image: texts for image, texts in enumerate(candidates.several or ()) if len(texts) > 1}
        if not several:
            return rows
        pairs = [(image, number) for image, texts in several.items() for number in range(len(texts))]
        others = {
            f"{image}/{number}": [*several[image][:number], *several[image][number + 1 :]] for image, number in pairs
        }
        references = References(others, self.references.tokenizer)
        captions = references.candidates([several[image][number] for image, number in pairs])
        found = Bleu(references).statistics(captions)
        images = [image for image, _ in pairs]
        np.add.at(rows[:, :10], images, found)
        np.add.at(rows[:, 10], images, 1)
        return rows

    def reduce(self, sums: Floats) -> Floats:
        return np.where(sums[..., 10:] > 0, bleu(sums[..., :10])[..., 3:], np.nan)

    def facts(self) -> dict[str, str]:
        return {"len": "closest", "smooth": "coco", "against": "own_image"}
