"""Reading references: a prepared dataset, or any file of captions; tables, COCO and Karpathy files as ``prepare`` does.

An image may go by several names (an id, a file name): the one that the predictions use is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from cutline.core.errors import ScoreError
from cutline.core.records import Sample
from cutline.data.captions import tidy
from cutline.data.problem import Problem
from cutline.data.readers import coco, karpathy
from cutline.data.tables import columns as table_columns
from cutline.data.tables.columns import texts
from cutline.data.tables.image_finder import ImageFinder, is_file
from cutline.data.tables.rows import TableFile
from cutline.data.tables.samples import samples_of
from cutline.metrics.files.matching import longest, match
from cutline.metrics.files.tables import columns_for, local_file, option, read_any

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True)
class ReferenceImage:
    """One image of a reference file: the names it may go by, its captions, its file, and what else is said of it."""

    names: tuple[str, ...]
    captions: tuple[str, ...]
    split: str = ""
    group: str = ""
    context: Mapping[str, str] = field(default_factory=dict)
    oracle: bool = False
    file: str = ""


@dataclass(frozen=True, kw_only=True)
class ReferenceSet:
    """References matched with predictions; all by the id that the predictions use.

    Attributes:
        captions: image id → captions.
        groups: image id → group; empty when the file doesn't say.
        contexts: image id → the texts that stood in the prompt.
        training: captions of the images of the "train" split, for the constant-caption baseline.
        images: image id → its file, of those whose file was found.
        extra: predictions that no image of the references has the name of.
        names: image id → all names that it goes by.
        oracle: some of the contexts were made from the captions.
        note: what was decided on the way, for people; "" when nothing was.
    """

    captions: dict[str, tuple[str, ...]]
    groups: dict[str, str]
    contexts: dict[str, str]
    training: list[tuple[str, ...]]
    images: dict[str, Path]
    oracle: bool
    note: str
    extra: tuple[str, ...] = ()
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def read_references(
    path: str | Path,
    predictions: Mapping[str, object],
    split: str | None = None,
    images: Path | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> ReferenceSet:
    """The references that belong to some predictions.

    Args:
        path: a prepared dataset's folder or a file.
        predictions: id → anything; their names become the images' ids.
        split: only the images of this split. None: the only split that the predictions are from, or all.
        images: the folder in which the image files are; by default where the file of references is, and its images/.
        columns: key → names of columns, as :func:`cutline.metrics.files.tables.chosen_columns` gives them.

    Raises:
        ScoreError: the file is absent, of no known format, has a broken row or no captions (in that split); no such
            folder of images; or a name in the predictions could mean several images.
    """
    if images is not None and not images.is_dir():
        raise ScoreError(f"There is no folder {images}.", "Give the folder with the images as --images.")
    all_images = list(_images(path, columns or {}))
    training = [image.captions for image in all_images if image.split == "train"]
    chosen, indices, note = _of_split(path, all_images, predictions, split)
    ids = {index: name for name, index in indices.items()}
    named = [(ids.get(index, image.names[0]), image) for index, image in enumerate(chosen)]
    _refuse_twins(path, named)
    usable = [(name, image) for name, image in named if image.captions]
    if len(usable) < len(named):
        note = f"{note} {len(named) - len(usable)} images without a reference caption were left out.".strip()
    if not usable:
        raise ScoreError(f"{path} holds no reference captions.", "Give a file with at least one caption per image.")
    return ReferenceSet(
        captions={name: image.captions for name, image in usable},
        groups={name: image.group for name, image in usable if image.group},
        contexts={name: " ".join(image.context.values()) for name, image in usable if image.context},
        training=training if usable[0][1].split != "train" else [],
        images=_files(usable, Path(path), images),
        oracle=any(image.oracle for _, image in usable),
        note=note,
        extra=tuple(name for name in predictions if name not in indices),
        names={name: image.names for name, image in usable},
    )


def by_ids_of(references: ReferenceSet, predictions: Mapping[str, Value], path: str | Path) -> dict[str, Value]:
    """Predictions by the references' ids, where those were read for predictions that name the images otherwise.

    Raises:
        ScoreError: a name could mean several images.
    """
    ids = tuple(references.names)
    indices = match(predictions, [(name, *references.names[name]) for name in ids], str(path))
    return {ids[indices[name]] if name in indices else name: value for name, value in predictions.items()}


def without_extra(references: ReferenceSet, predictions: Mapping[str, Value]) -> tuple[dict[str, Value], int]:
    """The predictions that have a reference, and how many were left out."""
    kept = {name: value for name, value in predictions.items() if name in references.captions}
    return kept, len(predictions) - len(kept)


def _of_split(
    path: str | Path, images: list[ReferenceImage], predictions: Mapping[str, object], split: str | None
) -> tuple[list[ReferenceImage], dict[str, int], str]:
    """The images to score against, which of them each prediction is for, and what was decided on the way."""
    splits = list(dict.fromkeys(image.split for image in images))
    if split is not None:
        images = [image for image in images if image.split == split]
        if not images:
            known = ", ".join(name or "(none)" for name in splits)
            raise ScoreError(f"{path} has no images in split {split}.", f"Splits there: {known}.")
    indices = match(predictions, [image.names for image in images], str(path))
    used = {images[index].split for index in indices.values()}
    if split is not None or len(splits) < 2 or len(used) != 1:
        return images, indices, ""
    (only,) = used
    kept = {index: number for number, index in enumerate(i for i, one in enumerate(images) if one.split == only)}
    note = f"All predictions are of split {only}: scored against its {len(kept)} images."
    return [images[index] for index in kept], {name: kept[index] for name, index in indices.items()}, note


def _refuse_twins(path: str | Path, named: Sequence[tuple[str, ReferenceImage]]) -> None:
    """Raises a ScoreError where two images go by one name, so that nothing would tell them apart."""
    first: dict[str, ReferenceImage] = {}
    for name, image in named:
        other = first.setdefault(name, image)
        if other is not image:
            raise ScoreError(
                f"{path} has two images {name}: {longest(other.names)} and {longest(image.names)}.",
                "Choose a split with --split, or give each image a name of its own.",
            )


def _files(named: Sequence[tuple[str, ReferenceImage]], path: Path, images: Path | None) -> dict[str, Path]:
    """Image id → file, of the images that lie in the folder, or beside the file of references."""
    finder = ImageFinder([path.parent, path.parent / "images"], str(images) if images else None)
    found: dict[str, Path] = {}
    for number, (name, image) in enumerate(named):
        for candidate in (image.file, *image.names):
            file = Path(finder.find(candidate)) if candidate else None
            if file and is_file(file):
                found[name] = file
                break
        if number == 100 and not found:  # they are elsewhere; most scores don't need them
            break
    return found


def _images(path: str | Path, columns: Mapping[str, Sequence[str]]) -> Iterator[ReferenceImage]:
    if str(path) != "-" and Path(path).is_dir():
        yield from _dataset(Path(path))
        return
    with local_file(path) as file:
        content = read_any(file)
        if isinstance(content, TableFile):
            yield from _of_samples(_table(content, columns), path)
        elif isinstance(content.get("images"), list) and "annotations" not in content:
            if not any(isinstance(image, dict) and "sentences" in image for image in content["images"]):
                raise ScoreError(
                    f"{path} lists images but no sentences or annotations.", "Give COCO captions or Karpathy JSON."
                )
            yield from _of_samples(karpathy.samples(content["images"], file, str), path)
        elif isinstance(content.get("annotations"), list):
            yield from _of_samples(coco.samples(content, file, str, images_listed=False), path)
        else:
            for name, value in content.items():
                split = str(value.get("split") or "") if isinstance(value, dict) else ""
                yield ReferenceImage(
                    names=(str(name),), captions=_usable(texts(_text_only(value, path, name))), split=split, file=name
                )


def _table(table: TableFile, chosen: Mapping[str, Sequence[str]]) -> Iterable[Sample | Problem]:
    if not table.columns:
        return ()
    named = columns_for(table.columns, chosen, ("caption",))
    meaning = table_columns.assign(table.columns, named, table.path, id_names_image=True, option=option)
    table_columns.log_choice(table.columns, meaning, named, table.path, option)
    return samples_of(table, meaning, _Names())


class _Names:
    """A finder that keeps names as they are: images are looked for only when a metric wants them."""

    def find(self, name: str) -> str:
        return name


def _of_samples(samples: Iterable[Sample | Problem], path: str | Path) -> Iterator[ReferenceImage]:
    """
    Raises:
        ScoreError: a row can't be understood. A score of the others would look like that of all.
    """
    for sample in samples:
        if isinstance(sample, Problem):
            if sample.loses_row:
                raise ScoreError(f"{path}: {sample.id}: {sample.detail}.", "Fix the row, or remove it.")
            continue
        numbers = (str(sample.extra[key]) for key in ("imgid", "img_id") if key in sample.extra)
        names = tuple(dict.fromkeys(name for name in (sample.id, sample.image, *numbers) if name))
        yield ReferenceImage(
            names=names, captions=_usable(sample.captions), split=sample.split, group=sample.group, file=sample.image
        )


def _dataset(path: Path) -> Iterator[ReferenceImage]:
    from cutline.data.dataset import Dataset
    from cutline.data.steps.context import is_oracle

    for sample in Dataset.open(path):
        names = (sample.id, str(sample.extra.get("source") or ""), sample.image)
        yield ReferenceImage(
            names=tuple(dict.fromkeys(name for name in names if name)),
            captions=_usable(sample.captions),
            split=sample.split,
            group=sample.group if sample.group != sample.id else "",
            context=sample.context,
            oracle=is_oracle(sample),
            file=str(sample.image),
        )


def _text_only(value: Any, path: str | Path, name: object) -> Any:
    items = value if isinstance(value, list) else [value]
    wrong = next((item for item in items if not isinstance(item, str | dict | None)), None)
    if wrong is not None:
        raise ScoreError(f"{path}: a caption of {name} is not text: {wrong!r:.60}.", "Give captions as texts.")
    return value


def _usable(captions: Sequence[str]) -> tuple[str, ...]:
    """The captions as they are written, without those that preparing takes for none ("", "NaN", "null")."""
    return tuple(text for text in captions if tidy(text))
