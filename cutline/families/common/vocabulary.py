"""Tokenizers made from the captions of the training split, for text decoders that start from nothing.

Words and byte-level pieces have four distinct markers, <bos> 0, <pad> 1, <eos> 2 and <unk> 3, and end every encoded
text with <eos>; the decoder's start token is the model's to put in front. They are ordinary Hugging Face tokenizers:
`save_pretrained` them, and `AutoTokenizer` opens them again.

A word that is too rare for the vocabulary becomes <unk> where captions are read. It is never generated: a model that
uses such a tokenizer names <unk> in `suppress_tokens` of its generation config.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

# <pad> isn't 0: beam search in transformers 5 takes a padding id of 0 for none and fills finished rows with <eos>.
BOS, PAD, EOS, UNK = MARKERS = ("<bos>", "<pad>", "<eos>", "<unk>")

# A word keeps its inner apostrophes and hyphens ("t-shirt", "man's"); every other sign is a token of its own.
WORD = r"\w+(?:['\u2019-]\w+)*|[^\w\s]"


def word_level(
    captions: Iterable[str], min_count: int = 5, max_size: int = 10_000, lowercase: bool = True
) -> PreTrainedTokenizerFast:
    """One token a word, for words that occur at least `min_count` times, the most frequent `max_size` (markers
    included)."""
    normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])
    counts = Counter(word for caption in captions for word in re.findall(WORD, normalizer.normalize_str(caption)))
    # Sorted by count, then by spelling: the same captions in another order give the same vocabulary.
    words = sorted((word for word, n in counts.items() if n >= min_count), key=lambda word: (-counts[word], word))
    words = words[: max(0, max_size - len(MARKERS))]
    vocabulary = {token: id_ for id_, token in enumerate((*MARKERS, *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    # A space in front of every token but the first and those that close something; none behind an opening bracket.
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"^(?![.,;:!?%)\]}\u2026])"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=[(\[{]) "), ""),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return _wrap(tokenizer)


def byte_bpe(captions: Iterable[str], size: int = 4000) -> PreTrainedTokenizerFast:
    """Byte-level byte-pair encoding with at most `size` tokens: no word is unknown, and case and spelling survive."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(MARKERS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    return _wrap(tokenizer)


def word_pieces(captions: Sequence[str], size: int = 4000) -> dict[str, int]:
    """A lower-case WordPiece vocabulary with BERT's markers, for ``BertTokenizer``; any English word can be spelt.

    Args:
        captions: what to learn from.
        size: number of tokens, at most.
    """
    markers = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    letters = [chr(code) for code in range(33, 127)]  # any English word can be spelt
    inner = sorted({f"##{letter}" for word in cut_words(tokenizer, captions) for letter in word[1:]})
    tokenizer.train_from_iterator(
        captions,
        trainers.WordPieceTrainer(
            vocab_size=size, special_tokens=[*markers, *inner], initial_alphabet=letters, show_progress=False
        ),
    )
    return dict(tokenizer.get_vocab())


def cut_words(tokenizer: Tokenizer, texts: Sequence[str]) -> set[str]:
    """What the trainer cuts texts into before it learns.

    Trainers number a word's inner or last letters in the order of a hash table, which is another at each start, and
    break ties by these numbers: processes that train together would read the same caption as other tokens. Letters
    that are given as special tokens have their numbers by their place.
    """
    clean, cut = tokenizer.normalizer, tokenizer.pre_tokenizer
    return {word for text in texts for word, _ in cut.pre_tokenize_str(clean.normalize_str(text))}


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    # Clean-up would undo spaces by English rules of its own, also those that belong there.
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
