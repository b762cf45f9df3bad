"""The report of a run that evaluates retrieval: scores, training curves, and example searches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cutline.core import jsonl
from cutline.core.run_folder import RETRIEVAL
from cutline.metrics.evaluation import Evaluation
from cutline.report import html, plots, words
from cutline.report.gather import Gathered

#: Texts that are shown, and results for each.
_TEXTS, _HITS = 8, 4

_DIRECTIONS = {"tr": "image → text", "ir": "text → image"}


def is_one(run: Path) -> bool:
    """Whether a run folder holds an evaluation of retrieval."""
    return (run / RETRIEVAL / "scores.json").is_file()


def render(run: Gathered, folder: Path) -> str:
    """The page as text."""
    evaluation = Evaluation.load(folder / RETRIEVAL)
    return html.render(
        "retrieval.html.jinja",
        "page.css",
        run=run,
        split=run.stages.get("retrieve", {}).get("split", ""),
        deck=[text for text in (run.recipe.get("about", ""), verdict(evaluation)) if text],
        rows=list(_rows(evaluation)),
        baselines=list(evaluation.baselines),
        notes=[f"{_DIRECTIONS.get(name.partition('_')[0], name)}: {text}." for name, text in evaluation.notes.items()],
        curves=list(_curves(run)),
        cards=list(_cards(run, folder)),
    )


def verdict(evaluation: Evaluation) -> str:
    """Recall at 1 in both directions, beside chance, in a sentence."""
    parts = []
    for direction, text in (("tr", "of the images find one of their captions"), ("ir", "of the captions their image")):
        score = evaluation.scores.get(f"{direction}_recall_at_1")
        chance = evaluation.baselines.get("chance", {}).get(f"{direction}_recall_at_1")
        if score is not None:
            beside = f"; chance: {chance.value:.2%}" if chance else ""
            parts.append(f"{score.value:.1%} ({score.low:.1%}–{score.high:.1%}{beside}) {text} first")
    return " and ".join(parts) + f", among {evaluation.counts['images']:,} images." if parts else ""


def _rows(evaluation: Evaluation) -> Iterator[dict[str, Any]]:
    for name, score in evaluation.scores.items():
        others = [scores.get(name) for scores in evaluation.baselines.values()]
        yield {
            "name": score.info.label,
            "meaning": words.meaning(score.info),
            "value": words.number(score.info, score.value),
            "interval": words.interval(score),
            "others": ["" if other is None else words.number(score.info, other.value) for other in others],
        }


def _curves(run: Gathered) -> Iterator[tuple[str, Markup]]:
    settings = run.recipe.get("train", {}).get("retrieval", {})
    metric = settings.get("metric", "mean_recall")
    chosen = run.stages.get("train", {}).get("best_step")
    if drawn := plots.loss_curve(run.log):
        yield "Loss by step.", Markup(drawn)
    if drawn := plots.score_curve(run.log, metric, chosen):
        yield (
            f"{metric.replace('_', ' ').capitalize()} on the validation images; the ring marks the chosen checkpoint.",
            Markup(drawn),
        )


def _cards(run: Gathered, folder: Path) -> Iterator[dict[str, Any]]:
    """Some texts with their results."""
    hits = folder / RETRIEVAL / "hits.jsonl"
    of: dict[str, list[Mapping[str, Any]]] = {}
    for row in jsonl.read(hits) if hits.is_file() else ():
        owner, mark, number = row["query"].rpartition("#")
        if mark and number.isdigit() and int(number) < len(run.photographs.references(owner)):
            of.setdefault(row["query"], []).append(row)
    queries = list(of)
    for number in range(min(_TEXTS, len(queries))):
        query = queries[number * len(queries) // min(_TEXTS, len(queries))]
        owner, _, number = query.rpartition("#")
        best = sorted(of[query], key=lambda row: row["rank"])[:_HITS]
        text = run.photographs.references(owner)[int(number)]
        yield {"text": text, "hits": [_hit(run, row, owner) for row in best]}


def _hit(run: Gathered, row: Mapping[str, Any], owner: str) -> dict[str, Any]:
    picture, _ = run.photographs.picture(row["candidate"], 240)
    itm = "" if row["itm"] is None else f"{row['itm']:.2f}"
    return {
        "id": row["candidate"],
        "rank": row["rank"],
        "itc": f"{row['itc']:.3f}",
        "itm": itm,
        "right": row["candidate"] == owner,
        "picture": picture,
    }
