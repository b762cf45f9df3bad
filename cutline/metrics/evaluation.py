"""Scores with baselines beside them, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from cutline.core import jsonl
from cutline.core.errors import ScoreError
from cutline.core.files import write_atomically
from cutline.core.progress import Bars, silent
from cutline.core.records import Prediction, Score
from cutline.metrics import baselines
from cutline.metrics.base import Candidates, Floats, References
from cutline.metrics.custom import Given
from cutline.metrics.difference import Difference, paired_differences
from cutline.metrics.scorer import Caption, Scorer, broken_lines, missing_warning
from cutline.metrics.settings import ScoreSettings

#: The name of what is scored, where it is compared with a baseline.
PREDICTIONS = "predictions"

#: The warning about captions whose prompts were made from the references.
ORACLE = (
    "The context was made from the references (oracle = true). These are oracle scores: they show the most that "
    "context could bring, and can't be compared with other results."
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of one set of predictions, with baselines.

    Attributes:
        scores: score's name → score.
        baselines: baseline's name → its scores, of the metrics that compare captions with references.
        differences: baseline's name → score's name → the paired test of the predictions against it, image by image;
            only of baselines with the same images and references.
        counts: images, references, predictions that are empty, failed, missing, unfinished.
        warnings: one sentence each.
        notes: baseline's name → how it was made.
        ids, captions, references: one for each image, in the order of the scores' ``per_image``.
    """

    scores: dict[str, Score]
    baselines: dict[str, dict[str, Score]] = field(default_factory=dict)
    differences: dict[str, dict[str, Difference]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    references: tuple[tuple[str, ...], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The content of ``scores.json``."""
        row = {
            "scores": [score.to_json() for score in self.scores.values()],
            "baselines": {
                name: [score.to_json() for score in scores.values()] for name, scores in self.baselines.items()
            },
            "differences": {
                name: [row.to_json() for row in differences.values()] for name, differences in self.differences.items()
            },
            "counts": self.counts,
            "warnings": list(self.warnings),
            "notes": self.notes,
        }
        return cast("dict[str, Any]", _plain(row))

    def save(self, folder: str | Path) -> None:
        """Writes ``per_image.jsonl`` and then ``scores.json`` into a folder."""
        per_image = {name: score.per_image for name, score in self.scores.items()}
        rows = [
            {
                "id": name,
                "caption": caption,
                "references": list(texts),
                "scores": {metric: values[index] for metric, values in per_image.items()},
            }
            for index, (name, caption, texts) in enumerate(zip(self.ids, self.captions, self.references, strict=True))
        ]
        lines = "".join(json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows)
        write_atomically(Path(folder) / "per_image.jsonl", lines)
        text = json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n"
        write_atomically(Path(folder) / "scores.json", text)

    @classmethod
    def load(cls, folder: str | Path) -> Evaluation:
        """Reads what :meth:`save` wrote.

        Raises:
            ScoreError: the folder holds no scores.
        """
        folder = Path(folder)
        if not (folder / "scores.json").is_file():
            raise ScoreError(f"There are no scores in {folder}.", "Score the predictions first (cutline score).")
        found = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
        rows = list(jsonl.read(folder / "per_image.jsonl")) if (folder / "per_image.jsonl").is_file() else []
        per_image = {
            row["metric"]: tuple(
                float("nan") if line["scores"][row["metric"]] is None else line["scores"][row["metric"]]
                for line in rows
            )
            for row in found["scores"]
        }
        return cls(
            scores={
                row["metric"]: Score.from_json({**row, "per_image": per_image[row["metric"]]})
                for row in found["scores"]
            },
            baselines={
                name: {row["metric"]: Score.from_json(row) for row in scores}
                for name, scores in found["baselines"].items()
            },
            differences={
                name: {row["metric"]: Difference.from_json(row) for row in rows}
                for name, rows in found.get("differences", {}).items()
            },
            counts=found["counts"],
            warnings=tuple(found["warnings"]),
            notes=found.get("notes", {}),
            ids=tuple(row["id"] for row in rows),
            captions=tuple(row["caption"] for row in rows),
            references=tuple(tuple(row["references"]) for row in rows),
        )


def evaluate(
    predictions: Mapping[str, Caption],
    references: Mapping[str, Sequence[str]],
    training_captions: Mapping[str, Sequence[str]] | Sequence[Sequence[str]] | Sequence[str] | None = None,
    groups: Mapping[str, Hashable] | Sequence[Hashable] | None = None,
    settings: ScoreSettings | None = None,
    contexts: Mapping[str, str] | None = None,
    allow_missing: bool = False,
    images: Mapping[str, str | Path] | None = None,
    oracle: bool = False,
    bars: Bars = silent,
    metrics: Sequence[str | Given] | None = None,
) -> Evaluation:
    """Scores predictions, and baselines: captions written without seeing the image.

    Args:
        predictions, references, groups, allow_missing: as for :func:`cutline.metrics.scorer.score`.
        training_captions: the captions of the training images (or one caption each). The constant caption is the one
            of them with the best CIDEr over the training captions. None: no such baseline.
        contexts: image id → the context in its prompt. Copied as the caption it is another baseline.
        images: image id → its file, for metrics that look at the images.
        oracle: the context was made from the references. Every signature and a warning then say so.
        bars: shows the progress of metrics that take long.
        metrics: instead of those in the settings; here they may be your own, see :mod:`cutline.metrics.custom`.

    Raises:
        ScoreError: see :func:`cutline.metrics.scorer.score`.
    """
    settings = settings or ScoreSettings()
    training = [[item] if isinstance(item, str) else item for item in _values(training_captions or ())]
    known = References(
        references, training=[text for texts in training for text in texts], contexts=contexts, images=images
    )
    scorer = Scorer(
        known,
        settings.metrics if metrics is None else metrics,
        groups=groups,
        resamples=settings.resamples,
        seed=settings.seed,
        options=settings.options,
        bars=bars,
    )
    candidates = scorer.candidates(predictions, allow_missing)
    missing = len(scorer.references) - len(predictions)
    warnings = scorer.warnings()
    warnings += broken_lines(candidates.captions, "predictions")
    if oracle:
        warnings.insert(0, ORACLE)
    warnings += missing_warning(missing, len(scorer.references))
    if candidates.several:
        many = sum(len(texts) > 1 for texts in candidates.several)
        warnings.append(f"{many} images have several captions: the first is scored; only self_bleu uses all of them.")
    statistics = scorer.statistics(candidates)
    beside, differences, notes = _baselines(scorer, candidates, statistics, training, contexts, settings, warnings)
    scores = scorer.score_candidates(candidates, statistics=statistics)
    warnings += scorer.left_out(scores)
    if oracle:
        scores = {name: replace(one, signature=f"{one.signature}|context:oracle") for name, one in scores.items()}
    return Evaluation(
        scores=scores,
        baselines=beside,
        differences=differences,
        counts=_counts(predictions, candidates, missing),
        warnings=tuple(warnings),
        notes=notes,
        ids=scorer.references.ids,
        captions=tuple(candidates.captions),
        references=tuple(scorer.references.captions),
    )


def _counts(predictions: Mapping[str, Caption], candidates: Candidates, missing: int) -> dict[str, int]:
    records = [record for record in predictions.values() if isinstance(record, Prediction)]
    captioned = [record for record in records if record.status == "ok" and record.caption is not None]
    return {
        "images": len(candidates.captions),
        "references": int(candidates.references.per_image.sum()),
        "empty": candidates.empty,
        "failed": sum(record.status == "failed" for record in records),
        "missing": missing,
        "unfinished": sum(not record.finished for record in captioned),
    }


def _baselines(
    scorer: Scorer,
    candidates: Candidates,
    statistics: Floats,
    training: Sequence[Sequence[str]],
    contexts: Mapping[str, str] | None,
    settings: ScoreSettings,
    warnings: list[str],
) -> tuple[dict[str, dict[str, Score]], dict[str, dict[str, Difference]], dict[str, str]]:
    """The baselines' scores, the predictions' differences from them, and how each was made; adds to ``warnings``."""
    scores: dict[str, dict[str, Score]] = {}
    differences: dict[str, dict[str, Difference]] = {}
    notes: dict[str, str] = {}
    references = scorer.references

    def add(name: str, captions: Sequence[str], note: str) -> None:
        blind = references.candidates(captions)
        try:
            counted = scorer.statistics(blind)
        except ScoreError as error:  # a metric that knows only the captions in its file, such as given entities
            warnings.append(f"The baseline {name} could not be scored: {error.problem}")
            return
        scores[name] = scorer.score_candidates(blind, only_comparing=True, statistics=counted)
        notes[name] = note
        if scorer.resamples:
            tested, _ = paired_differences(
                scorer,
                (name, PREDICTIONS),
                {name: blind, PREDICTIONS: candidates},
                {name: counted, PREDICTIONS: statistics},
            )
            differences[name] = {row.metric: row for row in tested if row.metric in scorer.comparing}

    if any(training):
        caption = baselines.constant_caption(training, references.tokenizer, settings.seed)
        add(
            baselines.CONSTANT,
            [caption] * len(references),
            f"“{caption}”, the training caption with the best CIDEr over the training captions, for every image.",
        )
    else:
        warnings.append("The training captions are unknown, so there is no baseline of one constant caption.")
    others = baselines.derangement(scorer.groups or references.ids, settings.seed)
    if others is None:
        warnings.append(
            "One group has more than half of the images, so there is no baseline of captions of another image."
        )
    else:
        note = f"The same predictions, each given to an image of another group (seed {settings.seed})."
        add(baselines.SHUFFLED, [candidates.captions[other] for other in others], note)
    if contexts and any(contexts.get(name) for name in references.ids):
        copied = [contexts.get(name, "") for name in references.ids]
        add(baselines.CONTEXT, copied, "The context in the prompt, copied as the caption.")
    several = {name: texts for name, texts in zip(references.ids, references.captions, strict=True) if len(texts) > 1}
    if several:
        human = scorer.with_references({name: texts[1:] for name, texts in several.items()})
        captions = human.references.candidates([texts[0] for texts in several.values()])
        scores[baselines.HUMAN] = human.score_candidates(captions, only_comparing=True)
        notes[baselines.HUMAN] = (
            f"The first reference against the others, for {len(several)} images; one reference fewer than above."
        )
    return scores, differences, notes


def _values(
    training: Mapping[str, Sequence[str]] | Sequence[Sequence[str]] | Sequence[str],
) -> list[Sequence[str] | str]:
    return list(training.values()) if isinstance(training, Mapping) else list(training)


def _plain(value: Any) -> Any:
    """NaN as null: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and value != value else value
