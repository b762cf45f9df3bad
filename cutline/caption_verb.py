"""``cutline caption``: which images, which file, and going on with it."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cutline import caption_files
from cutline.caption import caption
from cutline.caption_files import Form, PredictionFile
from cutline.data.dataset import MARKER, Dataset
from cutline.errors import CutlineError
from cutline.families.open import open_checkpoint
from cutline.families.settings import GenerateSettings
from cutline.jsonl import Appender
from cutline.progress import bar, say
from cutline.recipe import parse
from cutline.records import Prediction, Sample
from cutline.runs import fingerprint

#: Endings by which a folder's images are known.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".jfif", ".heic", ".jp2"}


def run(
    checkpoint: str,
    images: Sequence[str],
    out: str,
    form: str,
    split: str,
    changes: Mapping[str, Any],
    overrides: Sequence[str],
    *,
    retry_failed: bool,
    overwrite: bool,
    device: str,
    dtype: Any,
) -> int:
    """Captions images into a file or to stdout.

    Returns:
        How many images have no caption.
    """
    chosen = _form(out, form)
    samples = find(images, split)
    family = open_checkpoint(checkpoint, dtype, device)
    settings = _settings(family.generation or GenerateSettings(), changes, overrides)
    if out == "-" and chosen != "txt":
        return _to_stdout(caption(family, samples, settings), chosen)
    path = out if chosen == "jsonl" else _partial(out)
    file = PredictionFile(path, {"checkpoint": identity(checkpoint), "settings": settings.model_dump(), "dtype": dtype})
    if overwrite:
        file.delete()
    done = file.open(retry_failed=retry_failed)
    with bar("captioning") as progress, Appender(file.path) as rows:
        count = sum(sample.id in done for sample in samples)
        for batch in caption(family, samples, settings, done=done):
            rows.write(row.to_json() for row in batch)
            count += len(batch)
            progress(count, len(samples))
    made = caption_files.read(file.path)
    ordered = [made[sample.id] for sample in samples]
    if chosen != "jsonl":
        caption_files.write("" if out == "-" else out, chosen, ordered, [sample.image for sample in samples])
        file.delete()
    return _tell(ordered, out)


def _form(out: str, form: str) -> Form:
    if form:
        if form not in get_args(Form):
            raise CutlineError(f"There is no format {form!r}.", f"Formats: {', '.join(get_args(Form))}.")
        return form  # type: ignore[return-value]
    return "tsv" if out == "-" else caption_files.form_of(out)


def _partial(out: str) -> Path:
    """Where rows are kept until a file that can't be appended to is written whole."""
    path = Path("captions" if out == "-" else out)
    return path.with_name(f"{path.name}.partial.jsonl")


def _settings(own: GenerateSettings, changes: Mapping[str, Any], overrides: Sequence[str]) -> GenerateSettings:
    table = {"generate": own.model_dump() | dict(changes)}
    from cutline.run import Captioning

    wrong = next((text for text in overrides if "=" not in text), None)
    if wrong is not None:
        raise CutlineError(f"--set {wrong} is not of the form key=value.", "For example --set beams=3")
    return parse(table, Captioning, [f"generate.{text.removeprefix('generate.')}" for text in overrides]).generate


def find(images: Sequence[str], split: str = "") -> list[Sample]:
    """The images that arguments stand for: files, folders (searched for images), a prepared dataset, stdin.

    Raises:
        CutlineError: nothing is found, or an argument doesn't exist.
    """
    if len(images) == 1 and (Path(images[0]) / MARKER).is_file():
        dataset = Dataset.open(images[0])
        return list(dataset.split(split) if split else dataset)
    if split:
        raise CutlineError(f"--split {split} needs a prepared dataset.", "Make one with cutline prepare.")
    names: dict[str, None] = {}
    for argument in images:
        if argument == "-":
            names |= dict.fromkeys(line.strip() for line in sys.stdin if line.strip())
        elif Path(argument).is_dir():
            below = sorted(path for path in Path(argument).rglob("*") if path.suffix.lower() in SUFFIXES)
            names |= dict.fromkeys(str(path) for path in below if path.is_file())
        elif Path(argument).exists():
            names[argument] = None
        else:
            raise CutlineError(f"There is no image or folder {argument}.", "Check the path.")
    if not names:
        raise CutlineError(f"No images in {', '.join(images)}.", f"Images end in {', '.join(sorted(SUFFIXES))}.")
    return [Sample(id=name, image=name) for name in names]


def identity(checkpoint: str) -> str:
    """Changes when the checkpoint does: by the sizes and times of its files; a hub name stands for itself."""
    folder = Path(checkpoint)
    folder = folder / "model" if (folder / "model").is_dir() else folder
    if not folder.is_dir():
        return checkpoint
    files = sorted(path for path in folder.iterdir() if path.is_file())
    small = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.suffix == ".json"}
    large = {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in files if path.name not in small}
    return fingerprint(small, large)


def _to_stdout(batches: Any, form: Form) -> int:
    """Captions as they are made, in the order of their batches."""
    made: list[Prediction] = []
    header = form in ("csv", "tsv")
    for batch in batches:
        made += batch
        if form != "coco":
            text = caption_files.text(form, batch)
            print(text if header or form == "jsonl" else text.partition("\n")[2], end="", flush=True)
            header = False
    if form == "coco":
        print(caption_files.text("coco", made), end="")
    return _tell(made, "stdout")


def _tell(made: Sequence[Prediction], out: str) -> int:
    failed = [row for row in made if row.status == "failed"]
    for row in failed[:20]:
        say(f"no caption: {row.id}: {row.error}")
    if len(failed) > 20:
        say(f"… and {len(failed) - 20} more")
    where = "" if out in ("-", "stdout") else f" in {out}"
    say(f"{len(made) - len(failed)} of {len(made)} images captioned{where}"
        + (f"; {len(failed)} have no caption" if failed else ""))  # fmt: skip
    return len(failed)
