"""Tests the context ablation and the leak audit on data where the right answer is known; prints a table.

    python benchmarks/context.py [helps irrelevant leaks] [--form step|headline] [--out runs/context] [--steps 500]

The pictures show two shapes, and a person "shows" each picture in a town: "Ann Berg shows a red circle above a blue
square in Oslo". The picture contains only the shapes. Three datasets differ in the headline used in the prompt:

    helps       names the person and the town, and another person
    irrelevant  names persons and a town that are unrelated to the picture
    leaks       was made from the caption: person, town and shapes

With --form step the prompt holds what [data.steps.context] makes of the headline ("Oslo | Ann Berg | Bo Lund"), using
a spaCy pipeline that knows these names. The oracle, which the same step makes of the caption, then has the form on
which the model was trained; half of the headlines name only one person, so that the model knows lines with one name.
With --form headline the prompt holds the headline itself. There is no oracle in that form: a model that has only seen
headlines cannot use a list of names.

For each dataset the same small ViT + GPT-2 is trained from scratch with 30 % of its contexts left out, with an ordinary
recipe that has [ablation]. The test pictures show combinations of shapes that are not in the training data. Finished
work is skipped, so the command can be stopped and run again. One thread.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cutline.core.config import parse
from cutline.core.files import write_atomically
from cutline.images import shapes
from cutline.run.recipe import Recipe
from cutline.run.run import Run

PEOPLE = [f"{first} {last}" for first in ("Ann", "Bo", "Cy", "Eve") for last in ("Berg", "Lund", "Moe", "Vik")]
TOWNS = ["Oslo", "Rome", "Lima", "Kyiv", "Quito", "Perth", "Delhi", "Turin"]
KINDS = ("helps", "irrelevant", "leaks")


def headline(kind: str, form: str, person: str, town: str, scene: str, chance: random.Random) -> str:
    """The headline of one picture."""
    other = chance.choice([one for one in PEOPLE if one != person])
    if kind == "leaks":
        return f"In {town}, {person}: {scene}"
    if kind == "irrelevant":
        person, town = chance.choice([one for one in PEOPLE if one != other]), chance.choice(TOWNS)
    if form == "step" and chance.random() < 0.5:
        return f"In {town}, {person} gives a talk"
    return f"In {town}, {person} meets {other}"


def pipeline(folder: Path) -> str:
    """A spaCy pipeline that recognises the people and the towns, and nothing else; returns its folder."""
    import spacy

    language = spacy.blank("en")
    patterns: list[dict[str, Any]] = [{"label": "PERSON", "pattern": name} for name in PEOPLE]
    ruler: Any = language.add_pipe("entity_ruler")
    ruler.add_patterns(patterns + [{"label": "GPE", "pattern": name} for name in TOWNS])
    language.to_disk(folder)
    return str(folder)


def draw(folder: Path, kind: str, form: str, train: int, val: int, test: int, seed: int = 0) -> Path:
    """Writes pictures and ``captions.csv`` (image, caption, headline, split)."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    seen, unseen = shapes.held_out(seed)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["image", "caption", "headline", "split"])
    for split, count, choice in (("train", train, seen), ("val", val, seen), ("test", test, unseen)):
        pictures, names = random.Random(f"{seed} {split}"), random.Random(f"{seed} {split} {kind}")
        for number in range(count):
            scene, person, town = pictures.choice(choice), pictures.choice(PEOPLE), pictures.choice(TOWNS)
            shown = shapes.caption(scene)
            name = f"{split}-{number:05d}.png"
            shapes.picture(scene, 48, pictures).save(folder / "images" / name)
            said = headline(kind, form, person, town, shown, names)
            rows.writerow([name, f"{person} shows {shown} in {town}", said, split])
    write_atomically(folder / "captions.csv", table.getvalue())  # last: no table without its pictures
    return folder / "captions.csv"


def recipe(source: Path, steps: int, names: str = "") -> Recipe:
    """The recipe; ``names`` is the pipeline of the context step, or "" to use the headlines unchanged."""
    small = {"image_size": 64, "patch_size": 16, "vision_layers": 2, "vision_width": 48, "text_layers": 2}
    table = {
        "about": "What context is worth, on drawn pictures.",
        "data": {"source": str(source), "columns": {"context": ["headline"]}},
        "ablation": {"conditions": ["without", "shuffled"]},
        "model": {
            "family": "vision_prefix",
            "new": small | {"text_width": 64, "vocabulary": "words", "min_count": 1, "lowercase": False},
            "prompt": "{context}",
        },
        "train": {
            "drop_context": 0.3,
            "epochs": 1000,
            "max_steps": steps,
            "batch_size": 64,
            "lr": 2e-3,
            "betas": [0.9, 0.98],
            "warmup_steps": 0.08,
            "min_lr": 1e-4,
            "eval_steps": max(1, steps // 2),
            "val_images": 50,
            "val_max_new_tokens": 24,
        },
        "generate": {"max_new_tokens": 24, "batch_size": 64},
        "score": {"metrics": ["cider", "exact_match"]},
    }
    if names:
        step = {"texts": ["headline"], "model": names, "template": "{location} | {person}"}
        table["data"] = {"source": str(source), "steps": {"context": step}}
        table["ablation"] = {"names": names}
    return parse(table, Recipe)


def row(kind: str, found: dict[str, Any], seconds: float) -> str:
    """A line of the table."""
    scores = {name: {one["metric"]: one for one in some} for name, some in found["scores"].items()}
    tests = {(one["a"], one["b"]): one for one in found["differences"] if one["metric"] == "cider"}

    def test(first: str, second: str) -> str:
        one = tests[first, second]
        return f"{one['difference']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}), p = {one['p_randomisation']:.3f}"

    names = ("with", "without", "shuffled", "oracle", "copy of the context")
    values = [f"{scores[name]['cider']['value']:.2f}" if name in scores else "–" for name in names]
    audit = found["audit"]["whole"]
    shares = [f"{audit[key]:.0%}" for key in ("names_given_away", "own_names_in_captions")]
    tested = [test("without", "with"), test("shuffled", "with")]
    return f"| {' | '.join([kind, *values, *tested, *shares, audit['verdict'], found['verdict'], f'{seconds:.0f}'])} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("kinds", nargs="*", help="datasets to run; default: all three")
    arguments.add_argument("--form", choices=("step", "headline"), default="step", help="form of the context")
    arguments.add_argument("--out", type=Path, default=Path("runs/context"))
    arguments.add_argument("--steps", type=int, default=500, help="training steps of 64 pictures")
    given = arguments.parse_args()
    print("| headline | with | without | shuffled | oracle | copied | gain over without | gain over shuffled "
          "| names given away | own names in captions | audit | ablation | CPU s |")  # fmt: skip
    print("|" + "---|" * 13)
    for kind in given.kinds or KINDS:
        folder, begun = given.out / given.form / kind, time.process_time()
        source = folder / "drawn/captions.csv"
        if not source.exists():
            draw(source.parent, kind, given.form, train=2000, val=100, test=200)
        names = pipeline(folder / "names") if given.form == "step" else ""
        Run(recipe(source, given.steps, names), folder / "run")()
        spent = time.process_time() - begun
        print(row(kind, json.loads((folder / "run/ablation/ablation.json").read_text()), spent), flush=True)


if __name__ == "__main__":
    main()
