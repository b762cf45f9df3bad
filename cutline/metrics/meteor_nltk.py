"""METEOR as nltk computes it, averaged over images. Not METEOR 1.5, and not comparable with COCO's number.

nltk's ``meteor_score``, which Hugging Face's ``evaluate`` calls, too, follows Lavie and Agarwal 2007: words are paired
that are the same, then those with the same Porter stem, then synonyms by WordNet (asked about the stems, so that
"mouse" is not found); F of precision and recall with alpha 0.9, a penalty of 0.5 · (chunks / matched words) ** 3. There
are no paraphrases, no function words and no search for the fewest chunks; each image counts with its best reference,
and the set's score is the mean.

nltk does the computing (extra ``nltk``), on its own WordNet data; here stems and synonyms are only remembered. Which
tokens are counted matters: the usual tokenizer's, or lower-case words split at white space (``tokens = "split"``).
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field

from cutline.core.config import Section
from cutline.core.errors import ScoreError
from cutline.core.records import ScoreInfo
from cutline.metrics.base import Candidates, Floats, MeanMetric, References


class MeteorNltkSettings(Section):
    tokens: Literal["ptb", "split"] = Field(
        "ptb", description='"ptb": the tokens of the other scores; "split": lower-case words split at white space'
    )


@dataclass(frozen=True)
class _Lemma:
    """A word of a synset, as nltk's matcher asks for it."""

    word: str

    def name(self) -> str:
        return self.word


@dataclass(frozen=True)
class _Synset:
    words: tuple[_Lemma, ...]

    def lemmas(self) -> tuple[_Lemma, ...]:
        return self.words


class _Remembered:
    """nltk's stemmer and WordNet, asked once for each word: they are most of the time that the score takes."""

    def __init__(self, stemmer: Any, wordnet: Any):
        self._stemmer, self._wordnet = stemmer, wordnet
        self._stems: dict[str, str] = {}
        self._synsets: dict[str, tuple[_Synset, ...]] = {}

    def stem(self, word: str) -> str:
        if word not in self._stems:
            self._stems[word] = self._stemmer.stem(word)
        return self._stems[word]

    def synsets(self, word: str) -> tuple[_Synset, ...]:
        if word not in self._synsets:
            names = {lemma.name() for synset in self._wordnet.synsets(word) for lemma in synset.lemmas()}
            self._synsets[word] = (_Synset(tuple(map(_Lemma, sorted(names)))),)
        return self._synsets[word]


class MeteorNltk(MeanMetric):
    settings_type = MeteorNltkSettings
    scores = (
        ScoreInfo("meteor_nltk", "METEOR (nltk)", "The METEOR of 2007 in nltk, averaged over images; not METEOR 1.5."),
    )

    def __init__(self, references: References, settings: MeteorNltkSettings | None = None):
        super().__init__(references)
        self._splits = (settings or MeteorNltkSettings()).tokens == "split"
        self._nltk, self._wordnet = _wordnet()
        self._score = importlib.import_module("nltk.translate.meteor_score").single_meteor_score
        stemmer = importlib.import_module("nltk.stem.porter").PorterStemmer()
        self._words_of = _Remembered(stemmer, self._wordnet)

    @classmethod
    def check(cls, settings: MeteorNltkSettings) -> None:
        _wordnet()

    @cached_property
    def _known(self) -> list[list[list[str]]]:
        tokens = iter(self.references.tokens if not self._splits else ())
        return [
            [(text.lower() if self._splits else next(tokens)).split() for text in texts]
            for texts in self.references.captions
        ]

    def values(self, candidates: Candidates) -> Floats:
        texts = [caption.lower() for caption in candidates.captions] if self._splits else candidates.tokens
        rows = np.zeros((len(texts), 1))
        for image, (text, references) in enumerate(zip(texts, self._known, strict=True)):
            words = text.split()
            rows[image, 0] = max(
                self._score(reference, words, stemmer=self._words_of, wordnet=self._words_of)
                for reference in references
            )
        return rows

    def facts(self) -> dict[str, str]:
        tokens = {"tok": "split", "case": "lower"} if self._splits else {}
        version = self._wordnet.get_version() if hasattr(self._wordnet, "get_version") else "given"
        made_by = {"meteor": "nltk", "nltk": self._nltk, "wordnet": str(version)}
        return {**tokens, **made_by, "alpha": "0.9", "beta": "3", "gamma": "0.5", "mean": "images"}


@cache
def _wordnet() -> tuple[str, Any]:
    """nltk's version, and its WordNet, loaded.

    Raises:
        ScoreError: nltk or its WordNet data is not installed.
    """
    try:
        nltk = importlib.import_module("nltk")
        wordnet = importlib.import_module("nltk.corpus").wordnet
    except ImportError as error:
        raise ScoreError(
            "meteor_nltk needs the package nltk.",
            'Install it: pip install "cutline[nltk]" && python -m nltk.downloader wordnet.',
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about languages other than English
            wordnet.ensure_loaded()
            wordnet.synsets("dog")
    except (LookupError, OSError) as error:
        raise ScoreError(
            "meteor_nltk needs nltk's WordNet data, which is not installed.",
            "Download it once: python -m nltk.downloader wordnet (or unpack it into a folder named in NLTK_DATA).",
        ) from error
    return str(nltk.__version__), wordnet
