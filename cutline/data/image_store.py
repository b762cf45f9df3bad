"""Taking an image into the dataset: decoded to its last pixel, resized if the recipe says so, stored, noted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from cutline.core.errors import DataError
from cutline.core.fingerprint import fingerprint
from cutline.data.dataset import image_name, store_image
from cutline.images.metadata import photo_notes
from cutline.images.open import MAX_PIXELS, ImageFacts, decode
from cutline.images.resize import ResizeSettings, resize


class ImageStore:
    """Stores images in a dataset's folder; safe to call from several threads.

    Attributes:
        made: fingerprint of what is done to an image; "" when it is stored byte for byte. What was stored under
            another fingerprint doesn't count.
    """

    def __init__(
        self, folder: Path, max_pixels: int = MAX_PIXELS, resize: ResizeSettings | None = None, *, notes: bool = False
    ):
        self.folder = folder
        self.max_pixels = max_pixels
        self.resize = resize
        self.notes = notes
        self.made = fingerprint(resize and resize.model_dump(mode="json"), notes) if resize or notes else ""

    def __call__(self, data: bytes, name: str) -> ImageFacts:
        """Decodes and stores one image.

        Args:
            data: an image file's bytes.
            name: for messages.

        Raises:
            ImageProblem: it gives no picture.
            DataError: the folder can't be written.
        """
        if self.resize:
            out, facts = resize(data, self.resize, name, self.max_pixels)
        else:
            picture, suffix = decode(data, name, self.max_pixels)
            out, facts = data, ImageFacts(hashlib.sha256(data).hexdigest(), *picture.size, suffix)
        if self.notes:
            facts = replace(facts, notes=photo_notes(data))
        try:
            store_image(self.folder, facts, out)
        except OSError as error:
            raise DataError(
                f"{self.folder} can't be written: {error.strerror}.",
                "Free some space there or give another folder, and prepare again; it resumes.",
            ) from error
        return facts

    def path(self, facts: ImageFacts) -> Path:
        return self.folder / image_name(facts)

    def holds(self, facts: ImageFacts, size: int | None = None) -> bool:
        """Whether what was found earlier is still true: stored, and small enough for today's limit.

        Args:
            size: of the source in bytes; what is stored byte for byte must have it too.
        """
        path = self.path(facts)
        try:
            stored = os.stat(path).st_size
        except FileNotFoundError:
            aside = self._aside(path)
            if not aside.exists():
                return False
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(aside, path)
            stored = os.stat(path).st_size
        width, height = facts.original or (facts.width, facts.height)
        whole = stored > 0 if self.resize or size is None else stored == size
        return whole and width * height <= self.max_pixels

    def sweep(self, keep: Container[str], aside: bool) -> None:
        """Removes stored images that nobody names any more, what a kill left half-written, and empty folders.

        Args:
            keep: SHA-256 of the images that stay.
            aside: the others are put where ``holds`` brings them back from, since they were downloaded, and a recipe
                with other steps may want them without fetching them again.
        """
        images = self.folder / "images"
        for part in images.iterdir():
            if not re.fullmatch("[0-9a-f]{2}", part.name):
                continue
            for path in part.iterdir():
                name = re.fullmatch(r"([0-9a-f]{64})\.\w+|\.[0-9a-f]+\..*\.tmp", path.name)
                if name is None or (name[1] is not None and name[1] in keep):
                    continue
                if aside and name[1] is not None:
                    self._set_aside(path)
                else:
                    path.unlink()
            _remove_empty(part)
        _remove_empty(images)

    def _set_aside(self, path: Path) -> None:
        aside = self._aside(path)
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, aside)

    def _aside(self, path: Path) -> Path:
        return self.folder / ".work/aside" / path.parent.name / path.name


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it holds something
        folder.rmdir()
