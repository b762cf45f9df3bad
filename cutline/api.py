"""The library: ``cutline.load(path).caption(images)`` and ``cutline.prepare(settings, folder)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL.Image import Image

from cutline.core.config import parse
from cutline.core.progress import Progress
from cutline.core.records import Prediction, Sample
from cutline.data.prepare.prepare import Report
from cutline.data.prepare.prepare import prepare as prepare_dataset
from cutline.data.prepare.work import Engine
from cutline.data.settings import DataSettings
from cutline.families.settings import Dtype, GenerateSettings
from cutline.retrieve import caption_scores


class Captioner:
    """A checkpoint that is ready to caption. ``cutline.load`` opens one."""

    def __init__(self, checkpoint: str | Path, dtype: Dtype = "auto", device: str = "auto"):
        from cutline.families.open import open_checkpoint  # imports torch, which preparing needs none of

        self.family = open_checkpoint(checkpoint, dtype, device)
        self.settings = self.family.generation or GenerateSettings()

    def caption(
        self,
        images: str | Path | Image | Sequence[str | Path | Image],
        context: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None,
        **settings: Any,
    ) -> list[Prediction]:
        """Captions images.

        Args:
            images: one or many paths or PIL images.
            context: fields for the prompt: one mapping for all images, or one per image.
            settings: generation settings that differ from the checkpoint's own (``num_beams=3``).

        Returns:
            One prediction per image, in order. An image that can't be captioned has ``caption`` None and an ``error``.

        Raises:
            TypeError: something else than a path or a PIL image.
            CutlineError: an unknown setting or a wrong value.
        """
        from cutline.caption.caption import caption, caption_pictures

        inputs = [images] if isinstance(images, str | Path | Image) else list(images)
        wrong = next((item for item in inputs if not isinstance(item, str | Path | Image)), None)
        if wrong is not None:
            raise TypeError(f"images are paths or PIL images, not {type(wrong).__name__}")
        contexts = list(context) if isinstance(context, Sequence) else [context or {}] * len(inputs)
        generation = parse(self.settings.model_dump() | settings, GenerateSettings, where="caption()")
        # ids are positions, since the same path may be given twice
        names = [str(index) if isinstance(item, Image) else str(item) for index, item in enumerate(inputs)]
        samples = [
            Sample(id=str(index), image=name, context=fields)
            for index, (name, fields) in enumerate(zip(names, contexts, strict=True))
        ]
        predictions: dict[str, Prediction] = {}
        files = [sample for sample, item in zip(samples, inputs, strict=True) if not isinstance(item, Image)]
        for batch in caption(self.family, files, generation):
            predictions |= {prediction.id: prediction for prediction in batch}
        in_memory = [(sample, item) for sample, item in zip(samples, inputs, strict=True) if isinstance(item, Image)]
        if in_memory:
            pictures = [picture for _, picture in in_memory]
            batch = caption_pictures(self.family, [sample for sample, _ in in_memory], pictures, generation)
            predictions |= {prediction.id: prediction for prediction in batch}
        return [replace(predictions[sample.id], id=name) for sample, name in zip(samples, names, strict=True)]


def load(checkpoint: str | Path, dtype: Dtype = "auto", device: str = "auto") -> Captioner:
    """Opens a run folder or a checkpoint for captioning.

    Args:
        checkpoint: a run folder, a checkpoint folder, or a checkpoint's name on the hub.
        dtype: of the weights; "auto" is bfloat16 on a GPU that has it, float32 otherwise.
        device: "auto", "cpu", "cuda", …

    Raises:
        CheckpointError: it can't be opened.
    """
    return Captioner(checkpoint, dtype, device)


def prepare(
    settings: DataSettings,
    folder: str | Path,
    progress: Progress | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    engine: Engine = "threads",
) -> Report:
    """Prepares a dataset from the source that the settings name, or resumes; returns at once if nothing has changed.

    The model of [data.steps.filter] is opened by :func:`cutline.retrieve.caption_scores.scorer`. For the arguments and
    errors see :func:`cutline.data.prepare.prepare.prepare`.
    """
    return prepare_dataset(settings, folder, progress, workers, retry_failed, engine, caption_scores.scorer)
