"""METEOR 1.5 as coco-caption runs it: ``-l en -norm``, the parameters tuned on human rankings.

Denkowski and Lavie 2014, "Meteor Universal: Language Specific Translation Evaluation for Any Target Language". Content
words count 0.75, function words 0.25; F of precision and recall with alpha 0.85; a penalty of 0.6 · (chunks / matched
words) ** 0.2. Each image counts with its best reference; the set's score comes from those references' summed counts.

The data (WordNet's synonyms, a table of paraphrases, function words) is read from an installed pycocoevalcap: see
:mod:`cutline.metrics.text.meteor_data`.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, Metric, References, ratio
from cutline.metrics.text import meteor_counts as counts
from cutline.metrics.text import meteor_data
from cutline.metrics.text.meteor_words import Encoded, Lexicon, Words

#: References that are aligned at once: their phrases and counts take many times the captions' memory.
_BLOCK = 10_000
_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75


class Meteor(Metric):
    scores = (
        ScoreInfo(
            "meteor",
            "METEOR",
            "Words matched with a reference as they are, by stem, synonym or paraphrase, in a similar order.",
        ),
    )

    def __init__(self, references: References):
        super().__init__(references)
        self._lexicon = Lexicon(meteor_data.load())

    @classmethod
    def check(cls, settings: None) -> None:
        meteor_data.find_files()

    @cached_property
    def _blocks(self) -> list[tuple[int, int]]:
        """First image, and the one after the last, of blocks of about as many references."""
        block = np.cumsum(self.references.per_image) // _BLOCK
        starts = np.flatnonzero(np.diff(block, prepend=-1)).tolist()
        return list(zip(starts, [*starts[1:], len(block)], strict=True))

    @cached_property
    def _references(self) -> list[Words]:
        """The blocks' references."""
        ends = np.cumsum(self.references.per_image)
        ranges = [(int(ends[first - 1]) if first else 0, int(ends[last - 1])) for first, last in self._blocks]
        return [self._lexicon.words(self.references.tokens[first:last]) for first, last in ranges]

    def statistics(self, candidates: Candidates) -> Floats:
        """The counts of each image's best reference, [n, 23]; columns: :mod:`cutline.metrics.text.meteor_counts`."""
        lexicon = self._lexicon
        # '|||' separates captions on the way to the reference, which takes it out of candidates
        captions = [text.replace("|||", "").replace("  ", " ") for text in candidates.tokens]
        counts_of_blocks = []
        for (first, last), references in zip(self._blocks, self._references, strict=True):
            words = lexicon.words(captions[first:last])
            counts_of_blocks.append(
                self._best(lexicon.encode(words), lexicon.encode(references), self.references.per_image[first:last])
            )
        return np.concatenate(counts_of_blocks)

    def _best(self, candidates: Encoded, references: Encoded, per_image: NDArray[np.int64]) -> Floats:
        """The counts of each image's best reference, [images, 23].

        Args:
            candidates: one for each image.
            references: the images' references.
            per_image: int64 [images], number of references of each image.
        """
        image = np.repeat(np.arange(len(per_image)), per_image)
        rows = self._align(candidates, references, image).astype(np.float64)
        score = self.reduce(rows)[:, 0]
        start = np.cumsum(per_image) - per_image
        best = np.maximum.reduceat(score, start)
        hit = np.flatnonzero(score == best[image])
        return rows[hit[np.unique(image[hit], return_index=True)[1]]]

    def _align(self, candidates: Encoded, references: Encoded, image: NDArray[np.int64]) -> NDArray[np.int32]:
        """Counts of each reference and its image's candidate, [references, 23]."""
        from cutline.metrics.text import meteor_search as search  # imports numba, which takes a second

        lexicon = self._lexicon
        phrases, other_phrases, first, others = lexicon.paraphrases(candidates, references)
        rows = np.zeros((len(image), counts.COLUMNS), np.int32)
        search.align(
            np.stack([image, np.arange(len(image))], axis=1),
            (candidates.first, candidates.words, candidates.phrase_first, phrases),
            (references.first, references.words, references.phrase_first, other_phrases),
            lexicon.stems, lexicon.synset_first, lexicon.synsets, lexicon.function, first, others,
            search.GAIN, counts.BEAM, rows, np.zeros((5, 0), np.int32),
        )  # fmt: skip
        return rows

    def reduce(self, sums: Floats) -> Floats:
        weights = np.array(counts.WEIGHTS)

        def side(words: int, function: int, matched: int) -> Floats:
            """The weighted share of one side's words that are matched."""
            stages = sums[..., counts.STAGES : counts.CHUNKS].reshape(*sums.shape[:-1], 4, 4)
            hits = (_DELTA * stages[..., matched] + (1 - _DELTA) * stages[..., matched + 2]) @ weights
            every = _DELTA * (sums[..., words] - sums[..., function]) + (1 - _DELTA) * sums[..., function]
            return np.nan_to_num(ratio(hits, every))

        precision = side(counts.TEST, counts.TEST_FUNCTION, 0)
        recall = side(counts.REFERENCE, counts.REFERENCE_FUNCTION, 1)
        mean = np.nan_to_num(ratio(precision * recall, _ALPHA * precision + (1 - _ALPHA) * recall))
        matched = (sums[..., counts.TEST_MATCHED] + sums[..., counts.REFERENCE_MATCHED]) / 2
        broken = np.nan_to_num(ratio(sums[..., counts.CHUNKS], matched))
        value: Floats = mean * (1 - _GAMMA * broken**_BETA)
        return value[..., None]

    def facts(self) -> dict[str, str]:
        return {"meteor": "1.5-en-norm", "beam": str(counts.BEAM)}
