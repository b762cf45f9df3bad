"""``cutline language``: captions in, a small language model out, which ``[model.new] text`` opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cutline.cli.terminal import bar, say
from cutline.core.errors import DataError
from cutline.core.verbosity import quiet_libraries


def language(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCES...", help="Datasets or sources with splits; .txt or .gz, one caption a line."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder of the language model.")],
    epochs: Annotated[int, typer.Option(min=1, help="Times that every caption is read.")] = 2,
    batch_size: Annotated[int, typer.Option(min=1, help="Captions a step.")] = 128,
    lr: Annotated[float, typer.Option(min=0, help="Highest rate of AdamW.")] = 2e-3,
    layers: Annotated[int, typer.Option(min=1)] = 3,
    width: Annotated[int, typer.Option(min=8)] = 256,
    heads: Annotated[int, typer.Option(min=1, help="Attention heads; they divide the width.")] = 4,
    dropout: Annotated[float, typer.Option(min=0, max=0.9)] = 0.1,
    min_count: Annotated[int, typer.Option(min=1, help="Rarer words aren't known.")] = 5,
    vocabulary_size: Annotated[int, typer.Option(min=8, help="Words at most.")] = 10_000,
    max_tokens: Annotated[int, typer.Option(min=16, help="Positions, an image's tokens among them.")] = 128,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Multiply in bfloat16, where the CPU has it.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.")] = False,
) -> None:
    """Teach a small GPT-2 captions without pictures, for vision_prefix to open ([model.new] text = FOLDER).

    Training captions are read, and the lines of text files. Captions of val and test splits are held out of all of
    them, wherever they turn up; files with equal numbers of lines are taken to speak of the same pictures line by line.
    It runs on the CPU, and from its beginning if it was stopped.
    """
    if (out / "config.json").exists():
        raise DataError(f"{out} holds a model already.", "Give another folder, or remove it.")
    if width % heads:
        raise DataError(f"A width of {width} can't be divided among {heads} heads.", "Give another --width or --heads.")
    quiet_libraries()
    from cutline.train.language import Sizes, gather, teach

    texts, held_out, left_out = gather(sources)
    said = f"; {left_out:,} lines left out, held-out captions or beside one" if left_out else ""
    say(f"language: {len(texts):,} captions{said}")
    sizes = Sizes(layers, width, heads, dropout, min_count, vocabulary_size, max_tokens)
    model, tokenizer, losses = teach(
        texts, held_out, sizes, epochs=epochs, batch_size=batch_size, lr=lr, bfloat16=bfloat16, seed=seed, bars=bar
    )
    tokenizer.save_pretrained(out)
    facts = {"sources": sources, "captions": len(texts), "lines_left_out": left_out, "nats_a_token": losses}
    out.mkdir(parents=True, exist_ok=True)
    (out / "made-of.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    model.save_pretrained(out)  # last: config.json marks that there is one
    count = sum(parameter.numel() for parameter in model.parameters())
    say(f"language: {count:,} parameters, {len(tokenizer):,} words in {out}")
