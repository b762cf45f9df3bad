"""Captions a set of images into one file; a job that was interrupted resumes where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cutline.caption.caption import caption
from cutline.caption.files import PredictionFile
from cutline.core.jsonl import Appender
from cutline.core.progress import Progress
from cutline.core.records import Prediction, Sample
from cutline.families.base import Family
from cutline.families.settings import GenerateSettings


class Samples(Protocol):
    """A list of samples or a dataset, whose rows are read as they are needed."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Sample]: ...


class CaptionJob:
    """The captions of some images, in a prediction file.

    Args:
        file: where the captions go. It is opened at once, and may hold captions of these and of other images.
        samples: the images to caption.
        retry_failed: caption those images again that failed before.

    Attributes:
        predictions: image id → prediction, for everything that the file holds.

    Raises:
        CutlineError: the file holds captions of another model or of other settings.

    Example:
        job = CaptionJob(PredictionFile("predictions.jsonl", made_by), samples)
        predictions = job.run(family, settings, progress)
    """

    def __init__(self, file: PredictionFile, samples: Samples, *, retry_failed: bool = False):
        self.file = file
        self.samples = samples
        self.predictions = file.open(retry_failed=retry_failed)

    @property
    def remaining(self) -> int:
        """How many of the images have no prediction yet."""
        if not self.predictions:
            return len(self.samples)
        return sum(sample.id not in self.predictions for sample in self.samples)

    def run(self, family: Family, settings: GenerateSettings, progress: Progress) -> dict[str, Prediction]:
        """Captions the images that have no prediction yet; each batch is in the file before the next one starts.

        Args:
            family: the model.
            settings: how captions are generated.
            progress: called after each batch with how many images are done, those of earlier calls included, and how
                many there are.

        Returns:
            ``predictions``, now with all of the images.
        """
        total = len(self.samples)
        count = total - self.remaining
        finished = frozenset(self.predictions)
        with Appender(self.file.path) as out:
            for batch in caption(family, self.samples, settings, done=finished):
                out.write(prediction.to_json() for prediction in batch)
                self.predictions |= {prediction.id: prediction for prediction in batch}
                count += len(batch)
                progress(count, total)
        return self.predictions
