"""Finding the file that a source means by an image's name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cutline.core.errors import DataError
from cutline.data.addresses import is_address
from cutline.images.formats import IMAGE_SUFFIXES


class ImageFinder:
    """Looks names up in folders. Names may lack their ending, use backslashes, or begin with folders that are gone.

    Args:
        folders: where to look, in this order.
        chosen: the folder that the user named; then it is the only one.

    Raises:
        DataError: the chosen folder doesn't exist.
    """

    def __init__(self, folders: Sequence[Path], chosen: str | None = None):
        if chosen is not None and not Path(chosen).is_dir():
            raise DataError(f"There is no folder {chosen}.", "Fix the path in [data] images.")
        self.folders = [Path(chosen)] if chosen is not None else list(dict.fromkeys(folders))
        self._ending = ""  # what worked last time is tried first: names of one table lack the same ending
        self._shortened: dict[Path, str] = {}

    def find(self, name: str) -> str:
        """The path of the file; when there is none, where it would be first looked for. An address stays one."""
        if is_address(name.strip()):
            return name.strip()
        name = name.strip().removeprefix("file://").replace("\\", "/")
        if found := self._look(name):
            return str(found)
        # "dataset/resized/x.jpg" from another machine: drop folders from the left. Two names must not meet in one file.
        rest = name
        while "/" in rest:
            rest = rest.partition("/")[2]
            if rest and (found := self._look(rest)):
                if self._shortened.setdefault(found, name) == name:
                    return str(found)
                break
        return str(self.folders[0] / name)

    def _look(self, name: str) -> Path | None:
        if "\0" in name or not name:
            return None
        endings: list[str] = [""]
        if not name.lower().endswith(IMAGE_SUFFIXES):
            known = [*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES[:3])]
            endings = list(dict.fromkeys([self._ending, "", *known]))
        for ending in endings:
            for folder in self.folders:
                path = folder / (name + ending)
                if is_file(path):
                    self._ending = ending
                    return path
        return None


def is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the file system, for example
        return False
