"""Files of predictions: ``predictions.jsonl``, and the forms that other tools read.

A prediction file is appended to and can be gone on with; beside it lies a note of what made it, so that captions of two
models, or of two ways of decoding, are never mixed in one file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from cutline import jsonl
from cutline.errors import CutlineError
from cutline.records import Prediction

Form = Literal["jsonl", "csv", "tsv", "coco", "txt"]

_SUFFIXES: dict[str, Form] = {".jsonl": "jsonl", ".csv": "csv", ".tsv": "tsv", ".json": "coco"}


def read(path: str | Path) -> dict[str, Prediction]:
    """Predictions by id; of two rows with the same id the later counts (the image was tried again)."""
    return {row["id"]: Prediction.from_json(row) for row in jsonl.read(path)}


def form_of(path: str) -> Form:
    """The form that a file name asks for.

    Raises:
        CutlineError: none is known for it.
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
        made_by: what decides about the captions (checkpoint, settings); must be the same to go on with a file.
    """

    def __init__(self, path: str | Path, made_by: Mapping[str, Any]):
        self.path = Path(path)
        self.note = self.path.with_name(self.path.name + ".made-by")
        self.made_by = json.loads(json.dumps(made_by))  # as it reads back

    def open(self, *, retry_failed: bool = False) -> dict[str, Prediction]:
        """The predictions that are there already.

        Args:
            retry_failed: failed ones don't count as there.

        Raises:
            CutlineError: the file was made by another model or with other settings.
        """
        found: dict[str, Prediction] = {}
        if self.path.exists():
            known = json.loads(self.note.read_text()) if self.note.exists() else None
            if known != self.made_by:
                changed = [key for key in self.made_by if (known or {}).get(key) != self.made_by[key]]
                what = ", ".join(changed) or "something unknown"
                raise CutlineError(
                    f"{self.path} was made differently ({what}).",
                    "Give another -o, or --overwrite to begin it anew.",
                )
            jsonl.cut_torn_tail(self.path)
            found = read(self.path)
        else:
            jsonl.write_atomically(self.note, json.dumps(self.made_by, indent=2) + "\n")
        return {id: row for id, row in found.items() if row.status == "ok"} if retry_failed else found

    def delete(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def write(path: str, form: Form, predictions: Sequence[Prediction], images: Sequence[str]) -> None:
    """Writes finished predictions in a form of other tools, whole or not at all.

    Args:
        path: the file; for "txt" the folder, or "" for a .txt beside each image.
        form: "csv"/"tsv" (id, caption, status, error), "coco" (results JSON; failed images are left out, as its readers
            know no other way), "txt" (one file an image; none for failed images).
        predictions: in the order to write.
        images: the image path of each.
    """
    if form == "txt":
        for prediction, image in zip(predictions, images, strict=True):
            if prediction.caption is not None:
                target = Path(path or Path(image).parent) / (Path(image).stem + ".txt")
                jsonl.write_atomically(target, prediction.caption + "\n")
    else:
        jsonl.write_atomically(path, text(form, predictions))


def text(form: Form, predictions: Iterable[Prediction]) -> str:
    """Predictions as the text of a file."""
    if form == "jsonl":
        return "".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in predictions)
    if form == "coco":
        rows = [{"image_id": _coco_id(p.id), "caption": p.caption} for p in predictions if p.caption is not None]
        return json.dumps(rows, ensure_ascii=False, indent=0) + "\n"
    out = io.StringIO()
    writer = csv.writer(out, delimiter="\t" if form == "tsv" else ",", lineterminator="\n")
    writer.writerow(["id", "caption", "status", "error"])
    for row in predictions:
        writer.writerow([row.id, row.caption or "", row.status, row.error or ""])
    return out.getvalue()


def _coco_id(id: str) -> int | str:
    return int(id) if id.isascii() and id.isdigit() and str(int(id)) == id else id
