"""Tests whether the miniature of every captioning family learns from scratch on drawn shapes; prints a table.

    python benchmarks/learning.py [FAMILY …] [--out runs/learning] [--steps N] [--lr 2e-3] [--own-spread]

Each family's miniature (the one of ``--tiny``, with random weights and a vocabulary of the training captions) is
trained with an ordinary recipe on 2,000 drawn pictures and tested on 200 of combinations that are not in the training
data. Finished work is skipped, so the command can be stopped and run again. One thread.

Initial weights are scaled to the miniature's width. Published models draw weights with a standard deviation of 0.02,
which suits a width of a thousand. At 32 or 64 so little of the image gets through that several families hardly use it
in 400 steps (``--own-spread`` shows this). Recurrent cells keep their own initialisation.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from torch import nn

from cutline import families
from cutline.core.config import parse
from cutline.core.records import Sample
from cutline.data.readers import read
from cutline.data.settings import DataSettings
from cutline.families.open import find
from cutline.images import shapes
from cutline.run.recipe import Recipe
from cutline.run.run import Run

#: Training steps of 64 pictures; families that learn more slowly need more.
STEPS = 400
MORE = {
    "blip": 1000,
    "blip_2": 2000,
    "cnn_rnn": 600,
    "gemma3": 1300,
    "vision_encoder_decoder": 1300,
    "vision_mixture": 600,
}

#: An attention LSTM learns better with its own initialisation.
OWN_SPREAD = {"cnn_rnn"}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("families", nargs="*", help="families to train; default: all that write captions")
    arguments.add_argument("--out", type=Path, default=Path("runs/learning"))
    arguments.add_argument("--steps", type=int, help="training steps of 64 pictures; the default depends on the family")
    arguments.add_argument("--lr", type=float, default=2e-3)
    arguments.add_argument("--own-spread", action="store_true", help="initial weights as each architecture draws them")
    given = arguments.parse_args()
    drawn = given.out / "shapes"
    if not (drawn / "captions.csv").exists():
        shapes.draw(drawn)
    for name in given.families or captioners():
        result = given.out / name / "learning.json"
        if not result.exists():
            steps = given.steps or MORE.get(name, STEPS)
            learn(name, drawn, given.out / name, steps, given.lr, given.own_spread or name in OWN_SPREAD)
    print("| family | parameters | steps | exact match, unseen combinations | 95 % interval | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for path in sorted(given.out.glob("*/learning.json")):
        row = json.loads(path.read_text())
        interval = f"{row['low']:.3f}–{row['high']:.3f}"
        print(f"| `{row['family']}` | {row['parameters']:,} | {row['steps']:,} | {row['exact_match']:.3f} | {interval} "
              f"| {row['cpu_seconds']:.0f} |")  # fmt: skip


def captioners() -> list[str]:
    return [name for name in families.names() if "caption" in find(name).tasks]


def widen_window(model: Any) -> None:
    """Lets every layer attend from the caption to the picture.

    The miniature of Gemma 3 has a window of 32 tokens in one of its two layers, and spells its prompt letter by letter,
    so that a caption is 50 tokens after the picture.
    """
    text = model.config.get_text_config()
    if getattr(text, "sliding_window", None):
        text.sliding_window = text.max_position_embeddings


def draw_for_width(model: Any) -> None:
    """Draws the weights of linear and convolutional layers again, with a standard deviation of 1 / √inputs.

    Not those of the output layer, which are often the embeddings'. Gemma 3's projection is a bare matrix.
    """
    torch.manual_seed(1)
    output = model.get_output_embeddings()
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and module is not output:
            with torch.no_grad():
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
        bare = getattr(module, "mm_input_projection_weight", None)  # [inputs, outputs]
        if bare is not None:
            with torch.no_grad():
                bare.normal_(0, len(bare) ** -0.5)


def learn(name: str, drawn: Path, folder: Path, steps: int, lr: float, own_spread: bool = False) -> None:
    """Trains, captions and scores one family; writes learning.json last."""
    begun = time.process_time()
    start = folder / "start"
    items = read(DataSettings(source=str(drawn)))
    captions = [text for item in items if isinstance(item, Sample) and item.split == "train" for text in item.captions]
    family: Any = find(name).tiny(captions, task="caption")
    if not (start / "cutline.json").exists():
        if not own_spread:
            draw_for_width(family.model)
        widen_window(family.model)
        family.save(start)
    recipe = parse(
        {
            "about": f"The miniature of {name} learns from scratch.",
            "data": {"source": str(drawn)},
            "model": {"checkpoint": str(start)},
            "train": {
                "epochs": 1000,
                "max_steps": steps,
                "batch_size": 64,
                "lr": lr,
                "betas": [0.9, 0.98],
                "warmup_steps": 0.08,
                "min_lr": 1e-4,
                "eval_steps": max(1, steps // 4),
                "val_images": 100,
                "val_max_new_tokens": 40,
                "metric": "exact_match",
            },
            "generate": {"max_new_tokens": 40, "batch_size": 64},
            "score": {"metrics": ["exact_match", "cider"]},
        },
        Recipe,
    )
    evaluation = Run(recipe, folder)()
    assert evaluation is not None
    score = evaluation.scores["exact_match"]
    row = {
        "family": name,
        "parameters": sum(parameter.numel() for parameter in family.parameters()),
        "steps": steps,
        "lr": lr,
        "exact_match": score.value,
        "low": score.low,
        "high": score.high,
        "cpu_seconds": time.process_time() - begun,
    }
    (folder / "learning.json").write_text(json.dumps(row))


if __name__ == "__main__":
    main()
