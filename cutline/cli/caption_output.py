"""The outputs of ``cutline caption``: stdout, a growing JSON-lines file, a whole file, or text files beside images."""

from __future__ import annotations

import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from cutline.caption import files
from cutline.caption.files import Form, PredictionFile
from cutline.cli.caption_images import is_dataset
from cutline.cli.terminal import bar
from cutline.core.errors import CutlineError
from cutline.core.records import Prediction, Sample
from cutline.families.settings import GenerateSettings

if TYPE_CHECKING:
    from cutline.families.base import Family


def output_for(
    out: str, form: str, samples: Sequence[Sample], arguments: Sequence[str], *, retry_failed: bool, overwrite: bool
) -> Output:
    """The output that ``--out`` and ``--format`` ask for.

    Args:
        out: a path, or "-".
        form: a key of ``Form``; "" to follow the ending of ``out``.
        samples: the images to caption.
        arguments: the arguments that name them.

    Raises:
        CutlineError: an unknown form, or one that can't hold these images.
    """
    if form and form not in get_args(Form):
        raise CutlineError(f"There is no format {form!r}.", f"Formats: {', '.join(get_args(Form))}.")
    if form:
        chosen = cast(Form, form)
    else:
        chosen = "tsv" if out == "-" else files.form_of(out)
    if chosen == "txt":
        if out == "-" and is_dataset(arguments[0]):
            raise CutlineError(f"{arguments[0]} is a prepared dataset, which must not change.", "Give -o a folder.")
        return Sidecars(samples, out, retry_failed=retry_failed, overwrite=overwrite)
    if chosen == "submission":
        files.check_image_ids(sample.id for sample in samples)
    if out == "-":
        return Stdout(samples, chosen)
    if chosen == "jsonl":
        return JsonLines(samples, out, retry_failed=retry_failed, overwrite=overwrite)
    return WholeFile(samples, out, chosen, retry_failed=retry_failed, overwrite=overwrite)


class Output(ABC):
    """Captions images into one kind of output."""

    def check(self) -> None:
        """Called before the model is opened.

        Raises:
            CutlineError: the output would replace a file that may be the user's own.
        """
        _refuse_existing(self.replaced())

    def replaced(self) -> Sequence[Path]:
        """Files that would be replaced."""
        return ()

    @abstractmethod
    def caption(self, family: Family, settings: GenerateSettings, made_by: Mapping[str, Any]) -> Sequence[Prediction]:
        """Captions the images, and writes the captions.

        Args:
            made_by: what the captions depend on; a job resumes only if it is unchanged.

        Returns:
            A prediction for each image.
        """


class Stdout(Output):
    """Prints each batch of captions; COCO results, which are one list, at the end."""

    def __init__(self, samples: Sequence[Sample], form: Form):
        self.samples = samples
        self.form = form

    def caption(self, family: Family, settings: GenerateSettings, made_by: Mapping[str, Any]) -> Sequence[Prediction]:
        from cutline.caption.caption import caption

        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="surrogateescape")  # a file name may be any bytes
        predictions: list[Prediction] = []
        for batch in caption(family, self.samples, settings):
            if self.form != "coco":
                text = files.text(self.form, batch)
                has_header = self.form != "jsonl"
                print(text.partition("\n")[2] if has_header and predictions else text, end="", flush=True)
            predictions += batch
        if self.form == "coco":
            print(files.text("coco", predictions), end="")
        return predictions


class JsonLines(Output):
    """Appends to ``predictions.jsonl``, from which an interrupted job resumes."""

    def __init__(self, samples: Sequence[Sample], out: str, *, retry_failed: bool, overwrite: bool):
        self.samples = samples
        self.rows = Path(out)
        self.retry_failed = retry_failed
        self.overwrite = overwrite

    def caption(self, family: Family, settings: GenerateSettings, made_by: Mapping[str, Any]) -> Sequence[Prediction]:
        from cutline.caption.job import CaptionJob

        file = PredictionFile(self.rows, made_by)
        if self.overwrite:
            file.delete()
        job = CaptionJob(file, self.samples, retry_failed=self.retry_failed)
        with bar("captioning") as progress:
            predictions = job.run(family, settings, progress)
        return [predictions[sample.id] for sample in self.samples]


class WholeFile(JsonLines):
    """Writes a CSV, TSV, COCO or submission file when all captions are done.

    Until then they are in ``<out>.partial.jsonl``, from which an interrupted job resumes.
    """

    def __init__(self, samples: Sequence[Sample], out: str, form: Form, *, retry_failed: bool, overwrite: bool):
        super().__init__(samples, _partial(out), retry_failed=retry_failed, overwrite=overwrite)
        self.out = out
        self.form = form

    def replaced(self) -> Sequence[Path]:
        return () if self.overwrite or self.rows.exists() else (Path(self.out),)

    def caption(self, family: Family, settings: GenerateSettings, made_by: Mapping[str, Any]) -> Sequence[Prediction]:
        predictions = super().caption(family, settings, made_by)
        files.write(self.out, self.form, predictions)
        PredictionFile(self.rows, made_by).delete()
        return predictions


class Sidecars(Output):
    """Writes a ``.txt`` file for each image: beside it, or in a folder."""

    def __init__(self, samples: Sequence[Sample], out: str, *, retry_failed: bool, overwrite: bool):
        self.samples = samples
        self.paths = files.sidecars(samples, "" if out == "-" else out)
        self.rows = Path(_partial("captions" if out == "-" else out))
        self.retry_failed = retry_failed
        self.overwrite = overwrite

    def caption(self, family: Family, settings: GenerateSettings, made_by: Mapping[str, Any]) -> Sequence[Prediction]:
        from cutline.caption.job import CaptionJob

        file = PredictionFile(self.rows, made_by)
        job = CaptionJob(file, self.samples, retry_failed=self.retry_failed)
        if not self.overwrite:
            _refuse_existing([path for id, path in self.paths.items() if id not in job.predictions])
        with bar("captioning") as progress:
            predictions = job.run(family, settings, progress)
        ordered = [predictions[sample.id] for sample in self.samples]
        files.write_sidecars(self.paths, ordered)
        file.delete()
        return ordered


def _partial(out: str) -> str:
    return str(Path(out).with_name(f"{Path(out).name}.partial.jsonl"))


def _refuse_existing(paths: Sequence[Path]) -> None:
    existing = [path for path in paths if path.exists()]
    if existing:
        more = f" (and {len(existing) - 1:,} more)" if len(existing) > 1 else ""
        raise CutlineError(f"{existing[0]}{more} already exists.", "Give another -o, or --overwrite to replace it.")
