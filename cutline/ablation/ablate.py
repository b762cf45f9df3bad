"""The effect of context, with intervals: the same images captioned under several conditions, and paired tests.

Context helps when captions with it are better than without it, and better than with another image's context; the second
comparison rules out that any context would do. Context leaks when the audit finds that it was made from the captions;
then a gain means nothing. The oracle, made from the names in the references, shows how much better context could get.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cutline.ablation.contexts import Oracle, changed
from cutline.ablation.settings import AblationSettings
from cutline.caption.files import PredictionFile
from cutline.caption.job import CaptionJob
from cutline.core.errors import CutlineError
from cutline.core.files import write_atomically
from cutline.core.progress import Bars, silent
from cutline.core.records import Prediction, Sample, Score
from cutline.core.text_table import text_table
from cutline.data.inspect.contexts import ContextFacts, Contexts
from cutline.families.base import Family
from cutline.families.settings import GenerateSettings
from cutline.metrics.base import References
from cutline.metrics.baselines import CONTEXT
from cutline.metrics.difference import Difference, paired_differences
from cutline.metrics.scorer import Caption, Scorer
from cutline.metrics.settings import ScoreSettings

#: The condition of the run's own captions, and the name of the result file.
WITH, RESULT = "with", "ablation.json"

#: Pairs to test where both conditions exist: the second against the first.
_PAIRS = (("without", WITH), ("shuffled", WITH), (CONTEXT, WITH), (WITH, "oracle"))

#: Conditions that decide whether context helps, and their wording in the summary.
_AGAINST = {"without": "without it", "shuffled": "with another image’s"}

AblationVerdict = Literal["helps", "its presence helps", "no gain", "leaks"]


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The result of an ablation.

    Attributes:
        by: name of the score that decides the verdict.
        scores: condition → score's name → score; one condition is the context copied as the caption.
        differences: paired tests of two conditions, all scores.
        audit: result of the leak audit of the context of these images.
        verdict, summary: the conclusion, and a sentence that explains it.
    """

    by: str
    images: int
    scores: Mapping[str, Mapping[str, Score]]
    differences: Sequence[Difference]
    audit: ContextFacts
    verdict: AblationVerdict
    summary: str

    def to_json(self) -> dict[str, Any]:
        return {
            "verdict": self.verdict,
            "summary": self.summary,
            "by": self.by,
            "images": self.images,
            "scores": {name: [score.to_json() for score in scores.values()] for name, scores in self.scores.items()},
            "differences": [difference.to_json() for difference in self.differences],
            "audit": self.audit.to_json(),
        }

    def save(self, folder: Path) -> None:
        write_atomically(folder / RESULT, json.dumps(self.to_json(), ensure_ascii=False, indent=2) + "\n")


def refuse_prompt(prompt: str) -> None:
    """
    Raises:
        CutlineError: the prompt has no ``{context}``.
    """
    if "{context}" not in prompt:
        raise CutlineError("[ablation]: the prompt has no context.", "Put {context} into [model] prompt.")


def refuse_samples(samples: Sequence[Sample]) -> None:
    """
    Raises:
        CutlineError: no image has captions, or none that has them has context.
    """
    scored = [sample for sample in samples if sample.captions]
    if not scored:
        raise CutlineError("[ablation]: no image has a caption to score against.", "Leave [ablation] out.")
    if not any(sample.context for sample in scored):
        raise CutlineError(
            "[ablation]: no image has context.",
            "Name its columns in [data.columns] context, or add [data.steps.context].",
        )


def caption_all(
    family: Family,
    samples: Sequence[Sample],
    settings: AblationSettings,
    generate: GenerateSettings,
    oracle: Oracle,
    folder: Path,
    made_from: str,
    seed: int = 0,
    bars: Bars = silent,
) -> dict[str, dict[str, Prediction]]:
    """Captions the samples under each condition into ``folder/<condition>.jsonl``, or resumes that.

    Args:
        made_from: fingerprint of the model, the samples and how captions are generated.
        seed: seed for shuffling the contexts.

    Returns:
        Condition → image id → prediction.
    """
    predictions: dict[str, dict[str, Prediction]] = {}
    for condition in settings.conditions:
        file = PredictionFile(folder / f"{condition}.jsonl", {"made_from": made_from, "names": settings.names})
        job = CaptionJob(file, changed(condition, samples, oracle, seed))
        with bars(f"captioning, context {condition}") as progress:
            predictions[condition] = job.run(family, generate, progress)
    return predictions


def weigh(
    conditions: Mapping[str, Mapping[str, Prediction]],
    samples: Sequence[Sample],
    score: ScoreSettings,
    audit: Contexts,
) -> Ablation:
    """Scores the captions of several conditions, tests them in pairs, and decides whether context helps.

    Args:
        conditions: name → image id → prediction; "with" among them.
        samples: the images that have references.
        audit: a fresh leak audit.
    """
    references = References(
        {sample.id: list(sample.captions) for sample in samples},
        contexts={sample.id: _text(sample) for sample in samples},
        images={sample.id: sample.image for sample in samples},
    )
    scorer = Scorer(
        references,
        score.metrics,
        groups={sample.id: sample.group for sample in samples},
        resamples=score.resamples,
        seed=score.seed,
        options=score.options,
    )
    systems: dict[str, dict[str, Caption]] = {
        name: {sample.id: predictions[sample.id] for sample in samples} for name, predictions in conditions.items()
    }
    systems[CONTEXT] = {sample.id: _text(sample) for sample in samples}
    candidates = {name: scorer.candidates(captions) for name, captions in systems.items()}
    statistics = {name: scorer.statistics(captions) for name, captions in candidates.items()}
    scores = {
        name: scorer.score_candidates(captions, only_comparing=True, statistics=statistics[name])
        for name, captions in candidates.items()
    }
    pairs = [names for names in _PAIRS if score.resamples and set(names) <= set(systems)]
    tests = [paired_differences(scorer, names, candidates, statistics)[0] for names in pairs]
    differences = [row for rows in tests for row in rows if row.metric in scorer.comparing]
    facts = _audited(audit, samples)
    by = "cider" if "cider" in scores[WITH] else next(iter(scores[WITH]), "")
    verdict, summary = judge([row for row in differences if row.metric == by], facts)
    return Ablation(
        by=by,
        images=len(samples),
        scores=scores,
        differences=differences,
        audit=facts,
        verdict=verdict,
        summary=summary,
    )


def _audited(audit: Contexts, samples: Sequence[Sample]) -> ContextFacts:
    for sample in samples:
        audit.add(sample)
    facts = audit.facts()
    assert facts is not None  # checked before anything was captioned
    return facts


def judge(differences: Iterable[Difference], audit: ContextFacts) -> tuple[AblationVerdict, str]:
    """The verdict and its summary, from one score's paired tests and the audit.

    A gain counts when its 95 % interval lies above 0; lower-is-better scores the other way round.
    """
    tested = {row.a: row for row in differences if row.b == WITH and row.a in _AGAINST}
    gains = {name: _gain(row) for name, row in tested.items()}
    if audit.whole.relation == "leaks":
        return "leaks", f"The context gives the captions away, so what it gains means nothing.{_gained(tested)}"
    if not gains:
        return "no gain", "Nothing was tested: ask for the condition without context, and for resamples."
    if all(gains.values()):
        return "helps", f"Context helps.{_gained(tested)}"
    if gains.get("without"):
        return "its presence helps", (
            f"Captions are better with context than without, but any image's context does as well.{_gained(tested)}"
        )
    return "no gain", f"No gain from context can be shown.{_gained(tested)}"


def _gain(row: Difference) -> bool:
    return row.high < 0 if row.info.lower_is_better else row.low > 0


def _gained(tested: Mapping[str, Difference]) -> str:
    gains = [
        f"{row.metric} {row.difference:+.3f} ({row.low:+.3f} to {row.high:+.3f}, p = {row.p_randomisation:.3f}) "
        f"against captions {_AGAINST[name]}"
        for name, row in tested.items()
    ]
    return f" {'; '.join(gains)}." if gains else ""


def _text(sample: Sample) -> str:
    return " ".join(sample.context.values())


def differences_table(ablation: Ablation) -> str:
    """The paired tests as a text table, one line per pair and score."""
    rows = [
        (
            row.b,
            row.a,
            row.metric,
            f"{row.value_b:.3f}",
            f"{row.difference:+.3f}",
            f"{row.low:+.3f} – {row.high:+.3f}",
            f"{row.p_randomisation:.3f}",
        )
        for row in ablation.differences
    ]
    return text_table(("captions", "against", "score", "value", "change", "95 % interval", "p rand"), rows, left=3)
