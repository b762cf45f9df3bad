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

    scores = (
        ScoreInfo(
            "bleu1_news",
            "BLEU-1 (news)",
            "BLEU-1 with the news protocol: no punctuation, case kept, first reference only.",
        ),
        ScoreInfo(
            "bleu2_news",
            "BLEU-2 (news)",
            "BLEU-2 with the news protocol: no punctuation, case kept, first reference only.",
        ),
        ScoreInfo(
            "bleu3_news",
            "BLEU-3 (news)",
            "BLEU-3 with the news protocol: no punctuation, case kept, first reference only.",
        ),
        ScoreInfo(
            "bleu4_news",
            "BLEU-4 (news)",
            "BLEU-4 with the news protocol: no punctuation, case kept, first reference only.",
        ),
        ScoreInfo(
            "rouge_l_news",
            "ROUGE-L (news)",
            "ROUGE-L with the news protocol: no punctuation, case kept, first reference only.",
        ),
        ScoreInfo(
            "cider_news",
            "CIDEr-D (news)",
            "CIDEr-D with the news protocol: no punctuation, case kept, first reference only.",
        ),
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
