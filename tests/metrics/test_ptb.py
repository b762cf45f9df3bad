"""The PTB tokenizer gives the reference's tokens."""

import json

import pytest

from cutline.metrics.text.ptb import PtbTokenizer
from tests.metrics import reference_scores

#: Captions in one text, and what the reference (Java) makes of each; found by asking it.
ASKED = [
    ("cannot go, can't go, won't go", "can not go ca n't go wo n't go"),
    ("It's John's dog's", "it 's john 's dog 's"),
    ("rock 'n' roll of the '80s, don’t", "rock 'n' roll of the '80s do n't"),
    ("O'Brien y'all ma'am Hawai'i po'boy", "o'brien y' all ma'am hawai'i po boy"),
    ("Mr. Smith of Smith Inc. in the U.S. in Jan. etc.", "mr. smith of smith inc. in the u.s. in jan. etc."),
    ("see No. 5 or no. x", "see no. 5 or no x"),
    ("sign reads K.", "sign reads k"),
    ("The next caption decides", "the next caption decides"),
    ("sign reads K.", "sign reads k."),
    ("next caption does not", "next caption does not"),
    ("1 1/2 cups, ½ cup", "1\u00a01/2 cups 1/2 cup"),
    ("call (123) 456-7890 now", "call -lrb-123-rrb-\u00a0456-7890 now"),
    ("$5.00 or £3, 50% off 5¢", "$ 5.00 or # 3 50 % off 5 cents"),
    ("a (red) [blue] {x} dog", "a -lrb- red -rrb- -lsb- blue -rsb- -lcb- x -rcb- dog"),
    ("“hello” ‘hi’ — wait… end", "hello hi wait end"),
    ("AT&amp;T R&D C++ F# #tag @user_1", "at&t r&d c++ f# #tag @user_1"),
    ("see http://a.com/x?y=1.", "see http://a.com/x?y=1"),
    ('<a href="x y">www.b.org</a>', '<a\u00a0href="x\u00a0y"> www.b.org </a>'),
    ("me@example.com :) ^_^ and/or *bold* == >>>", "me@example.com :-rrb- ^_^ and/or * bold * = = >> >"),
    ("café naïve Zürich 日本 😀 ™", "café naïve zürich 日本 ™"),
    ("İstanbul ΣΑΣ", "i̇stanbul σας"),
    ("112.txt 2.5.x 10,000.50 12:30 3pm 1990s", "112.txt 2.5.x 10,000.50 12:30 3pm 1990s"),
    ("", ""),
    ("won'twith it’sthe I'mx X'zy", "wo n'twith it 's the i mx x'zy"),
]  # fmt: skip


def test_tokens_of_asked_captions() -> None:
    tokens = PtbTokenizer()([text for text, _ in ASKED])
    assert dict(zip([text for text, _ in ASKED], tokens, strict=True)) == dict(ASKED)
    assert tokens == [expected for _, expected in ASKED]


def test_tokens_of_the_own_cases() -> None:
    own = reference_scores.own()
    texts = [text for several in own["references"].values() for text in several]
    assert PtbTokenizer()(texts) == [text for several in own["reference_tokens"].values() for text in several]
    assert PtbTokenizer()(list(own["candidates"].values())) == list(own["candidate_tokens"].values())


@pytest.mark.parametrize("name", reference_scores.SETS)
@pytest.mark.parametrize("side", ["gts", "res"])
def test_tokens_of_large_sets(name: str, side: str) -> None:
    known = reference_scores.shared(name)
    texts = [text for several in known[f"{side}_raw"].values() for text in several]
    assert PtbTokenizer()(texts) == [text for several in known[f"{side}_tok"].values() for text in several]


def test_tokens_of_odd_captions() -> None:
    path = reference_scores.SHARED / "edge_cases.json"
    if not path.exists():
        pytest.skip("the shared edge cases are not on this machine")
    for name, case in json.loads(path.read_text(encoding="utf-8"))["cases"].items():
        if name not in ("CR", "U+2028", "VT", "FF"):  # there the reference shifts later captions to other images
            expected = [text for several in case["reference"].values() for text in several]
            assert PtbTokenizer()(case["captions"]) == expected, name


@pytest.mark.parametrize("character", ["\n", "\r", "\u2028", "\u2029", "\u000b", "\u000c"])
def test_line_ends_inside_a_caption_are_spaces(character: str) -> None:
    assert PtbTokenizer()([f"a dog{character}runs", "cat one"]) == ["a dog runs", "cat one"]


def test_pieces_mean_the_same_remembered_or_not() -> None:
    texts = [text for text, _ in ASKED]
    PtbTokenizer._known.clear()
    PtbTokenizer._alone.clear()
    first = PtbTokenizer()(texts)
    assert PtbTokenizer()(texts) == first
