"""Files of predictions: ``predictions.jsonl``, and the formats of other tools.

A prediction file is appended to, and an interrupted job resumes it. A note beside it names the model and the settings,
so captions of two models or of different settings are never mixed in one file.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cutline.core import jsonl
from cutline.core.errors import CutlineError
from cutline.core.files import write_atomically
from cutline.core.made_by import check_made_by
from cutline.core.records import Prediction, Sample
from cutline.images.formats import IMAGE_SUFFIXES

Form = Literal["jsonl", "csv", "tsv", "coco", "txt", "submission"]
#: Forms of one file that is written whole when all captions are there.
WHOLE: tuple[Form, ...] = ("csv", "tsv", "coco", "submission")

_SUFFIXES: dict[str, Form] = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".json": "coco"}


def read(path: str | Path) -> dict[str, Prediction]:
    """Predictions by id; of two rows with the same id the later one counts (a retry)."""
    return {row["id"]: Prediction.from_json(row) for row in jsonl.read(path)}


def form_of(path: str) -> Form:
    """The format for a file name, by its suffix.

    Raises:
        CutlineError: the suffix is unknown.
    """
    suffix = Path(path).suffix.lower()
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    raise CutlineError(
        f"{path}: can't tell from the name in which form to write.",
        "End it in .jsonl, .csv, .tsv or .json (COCO results), or say --format.",
    )


class PredictionFile:
    """``predictions.jsonl`` with its note ``predictions.jsonl.made-by``.

    Args:
        path: of the .jsonl file.
        made_by: what the captions depend on (checkpoint, settings); must be the same to resume a file.
    """

    def __init__(self, path: str | Path, made_by: Mapping[str, Any]):
        self.path = Path(path)
        self.note = self.path.with_name(self.path.name + ".made-by")
        self.made_by = made_by

    def open(self, *, retry_failed: bool = False) -> dict[str, Prediction]:
        """The predictions that the file holds already.

        Args:
            retry_failed: remove failed rows from the file, so that an image never has two rows.

        Raises:
            CutlineError: the file was made by another model or with other settings.
        """
        exists = self.path.exists()
        remedy = "Give another -o, or --overwrite to replace it."
        check_made_by(self.note, self.made_by, self.path, remedy, resumes=exists)
        if not exists:
            return {}
        found = read(self.path)
        if retry_failed and any(row.status == "failed" for row in found.values()):
            jsonl.Appender(self.path).close()  # nobody else writes it
            found = {id: row for id, row in found.items() if row.status == "ok"}
            write_atomically(self.path, text("jsonl", found.values()))
        return found

    def delete(self) -> None:
        """
        Raises:
            CutlineError: another process is writing it.
        """
        if self.path.exists():
            jsonl.Appender(self.path).close()
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def write(path: str, form: Form, predictions: Sequence[Prediction]) -> None:
    """Writes finished predictions as one file in a form of other tools, whole or not at all.

    Args:
        path: the file.
        form: "csv"/"tsv" (id, caption, status, error), "coco" (results JSON; failed images are left out, as its readers
            know no other way), "submission" (image_id and caption, as challenges want it; empty where there is none).
        predictions: in the order to write.
    """
    write_atomically(path, text(form, predictions))


def sidecars(samples: Sequence[Sample], folder: str = "") -> dict[str, Path]:
    """Where each image's ``.txt`` goes, by id.

    Args:
        samples: the images.
        folder: a folder for all, with the images' own folders in it where they lie in several; "" puts each beside
            its image.

    Raises:
        CutlineError: two images would have the same file.
    """
    if folder:
        names = {sample.id: Path(os.path.abspath(sample.id)) for sample in samples}
        common = os.path.commonpath([name.parent for name in names.values()])
        paths = {id: Path(folder) / _as_text(name.relative_to(common)) for id, name in names.items()}
    else:
        paths = {sample.id: _as_text(Path(sample.image)) for sample in samples}
    owners: dict[Path, str] = {}
    for id, target in paths.items():
        if target in owners:
            raise CutlineError(
                f"{owners[target]} and {id} would both have the captions of {target}.",
                "Choose a form that keeps all in one file, such as --format jsonl.",
            )
        owners[target] = id
    return paths


def _as_text(image: Path) -> Path:
    """The usual name of an image's text file; a dot in a name that is no file's ("v1.2") ends nothing."""
    known = image.suffix.lower() in IMAGE_SUFFIXES
    return image.with_suffix(".txt") if known else image.with_name(f"{image.name}.txt")


def write_sidecars(paths: Mapping[str, Path], predictions: Iterable[Prediction]) -> None:
    """A text file for each image that has a caption."""
    for row in predictions:
        if row.caption is not None:
            write_atomically(paths[row.id], row.caption + "\n", durable=False)


def text(form: Form, predictions: Iterable[Prediction]) -> str:
    """Predictions as the text of a file."""
    if form == "jsonl":
        return "".join(jsonl.dumps(row.to_json()) + "\n" for row in predictions)
    if form == "coco":
        rows = [{"image_id": _coco_id(p.id), "caption": p.caption} for p in predictions if p.caption is not None]
        return "[" + ",\n".join(jsonl.dumps(row) for row in rows) + "]\n"
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t" if form == "tsv" else ",", lineterminator="\n")
    if form == "submission":
        writer.writerow(["image_id", "caption"])
        writer.writerows([image_id(row.id), row.caption or ""] for row in predictions)
        return out.getvalue()
    writer.writerow(["id", "caption", "status", "error"])
    for row in predictions:
        writer.writerow([row.id, row.caption or "", row.status, row.error or ""])
    return out.getvalue()


def image_id(id: str) -> str:
    """What a challenge calls an image: its file's name, without folders and ending."""
    path = Path(id)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def check_image_ids(ids: Iterable[str]) -> None:
    """
    Raises:
        CutlineError: two images would have the same name in a submission.
    """
    owners: dict[str, str] = {}
    for id in ids:
        name = image_id(id)
        if owners.setdefault(name, id) != id:
            raise CutlineError(
                f"{owners[name]} and {id} would both be image_id {name} in the submission.",
                "Caption the folders one by one, or choose --format csv.",
            )


def _coco_id(id: str) -> int | str:
    return int(id) if id.isascii() and id.isdigit() and str(int(id)) == id else id
