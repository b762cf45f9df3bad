"""Measures whether the filter finds swapped captions, and whether retrieval improves without them.

    python benchmarks/capfilt.py --out runs/capfilt [--limit 2000] [--only contrast]

A third of Flickr8k's training captions are swapped between images. A small BLIP (recipes/flickr8k-retrieval.toml) is
trained on all of them, its own matching head filters them, and another one is trained on the rest. Validation captions
are clean. With --only contrast: a batch of 8 against a batch of 512 with cached gradients, on clean captions.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cutline.core import jsonl
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings

RECIPE = Path(__file__).parent.parent / "recipes/flickr8k-retrieval.toml"


def exchanged(source: Path, share: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Writes Karpathy's JSON with a share of the training captions swapped between images, and the val split alone."""
    table = json.loads((source / "dataset_flickr8k.json").read_text())
    chance = random.Random(seed)
    places = [(image, place) for image in table["images"] if image["split"] != "val"
              for place in range(len(image["sentences"]))]  # fmt: skip
    moved = chance.sample(places, round(share * len(places)))
    owners = [image["filename"] for image, _ in moved]
    order = list(range(len(moved)))
    chance.shuffle(order)
    for _ in range(100):  # until no caption is assigned to its own image
        wrong = [n for n in range(len(moved)) if owners[order[n]] == owners[n]]
        for n in wrong:
            other = chance.randrange(len(moved))
            order[n], order[other] = order[other], order[n]
    assert not wrong
    texts = [image["sentences"][place]["raw"] for image, place in moved]
    for n, (image, place) in enumerate(moved):
        image["sentences"][place] = {"raw": texts[order[n]], "exchanged": True}
    val = {**table, "images": [image for image in table["images"] if image["split"] == "val"]}
    return table, val


def cutline(*arguments: str) -> float:
    """Runs a command of Cutline; returns its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "cutline.cli.main", *arguments], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def tell(name: str, folder: Path, cpu: float) -> None:
    found = json.loads((folder / "retrieval/scores.json").read_text())
    seconds = json.loads((folder / "stages/train.json").read_text())["seconds"]
    alone = {one["metric"]: one for one in found["baselines"].get("embeddings alone", found["scores"])}
    for title, scores in (("ITC", alone), ("ITC + ITM", {one["metric"]: one for one in found["scores"]})):
        if title == "ITC" or found["baselines"].get("embeddings alone"):
            cells = [
                f"{100 * scores[f'{d}_recall_at_{k}']['value']:.1f} "
                f"({100 * scores[f'{d}_recall_at_{k}']['low']:.1f}–{100 * scores[f'{d}_recall_at_{k}']['high']:.1f})"
                for d in ("tr", "ir")
                for k in (1, 5, 10)
            ]
            print(f"| {name}, {title} | {' | '.join(cells)} | {cpu:.0f} |", flush=True)
    print(f"    {name}: training took {seconds:.0f} s of wall time", flush=True)


def filter_quality(captions: Path, source: dict[str, Any]) -> None:
    """Prints how well the dropped captions match the swapped ones: precision, recall, area under the ROC curve."""
    moved = {
        (image["filename"], " ".join(one["raw"].split()))
        for image in source["images"]
        for one in image["sentences"]
        if one.get("exchanged")
    }
    rows = sorted(jsonl.read(captions), key=lambda row: row["log_odds"])
    wrong = [(Path(row["image"]).name, " ".join(row["text"].split())) in moved for row in rows]
    total = sum(wrong)
    ranks = [n for n, one in enumerate(wrong) if one]
    area = 1 - (sum(ranks) - total * (total - 1) / 2) / (total * (len(rows) - total))
    print(f"{len(rows):,} captions, {total:,} swapped ({total / len(rows):.1%}); area under the ROC curve {area:.3f}")
    below = sum(row["log_odds"] < 0 for row in rows)
    for title, count in (("probability below 0.5", below), ("worst third", round(len(rows) / 3)),
                         ("worst tenth", round(len(rows) / 10))):  # fmt: skip
        found = sum(wrong[:count])
        print(f"| {title} | {count:,} | {found / max(count, 1):.3f} | {found / total:.3f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/flickr8k"))
    parser.add_argument("--out", type=Path, default=Path("runs/capfilt"))
    parser.add_argument("--limit", type=int, default=0, help="images of each split; 0: all")
    parser.add_argument("--rerank", type=int, default=8, help="candidates of a query for the matching head")
    parser.add_argument("--share", type=float, default=1 / 3, help="share of the training captions that are swapped")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["contrast", "filter", "clean"])
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    limit = ["--set", f"data.max_samples={given.limit}"] if given.limit else []
    limit += ["--set", f"data.images={(given.data / 'images').resolve()}"]
    print(f"begun {time.strftime('%Y-%m-%d %H:%M')}; {vars(given)}", flush=True)

    def train(name: str, variant: str, *more: str) -> None:
        rerank = given.rerank if variant == "matching" else 0
        more = (*more, "--set", f"retrieve.rerank={rerank}")
        arguments = ["--set", f"variant={variant}", *more, "--out", str(given.out / name)]
        tell(name, given.out / name, cutline("run", str(RECIPE), *arguments))

    if given.only in (None, "contrast"):
        for variant in ("contrast-512", "contrast-8"):
            train(variant, variant, "--set", f"data.source={given.data / 'dataset_flickr8k.json'}", *limit)
    if given.only in (None, "filter"):
        noisy, val = exchanged(given.data, given.share, given.seed)
        for name, table in (("noisy", noisy), ("val", val)):
            (given.out / f"{name}.json").write_text(json.dumps(table))
        images = str((given.data / "images").resolve())
        prepare(DataSettings(source=str(given.out / "val.json"), images=images, max_samples=given.limit or None),
                given.out / "val-dataset")  # fmt: skip
        train("noisy", "matching", "--set", f"data.source={given.out / 'noisy.json'}", *limit)
        cpu = cutline(
            "bootstrap", str(given.out / "noisy/dataset"), "--split", "train", "--filter", str(given.out / "noisy"),
            "--human", str(given.out / "val-dataset"), "--set", f"keep.share={1 - given.share}",
            "-o", str(given.out / "round"),
        )  # fmt: skip
        print(f"filtering: {cpu:.0f} CPU s", flush=True)
        filter_quality(given.out / "round/captions.jsonl", noisy)
        train("filtered", "matching", "--set", f"data.source={given.out / 'round/dataset'}")
    if given.only in (None, "clean"):
        train("clean", "matching", "--set", f"data.source={given.data / 'dataset_flickr8k.json'}", *limit)


if __name__ == "__main__":
    main()
