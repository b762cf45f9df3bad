"""nltk's METEOR on a WordNet of a few words, made here in the format that nltk reads."""

import importlib
import sys
from pathlib import Path

import pytest

from cutline.core.config import parse
from cutline.core.errors import ScoreError
from cutline.metrics import meteor_nltk
from cutline.metrics.scorer import score
from cutline.metrics.settings import ScoreSettings

nltk = pytest.importorskip("nltk", reason="nltk is not installed (cutline[nltk])")

HEADER = "  1 A few words of our own. WordNet 3.0 Copyright of nobody  \n"
SYNSETS = (("sofa", "couch", "sleeping_couch"), ("mouse", "computer_mouse"), ("grass",))


def write_wordnet(folder: Path) -> None:
    """The files of a WordNet whose only words are nouns."""
    folder.mkdir(parents=True)
    (folder / "lexnames").write_text("00\tnoun.Tops\t1\n")
    for kind in ("noun", "verb", "adj", "adv"):
        for name in (f"data.{kind}", f"index.{kind}", f"{kind}.exc"):
            (folder / name).write_text(HEADER if "." + kind in name else "")
    (folder / "noun.exc").write_text("mice mouse\n")
    data, index, senses = HEADER, "", ""
    for words in SYNSETS:
        offset = f"{len(data.encode()):08}"
        listed = " ".join(f"{word} 0" for word in words)
        data += f"{offset} 00 n {len(words):02x} {listed} 000 | a thing  \n"
        for word in words:
            index += f"{word} n 1 0 1 0 {offset}  \n"
            senses += f"{word}%1:00:00:: {offset} 1 0\n"
    (folder / "data.noun").write_text(data)
    (folder / "index.noun").write_text(HEADER + index)
    (folder / "index.sense").write_text(senses)
    (folder / "cntlist.rev").write_text("")


@pytest.fixture
def nltk_data(tmp_path, monkeypatch):
    """nltk as if it had just been imported, looking for its data in an empty folder."""
    util, reader = importlib.import_module("nltk.corpus.util"), importlib.import_module("nltk.corpus.reader.wordnet")
    corpus = importlib.import_module("nltk.corpus")
    monkeypatch.setattr(importlib.import_module("nltk.data"), "path", [str(tmp_path)])
    other = util.LazyCorpusLoader("omw-1.4", reader.WordNetCorpusReader, None)
    wordnet = util.LazyCorpusLoader("wordnet", reader.WordNetCorpusReader, other)
    monkeypatch.setattr(corpus, "wordnet", wordnet)
    meteor_nltk._wordnet.cache_clear()
    yield tmp_path
    meteor_nltk._wordnet.cache_clear()
    for file in vars(wordnet).get("_data_file_map", {}).values():  # nltk leaves them open
        file.close()


REFERENCES = {
    "1": ["The couch is red.", "nothing here"],
    "2": ["cats barked at the mouse"],
    "3": ["a dog runs on grass", "grass under a running dog"],
    "4": ["a dog"],
}
CAPTIONS = {"1": "the sofa is red", "2": "a cat barks at mice!", "3": "a dog running over the grass", "4": ""}


@pytest.mark.parametrize("tokens", ["ptb", "split"])
def test_scores_are_those_of_nltk(nltk_data, tokens):
    write_wordnet(nltk_data / "corpora/wordnet")
    found = score(CAPTIONS, REFERENCES, ["meteor_nltk"], resamples=0, options={"meteor_nltk": {"tokens": tokens}})
    meteor_score = importlib.import_module("nltk.translate.meteor_score").meteor_score
    wordnet = importlib.import_module("nltk.corpus").wordnet

    def words(text: str) -> list[str]:
        plain = text.lower() if tokens == "split" else text.lower().replace(".", " ").replace("!", " ")
        return plain.split()

    expected = [
        meteor_score([words(text) for text in texts], words(CAPTIONS[name]), wordnet=wordnet)
        for name, texts in REFERENCES.items()
    ]
    assert list(found["meteor_nltk"].per_image) == expected
    assert found["meteor_nltk"].value == pytest.approx(sum(expected) / 4)
    assert expected[3] == 0


def test_a_synonym_and_a_stem_count_as_the_word(nltk_data):
    write_wordnet(nltk_data / "corpora/wordnet")
    found = score(CAPTIONS, REFERENCES, ["meteor_nltk"], resamples=0)["meteor_nltk"]
    # four of four words in one chunk: a penalty of 0.5 · (1 / 4) ** 3
    assert found.per_image[0] == pytest.approx(1 - 0.5 / 64)
    # cat, barks and at of both sides' five words, in one chunk; for "mouse" nltk asks WordNet about its stem, "mous"
    assert found.per_image[1] == pytest.approx(0.6 * (1 - 0.5 * (1 / 3) ** 3))
    assert f"meteor:nltk|nltk:{nltk.__version__}|wordnet:3.0|alpha:0.9" in found.signature


def test_without_wordnet_the_error_says_how_to_get_it(nltk_data):
    with pytest.raises(ScoreError, match=r"python -m nltk\.downloader wordnet"):
        score(CAPTIONS, REFERENCES, ["meteor_nltk"], resamples=0)
    with pytest.raises(ScoreError, match="WordNet data, which is not installed"):  # known before hours of training
        parse({"metrics": ["meteor_nltk"]}, ScoreSettings, where="[score]").check()


def test_without_nltk_the_error_names_the_extra(nltk_data, monkeypatch):
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(ScoreError, match=r"cutline\[nltk\]"):
        score(CAPTIONS, REFERENCES, ["meteor_nltk"], resamples=0)
