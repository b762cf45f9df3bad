"""Numbers and findings in plain words."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cutline.core.records import Score
from cutline.metrics.baselines import HUMAN
from cutline.metrics.comparison import Difference
from cutline.metrics.evaluation import Evaluation

#: Score's name → what people call it, and what it says. A score that isn't here goes by its own name.
_KNOWN = {
    "cider": ("CIDEr-D", "agreement in phrases, rare ones counting more; 0–10"),
    "cider_original": ("CIDEr", "the first form of CIDEr-D; repeating words pays"),
    "bleu1": ("BLEU-1", "share of words found in the references"),
    "bleu2": ("BLEU-2", "the same for pairs of words"),
    "bleu3": ("BLEU-3", "the same for three words in a row"),
    "bleu4": ("BLEU-4", "the same for four words in a row"),
    "rouge_l": ("ROUGE-L", "longest common sequence of words"),
    "exact_match": ("Exact match", "share of captions that are a reference, word for word"),
    "length": ("Length", "words a caption"),
    "length_sd": ("Spread of length", "standard deviation, in words"),
    "length_ratio": ("Length ratio", "caption’s length to the references’"),
    "empty": ("Empty", "share of images without a caption"),
    "repeated": ("Repeated", "share of captions that say a phrase again and again"),
    "unfinished": ("Unfinished", "share of captions cut at the length limit"),
}
_SHARES = frozenset({"exact_match", "empty", "repeated", "unfinished"})
#: A difference that chance makes this often is no finding.
_CHANCE = 0.05
_PER_CENT = "\u00a0%"
_WORDS = frozenset({"length", "length_sd"})

#: The best known of the scores; the first one there speaks for the run when its recipe names none.
_USUAL = ("cider", "bleu4", "rouge_l", "exact_match")


def label(name: str) -> str:
    """What people call a score."""
    return _KNOWN.get(name, (name, ""))[0]


def meaning(name: str) -> str:
    """What a score says, in a few words; "" when unknown."""
    return _KNOWN.get(name, ("", ""))[1]


def number(name: str, value: float | None) -> str:
    """A score's value as it is printed: shares in per cent, lengths with one digit, everything else with three."""
    if value is None or math.isnan(value):
        return "–"
    if name in _SHARES:
        return f"{100 * value:.1f}{_PER_CENT}"
    return f"{value:.1f}" if name in _WORDS else f"{value:.3f}"


def interval(score: Score) -> str:
    """ "0.501–0.563"; "" when no interval was computed."""
    if score.low == score.high == score.value or math.isnan(score.low):
        return ""
    low, high = number(score.metric, score.low), number(score.metric, score.high)
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


def verdict(evaluation: Evaluation, main: str, split: str) -> str:
    """What came out, in one or two sentences that claim no more than the paired tests do."""
    mine = evaluation.scores[main]
    where = f"On {count(mine.n, f'{split} image'.strip())}"
    sentence = f"{where} the captions reach {label(main)} {number(main, mine.value)}"
    if interval(mine):
        sentence += f" (95\u00a0% interval {interval(mine)})"
    blind = {name: found[main] for name, found in evaluation.baselines.items() if main in found and name != HUMAN}
    if not blind:
        return sentence + "; there is no baseline to hold against it."
    against = [f"{number(main, other.value)} for {name}" for name, other in blind.items()]
    tested = {name: evaluation.differences.get(name, {}).get(main) for name in blind}
    return f"{sentence}, against {_and(against)}: {_judgement(mine, blind, tested)}."


def _judgement(mine: Score, blind: Mapping[str, Score], tested: Mapping[str, Difference | None]) -> str:
    """Better than every baseline is what counts, so no test need be corrected for the number of baselines."""
    known = {name: found for name, found in tested.items() if found is not None}
    if len(known) < len(blind):  # scored without resamples, so nothing was tested
        best, rival = max(blind.items(), key=lambda item: item[1].value)
        return f"{'better' if mine.value > rival.value else 'no better'} than {best}; no test was made"
    best, closest = min(known.items(), key=lambda item: item[1].gain)
    if closest.gain <= 0:
        return f"no better than {best}"
    p = max(found.p_randomisation for found in known.values())
    if p < _CHANCE:
        return f"clearly better than captions that don’t know the image (paired test, p {_at_most(p)})"
    unclear = max(known, key=lambda name: known[name].p_randomisation)
    return f"better than {unclear}, but that may be chance (paired test, p = {p:.2f})"


def _at_most(p: float) -> str:
    return f"= {p:.3f}" if p >= 0.002 else "< 0.002"


def human(evaluation: Evaluation, main: str) -> str:
    """How far people agree with each other, as a sentence; "" when unknown."""
    found = evaluation.baselines.get(HUMAN, {}).get(main)
    return f"People’s captions, held against other people’s, reach {number(main, found.value)}." if found else ""


def troubles(counts: Mapping[str, int]) -> str:
    """What failed, as a sentence."""
    failed, missing, cut = (counts.get(name, 0) for name in ("failed", "missing", "unfinished"))
    empty = counts.get("empty", 0) - failed - missing  # failed images count as empty ones, too
    said = [
        f"{count(failed, 'image')} failed" if failed else "No image failed",
        f"{count(missing, 'image has', 'images have')} no prediction" if missing else "",
        f"{count(empty, 'caption is', 'captions are')} empty" if empty > 0 else "",
        f"{count(cut, 'caption was', 'captions were')} cut at the length limit" if cut else "",
    ]
    return _and([text for text in said if text]) + "."


def _and(parts: list[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts)
