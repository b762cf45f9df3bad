"""``cutline caption``: images in, captions out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from cutline.cli.options import Device, Dtype, Overwrite

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cutline.core.records import Prediction
    from cutline.families.base import Family
    from cutline.families.settings import GenerateSettings


def caption(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", help="A run folder, a checkpoint folder, or its name on the hub.")
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGES", help="Images, folders of images, a prepared dataset, or - for stdin."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", help="File to write; - for stdout.")] = "-",
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="jsonl, csv, tsv, coco, txt (a .txt file for each image) or submission (a CSV of image_id, caption); "
            "by default what the name of --out ends in.",
        ),
    ] = "",
    split: Annotated[str, typer.Option(help="Split of the dataset to caption; all by default.")] = "",
    beams: Annotated[int | None, typer.Option(min=1, help="Beams of the beam search.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest caption, in tokens.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images in a batch.")] = None,
    overrides: Annotated[
        list[str],
        typer.Option("--set", metavar="KEY=VALUE", help="Another key of [generate] (do_sample=true); can be repeated."),
    ] = [],
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Caption failed images again.")] = False,
    overwrite: Overwrite = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Caption images. Interrupted at any moment, the same command resumes.

    The reason is given for each image that can't be captioned. Exit code 1 when there is one.
    """
    from cutline.cli.caption_images import find_images
    from cutline.cli.caption_output import output_for
    from cutline.cli.terminal import set_threads
    from cutline.families.open import open_checkpoint

    samples = find_images(images, split)
    output = output_for(out, form, samples, images, retry_failed=retry_failed, overwrite=overwrite)
    output.check()
    family = open_checkpoint(checkpoint, cast(Any, dtype), device, set_threads=set_threads)
    changes = {"num_beams": beams, "max_new_tokens": max_tokens, "batch_size": batch_size}
    settings = _settings(family, {key: value for key, value in changes.items() if value is not None}, overrides)
    predictions = output.caption(family, settings, _made_by(checkpoint, family, settings))
    if _report_failures(predictions, out):
        raise typer.Exit(1)


def _settings(family: Family, changes: Mapping[str, Any], overrides: Sequence[str]) -> GenerateSettings:
    """The checkpoint's own settings, with changes."""
    from cutline.cli.terminal import say
    from cutline.core.config import parse
    from cutline.core.errors import CutlineError
    from cutline.families.settings import GenerateRecipe, GenerateSettings

    table = {"generate": (family.generation or GenerateSettings()).model_dump() | dict(changes)}
    malformed = next((text for text in overrides if "=" not in text), None)
    if malformed is not None:
        raise CutlineError(f"--set {malformed} is not of the form key=value.", "For example: --set num_beams=3")
    settings_overrides = [f"generate.{text.removeprefix('generate.')}" for text in overrides]
    settings = parse(table, GenerateRecipe, settings_overrides, where="--set").generate
    if family.generation and (differences := settings.unlike(family.generation)):
        say(f"generation settings differ from those saved with the checkpoint: {differences}")
    return settings


def _made_by(checkpoint: str, family: Family, settings: GenerateSettings) -> dict[str, Any]:
    """What the captions depend on. Batch size and seed count only when captions are sampled."""
    from cutline.core.fingerprint import checkpoint_fingerprint
    from cutline.families.weights.dtypes import dtype_name

    ignored = {"split"} if settings.do_sample else {"split", "batch_size", "seed", "temperature", "top_p", "top_k"}
    return {
        "checkpoint": checkpoint_fingerprint(checkpoint),
        "dtype": dtype_name(family.dtype),
        "settings": settings.model_dump(exclude=ignored),
    }


def _report_failures(predictions: Sequence[Prediction], out: str) -> int:
    """Prints which images have no caption; returns their number."""
    from cutline.cli.terminal import say

    failed = [prediction for prediction in predictions if prediction.status == "failed"]
    for prediction in failed[:20]:
        say(f"no caption: {prediction.id}: {prediction.error}")
    if len(failed) > 20:
        say(f"… and {len(failed) - 20} more")
    where = "" if out == "-" else f" in {out}"
    suffix = f"; {len(failed)} have no caption" if failed else ""
    say(f"{len(predictions) - len(failed)} of {len(predictions)} images captioned{where}{suffix}")
    return len(failed)
