"""Reading references: a prepared dataset, COCO captions or Karpathy JSON, a JSON object or lines, CSV or TSV.

An image may go by several names (an id, a file name, a file name without its ending): the one that the predictions use
is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from cutline.core.errors import ScoreError
from cutline.metrics.files.tables import (
    CAPTION_KEYS,
    ID_KEYS,
    SPLIT_KEYS,
    find_key,
    looks_like_json,
    parse_json,
    read_text,
    table_rows,
)


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


def read_references(
    path: str | Path, predictions: Mapping[str, object], split: str | None = None, images: Path | None = None
) -> ReferenceSet:
    """The references that belong to some predictions.

    Args:
        path: a prepared dataset's folder or a file.
        predictions: id → anything; decides which of an image's names is its id.
        split: only the images of this split. None: the only split that the predictions are from, or all.
        images: the folder in which the image files are; by default where the file of references is, and its images/.

    Raises:
        ScoreError: the file is absent, of no known format, or has no captions (in that split); or no such folder.
    """
    if images is not None and not images.is_dir():
        raise ScoreError(f"There is no folder {images}.", "Give the folder with the images as --images.")
    all_images = list(_images(path))
    training = [image.captions for image in all_images if image.split == "train"]
    column = _best_name(all_images, predictions)
    usable, note = _chosen(path, all_images, column, predictions, split)
    captions: dict[str, tuple[str, ...]] = {}
    for image in usable:
        name = _name(image, column)
        captions[name] = captions.get(name, ()) + image.captions
    named = [(_name(image, column), image) for image in usable]
    return ReferenceSet(
        captions=captions,
        groups={name: image.group for name, image in named if image.group},
        contexts={name: " ".join(image.context.values()) for name, image in named if image.context},
        training=training if usable[0].split != "train" else [],
        images=_files(named, [images] if images else [Path(path).parent, Path(path).parent / "images"]),
        oracle=any(image.oracle for image in usable),
        note=note,
    )


def _chosen(
    path: str | Path,
    images: list[ReferenceImage],
    column: int,
    predictions: Mapping[str, object],
    split: str | None,
) -> tuple[list[ReferenceImage], str]:
    """The images to score against, and what was decided on the way."""
    splits = list(dict.fromkeys(image.split for image in images))
    note = ""
    if split is not None:
        images = [image for image in images if image.split == split]
        if not images:
            known = ", ".join(name or "(none)" for name in splits)
            raise ScoreError(f"{path} has no images in split {split}.", f"Splits there: {known}.")
    elif len(splits) > 1:
        met = {image.split for image in images if _name(image, column) in predictions}
        if len(met) == 1:
            (only,) = met
            images = [image for image in images if image.split == only]
            note = f"All predictions are of split {only}: scored against its {len(images)} images."
    usable = [image for image in images if any(text.strip() for text in image.captions)]
    if len(usable) < len(images):
        note = f"{note} {len(images) - len(usable)} images without a reference caption were left out.".strip()
    if not usable:
        raise ScoreError(f"{path} holds no reference captions.", "Give a file with at least one caption an image.")
    return usable, note


def _files(named: Sequence[tuple[str, ReferenceImage]], folders: Sequence[Path]) -> dict[str, Path]:
    """Image id → file, of the images that lie in one of the folders, by their whole path or by their name alone."""
    found = {}
    for number, (name, image) in enumerate(named):
        inside = (image.file, PurePath(image.file).name)
        tried = [Path(image.file), *(folder / some for folder in folders for some in inside)]
        for file in tried if image.file else ():
            if os.path.isfile(file):  # False, too, for what can't be a file's name
                found[name] = file
                break
        if number == 100 and not found:  # they are elsewhere; most scores don't need them
            break
    return found


def _name(image: ReferenceImage, column: int) -> str:
    return image.names[min(column, len(image.names) - 1)]


def _best_name(images: Sequence[ReferenceImage], predictions: Mapping[str, object]) -> int:
    """Which of the names most predictions use; the first where none does."""
    most = max((len(image.names) for image in images), default=1)
    hits = [sum(_name(image, column) in predictions for image in images) for column in range(most)]
    return hits.index(max(hits)) if hits else 0


def _images(path: str | Path) -> Iterator[ReferenceImage]:
    if str(path) != "-" and Path(path).is_dir():
        yield from _dataset(Path(path))
        return
    text = read_text(path)
    if not looks_like_json(text):
        yield from _rows(table_rows(text, path), path)
        return
    parsed = parse_json(text, path)
    if isinstance(parsed, dict) and "annotations" in parsed:
        yield from _coco(parsed)
    elif isinstance(parsed, dict) and isinstance(parsed.get("images"), list):
        yield from _karpathy(parsed, path)
    elif isinstance(parsed, dict) and not find_key(parsed, ID_KEYS):
        for name, texts in parsed.items():
            yield ReferenceImage(names=(str(name),), captions=_texts(texts), file=str(name))
    else:
        yield from _rows([parsed] if isinstance(parsed, dict) else parsed, path)


def _dataset(path: Path) -> Iterator[ReferenceImage]:
    from cutline.data.dataset import Dataset
    from cutline.data.steps.context import is_oracle

    for sample in Dataset.open(path):
        yield ReferenceImage(
            names=(sample.id, *_file_names(sample.image)),
            captions=sample.captions,
            split=sample.split,
            group=sample.group if sample.group != sample.id else "",
            context=sample.context,
            oracle=is_oracle(sample),
            file=str(sample.image),
        )


def _coco(parsed: Mapping[str, Any]) -> Iterator[ReferenceImage]:
    captions: dict[str, list[str]] = {}
    for row in parsed["annotations"]:
        captions.setdefault(str(row["image_id"]), []).append(str(row["caption"]))
    files = {str(row["id"]): str(row.get("file_name", "")) for row in parsed.get("images", ())}
    for name, texts in captions.items():
        file = files.get(name, "")
        yield ReferenceImage(names=(name, *_file_names(file)), captions=tuple(texts), file=file)


def _karpathy(parsed: Mapping[str, Any], path: str | Path) -> Iterator[ReferenceImage]:
    for row in parsed["images"]:
        if "sentences" not in row:
            raise ScoreError(
                f"{path} lists images but no sentences or annotations.", "Give COCO captions or Karpathy JSON."
            )
        file = str(row.get("filename") or row.get("file_name") or "")
        ids = [str(row[key]) for key in ("cocoid", "imgid") if key in row]
        folder = str(row.get("filepath") or "")
        whole = (str(PurePath(folder) / file),) if folder and file else ()
        yield ReferenceImage(
            names=(*_file_names(file), *whole, *ids) or ("",),
            captions=tuple(str(sentence["raw"]) for sentence in row["sentences"]),
            split=str(row.get("split", "")),
            file=whole[0] if whole else file,
        )


def _rows(rows: Iterable[Mapping[str, Any]], path: str | Path) -> Iterator[ReferenceImage]:
    """Rows with an image and captions in one or several columns; rows of one image are put together."""
    found: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for row in rows:
        id_key = find_key(row, ID_KEYS)
        keys = [key for key in row if key and _is_caption_key(key)]
        if not id_key or not keys:
            raise ScoreError(
                f"{path}: no column for the image or the captions among {', '.join(map(str, row))}.",
                f"Name one of them {' or '.join(ID_KEYS[:3])}, and the captions caption or caption_1, caption_2, …",
            )
        name = str(row[id_key])
        texts = found.setdefault(name, [])
        for key in keys:
            texts.extend(text for text in _texts(row[key]) if text.strip())
        split_key = find_key(row, SPLIT_KEYS)
        splits[name] = str(row[split_key] or "") if split_key else ""
    for name, texts in found.items():
        yield ReferenceImage(names=_file_names(name), captions=tuple(texts), split=splits[name], file=name)


def _is_caption_key(key: str) -> bool:
    plain = key.lower().rstrip("0123456789").rstrip("_ -")
    return plain in CAPTION_KEYS or plain.removesuffix("s") in CAPTION_KEYS or plain in ("reference", "references")


def _texts(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(str(item) for item in value) if isinstance(value, (list, tuple)) else (str(value),)


def _file_names(file: str) -> tuple[str, ...]:
    """The names that an image file may go by: as given, without folders, without its ending."""
    if not file:
        return ()
    path = PurePath(file)
    return tuple(dict.fromkeys((file, path.name, path.stem)))
