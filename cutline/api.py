"""The library's door to captioning and preparing: ``cutline.load(path).caption(images)``, ``cutline.prepare(…)``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from cutline.core.config import parse
from cutline.core.progress import Progress
from cutline.core.records import Prediction, Sample
from cutline.data.prepare import prepare as preparing
from cutline.data.prepare.work import Engine
from cutline.data.settings import DataSettings
from cutline.families.settings import Dtype, GenerateSettings
from cutline.retrieve import caption_scores


class Captioner:
    """A checkpoint, ready to caption. Use ``cutline.load``."""

    def __init__(self, checkpoint: str | Path, dtype: Dtype = "auto", device: str = "auto"):
        from cutline.families.open import open_checkpoint  # torch is imported when a model is opened

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
            images: paths or pictures, one or many.
            context: what may stand in the prompt: one mapping for all images, or one an image.
            settings: generation settings that differ from the checkpoint's own (``num_beams=3``).

        Returns:
            One prediction an image, in order. An image that can't be captioned has ``caption`` None and an ``error``.
        """
        from cutline.caption.caption import caption, caption_pictures

        several = [images] if isinstance(images, str | Path | Image) else list(images)
        strange = next((image for image in several if not isinstance(image, str | Path | Image)), None)
        if strange is not None:
            raise TypeError(f"images are paths or PIL images, not {type(strange).__name__}")
        contexts = [context or {}] * len(several) if not isinstance(context, Sequence) else list(context)
        chosen = parse(self.settings.model_dump() | settings, GenerateSettings, where="caption()")
        names = [str(place) if isinstance(image, Image) else str(image) for place, image in enumerate(several)]
        samples = [
            Sample(id=str(place), image=name, context=about)
            for place, (name, about) in enumerate(zip(names, contexts, strict=True))
        ]
        made: dict[str, Prediction] = {}
        files = [s for s, image in zip(samples, several, strict=True) if not isinstance(image, Image)]
        for batch in caption(self.family, files, chosen):
            made |= {row.id: row for row in batch}
        in_memory = [(s, image) for s, image in zip(samples, several, strict=True) if isinstance(image, Image)]
        if in_memory:
            rows = caption_pictures(self.family, [s for s, _ in in_memory], [i for _, i in in_memory], chosen)
            made |= {row.id: row for row in rows}
        return [Prediction(**made[s.id].to_json() | {"id": name}) for s, name in zip(samples, names, strict=True)]


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
) -> preparing.Report:
    """Makes a dataset of the source that the settings name, or resumes it; returns at once when nothing has changed.

    The model of [data.steps.filter] is opened by :func:`cutline.retrieve.caption_scores.scorer`. For the arguments and
    errors see :func:`cutline.data.prepare.prepare.prepare`.
    """
    return preparing.prepare(settings, folder, progress, workers, retry_failed, engine, caption_scores.scorer)
