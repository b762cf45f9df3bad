"""The ablation as a stage of a run: its files in ``ablation/``, its marker, and going on after a kill."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from cutline.ablation import ablate as ablation
from cutline.ablation.contexts import named, stepped
from cutline.ablation.settings import AblationSettings
from cutline.caption import files as caption_files
from cutline.core.fingerprint import fingerprint
from cutline.core.progress import Bars, silent
from cutline.core.records import Sample
from cutline.core.run_folder import RunFolder
from cutline.data.context.named_entities import Recogniser
from cutline.data.inspect.contexts import Contexts, Names, names_in
from cutline.data.steps.context import Settings as ContextSettings
from cutline.families.base import Family
from cutline.families.settings import GenerateSettings
from cutline.metrics.settings import ScoreSettings

logger = logging.getLogger(__name__)


#: Where the captions and the result are, in the run folder.
FOLDER = "ablation"


def ablate(
    folder: RunFolder,
    samples: Sequence[Sample],
    captions: str,
    open_family: Callable[[], Family],
    settings: AblationSettings,
    generate: GenerateSettings,
    score: ScoreSettings,
    step: ContextSettings | None = None,
    bars: Bars = silent,
) -> None:
    """Captions under the conditions, scores, tests, and writes ``ablation/ablation.json``.

    Args:
        folder: of a run whose captions are finished.
        samples: of the split that was captioned.
        captions: fingerprint of the run's captions.
        open_family: opens what made them.
        step: what the dataset's context was made by; the oracle's is then made the same way.
        bars: shows the progress.

    Raises:
        CutlineError: there is no context, or no place for it in the prompt.
    """
    made_from = fingerprint(captions, settings.model_dump(mode="json"), step and step.model_dump(mode="json"))
    judged_from = fingerprint(made_from, score.model_dump())
    if folder.is_finished("ablate", judged_from):
        logger.info("ablate: finished before")
        return
    begun = time.monotonic()
    ablation.refuse_samples(samples)
    scored = [sample for sample in samples if sample.captions]
    names, named_by = _names(settings)
    if not folder.is_finished("ablate-captions", made_from):
        family = open_family()
        ablation.refuse_prompt(family.prompt)
        if moved := folder.begin("ablate-captions", made_from, (FOLDER,)):
            logger.info(f"ablate: the recipe or the data changed; what it had made before is now in {moved}")
        oracle = stepped(step) if step else named(names)
        with bars("captioning with other contexts") as progress:
            ablation.caption_all(
                family, samples, settings, generate, oracle, folder / FOLDER, made_from, score.seed, progress
            )
        folder.finish("ablate-captions", time.monotonic() - begun)
    begun = time.monotonic()
    folder.begin("ablate", judged_from, ())
    conditions = {ablation.WITH: caption_files.read(folder / "predictions.jsonl")}
    conditions |= {name: caption_files.read(folder / f"{FOLDER}/{name}.jsonl") for name in settings.conditions}
    found = ablation.weigh(conditions, scored, score, Contexts(names, named_by))
    found.save(folder / FOLDER)
    logger.info(f"context, {found.images:,} images\n{ablation.differences_table(found)}")
    logger.info(f"ablate: {found.verdict}. {found.says}")
    folder.finish("ablate", time.monotonic() - begun, verdict=found.verdict)


def _names(settings: AblationSettings) -> tuple[Names, str]:
    """What finds names, and what it is called."""
    if not settings.names:
        return names_in, "capitals and numbers"
    recogniser = Recogniser(settings.names)
    return (lambda text: [name.text for name in recogniser.names(text)]), f"spaCy’s {settings.names}"
