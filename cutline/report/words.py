"""Numbers and results in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cutline.core.records import Score, ScoreInfo
from cutline.metrics import find
from cutline.metrics.baselines import HUMAN
from cutline.metrics.difference import Difference
from cutline.metrics.evaluation import Evaluation

#: A difference that chance makes this often is not called one.
_CHANCE = 0.05
_PER_CENT = "\u00a0%"

#: The best known scores: the first of them that was computed speaks for the run when its recipe names none.
_USUAL = ("cider", "bleu4", "rouge_l", "exact_match")


def describe(name: str) -> ScoreInfo:
    """Label, meaning, unit and direction of a score of which only the name is known."""
    return find.scores().get(name, ScoreInfo(name, name, ""))


def meaning(info: ScoreInfo) -> str:
    """What a score means, and its direction where lower is better."""
    return f"{info.meaning} Lower is better." if info.lower_is_better else info.meaning


def number(info: ScoreInfo, value: float | None) -> str:
    """A score's value as it is printed: shares in per cent, words with one digit, everything else with three."""
    if value is None or math.isnan(value):
        return "–"
    return info.format(value) + (_PER_CENT if info.unit == "share" else "")


def interval(score: Score) -> str:
    """ "0.501–0.563"; "" when no interval was computed."""
    if score.low == score.high == score.value or math.isnan(score.low):
        return ""
    low, high = number(score.info, score.low), number(score.info, score.high)
    return f"{low.removesuffix(_PER_CENT)}–{high}"


def count(many: int, one: str, more: str = "") -> str:
    """ "1 image", "1,000 images"."""
    return f"{many:,} {one if many == 1 else more or one + 's'}"


def duration(seconds: float) -> str:
    """ "8 s", "2 min 13 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def main_score(evaluation: Evaluation, recipe: Mapping[str, object]) -> str | None:
    """The score that the run is judged by: the one that chose the checkpoint, or the best known one."""
    train = recipe.get("train")
    asked = train.get("metric") if isinstance(train, Mapping) else None
    usual = [*([asked] if isinstance(asked, str) else []), *_USUAL, *evaluation.scores]
    return next((name for name in usual if name in evaluation.scores), None)


def summary(evaluation: Evaluation, main: str, split: str) -> str:
    """The result in one or two sentences that claim no more than the paired tests do."""
    score = evaluation.scores[main]
    where = f"On {count(score.n, f'{split} image'.strip())}"
    sentence = f"{where} the captions reach {score.info.label} {number(score.info, score.value)}"
    if interval(score):
        sentence += f" (95\u00a0% interval {interval(score)})"
    blind = {name: scores[main] for name, scores in evaluation.baselines.items() if main in scores and name != HUMAN}
    if not blind:
        return sentence + "; there is no baseline to compare it with."
    against = [f"{number(score.info, other.value)} for {name}" for name, other in blind.items()]
    tested = {name: evaluation.differences.get(name, {}).get(main) for name in blind}
    return f"{sentence}, against {_and(against)}: {_judgement(score, blind, tested)}."


def _judgement(score: Score, blind: Mapping[str, Score], tested: Mapping[str, Difference | None]) -> str:
    """Whether the score beats every baseline: then no test need be corrected for the number of baselines."""
    differences = {name: difference for name, difference in tested.items() if difference is not None}
    if len(differences) < len(blind):  # scored without resamples, so nothing was tested
        sign = -1 if score.info.lower_is_better else 1
        best, rival = max(blind.items(), key=lambda item: sign * item[1].value)
        return f"{'better' if sign * score.value > sign * rival.value else 'no better'} than {best}; no test was made"
    best, closest = min(differences.items(), key=lambda item: item[1].gain)
    if closest.gain <= 0:
        return f"no better than {best}"
    p = max(difference.p_randomisation for difference in differences.values())
    if p < _CHANCE:
        return f"clearly better than captions that don’t know the image (paired test, p {_at_most(p)})"
    unclear = max(differences, key=lambda name: differences[name].p_randomisation)
    return f"better than {unclear}, but that may be chance (paired test, p = {p:.2f})"


def _at_most(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.002 else "< 0.002"


def human(evaluation: Evaluation, main: str) -> str:
    """How far people agree with each other, as a sentence; "" when unknown."""
    score = evaluation.baselines.get(HUMAN, {}).get(main)
    return f"People’s captions, compared with other people’s, reach {number(score.info, score.value)}." if score else ""


def problems(counts: Mapping[str, int]) -> str:
    """What went wrong while captioning, as a sentence."""
    failed, missing, cut = (counts.get(name, 0) for name in ("failed", "missing", "unfinished"))
    empty = counts.get("empty", 0) - failed - missing  # these count as empty captions, too
    parts = [
        f"{count(failed, 'image')} failed" if failed else "No image failed",
        f"{count(missing, 'image has', 'images have')} no prediction" if missing else "",
        f"{count(empty, 'caption is', 'captions are')} empty" if empty > 0 else "",
        f"{count(cut, 'caption was', 'captions were')} cut off at the length limit" if cut else "",
    ]
    return _and([text for text in parts if text]) + "."


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
