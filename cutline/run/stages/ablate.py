"""ablate: captions with other contexts show how much the context helps."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cutline.core.fingerprint import fingerprint
from cutline.run.stage import Stage
from cutline.run.stages.caption import PREDICTIONS, Caption

if TYPE_CHECKING:
    from cutline.ablation.settings import AblationSettings
    from cutline.data.inspect.contexts import Names
    from cutline.metrics.evaluation import Evaluation
    from cutline.run.context import RunContext
    from cutline.run.recipe import Recipe

logger = logging.getLogger(__name__)

#: Folder of the captions and the result in a run.
FOLDER = "ablation"


class AblationCaptions(Stage):
    """Leaves ``ablation/<condition>.jsonl``. A part of the stage ablate that stays when only [score] changes."""

    name = "ablate-captions"
    outputs = (FOLDER,)
    purpose = "captions"

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        return (Caption(),)

    def made_from(self, context: RunContext) -> str:
        step = _context_step(context)
        return fingerprint(
            context.captions_fingerprint(),
            _settings(context).model_dump(mode="json"),
            step and step.model_dump(mode="json"),
        )

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.ablation import ablate
        from cutline.ablation.contexts import named, stepped

        settings, step = _settings(context), _context_step(context)
        samples = list(context.dataset().split(context.split))
        ablate.refuse_samples(samples)
        family = context.open_captioner()
        ablate.refuse_prompt(family.prompt)
        # the oracle's context is made in the same way as the dataset's
        oracle = stepped(step) if step else named(_names(settings)[0])
        ablate.caption_all(
            family,
            samples,
            settings,
            context.recipe.generate,
            oracle,
            context.folder / FOLDER,
            self.made_from(context),
            context.recipe.score.seed,
            context.bars,
        )
        return {}


class Ablate(Stage):
    """Leaves ``ablation/ablation.json``."""

    name = "ablate"
    _captions = AblationCaptions()

    def applies(self, recipe: Recipe) -> bool:
        return recipe.ablation is not None and super().applies(recipe)

    def needs(self, recipe: Recipe) -> Sequence[Stage]:
        return (Caption(), self._captions)

    def made_from(self, context: RunContext) -> str:
        return fingerprint(self._captions.made_from(context), context.recipe.score.model_dump())

    def __call__(self, context: RunContext) -> Evaluation | None:
        if not context.folder.is_finished(self.name, self.made_from(context)):
            self._captions(context)
        return super().__call__(context)

    def work(self, context: RunContext) -> Mapping[str, Any]:
        from cutline.ablation import ablate
        from cutline.caption.files import read
        from cutline.data.inspect.contexts import Contexts

        settings = _settings(context)
        names, named_by = _names(settings)
        samples = [sample for sample in context.dataset().split(context.split) if sample.captions]
        conditions = {ablate.WITH: read(context.folder / PREDICTIONS)}
        conditions |= {name: read(context.folder / f"{FOLDER}/{name}.jsonl") for name in settings.conditions}
        result = ablate.weigh(conditions, samples, context.recipe.score, Contexts(names, named_by))
        result.save(context.folder / FOLDER)
        logger.info(f"context, {result.images:,} images\n{ablate.differences_table(result)}")
        logger.info(f"ablate: {result.verdict}. {result.summary}")
        return {"verdict": result.verdict}


def _settings(context: RunContext) -> AblationSettings:
    assert context.recipe.ablation is not None
    return context.recipe.ablation


def _context_step(context: RunContext) -> Any:
    """The settings of ``[data.steps.context]``, if the recipe has that step."""
    return context.recipe.data.steps.chosen("checked").get("context")


def _names(settings: AblationSettings) -> tuple[Names, str]:
    """A function that finds names in a text, and a description of it."""
    from cutline.data.context.named_entities import Recogniser
    from cutline.data.inspect.contexts import names_in

    if not settings.names:
        return names_in, "capitals and numbers"
    recogniser = Recogniser(settings.names)
    return (lambda text: [name.text for name in recogniser.names(text)]), f"spaCy’s {settings.names}"
