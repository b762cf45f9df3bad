"""The report of a run: what was gathered, in words and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from cutline.core.records import Score, ScoreInfo
from cutline.data import steps
from cutline.data.problem import LOSSES, MENDED
from cutline.report import examples, html, plots, retrieval_page, words
from cutline.report.gather import Gathered, gather

#: Problems of the source that are named one by one; the file beside the dataset has them all.
_MOST_PROBLEMS = 100


def write(run: str | Path, split: str | None = None) -> Path:
    """Writes ``report.html`` into a run folder.

    A run that stopped half-way gets a report, too; it lists what is missing.

    Args:
        run: the run folder.
        split: the split that was captioned; by default what the run recorded.

    Returns:
        The path of the report.

    Raises:
        DataError: there is no such folder, or nothing of a run in it.
    """
    run = Path(run)
    gathered = gather(run, split)
    page = retrieval_page.render(gathered, run) if retrieval_page.is_one(run) else render(gathered)
    return html.write(run / "report.html", page)


def render(run: Gathered) -> str:
    """The page as text. The same run gives the same page, to the byte."""
    main = words.main_score(run.evaluation, run.recipe) if run.evaluation else None
    headline = run.evaluation.scores[main].info if run.evaluation and main else ScoreInfo("", "", "")
    galleries = examples.galleries(run, main)
    return html.render(
        "page.html.jinja",
        "page.css",
        run=run,
        split=_SPLITS.get(run.split, run.split),
        about=run.recipe.get("about", ""),
        deck=_deck(run, main),
        strip=_strip(run, main),
        strip_title=headline.label,
        strip_note=words.meaning(headline),
        tables=_tables(run),
        columns=list(run.evaluation.baselines) if run.evaluation else [],
        ablation=_ablation(run),
        counts=_counts(run),
        training=_training(run),
        panel=examples.panel(run),
        stopped=run.stopped,
        galleries=galleries,
        aspect=examples.aspect(galleries),
        failures=examples.failures(run),
        most_failed=examples.MOST_FAILED,
        dataset=_dataset(run),
        facts=_facts(run),
        seconds=sum(stage.get("seconds", 0.0) for stage in run.stages.values()),
    )


_SPLITS = {"val": "validation", "train": "training"}


def _deck(run: Gathered, main: str | None) -> list[str]:
    """The sentences under the title."""
    if run.evaluation is None or main is None:
        failed = sum(prediction.status == "failed" for prediction in run.predictions.values())
        captioned = len(run.predictions) - failed
        if not run.predictions:
            return ["This run has no captions yet."]
        return [f"{words.count(captioned, 'image')} captioned, {failed:,} failed; not scored."]
    sentences = [
        words.summary(run.evaluation, main, _SPLITS.get(run.split, run.split)),
        words.human(run.evaluation, main),
        words.problems(run.evaluation.counts),
    ]
    return [sentence for sentence in sentences if sentence]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A row of the chart of intervals; dot, start and end in per cent of its width."""

    name: str
    value: str
    interval: str
    dot: float
    start: float
    end: float
    is_model: bool


def _strip(run: Gathered, main: str | None) -> list[Bar]:
    """The main score with its interval, and those of the baselines on the same scale."""
    if run.evaluation is None or main is None:
        return []
    beside = {name: found[main] for name, found in run.evaluation.baselines.items() if main in found}
    rows = {"this run": run.evaluation.scores[main], **beside}
    least = min(0.0, *(min(score.low, score.value) for score in rows.values()), 0.0)
    most = max(0.0, *(max(score.high, score.value) for score in rows.values()), 0.0)
    scale = 100 / (most - least) if most > least else 0.0
    return [
        Bar(
            name=name, value=words.number(score.info, score.value), interval=words.interval(score),
            dot=round((score.value - least) * scale, 2), start=round((score.low - least) * scale, 2),
            end=round((score.high - least) * scale, 2), is_model=name == "this run",
        )
        for name, score in rows.items()
    ]  # fmt: skip


def _tables(run: Gathered) -> list[dict[str, Any]]:
    """Scores that compare captions with references, beside their baselines; then scores of the captions alone."""
    if run.evaluation is None:
        return []
    beside = run.evaluation.baselines
    comparing = [name for name in run.evaluation.scores if any(name in found for found in beside.values())]
    others = [name for name in run.evaluation.scores if name not in comparing]
    tables = [("Agreement with the references", comparing, list(beside))]
    tables += [("The captions alone", others, [])]
    return [
        {"title": title, "rows": [_row(run, name, columns) for name in names], "columns": columns}
        for title, names, columns in tables
        if names
    ]


def _row(run: Gathered, name: str, columns: Sequence[str]) -> dict[str, Any]:
    assert run.evaluation is not None
    score = run.evaluation.scores[name]
    beside = [run.evaluation.baselines[column].get(name) for column in columns]
    return {
        "name": score.info.label, "meaning": words.meaning(score.info), "signature": score.signature,
        **_printed(score), "beside": [_printed(other) if other else None for other in beside],
    }  # fmt: skip


def _printed(score: Score) -> dict[str, str]:
    return {"value": words.number(score.info, score.value), "interval": words.interval(score)}


def _ablation(run: Gathered) -> dict[str, Any] | None:
    """What context is worth, pair by pair of conditions; None where it was not asked."""
    ablation = run.ablation
    if not ablation:
        return None
    by = words.describe(ablation["by"])
    rows = [
        {"name": f"{row['b']} against {row['a']}",
         "cells": (words.number(by, row["value_b"]), words.number(by, row["value_a"]),
                   f"{row['difference']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}",
                   f"{row['p_randomisation']:.3f}")}
        for row in ablation["differences"] if row["metric"] == by.name
    ]  # fmt: skip
    columns = ("first", "second", "difference", "95 % interval", "p")
    return {"summary": ablation["summary"], "label": by.label, "rows": rows, "columns": columns}


def _counts(run: Gathered) -> list[tuple[str, str]]:
    """(number, of what)."""
    if run.evaluation is None:
        return []
    known = dict(run.evaluation.counts)
    repeated = run.evaluation.scores.get("repeated")
    if repeated:
        known["repeated"] = round(repeated.value * repeated.n)
    names = {
        "images": "images", "references": "references", "failed": "failed", "missing": "without prediction",
        "empty": "empty", "unfinished": "cut off at the length limit", "repeated": "with a repeated phrase",
    }  # fmt: skip
    order = [*names, *(name for name in known if name not in names)]
    return [(f"{known[name]:,}", names.get(name, name)) for name in order if name in known]


def _training(run: Gathered) -> dict[str, Any] | None:
    """Curves and facts of the training; None for a run without any."""
    marker = run.stages.get("train", {})
    if not run.log and not marker:
        return None
    settings = run.recipe.get("train", {})
    metric = settings.get("metric") or next((k[4:] for row in run.log for k in row if k.startswith("val_c")), "cider")
    info = words.describe(metric)
    chosen = marker.get("best_step")
    rows = [row for row in run.log if "val_loss" in row or f"val_{metric}" in row]
    loss = words.describe("val_loss")
    return {
        "loss": Markup(plots.loss_curve(run.log)),
        "score": Markup(plots.score_curve(run.log, metric, chosen)),
        "note": plots.chosen_note(info.label, chosen),
        "chosen": chosen,
        "label": info.label,
        "validations": [
            {
                "step": row.get("step"),
                "epoch": row.get("epoch"),
                "loss": words.number(loss, row.get("val_loss")),
                "score": words.number(info, row.get(f"val_{metric}")),
            }
            for row in rows
        ],
        "parts": marker.get("parts", {}),
    }


def _dataset(run: Gathered) -> dict[str, Any] | None:
    """What the dataset is, and what was lost on the way into it."""
    dataset = run.photographs.dataset
    if dataset is None:
        return None
    marker = dataset.marker
    reasons = LOSSES | MENDED | steps.reasons()
    images, captions = dataset.splits(), dict.fromkeys(dataset.splits(), 0)
    for split, texts in zip(dataset.column("split"), dataset.column("captions"), strict=True):
        captions[split] += len(texts)
    return {
        "splits": [(_SPLITS.get(name, name) or "none", many, captions[name]) for name, many in images.items()],
        "samples": len(dataset), "rows": marker.get("rows"), "lost": marker.get("lost", 0),
        "left_out": marker.get("left_out", 0), "by_seed": marker.get("split_by") == "seed",
        "problems": [
            (reason, reasons.get(reason, reason), many,
             "lost" if reason in LOSSES else "kept" if reason in MENDED else "left out")
            for reason, many in marker.get("problems", {}).items()
        ],
        "named": run.photographs.problems()[:_MOST_PROBLEMS], "fingerprint": marker.get("fingerprint", ""),
    }  # fmt: skip


def _facts(run: Gathered) -> list[tuple[str, str]]:
    """What is needed to repeat the run."""
    facts = run.facts
    command = facts.get("command")
    found = [
        ("Command", " ".join(["cutline", *map(str, command)]) if isinstance(command, list) else ""),
        ("Seed", str(facts.get("seed", ""))),
        ("Git revision", str(facts.get("git") or "")),
        ("Python", str(facts.get("python", ""))),
        ("Machine", ", ".join(
            [*([str(facts["machine"])] if "machine" in facts else []),
             *([words.count(facts["cpus"], "core")] if facts.get("cpus") else [])])),
    ]  # fmt: skip
    versions = facts.get("versions")
    found += [(str(name), str(version)) for name, version in versions.items()] if isinstance(versions, dict) else []
    return [(name, value) for name, value in found if value]
