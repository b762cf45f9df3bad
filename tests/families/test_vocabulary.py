"""Tokenizers built from captions."""

import pytest
from transformers import AutoTokenizer

from cutline.families.common import tiny
from cutline.families.common.vocabulary import MARKERS, byte_bpe, word_level, word_pieces

CAPTIONS = [
    "A man's dog (brown) runs , fast .",
    "A man in a T-shirt jumps !",
    "Two dogs & a cat , on a bench .",
    "A dog runs on a beach .",
]


def spoken(tokenizer, text):
    return tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True)


@pytest.fixture(scope="module", params=["word", "bpe"])
def tokenizer(request):
    return word_level(CAPTIONS, min_count=1) if request.param == "word" else byte_bpe(CAPTIONS, size=320)


def test_markers_are_four_distinct_ids(tokenizer):
    ids = [tokenizer.bos_token_id, tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id]
    assert ids == [0, 1, 2, 3]
    assert tokenizer.convert_ids_to_tokens(ids) == list(MARKERS)


def test_a_caption_ends_with_one_end_token_and_starts_with_a_word(tokenizer):
    ids = tokenizer("a dog runs").input_ids
    assert ids[-1] == tokenizer.eos_token_id
    assert not set(ids[:-1]) & set(tokenizer.all_special_ids)


def test_reopens_with_auto_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again(CAPTIONS).input_ids == tokenizer(CAPTIONS).input_ids
    assert spoken(again, CAPTIONS[0]) == spoken(tokenizer, CAPTIONS[0])
    assert again.all_special_ids == tokenizer.all_special_ids


def test_batches_are_padded_at_the_end(tokenizer):
    batch = tokenizer(["a dog", CAPTIONS[0]], padding=True)
    assert batch["input_ids"][0][-1] == tokenizer.pad_token_id
    assert batch["attention_mask"][0][0] == 1


def test_words_decode_to_a_clean_sentence():
    tokenizer = word_level(CAPTIONS, min_count=1)
    assert spoken(tokenizer, CAPTIONS[0]) == "a man's dog (brown) runs, fast."
    assert spoken(tokenizer, CAPTIONS[1]) == "a man in a t-shirt jumps!"
    assert spoken(tokenizer, CAPTIONS[2]) == "two dogs & a cat, on a bench."


def test_case_is_kept_on_request():
    tokenizer = word_level(CAPTIONS, min_count=1, lowercase=False)
    assert spoken(tokenizer, "A T-shirt") == "A T-shirt"


def test_rare_words_are_unknown_and_frequent_ones_are_not():
    tokenizer = word_level(CAPTIONS, min_count=2)
    unknown = [tokenizer.unk_token_id, tokenizer.eos_token_id]
    assert tokenizer("beach").input_ids == unknown
    assert tokenizer("dog").input_ids != unknown


def test_max_size_counts_markers_and_keeps_the_most_frequent_words():
    tokenizer = word_level(CAPTIONS, min_count=1, max_size=6)
    assert len(tokenizer) == 6
    assert set(tokenizer.get_vocab()) == {*MARKERS, "a", "."}


def test_the_order_of_the_captions_does_not_matter():
    assert word_level(CAPTIONS, 1).get_vocab() == word_level(CAPTIONS[::-1], 1).get_vocab()


def test_bpe_gives_back_any_text_unchanged():
    tokenizer = byte_bpe(CAPTIONS, size=320)
    for text in ("A Zebra's café — 3 °C, \u732b!", "two  spaces"):
        ids = tokenizer(text).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


@pytest.mark.parametrize(
    "made",
    [
        lambda: byte_bpe(CAPTIONS, 320).backend_tokenizer.to_str(),
        lambda: word_pieces(CAPTIONS, 300),
        lambda: word_pieces(tiny.example_texts(), 300),
        lambda: tiny._byte_level_bpe.__wrapped__(tiny.example_texts(), 420),
        lambda: tiny._sentencepiece_bpe.__wrapped__(tiny.example_texts(), 520, ("<pad>", "<eos>", "<bos>", "<unk>")),
        lambda: tiny._clip_bpe.__wrapped__(tiny.example_texts(), 700),
        lambda: tiny._unigram.__wrapped__(tiny.example_texts(), 300),
    ],
    ids=["byte_bpe", "word_pieces", "more_word_pieces", "byte_level_bpe", "sentencepiece_bpe", "clip_bpe", "unigram"],
)
def test_the_same_texts_always_give_the_same_vocabulary(made):
    """Processes that train together, and a resumed one, each build it anew; a library's hash table must not decide."""
    first = made()
    assert all(made() == first for _ in range(5))


def test_word_pieces_spell_what_they_never_saw():
    vocabulary = word_pieces(CAPTIONS, 300)
    assert vocabulary["[PAD]"] == 0
    assert len(vocabulary) <= 300
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert {"dog", "runs"} <= vocabulary.keys()
    assert {"z", "##s"} <= vocabulary.keys()
