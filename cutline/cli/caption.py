"""``cutline caption``: which images, which file, and going on with it."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from cutline.caption import files as caption_files
from cutline.caption.caption import caption
from cutline.caption.files import Form, PredictionFile
from cutline.cli.terminal import bar, say
from cutline.core.config import Section, parse
from cutline.core.errors import CutlineError
from cutline.core.fingerprint import checkpoint_fingerprint
from cutline.core.jsonl import Appender
from cutline.core.records import Prediction, Sample
from cutline.data.dataset import MARKER, Dataset
from cutline.families.base import Family
from cutline.families.open import open_checkpoint
from cutline.families.settings import GenerateSettings
from cutline.images.formats import IMAGE_SUFFIXES


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
    places = _sidecars(samples, images, out) if chosen == "txt" else {}
    if chosen == "submission":
        caption_files.check_image_ids(sample.id for sample in samples)
    if out == "-" and chosen != "txt":
        family = open_checkpoint(checkpoint, dtype, device)
        return _to_stdout(caption(family, samples, _settings(family, changes, overrides)), chosen)
    path = Path(out) if chosen == "jsonl" else _partial(out)
    if chosen in caption_files.WHOLE and not overwrite and not path.exists():
        _refuse([Path(out)])
    family = open_checkpoint(checkpoint, dtype, device)
    settings = _settings(family, changes, overrides)
    file = PredictionFile(path, _made_by(checkpoint, family, settings))
    if overwrite and chosen != "txt":
        file.delete()
    done = file.open(retry_failed=retry_failed)
    if not overwrite:
        _refuse([place for id, place in places.items() if id not in done])
    with bar("captioning") as progress, Appender(file.path) as rows:
        count = sum(sample.id in done for sample in samples)
        for batch in caption(family, samples, settings, done=done):
            rows.write(row.to_json() for row in batch)
            count += len(batch)
            progress(count, len(samples))
    made = caption_files.read(file.path)
    ordered = [made[sample.id] for sample in samples]
    if chosen == "txt":
        caption_files.write_sidecars(places, ordered)
    elif chosen != "jsonl":
        caption_files.write(out, chosen, ordered)
    if chosen != "jsonl":
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


def _refuse(targets: Sequence[Path]) -> None:
    """
    Raises:
        CutlineError: one of the files is there already; it may be somebody's own work.
    """
    present = [target for target in targets if target.exists()]
    if present:
        more = f" (and {len(present) - 1:,} more)" if len(present) > 1 else ""
        raise CutlineError(f"{present[0]}{more} exists already.", "Give another -o, or --overwrite to replace it.")


def _sidecars(samples: Sequence[Sample], images: Sequence[str], out: str) -> dict[str, Path]:
    if out == "-" and (Path(images[0]) / MARKER).is_file():
        raise CutlineError(f"{images[0]} is a prepared dataset, which is not changed.", "Give -o a folder.")
    return caption_files.sidecars(samples, "" if out == "-" else out)


class Captioning(Section):
    generate: GenerateSettings


def _settings(family: Family, changes: Mapping[str, Any], overrides: Sequence[str]) -> GenerateSettings:
    """The checkpoint's own settings, changed."""
    table = {"generate": (family.generation or GenerateSettings()).model_dump() | dict(changes)}
    wrong = next((text for text in overrides if "=" not in text), None)
    if wrong is not None:
        raise CutlineError(f"--set {wrong} is not of the form key=value.", "For example --set num_beams=3")
    named = [f"generate.{text.removeprefix('generate.')}" for text in overrides]
    settings = parse(table, Captioning, named, where="--set").generate
    if family.generation and (unlike := settings.unlike(family.generation)):
        say(f"generating otherwise than the checkpoint keeps: {unlike}")
    return settings


def _made_by(checkpoint: str, family: Family, settings: GenerateSettings) -> dict[str, Any]:
    """What decides about the captions: the size of a batch only where it changes what is drawn."""
    without = {"split"} if settings.do_sample else {"split", "batch_size", "seed", "temperature", "top_p", "top_k"}
    return {
        "checkpoint": checkpoint_fingerprint(checkpoint),
        "dtype": str(family.dtype).removeprefix("torch."),
        "settings": settings.model_dump(exclude=without),
    }


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
            names |= dict.fromkeys(_stdin())
        elif Path(argument).is_dir():
            names |= dict.fromkeys(_below(argument))
        elif os.path.lexists(argument):
            names[argument] = None
        else:
            raise CutlineError(f"There is no image or folder {argument}.", "Check the path.")
    if not names:
        raise CutlineError(f"No images in {', '.join(images)}.", f"Images end in {', '.join(IMAGE_SUFFIXES)}.")
    return [Sample(id=name, image=name) for name in names]


def _stdin() -> Iterator[str]:
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")  # a file's name may be any bytes
    for line in sys.stdin:
        if name := line.rstrip("\r\n"):
            yield name


def _below(folder: str) -> list[str]:
    """A folder's images at any depth, hidden files left out; a folder that can't be looked into stands for itself."""
    found: list[str] = []

    def closed(error: OSError) -> None:
        found.append(str(error.filename))

    for place, below, names in os.walk(folder, onerror=closed):
        below[:] = [name for name in below if not name.startswith(".")]
        images = [name for name in names if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")]
        found += [os.path.join(place, name) for name in images]
    return sorted(found)


def _to_stdout(batches: Any, form: Form) -> int:
    """Captions as they are made, in the order of their batches."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # a file's name may be any bytes
    made: list[Prediction] = []
    header = form in ("csv", "tsv", "submission")
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
