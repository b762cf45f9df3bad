"""METEOR's constants, and the columns of the counts that its search returns for a pair of captions."""

from __future__ import annotations

#: Paths that are followed at the same time.
BEAM = 40
#: Weight of a word matched in each stage: exact, stem, synonym, paraphrase.
WEIGHTS = (1.0, 0.6, 0.8, 0.6)
#: Columns of a pair's statistics: words, function words, matched content and function words by stage, chunks.
TEST, REFERENCE, TEST_FUNCTION, REFERENCE_FUNCTION, STAGES, CHUNKS, TEST_MATCHED, REFERENCE_MATCHED, COLUMNS = (
    0, 1, 2, 3, 4, 20, 21, 22, 23,
)  # fmt: skip
