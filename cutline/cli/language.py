"""``cutline language``: captions in, a small language model out, which ``[model.new] text`` opens."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def language(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCES...",
            help="Datasets or sources with splits, or .txt and .gz files with one caption per line.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the language model.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the captions.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Captions in a batch.")] = 128,
    lr: Annotated[float, typer.Option(min=0, help="Peak learning rate of AdamW.")] = 2e-3,
    layers: Annotated[int, typer.Option(min=1, help="Transformer layers.")] = 3,
    width: Annotated[int, typer.Option(min=8, help="Width of the hidden states.")] = 256,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads; they must divide the width.")] = 4,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="Dropout rate.")] = 0.1,
    min_count: Annotated[int, typer.Option(min=1, help="Words that occur less often become <unk>.")] = 5,
    vocabulary_size: Annotated[int, typer.Option(min=8, help="Most words in the vocabulary.")] = 10_000,
    max_positions: Annotated[int, typer.Option(min=16, help="Most positions, image tokens included.")] = 128,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Multiply in bfloat16, where the CPU has it.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed for weights, shuffling and dropout.")] = 0,
) -> None:
    """Train a small GPT-2 on captions without images, for use with vision_prefix ([model.new] text = FOLDER).

    It reads the training captions of datasets and sources, and the lines of text files. Captions of val and test splits
    are left out wherever they occur. Text files with equal numbers of lines must describe the same images, line by
    line. It runs on the CPU, and starts over after an interruption.
    """
    import json

    from cutline.cli.terminal import bar, say
    from cutline.core.errors import DataError
    from cutline.train.language import Sizes, collect_texts, train_language_model

    if (out / "config.json").exists():
        raise DataError(f"{out} already holds a model.", "Give another folder, or remove it.")
    if width % heads:
        raise DataError(f"A width of {width} can't be divided among {heads} heads.", "Give another --width or --heads.")
    texts, held_out, left_out = collect_texts(sources)
    without = f"; {left_out:,} lines left out: held-out captions or captions of the same images" if left_out else ""
    say(f"language: {len(texts):,} captions{without}")
    sizes = Sizes(layers, width, heads, dropout, min_count, vocabulary_size, max_positions)
    model, tokenizer, losses = train_language_model(
        texts, held_out, sizes, epochs=epochs, batch_size=batch_size, lr=lr, bfloat16=bfloat16, seed=seed, bars=bar
    )
    tokenizer.save_pretrained(out)
    facts = {"sources": sources, "captions": len(texts), "lines_left_out": left_out, "nats_a_token": losses}
    out.mkdir(parents=True, exist_ok=True)
    (out / "made-of.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    model.save_pretrained(out)  # last: config.json marks a complete model
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"language: {count:,} parameters, {len(tokenizer):,} words in {out}")
