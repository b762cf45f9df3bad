"""Our scores beside pycocoevalcap's, in one run: values, wall and CPU seconds, memory.

    python benchmarks/metrics.py SCORES.json.gz [--images 1000 5000 40000] [--reference]

SCORES.json.gz holds ``gts_raw`` and ``res_raw`` (image → captions); images are repeated under new ids until there are
as many as asked for. ``--reference`` also runs pycocoevalcap, which must be installed and needs Java. One thread.
"""

import argparse
import gzip
import json
import os
import resource
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from cutline.metrics import meteor_data
from cutline.metrics.scorer import Scorer
from cutline.records import Score

METRICS = ("bleu", "rouge_l", "cider")
ALL = (*METRICS, "meteor")
Captions = dict[str, list[str]]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("scores")
    arguments.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 40000])
    arguments.add_argument("--reference", action="store_true")
    given = arguments.parse_args()
    with gzip.open(given.scores, "rt", encoding="utf-8") as file:
        known = json.load(file)
    for images in given.images:
        print(f"\n{images:,} images")
        references, candidates = repeated(known["gts_raw"], images), repeated(known["res_raw"], images)
        ours = run_ours(references, {name: texts[0] for name, texts in candidates.items()})
        if given.reference:
            theirs = run_reference(references, candidates)
            for stage in ours:
                what = "everything with METEOR" if stage == "everything" else f"scores {stage}"
                total = theirs["everything" if stage == "everything" else "scores"]
                print(f"  reference / ours, {what}: {total / ours[stage]:.1f} times")


def repeated(captions: Captions, images: int) -> Captions:
    names = list(captions)
    return {f"{number}": captions[names[number % len(names)]] for number in range(images)}


def timed(name: str, call: Callable[[], Any]) -> tuple[Any, float]:
    """Prints and returns the CPU seconds of a call, its children's included."""

    def cpu() -> float:
        parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(part.ru_utime + part.ru_stime for part in parts)

    wall, begun = time.perf_counter(), cpu()
    result = call()
    used = cpu() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {name:32} {time.perf_counter() - wall:7.2f} s wall {used:7.2f} s CPU   peak {peak:5.0f} MB")
    return result, used


def run_ours(references: Captions, candidates: dict[str, str]) -> dict[str, float]:
    scorer = Scorer(references, METRICS, resamples=1000)

    def tokens() -> None:
        assert scorer.references.tokens

    timed("ours: tokens of references", tokens)
    found = scorer.candidates(candidates)
    timed("ours: tokens of candidates", lambda: found.tokens)
    _, cold = timed("ours: scores, cold", lambda: scorer.statistics(found))
    fresh = scorer.candidates(candidates)
    assert fresh.tokens
    _, indexed = timed("ours: scores, indexed references", lambda: scorer.statistics(fresh))
    scores, _ = timed("ours: with 1,000 resamples", lambda: scorer.score_candidates(found))
    print("  " + "  ".join(f"{name} {score.value:.10f}" for name, score in scores.items()))
    if not meteor_data.is_available():
        return {"cold": cold, "indexed": indexed}
    timed("ours: METEOR's data, its index built", lambda: Scorer({"1": ["a dog"]}, ["meteor"]).values({"1": "a cat"}))

    def everything() -> dict[str, Score]:
        return Scorer(references, ALL, resamples=0).score(candidates)

    every, total = timed("ours: everything with METEOR", everything)
    print(f"  meteor {every['meteor'].value:.16f}")
    timed("ours: the same, 1,000 resamples", lambda: Scorer(references, ALL, resamples=1000).score(candidates))
    return {"cold": cold, "indexed": indexed, "everything": total}


def run_reference(references: Captions, candidates: Captions) -> dict[str, float]:
    def of(module: str, name: str) -> Any:  # not installed where the tests and the type checker run
        return getattr(import_module(f"pycocoevalcap.{module}"), name)

    tokenize = of("tokenizer.ptbtokenizer", "PTBTokenizer")().tokenize

    def tokens(captions: Captions) -> Any:
        return tokenize({name: [{"caption": text} for text in texts] for name, texts in captions.items()})

    gts, first = timed("reference: tokens of references", lambda: tokens(references))
    res, second = timed("reference: tokens of candidates", lambda: tokens(candidates))
    total = 0.0
    for module, name, arguments in (
        ("bleu.bleu", "Bleu", (4,)),
        ("rouge.rouge", "Rouge", ()),
        ("cider.cider", "Cider", ()),
    ):
        scorer = of(module, name)(*arguments)
        (value, _), used = timed(f"reference: {name}", lambda scorer=scorer: scorer.compute_score(gts, res))  # type: ignore[misc]
        total += used
        print(f"  {name} {value}")

    def meteor() -> float:
        scorer = of("meteor.meteor", "Meteor")()
        value, _ = scorer.compute_score(gts, res)
        del scorer  # ends its Java, whose seconds count from then on
        return float(value)

    value, used = timed("reference: Meteor", meteor)
    print(f"  Meteor {value}")
    return {"scores": total, "everything": first + second + total + used}


if __name__ == "__main__":
    main()
