"""Compares our scores with pycocoevalcap's in one run: values, wall and CPU seconds, memory.

    pip install --target /tmp/reference --no-deps pycocoevalcap==1.2      # and Java: apt install default-jre-headless
    python benchmarks/metrics.py SCORES.json.gz --reference /tmp/reference [--images 1000 5000 40000]

SCORES.json.gz holds ``gts_raw`` and ``res_raw`` (image → captions). Images are repeated under new ids, with texts of
their own, until there are enough. Each side runs in fresh processes, one after another, on one thread, so that neither
gains from what the other loaded, nor our tokenizer from what it cached in another stage. Compare CPU seconds; wall time
depends on other work on the machine.
"""

import argparse
import gzip
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

THREE = ("bleu", "rouge_l", "cider")
ALL = (*THREE, "meteor")
Captions = dict[str, list[str]]
#: Stage → wall and CPU seconds, and the process's peak memory, in MB.
Stages = dict[str, tuple[float, float, float]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("scores")
    arguments.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 40000])
    arguments.add_argument("--reference", metavar="FOLDER", help="where pycocoevalcap is installed; default: ours only")
    arguments.add_argument("--side", choices=list(SIDES), help=argparse.SUPPRESS)  # what a child process runs
    given = arguments.parse_args()
    if given.reference:
        sys.path.append(given.reference)
    if given.side:
        references, candidates = repeated(given.scores, given.images[0])
        print(json.dumps(SIDES[given.side](references, candidates)))
        return
    for images in given.images:
        print(f"\n{images:,} images\n\n| | wall s | CPU s | peak MB |\n|---|---|---|---|")
        sides = ["ours", "everything", *(["reference"] if given.reference else [])]
        found = {side: in_a_process(side, images, given) for side in sides}
        for side, (stages, _) in found.items():
            for name, (wall, cpu, peak) in stages.items():
                who = "pycocoevalcap" if side == "reference" else "ours"
                print(f"| {who}: {name} | {wall:.2f} | {cpu:.2f} | {peak:.0f} |")
        if given.reference:
            compare({name: stages for name, (stages, _) in found.items()})
            values, others = found["everything"][1], found["reference"][1]
            print(f"Values differ by at most {max(abs(values[name] - others[name]) for name in others):.1g}: {values}")


def compare(found: dict[str, Stages]) -> None:
    """Prints how many times less CPU time ours takes."""
    theirs, ours, every = (
        {name: cpu for name, (_, cpu, _) in found[side].items()} for side in ("reference", "ours", "everything")
    )
    three = theirs["BLEU"] + theirs["ROUGE-L"] + theirs["CIDEr"]
    total = theirs["tokens"] + three + theirs["METEOR"]
    print(f"\nBLEU + ROUGE-L + CIDEr: {three / ours[COLD]:.1f} times less CPU, {three / ours[INDEXED]:.1f} times with")
    print(f"indexed references; everything with METEOR: {total / every[EVERYTHING]:.1f} times, whole processes")
    print(f"{sum(theirs.values()) / sum(every.values()):.1f} times.")


def in_a_process(side: str, images: int, given: argparse.Namespace) -> tuple[Stages, dict[str, float]]:
    command = [sys.executable, __file__, given.scores, "--side", side, "--images", str(images)]
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command += ["--reference", given.reference] if given.reference else []
    result = subprocess.run(command, env=os.environ | one_thread, stdout=subprocess.PIPE, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"The process for {side} failed; what it said stands above.")
    stages, values = json.loads(result.stdout.splitlines()[-1])
    return {name: tuple(row) for name, row in stages.items()}, values


def repeated(path: str, images: int) -> tuple[Captions, Captions]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        known = json.load(file)

    def own(captions: Captions) -> Captions:
        names = list(captions)
        return {f"{n}": [(text + " ")[:-1] for text in captions[names[n % len(names)]]] for n in range(images)}

    return own(known["gts_raw"]), own(known["res_raw"])


class Clock:
    """Measures stages in CPU seconds of this process and its finished children."""

    def __init__(self) -> None:
        self.stages: Stages = {}

    def __call__(self, name: str, call: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), self._cpu()
        result = call()
        peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        self.stages[name] = (time.perf_counter() - wall, self._cpu() - cpu, sum(peaks))
        return result

    def _cpu(self) -> float:
        parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(part.ru_utime + part.ru_stime for part in parts)


LOADED = "modules loaded"
COLD, INDEXED = "BLEU + ROUGE-L + CIDEr, cold", "the same, references indexed"
EVERYTHING = "everything with METEOR, from text"


def ours(references: Captions, candidates: Captions) -> tuple[Stages, dict[str, float]]:
    """Without METEOR, stage by stage."""
    clock = Clock()
    scorer_class = clock(LOADED, lambda: import_module("cutline.metrics.scorer").Scorer)
    scorer = scorer_class(references, THREE, resamples=1000)
    captions = {name: texts[0] for name, texts in candidates.items()}
    found, again = scorer.candidates(captions), scorer.candidates(captions)
    clock("tokens of references", lambda: scorer.references.tokens)
    clock("tokens of candidates", lambda: (found.tokens, again.tokens))
    statistics = clock(COLD, lambda: scorer.statistics(found))
    clock(INDEXED, lambda: scorer.statistics(again))
    scores = clock("1,000 resamples", lambda: scorer.score_candidates(found, statistics=statistics))
    return clock.stages, {name: score.value for name, score in scores.items()}


def everything(references: Captions, candidates: Captions) -> tuple[Stages, dict[str, float]]:
    """With METEOR where its data is installed, as ``cutline.score`` does it; its index must have been built."""
    clock = Clock()
    scorer = clock(LOADED, lambda: import_module("cutline.metrics.scorer"))
    data = import_module("cutline.metrics.text.meteor_data")
    metrics = ALL if data.is_available() else THREE
    warm = scorer.Scorer
    clock("METEOR's data and compiled code", lambda: warm({"1": ["a dog"]}, metrics).values({"1": "a cat"}))
    captions = {name: texts[0] for name, texts in candidates.items()}
    scores = clock(EVERYTHING, lambda: scorer.score(captions, references, metrics, resamples=0))
    return clock.stages, {name: score.value for name, score in scores.items()}


def reference(references: Captions, candidates: Captions) -> tuple[Stages, dict[str, float]]:
    clock = Clock()

    def of(module: str, name: str) -> Any:  # not installed where the tests and the type checker run
        return getattr(import_module(f"pycocoevalcap.{module}"), name)

    wanted = {"BLEU": ("bleu.bleu", "Bleu", 4), "ROUGE-L": ("rouge.rouge", "Rouge"), "CIDEr": ("cider.cider", "Cider")}
    tokenize = clock(LOADED, lambda: of("tokenizer.ptbtokenizer", "PTBTokenizer")().tokenize)

    def tokens(captions: Captions) -> Any:
        return tokenize({name: [{"caption": text} for text in texts] for name, texts in captions.items()})

    gts, res = clock("tokens", lambda: (tokens(references), tokens(candidates)))
    values: dict[str, float] = {}
    for stage, (module, name, *arguments) in wanted.items():
        scorer = of(str(module), str(name))(*arguments)
        value, _ = clock(stage, partial(scorer.compute_score, gts, res))
        values |= {f"bleu{k + 1}": v for k, v in enumerate(value)} if stage == "BLEU" else {SCORE[stage]: float(value)}

    def meteor() -> float:
        scorer = of("meteor.meteor", "Meteor")()
        value, _ = scorer.compute_score(gts, res)
        del scorer  # ends its Java process, whose CPU seconds are counted only then
        return float(value)

    values["meteor"] = clock("METEOR", meteor)
    return clock.stages, values


SCORE = {"ROUGE-L": "rouge_l", "CIDEr": "cider"}
SIDES = {"ours": ours, "everything": everything, "reference": reference}

if __name__ == "__main__":
    main()
