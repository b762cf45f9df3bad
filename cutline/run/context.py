"""What the stages of a run share: folder, recipe, data, split, models and fingerprints."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cutline.core import ranks
from cutline.core.errors import DataError, RecipeError
from cutline.core.fingerprint import fingerprint
from cutline.core.progress import Bars, silent
from cutline.core.run_folder import RunFolder
from cutline.core.threads import SetThreads, keep_threads
from cutline.retrieve.settings import RetrieveSettings
from cutline.run.recipe import Recipe, with_saved_generation
from cutline.run.tiny import rehearsal

if TYPE_CHECKING:
    from cutline.data.dataset import Dataset
    from cutline.families.base import Family

logger = logging.getLogger(__name__)

#: Keys of [model] that also apply to the trained model.
QUANTIZING = ("quantize", "double_quantize", "compute_dtype")

#: Keys of [train] that don't change the result.
_WITHOUT_EFFECT = {"guards", "logging_steps", "save_total_limit", "dataloader_num_workers", "report_to"}


class RunContext:
    """A recipe in its run folder.

    Args:
        recipe: the recipe.
        folder: the run folder.
        tiny: a rehearsal: a miniature of the model, few images, few steps.
        bars: shows the progress of long stages.
        set_threads: called where a small model runs faster on one thread; by default the process keeps its threads.

    Raises:
        RecipeError: the folder holds a tiny run, but this one is not tiny, or the reverse.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: str | Path,
        *,
        tiny: bool = False,
        bars: Bars = silent,
        set_threads: SetThreads = keep_threads,
    ):
        self.folder = RunFolder(folder)
        self.tiny = tiny
        self.bars = bars
        self.set_threads = set_threads
        self._check_tiny()
        self.recipe = rehearsal(recipe, self.folder.path) if tiny else with_saved_generation(recipe)
        self._datasets: dict[Path, tuple[int, Dataset]] = {}

    def _check_tiny(self) -> None:
        recorded = self.folder.facts().get("tiny", self.tiny)
        if recorded and not self.tiny:
            raise RecipeError(
                f"{self.folder.path} holds a run made with --tiny.",
                "Give another folder with --out, or continue the tiny run with --tiny.",
            )
        if self.tiny and not recorded:
            raise RecipeError(
                f"{self.folder.path} holds a full run, which a tiny one would replace.",
                "Give another folder with --out, or leave out --tiny.",
            )

    # ---- data

    @property
    def dataset_folder(self) -> Path:
        """Where the recipe's own dataset is prepared."""
        return Path(self.recipe.data.dataset) if self.recipe.data.dataset else self.folder / "dataset"

    def own_dataset(self) -> Dataset:
        """The recipe's own dataset, without what bootstrapping adds.

        Raises:
            DataError: it isn't prepared yet.
        """
        if not self.recipe.data.dataset and not self.dataset_folder.exists():
            raise DataError(
                f"{self.folder.path} holds no prepared dataset.",
                "Run it without --only, or with --only prepare,… first.",
            )
        return self._open_dataset(self.dataset_folder)

    def dataset(self) -> Dataset:
        """The prepared dataset; after bootstrapping, with the web images that the filter kept.

        Raises:
            DataError: it isn't prepared yet.
        """
        if not self.recipe.bootstrap or not self.folder.stage("bootstrap").get("finished"):
            return self.own_dataset()
        return self._open_dataset(self.folder / "bootstrap/dataset")

    def _open_dataset(self, folder: Path) -> Dataset:
        """Opens a dataset, or returns the open one if it hasn't been written since; hashing its table takes time."""
        from cutline.data.dataset import MARKER, Dataset

        try:
            modified = (folder / MARKER).stat().st_mtime_ns
        except OSError:
            return Dataset.open(folder)  # which raises the error
        cached = self._datasets.get(folder)
        if cached is None or cached[0] != modified:
            cached = self._datasets[folder] = (modified, Dataset.open(folder))
        return cached[1]

    @property
    def split(self) -> str:
        """The split that is captioned; in a recipe for retrieval, the one that is searched."""
        if self.recipe.for_retrieval:
            split = (self.recipe.retrieve or RetrieveSettings()).split
        else:
            split = self.recipe.generate.split
        return self.dataset().default_split() if split == "auto" else split

    # ---- fingerprints: what the outputs of a stage depend on

    def training_fingerprint(self) -> str:
        settings = self.recipe.train.model_dump(exclude=_WITHOUT_EFFECT) if self.recipe.train else None
        model = self.recipe.model.model_dump(exclude={"device"})
        return fingerprint(self.dataset().fingerprint, model, settings, self.recipe.seed, self.tiny)

    def captions_fingerprint(self) -> str:
        settings = self.recipe.generate.model_dump(exclude={"split"})
        return fingerprint(self.training_fingerprint(), settings, self.split)

    def begin(self, stage: str, made_from: str, outputs: tuple[str, ...]) -> None:
        """Marks a stage as begun; outputs of a different recipe or of different data are moved aside."""
        if moved := self.folder.begin(stage, made_from, outputs):
            logger.info(f"{stage}: the recipe or the data changed; the old outputs are in {moved}")

    def count_look_at_test(self) -> None:
        """Counts how often the test split was scored: choosing by it makes the result look too good."""
        if self.split == "test":
            self.folder.note(looks_at_test=self.folder.facts().get("looks_at_test", 0) + 1)

    # ---- models

    def open_family(self, **model: Any) -> Family:
        """The model that training starts from, or that a recipe without training uses.

        Args:
            model: keys of ``[model]`` to change.
        """
        from cutline.families.open import open_family

        captions: list[str] = []
        if self.recipe.model.new is not None or self.tiny:
            dataset = self.dataset()
            training = dataset.split(dataset.default_split("train"))
            captions = [caption for captions in training.column("captions") for caption in captions]
        miniature = self.folder / ("miniature" if ranks.is_main_process() else f"miniature-{ranks.rank()}")
        settings = self.recipe.model.model_copy(update=model)
        task = "embed" if self.recipe.for_retrieval else "caption"
        return open_family(
            settings,
            captions,
            tiny=self.tiny,
            seed=self.recipe.seed,
            task=task,
            folder=miniature,
            set_threads=self.set_threads,
        )

    def open_captioner(self) -> Family:
        """The trained model as it was saved, so that a resumed run gives the captions of an uninterrupted one; without
        training, the recipe's checkpoint."""
        if not self.recipe.train:
            family = self.open_family()
            if family.generation and (differences := self.recipe.generate.unlike(family.generation)):
                logger.warning(f"generation settings differ from those saved with the checkpoint: {differences}")
            return family
        from cutline.families.open import open_checkpoint

        keys = self.recipe.model.model_dump(include={"dtype", "device", *QUANTIZING})
        family = open_checkpoint(self.folder / "model", set_threads=self.set_threads, **keys)
        family.generation = self.recipe.generate
        family.save_policy(self.folder / "model")
        return family

    def open_embedder(self) -> Family:
        """The model whose retrieval is evaluated, in float32: the trained one, or the checkpoint."""
        if not self.recipe.train:
            return self.open_family(dtype="float32")
        from cutline.families.open import open_checkpoint

        model, device = self.folder / "model", self.recipe.model.device
        return open_checkpoint(model, "float32", device, task="embed", set_threads=self.set_threads)

    # ---- other processes of the training (torchrun)

    def join_processes(self) -> None:
        """Joins the other processes that torchrun started; all but the first only train."""
        if ranks.count() > 1:
            from cutline.families.open import choose_device
            from cutline.train import distributed

            distributed.init(choose_device(self.recipe.model.device))

    def leave_processes(self) -> None:
        """Leaves the other processes, without waiting for them: the first still captions when they are done."""
        if ranks.count() > 1:
            from cutline.train import distributed

            distributed.destroy()

    def wait(self) -> None:
        """Waits until every process is here."""
        if ranks.count() > 1:
            from cutline.train import distributed

            distributed.barrier()
