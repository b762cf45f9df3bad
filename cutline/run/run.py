"""The verb that goes through everything that a recipe asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.core import ranks
from cutline.core.config import to_toml
from cutline.core.errors import CutlineError, DataError, RecipeError
from cutline.core.fingerprint import fingerprint
from cutline.core.progress import Bars, silent
from cutline.core.run_folder import RunFolder
from cutline.retrieve.settings import RetrieveSettings
from cutline.run.recipe import Recipe as Recipe
from cutline.run.recipe import default_folder as default_folder
from cutline.run.recipe import with_kept as with_kept
from cutline.run.tiny import rehearsal

if TYPE_CHECKING:
    from cutline.ablation.settings import AblationSettings
    from cutline.data.dataset import Dataset
    from cutline.data.prepare.prepare import Report
    from cutline.families.base import Family
    from cutline.metrics.evaluation import Evaluation

logger = logging.getLogger(__name__)


#: In this order; a recipe without [train] has no train stage, and so with [bootstrap] and [ablation].
STAGES = ("prepare", "bootstrap", "train", "caption", "score", "ablate", "retrieve", "report")

#: The stages of a recipe for captions, which one for retrieval hasn't.
CAPTIONING = ("caption", "score", "ablate")

#: Keys of [model] that also hold for what was trained.
QUANTIZING = ("quantize", "double_quantize", "compute_dtype")

#: Keys of [train] that change nothing about the result.
_WITHOUT_EFFECT = {"guards", "logging_steps", "save_total_limit", "dataloader_num_workers", "report_to"}


class Run:
    """One run of a recipe in its folder.

    Every stage leaves a file of records behind and a marker of what it was made from; a stage whose marker says that
    it is finished, from the same, is passed over, and one that was killed goes on where it stopped.

    Args:
        recipe: what to do.
        folder: the run folder.
        tiny: rehearse: a miniature of the model, few images, few steps.
        bars: shows the progress of long stages.
    """

    def __init__(self, recipe: Recipe, folder: str | Path, *, tiny: bool = False, bars: Bars = silent):
        self.folder = RunFolder(folder)
        self.tiny = tiny
        self.bars = bars
        self.recipe = rehearsal(recipe, self.folder.path) if tiny else with_kept(recipe)

    def __call__(self, stages: Collection[str] = STAGES) -> Evaluation | None:
        """Goes through the stages that the recipe asks for; returns the scores, when they are made."""
        self._check(stages)
        stages = self._of_this_recipe(stages)
        if ranks.count() > 1:
            self._meet()
        with self.folder.locked() if ranks.is_first() else nullcontext():
            if ranks.is_first():
                self._before_training(stages)
            self._wait()
            if "train" in stages and self.recipe.train:
                self._train()
            if not ranks.is_first():
                return None
            if "caption" in stages:
                self._caption()
            evaluation = self._score() if "score" in stages else None
            if "ablate" in stages and self.recipe.ablation:
                self._ablate(self.recipe.ablation)
            if "retrieve" in stages:
                evaluation = self._retrieve()
            if "report" in stages:
                self._report()
        return evaluation

    def _of_this_recipe(self, stages: Collection[str]) -> Collection[str]:
        """Without those that captions, or retrieval, would need."""
        other = CAPTIONING if self.recipe.for_retrieval else ("retrieve",)
        if (wrong := [stage for stage in other if stage in stages]) and tuple(stages) != STAGES:
            what, key = ("retrieval", "[train.retrieval]") if self.recipe.for_retrieval else ("captions", "[retrieve]")
            remedy = f"Leave {key} out." if self.recipe.for_retrieval else f"Add {key}, or [train.retrieval]."
            raise RecipeError(f"{wrong[0]}: this recipe is for {what}.", remedy)
        return [stage for stage in stages if stage not in other]

    def _before_training(self, stages: Collection[str]) -> None:
        self.folder.describe(to_toml(self.recipe), self.recipe.seed)
        if "prepare" in stages:
            self._prepare()
        self.refuse_data([stage for stage in stages if not self.folder.stage(stage).get("finished")])
        if "bootstrap" in stages and self.recipe.bootstrap:
            from cutline.run.stages.bootstrap import bootstrap_stage

            bootstrap_stage(
                self.folder, self._human(), self.recipe.bootstrap, self.recipe.seed, tiny=self.tiny, begin=self._begin,
                counted=log_counts, bars=self.bars,
            )  # fmt: skip

    def refuse_data(self, stages: Collection[str] = STAGES) -> None:
        """What the stages need of the prepared data.

        Raises:
            CutlineError: a stage could not be done with them; this is known before hours of training.
        """
        from cutline.run.preflight import check_data

        stages = self._of_this_recipe(stages)
        if set(stages) - {"prepare", "bootstrap", "report"}:
            split = self._ranked_split() if "retrieve" in stages else self._split()
            check_data(self.recipe, self._human(), split, stages, self.tiny)

    def _meet(self) -> None:
        """Joins the other processes that torchrun started; all but the first only train."""
        from cutline.families.open import choose_device
        from cutline.train import distributed as together

        together.meet(choose_device(self.recipe.model.device))

    def _wait(self) -> None:
        """For the other processes, where there are some."""
        if ranks.count() > 1:
            from cutline.train import distributed as together

            together.wait()

    def _check(self, stages: Collection[str]) -> None:
        """What can be known to be wrong before anything is done."""
        unknown = [stage for stage in stages if stage not in STAGES]
        if unknown:
            raise RecipeError(f"There is no stage {unknown[0]!r}.", f"Stages: {', '.join(STAGES)}.")
        from cutline.metrics import find

        if self.recipe.train:
            find.higher_is_better(self.recipe.train.metric)  # raises where it is not one score
        if "score" in stages:
            self.recipe.score.check()
        if {"train", "caption", "retrieve"} & set(stages) and not (self.tiny or self.folder.stage("prepare")):
            from cutline.families.open import family_of

            family_of(self.recipe.model)  # a model that isn't there is known before hours of preparing

    # ---- prepare

    @property
    def _dataset_folder(self) -> Path:
        return Path(self.recipe.data.dataset) if self.recipe.data.dataset else self.folder / "dataset"

    def _prepare(self) -> None:
        from cutline.data.prepare.prepare import prepare

        begun = time.monotonic()
        with self.bars("preparing") as progress:
            report = prepare(self.recipe.data, self._dataset_folder, progress)
        dataset = self._human()
        log_counts(report)
        self.folder.note(data={"folder": str(self._dataset_folder), "fingerprint": dataset.fingerprint})
        self.folder.begin("prepare", dataset.fingerprint, ())
        self.folder.finish("prepare", time.monotonic() - begun)

    def _human(self) -> Dataset:
        """The recipe's own dataset, prepared.

        Raises:
            DataError: it isn't prepared yet.
        """
        from cutline.data.dataset import Dataset

        if not self.recipe.data.dataset and not self._dataset_folder.exists():
            raise DataError(
                f"{self.folder.path} holds no prepared dataset.",
                "Run it without --only, or with --only prepare,… first.",
            )
        return Dataset.open(self._dataset_folder)

    def dataset(self) -> Dataset:
        """The prepared dataset; where the recipe bootstraps and that is done, with what the filter let through.

        Raises:
            DataError: it isn't prepared yet.
        """
        if not self.recipe.bootstrap or not self.folder.stage("bootstrap").get("finished"):
            return self._human()
        from cutline.data.dataset import Dataset

        return Dataset.open(self.folder / "bootstrap/dataset")

    # ---- train

    def _training_made_from(self) -> str:
        settings = self.recipe.train.model_dump(exclude=_WITHOUT_EFFECT) if self.recipe.train else None
        model = self.recipe.model.model_dump(exclude={"device"})
        return fingerprint(self.dataset().fingerprint, model, settings, self.recipe.seed, self.tiny)

    def _train(self) -> None:
        assert self.recipe.train is not None
        if self.recipe.bootstrap and not self.folder.stage("bootstrap").get("finished"):
            raise CutlineError(f"{self.folder.path} has not bootstrapped yet.", "Run it without --only first.")
        made_from = self._training_made_from()
        if self.folder.is_finished("train", made_from):
            logger.info("train: finished before")
            return
        if ranks.is_first():
            self._begin("train", made_from, ("train", "model"))
        self._wait()
        from cutline.train.train import train

        begun = time.monotonic()
        family = self.open_family()
        facts = train(
            family,
            self.dataset(),
            self.recipe.train,
            self.folder / "train",
            seed=self.recipe.seed,
            cache_root=self.folder / "cache" if self.tiny else None,
            bars=self.bars,
        )
        if not ranks.is_first():
            return
        family.generation = self.recipe.generate
        family.save(self.folder / "model")
        self.folder.finish("train", time.monotonic() - begun, **facts)

    def open_family(self, **model: Any) -> Family:
        """The model that training starts from.

        Args:
            model: keys of ``[model]`` that are to be other than in the recipe.
        """
        from cutline.families.open import open_family, spare_threads

        captions: list[str] = []
        if self.recipe.model.new is not None or self.tiny:
            dataset = self.dataset()
            split = "train" if "train" in dataset.splits() else next(iter(dataset.splits()))
            captions = [caption for captions in dataset.split(split).column("captions") for caption in captions]
        place = self.folder / ("miniature" if ranks.is_first() else f"miniature-{ranks.rank()}")
        settings = self.recipe.model.model_copy(update=model)
        task = "embed" if self.recipe.for_retrieval else "caption"
        family = open_family(settings, captions, tiny=self.tiny, seed=self.recipe.seed, task=task, place=place)
        spare_threads(family)
        return family

    # ---- caption

    def _split(self) -> str:
        wanted = self.recipe.generate.split
        return self.dataset().default_split() if wanted == "auto" else wanted

    def _captions_made_from(self) -> str:
        settings = self.recipe.generate.model_dump(exclude={"split"})
        return fingerprint(self._training_made_from(), settings, self._split())

    def _caption(self) -> None:
        made_from = self._captions_made_from()
        if self.folder.is_finished("caption", made_from):
            logger.info("caption: finished before")
            return
        if self.recipe.train and not self.folder.is_finished("train", self._training_made_from()):
            raise CutlineError(
                f"{self.folder.path} holds no finished training of this recipe.", "Run it without --only first."
            )
        self._begin("caption", made_from, ("predictions.jsonl", "predictions.jsonl.made-by"))
        from cutline.caption.caption import caption
        from cutline.caption.files import PredictionFile
        from cutline.core.jsonl import Appender

        begun = time.monotonic()
        family = self._captioner()
        split = self.dataset().split(self._split())
        file = PredictionFile(self.folder / "predictions.jsonl", {"made_from": made_from})
        done = file.open()
        failed = sum(row.status == "failed" for row in done.values())
        with self.bars(f"captioning {self._split()}") as progress, Appender(file.path) as out:
            count = len(done)
            for batch in caption(family, split, self.recipe.generate, done=done):
                out.write(row.to_json() for row in batch)
                count, failed = count + len(batch), failed + sum(row.status == "failed" for row in batch)
                progress(count, len(split))
        self.folder.finish("caption", time.monotonic() - begun, split=self._split(), images=count, failed=failed)

    def _captioner(self) -> Family:
        """What was trained, always as it is on the disk, so that a resumed run says what an unbroken one does; or the
        checkpoint of a recipe that trains nothing."""
        if not self.recipe.train:
            family = self.open_family()
            if family.generation and (unlike := self.recipe.generate.unlike(family.generation)):
                logger.warning(f"caption: generating otherwise than the checkpoint keeps: {unlike}")
            return family
        from cutline.families.open import open_checkpoint, spare_threads

        family = open_checkpoint(
            self.folder / "model", **self.recipe.model.model_dump(include={"dtype", "device", *QUANTIZING})
        )
        spare_threads(family)
        family.generation = self.recipe.generate
        family.save_policy(self.folder / "model")
        return family

    # ---- score, ablate and report

    def _score(self) -> Evaluation:
        from cutline.caption.files import read
        from cutline.data.steps.context import is_oracle
        from cutline.metrics.evaluation import Evaluation, evaluate

        captions = self._captions_made_from()
        made_from = fingerprint(captions, self.recipe.score.model_dump())
        if self.folder.is_finished("score", made_from):
            logger.info("score: finished before")
            return Evaluation.load(self.folder.path)
        if not self.folder.is_finished("caption", captions):
            raise CutlineError(f"{self.folder.path} holds no finished captions of this recipe.", "Caption first.")
        self._begin("score", made_from, ("scores.json", "per_image.jsonl"))
        begun = time.monotonic()
        dataset = self.dataset()
        samples = [sample for sample in dataset.split(self._split()) if sample.captions]
        if not samples:
            raise CutlineError(f"No image of {self._split()} has a caption to score against.", "Use --only caption.")
        predictions = read(self.folder / "predictions.jsonl")
        evaluation = evaluate(
            {sample.id: predictions[sample.id] for sample in samples},
            {sample.id: list(sample.captions) for sample in samples},
            training_captions=dataset.split("train").column("captions") if "train" in dataset.splits() else None,
            groups={sample.id: sample.group for sample in samples},
            settings=self.recipe.score,
            contexts={sample.id: " ".join(sample.context.values()) for sample in samples if sample.context},
            images={sample.id: sample.image for sample in samples},
            oracle=any(map(is_oracle, samples)),
            bars=self.bars,
        )
        evaluation.save(self.folder.path)
        if self._split() == "test":  # choosing by the test split flatters; how often it was looked at is on record
            self.folder.note(looks_at_test=self.folder.facts().get("looks_at_test", 0) + 1)
        self.folder.finish("score", time.monotonic() - begun, split=self._split())
        return evaluation

    def _ablate(self, settings: AblationSettings) -> None:
        captions = self._captions_made_from()
        if not self.folder.is_finished("caption", captions):
            raise CutlineError(f"{self.folder.path} holds no finished captions of this recipe.", "Caption first.")
        from cutline.run.stages.ablate import ablate

        step = self.recipe.data.steps.chosen("checked").get("context")
        samples = list(self.dataset().split(self._split()))
        ablate(
            self.folder, samples, captions, self._captioner, settings, self.recipe.generate, self.recipe.score, step,
            self.bars,
        )  # fmt: skip

    def _ranked_split(self) -> str:
        wanted = (self.recipe.retrieve or RetrieveSettings()).split
        return self.dataset().default_split() if wanted == "auto" else wanted

    def _retrieve(self) -> Evaluation:
        from cutline.run.stages.retrieve import retrieve_stage

        settings, dataset = self.recipe.retrieve or RetrieveSettings(), self.dataset()
        split, trained = self._ranked_split(), self._training_made_from()
        if self.recipe.train and not self.folder.is_finished("train", trained):
            raise CutlineError(f"{self.folder.path} holds no finished training of this recipe.", "Train first.")

        def open_model() -> Family:
            from cutline.families.open import open_checkpoint, spare_threads

            if not self.recipe.train:
                return self.open_family(dtype="float32")
            family = open_checkpoint(self.folder / "model", "float32", self.recipe.model.device, task="embed")
            spare_threads(family)
            return family

        state = fingerprint(trained, settings.model_dump(), split)
        return retrieve_stage(self.folder, open_model, dataset, split, settings, state, self._begin, self.bars)

    def _report(self) -> None:
        from cutline.report.page import write

        path = write(self.folder.path)
        logger.info(f"report: {path}")

    def _begin(self, stage: str, made_from: str, outputs: tuple[str, ...]) -> None:
        moved = self.folder.begin(stage, made_from, outputs)
        if moved:
            logger.info(f"{stage}: the recipe or the data changed; what it had made before is now in {moved}")


def log_counts(report: Report) -> None:
    """Logs what came in and what was lost on the way."""
    splits = ", ".join(f"{count:,} {name}" for name, count in report.splits.items())
    logger.info(f"prepare: {report.samples:,} images ({splits})" + (", as before" if report.unchanged else ""))
    if report.problems:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in report.problems.items())
        logger.warning(f"prepare: {report.lost:,} of {report.rows:,} rows lost; problems.jsonl lists: {reasons}")
