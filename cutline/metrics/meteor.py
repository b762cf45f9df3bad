"""METEOR 1.5 as coco-caption runs it: ``-l en -norm``, the parameters tuned on human rankings.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language". Content
words count 0.75, function words 0.25; F of precision and recall with alpha 0.85; a penalty of 0.6 · (chunks / matched
words) ** 0.2. Each image counts with its best reference; the set's score comes from those references' summed counts.

The data (WordNet's synonyms, a table of paraphrases, function words) is read from an installed pycocoevalcap: see
:mod:`cutline.metrics.meteor_data`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from cutline.metrics import meteor_data
from cutline.metrics import meteor_search as search
from cutline.metrics.base import Candidates, Floats, Metric, References, ratio
from cutline.metrics.meteor_words import Encoded, Lexicon

SCORES = ("meteor",)

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75


class Meteor(Metric):
    scores = SCORES

    def __init__(self, references: References):
        super().__init__(references)
        self._lexicon = Lexicon(meteor_data.load())

    @cached_property
    def _references(self) -> Encoded:
        return self._lexicon.encode(self.references.tokens)

    def statistics(self, candidates: Candidates) -> Floats:
        """The counts of each image's best reference, [n, 23]; columns: see :mod:`cutline.metrics.meteor_search`."""
        many = self.references.per_image
        image = np.repeat(np.arange(len(many)), many)
        # '|||' separates captions on the way to the reference, which takes it out of candidates
        captions = [text.replace("|||", "").replace("  ", " ") for text in candidates.tokens]
        rows = self._align(self._lexicon.encode(captions), image).astype(np.float64)
        score = self.reduce(rows)[:, 0]
        start = np.cumsum(many) - many
        best = np.maximum.reduceat(score, start)
        hit = np.flatnonzero(score == best[image])
        return rows[hit[np.unique(image[hit], return_index=True)[1]]]

    def _align(self, mine: Encoded, image: np.typing.NDArray[np.int64]) -> np.typing.NDArray[np.int32]:
        """Counts of each reference and its image's candidate, [references, 23]."""
        theirs, lexicon = self._references, self._lexicon
        phrases, other_phrases, first, others = lexicon.paraphrases(mine, theirs)
        rows = np.zeros((len(image), search.COLUMNS), np.int32)
        search.align(
            np.stack([image, np.arange(len(image))], axis=1),
            (mine.first, mine.words, mine.phrase_first, phrases),
            (theirs.first, theirs.words, theirs.phrase_first, other_phrases),
            lexicon.stems, lexicon.synset_first, lexicon.synsets, lexicon.function, first, others,
            search.GAIN, search.BEAM, rows, np.zeros((5, 0), np.int32),
        )  # fmt: skip
        return rows

    def reduce(self, sums: Floats) -> Floats:
        weights = np.array(search.WEIGHTS)

        def side(words: int, function: int, matched: int) -> Floats:
            """The weighted share of one side's words that are matched."""
            stages = sums[..., search.STAGES : search.CHUNKS].reshape(*sums.shape[:-1], 4, 4)
            hits = (_DELTA * stages[..., matched] + (1 - _DELTA) * stages[..., matched + 2]) @ weights
            every = _DELTA * (sums[..., words] - sums[..., function]) + (1 - _DELTA) * sums[..., function]
            return np.nan_to_num(ratio(hits, every))

        precision = side(search.TEST, search.TEST_FUNCTION, 0)
        recall = side(search.REFERENCE, search.REFERENCE_FUNCTION, 1)
        mean = np.nan_to_num(ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall))
        matched = (sums[..., search.TEST_MATCHED] + sums[..., search.REFERENCE_MATCHED]) / 2
        broken = np.nan_to_num(ratio(sums[..., search.CHUNKS], matched))
        value: Floats = mean * (1 - _GAMMA * broken**_BETA)
        return value[..., None]

    def facts(self) -> dict[str, str]:
        return {"meteor": "1.5-en-norm", "beam": str(search.BEAM)}
