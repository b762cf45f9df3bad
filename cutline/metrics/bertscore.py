"""BERTScore: every token is matched with the most similar token of the other caption, by their contextual vectors.

Zhang et al. 2020, "BERTScore: Evaluating Text Generation with BERT". As published: RoBERTa-large, layer 17, the
greatest cosine for each token, precision over the caption's tokens and recall over the reference's; the special tokens
count for nothing but may be matched; precision, recall and F1 each by their best reference; no rescaling with a
baseline. ``idf`` weighs tokens by how few of the references have them.

An image without a caption scores 0.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, References
from cutline.metrics.encoders.encoder_settings import EncoderSettings, check_checkpoint

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cutline.metrics.encoders.encoders import TokenEncoder, Vectors

#: The layers that agreed best with people's judgements (the authors' choice), by checkpoint without its owner.
LAYERS = {
    "bert-base-uncased": 9,
    "bert-large-uncased": 18,
    "bert-base-multilingual-cased": 9,
    "roberta-base": 10,
    "roberta-large": 17,
    "roberta-large-mnli": 19,
    "distilbert-base-uncased": 5,
    "distilroberta-base": 5,
    "deberta-large-mnli": 18,
    "deberta-xlarge-mnli": 40,
    "tiny": 2,
}
_IMAGES_AT_A_TIME = 512


class BertScoreSettings(EncoderSettings):
    model: str = Field("roberta-large", description="text encoder: a folder or a name on the hub")
    layer: int | None = Field(
        None,
        ge=1,
        description="layer whose vectors are compared; by default the BERTScore authors' choice for the checkpoint",
    )
    idf: bool = Field(False, description="weight tokens by inverse document frequency in the references")


class BertScore(MeanMetric):
    settings_type = BertScoreSettings
    scores = (
        ScoreInfo(
            "bertscore_precision",
            "BERTScore precision",
            "How well each token of the caption is matched by a token of the reference, by contextual embeddings.",
        ),
        ScoreInfo(
            "bertscore_recall",
            "BERTScore recall",
            "How well each token of the reference is matched by a token of the caption, by contextual embeddings.",
        ),
        ScoreInfo(
            "bertscore_f1", "BERTScore F1", "Harmonic mean of BERTScore's precision and recall, for the best reference."
        ),
    )
    uses_tokens = False

    def __init__(self, references: References, settings: BertScoreSettings | None = None):
        super().__init__(references)
        self._settings = settings or BertScoreSettings()
        layer = self._settings.layer or LAYERS.get(PurePath(self._settings.model).name)
        if layer is None:
            raise ScoreError(
                f"bertscore: there is no default layer for {self._settings.model}.",
                "Choose one: [score.bertscore] layer = … (--set bertscore.layer=…); two thirds of the way up is usual.",
            )
        self._layer = layer

    @classmethod
    def check(cls, settings: BertScoreSettings) -> None:
        check_checkpoint("bertscore", settings)

    @cached_property
    def _encoder(self) -> TokenEncoder:
        from cutline.metrics.encoders import encoders

        return encoders.tokens("bertscore", self._settings, self._layer)

    @cached_property
    def _idf(self) -> dict[int, float]:
        """Token → log of (references + 1) / (references with it + 1); nothing without ``idf``."""
        if not self._settings.idf:
            return {}
        rows = self._encoder.ids([text for texts in self.references.captions for text in texts])
        seen = Counter(token for row in rows for token in set(row))
        return {token: math.log((len(rows) + 1) / (many + 1)) for token, many in seen.items()}

    def _weights(self, ids: NDArray[np.int64]) -> Floats:
        """How much each token counts, adding up to 1 (or all 0)."""
        unseen = math.log(int(self.references.per_image.sum()) + 1) if self._settings.idf else 1.0
        special = self._encoder.special
        weights = np.array([0.0 if token in special else self._idf.get(token, unseen) for token in ids.tolist()])
        total: float = weights.sum()
        return weights / total if total else weights

    def values(self, candidates: Candidates) -> Floats:
        found = np.zeros((len(candidates.captions), 3))
        for begin in range(0, len(found), _IMAGES_AT_A_TIME):  # token vectors of all captions would fill the memory
            images = range(begin, min(begin + _IMAGES_AT_A_TIME, len(found)))
            texts = [[candidates.captions[image], *self.references.captions[image]] for image in images]
            encoded = iter(self._encoder.tokens([text for some in texts for text in some], self.bars))
            for image, some in zip(images, texts, strict=True):
                weighed = [(self._weights(ids), vectors) for ids, vectors in (next(encoded) for _ in some)]
                found[image] = np.max([_match(weighed[0], other) for other in weighed[1:]], axis=0)
        return found

    def facts(self) -> dict[str, str]:
        idf = f"references({int(self.references.per_image.sum())})" if self._settings.idf else "no"
        return {**self._encoder.facts, "layer": str(self._layer), "idf": idf, "rescaled": "no", "refs_by": "best"}


def _match(mine: tuple[Floats, Vectors], other: tuple[Floats, Vectors]) -> tuple[float, float, float]:
    """Precision, recall and F1 of one pair of captions."""
    cosine = mine[1] @ other[1].T  # [tokens of mine, tokens of the other]
    if not mine[0].any() or not other[0].any():
        return 0.0, 0.0, 0.0
    precision = float(mine[0] @ cosine.max(axis=1))
    recall = float(other[0] @ cosine.max(axis=0))
    total = precision + recall
    return precision, recall, 2 * precision * recall / total if total else 0.0
