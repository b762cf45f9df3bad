"""BLEU, ROUGE-L and CIDEr-D as the news protocol has them. Not comparable with COCO's.

Tran, Mathews and Xie 2020, "Transform and Tell": punctuation is taken out (``[^\\w\\s]``), case is kept, words are
split at white space; the first reference alone counts; then coco-caption's scorers. What matters in news captions are
the names: see the metric ``entities``.
"""

from __future__ import annotations

import numpy as np

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, References
from cutline.metrics.bleu import Bleu
from cutline.metrics.cider import Cider
from cutline.metrics.rouge_l import RougeL
from cutline.metrics.text.tokenize import NewsTokenizer


class News(Metric):
    """Statistics an image: those of the three metrics, side by side."""

    scores = tuple(
        ScoreInfo(
            f"{name}_news",
            f"{label} (news)",
            f"{label} with the news protocol: no punctuation, case kept, first reference only.",
        )
        for name, label in (
            ("bleu1", "BLEU-1"),
            ("bleu2", "BLEU-2"),
            ("bleu3", "BLEU-3"),
            ("bleu4", "BLEU-4"),
            ("rouge_l", "ROUGE-L"),
            ("cider", "CIDEr-D"),
        )
    )
    uses_tokens = False

    def __init__(self, references: References):
        super().__init__(references)
        first = {name: texts[:1] for name, texts in zip(references.ids, references.captions, strict=True)}
        self._first = References(first, NewsTokenizer())
        self._metrics: list[Metric] = [Bleu(self._first), RougeL(self._first), Cider(self._first)]
        self._ends: list[int] = []

    def statistics(self, candidates: Candidates) -> Floats:
        mine = self._first.candidates(candidates.captions)
        parts = [metric.statistics(mine) for metric in self._metrics]
        self._ends = np.cumsum([part.shape[1] for part in parts])[:-1].tolist()
        return np.concatenate(parts, axis=1)

    def reduce(self, sums: Floats) -> Floats:
        parts = zip(self._metrics, np.split(sums, self._ends, axis=-1), strict=True)
        return np.concatenate([metric.reduce(part) for metric, part in parts], axis=-1)

    def facts(self) -> dict[str, str]:
        return {
            "tok": NewsTokenizer.name,
            "case": NewsTokenizer.case,
            "refs_by": "first",
            "len": "closest",
            "smooth": "coco",
            "df": f"references({len(self.references)})",
        }
