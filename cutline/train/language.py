"""A small causal language model from scratch, taught captions without pictures, for ``vision_prefix`` to open.

Captions of the sources' val and test splits are held out of all texts, wherever they turn up: Flickr30k, for one, holds
most of Flickr8k's photographs, and a language model that has read what is said of the validation pictures makes scores
look better than they are.
"""

from __future__ import annotations

import gzip
import logging
import math
import random
import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from cutline.core.errors import DataError, TrainingError
from cutline.core.progress import Bars, silent
from cutline.core.records import Sample
from cutline.core.text import split_words
from cutline.data.readers import read
from cutline.data.settings import DataSettings
from cutline.families.common.from_scratch import small_gpt2
from cutline.families.common.loss import IGNORED
from cutline.families.common.vocabulary import MARKERS, word_level
from cutline.families.seeding import seeded

logger = logging.getLogger(__name__)


#: Suffixes of plain text; everything else is a source for a reader.
TEXT = (".txt", ".gz")

#: Held-out texts, evenly spread over all of them, that the loss is measured on; more take time and say no more.
MEASURED = 5000

#: Written into a caption, they would be taken for its end.
_MARKERS = re.compile("|".join(map(re.escape, MARKERS)))


@dataclass(frozen=True)
class Sizes:
    """Sizes of a language model and its vocabulary.

    Attributes:
        layers: number of transformer layers.
        width: width of the hidden states.
        heads: number of attention heads.
        dropout: dropout rate.
        min_count: words that occur less often become <unk>.
        vocabulary_size: largest number of words.
        max_position_embeddings: number of positions, which image tokens and text share.
    """

    layers: int = 3
    width: int = 256
    heads: int = 4
    dropout: float = 0.1
    min_count: int = 5
    vocabulary_size: int = 10_000
    max_position_embeddings: int = 128


def collect_texts(sources: Sequence[str]) -> tuple[list[str], list[str], int]:
    """Texts to learn from, held-out ones to measure by, and how many lines of the text files were left out.

    Text files with equal numbers of lines are taken to speak of the same pictures line by line, so a line that is held
    out of one is left out of all.

    Args:
        sources: what ``cutline prepare`` reads, with its own splits, or plain text files with one caption a line.

    Raises:
        DataError: a source says no splits, a file isn't text, or nothing is left.
    """
    training: list[str] = []
    held_out: list[str] = []
    files: list[list[str]] = []
    for source in sources:
        if Path(source).is_file() and source.endswith(TEXT):
            files.append(_lines(Path(source)))
            continue
        for sample in read(DataSettings(source=source)):
            if not isinstance(sample, Sample):
                continue
            if not sample.split:
                raise DataError(
                    f"{source} has no splits, so nothing can be held out.",
                    "Prepare it first (cutline prepare), and give the dataset.",
                )
            (training if sample.split == "train" else held_out).extend(sample.captions)
    known = {_plain(caption) for caption in held_out} - {""}
    left_out = 0
    for group in _side_by_side(files):
        for lines in zip(*group, strict=True):
            if any(_plain(line) in known for line in lines):
                left_out += len(lines)
            else:
                training.extend(line for line in lines if line)
    if not training:
        raise DataError("There is no text to learn from.", "Give sources with a train split, or text files.")
    return training, held_out, left_out


def _lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()
        text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{path} could not be read as text: {error}", "Give UTF-8 text, one caption a line.") from error
    return [line.strip() for line in text.split("\n")]


def _side_by_side(files: Sequence[list[str]]) -> Iterator[list[list[str]]]:
    groups: dict[int, list[list[str]]] = defaultdict(list)
    for lines in files:
        groups[len(lines)].append(lines)
    yield from groups.values()


def _plain(text: str) -> str:
    """A caption's words, so that case and punctuation don't hide that it is the same."""
    return " ".join(split_words(text))


def train_language_model(
    texts: Sequence[str],
    held_out: Sequence[str],
    sizes: Sizes,
    *,
    epochs: int = 2,
    batch_size: int = 128,
    lr: float = 2e-3,
    bfloat16: bool = False,
    seed: int = 0,
    bars: Bars = silent,
) -> tuple[Any, Any, dict[str, float]]:
    """Trains a GPT-2 from scratch on texts.

    Args:
        texts: training texts, shuffled, those of similar length together.
        held_out: texts to measure the loss on; may be empty.
        sizes: of the model and its vocabulary.
        epochs: passes over the texts.
        batch_size: texts per step.
        lr: peak learning rate of AdamW; warm-up over a twentieth of the steps, then a cosine to 0.
        bfloat16: autocast; faster on processors that support it.
        seed: seed for weights, shuffling and dropout.
        bars: shows the progress.

    Returns:
        The model, its tokenizer, and losses in nats a token (the end token is one) by name.
    """
    with seeded(seed):
        order = random.Random(seed)
        tokenizer = word_level(texts, sizes.min_count, sizes.vocabulary_size)
        model: Any = small_gpt2(
            tokenizer,
            width=sizes.width,
            layers=sizes.layers,
            heads=sizes.heads,
            positions=sizes.max_position_embeddings,
            dropout=sizes.dropout,
        )
        model.generation_config.update(suppress_tokens=[tokenizer.unk_token_id])
        rows = _encode(tokenizer, texts, sizes.max_position_embeddings)
        measured = _encode(
            tokenizer, held_out[:: math.ceil(len(held_out) / MEASURED) or 1], sizes.max_position_embeddings
        )
        steps = epochs * math.ceil(len(rows) / batch_size)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=0.01)
        rate = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / (0.05 * steps + 1), 0.5 + 0.5 * math.cos(math.pi * step / steps))
        )
        losses: dict[str, float] = {}
        done = 0
        with bars("language") as progress:
            for epoch in range(epochs):
                model.train()
                total, count = 0.0, 0
                for batch in _batches(rows, batch_size, order):
                    loss, tokens = _loss(model, batch, tokenizer.pad_token_id, bfloat16)
                    torch.autograd.backward(loss / tokens)
                    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                    optimizer.step()
                    optimizer.zero_grad()
                    rate.step()
                    total, count, done = total + loss.item(), count + tokens, done + 1
                    if not math.isfinite(total):
                        raise TrainingError(
                            f"The language model's loss is {loss.item()} at step {done}.", "Lower --lr."
                        )
                    progress(done, steps)
                losses["train"] = total / count
                if measured:
                    losses["held_out"] = measure(model, measured, batch_size, tokenizer.pad_token_id)
                summary = ", ".join(
                    f"{value:.3f} nats a token {key.replace('_', ' ')}" for key, value in losses.items()
                )
                logger.info(f"language: epoch {epoch + 1} of {epochs}: {summary}")
        return model.eval(), tokenizer, losses


@torch.no_grad()
def measure(model: Any, rows: Sequence[list[int]], batch_size: int, pad: int) -> float:
    """Mean loss in nats a token."""
    model.eval()
    total, count = 0.0, 0
    for batch in _batches(rows, batch_size, None):
        loss, tokens = _loss(model, batch, pad, False)
        total, count = total + loss.item(), count + tokens
    return total / count


def _encode(tokenizer: Any, texts: Sequence[str], most: int) -> list[list[int]]:
    """<bos> words <eos>; the tokenizer puts the end there. Too long a text is cut and has no end to learn."""
    if not texts:
        return []
    words = [_MARKERS.sub(" ", text) for text in texts]
    return [[tokenizer.bos_token_id, *ids][:most] for ids in tokenizer(words)["input_ids"]]


def _batches(rows: Sequence[list[int]], size: int, order: random.Random | None) -> Iterator[list[list[int]]]:
    """Texts of like length together, for little padding; chance orders texts of one length, and the batches."""
    indices = sorted(range(len(rows)), key=lambda index: (len(rows[index]), order.random() if order else index))
    batches = [indices[begin : begin + size] for begin in range(0, len(indices), size)]
    if order:
        order.shuffle(batches)
    for batch in batches:
        yield [rows[index] for index in batch]


def _loss(model: Any, batch: Sequence[list[int]], pad: int, bfloat16: bool) -> tuple[torch.Tensor, int]:
    """Summed nats of a batch, and how many tokens. Padding is behind the text, where a causal model doesn't look."""
    longest = max(map(len, batch))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in batch])  # [B, T]
    labels = torch.tensor([row[1:] + [IGNORED] * (longest - len(row)) for row in batch])  # [B, T - 1]
    mask = labels != IGNORED
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        hidden = model.base_model(input_ids=ids[:, :-1], attention_mask=torch.ones_like(ids[:, :-1])).last_hidden_state
        logits = model.get_output_embeddings()(hidden[mask])
    return functional.cross_entropy(logits.float(), labels[mask], reduction="sum"), int(mask.sum())
