"""Takes out pictures that come again, byte for byte or to the eye, or keeps them together in one split."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from cutline.core.config import Section
from cutline.core.records import Sample
from cutline.data.step import Drop, Workspace
from cutline.images.open import read_bytes

DESCRIPTION = "samples → the first of each picture"
PHASE: Literal["checked"] = "checked"
ORDER = 20
#: It compares samples with each other.
ACROSS = True
REASONS = {
    "same_picture": "an earlier sample has the same picture, byte for byte",
    "near_picture": "an earlier sample has a picture that looks the same",
}

Choice = Literal["drop", "group"]


class DedupSettings(Section):
    """[data.steps.dedup]"""

    exact: Choice = Field(
        default="drop",
        description="what to do with an exact copy of an earlier image: drop leaves it out, group keeps both in "
        "one split",
    )
    near: Choice | Literal["keep"] = Field(
        default="group",
        description="what to do with an image that looks like an earlier one: drop, group, or keep (not searched)",
    )
    distance: int = Field(
        default=6,
        ge=0,
        le=15,
        description="largest number of differing bits (of 64) in the perceptual hashes of images that look the same",
    )


SETTINGS = DedupSettings


def open(settings: DedupSettings, workspace: Workspace) -> Dedup:
    return Dedup(settings, workspace)


class Dedup:
    """Sample → sample, or a drop.

    Attributes:
        joins: pairs (earlier, later) of (id, group, split) that look the same and must stay together.
    """

    def __init__(self, settings: DedupSettings, workspace: Workspace):
        from cutline.images.perceptual import NearDuplicates
        from cutline.images.perceptual_cache import PerceptualHashCache

        self.settings = settings
        self.joins: list[tuple[tuple[str, str, str], tuple[str, str, str]]] = []
        self._same: set[int] = set()
        self._near = NearDuplicates(settings.distance)
        self._first: list[tuple[str, str, str]] = []  # of each picture in _near
        self._looks = PerceptualHashCache()

    def __call__(self, sample: Sample) -> Sample | Drop:
        digest = str(sample.extra["sha256"])
        key = int(digest[:16], 16)
        if key in self._same:
            if self.settings.exact == "drop":
                return Drop("same_picture", sample.image.rpartition("/")[2])
            return sample  # preparing itself keeps equal pictures together
        if self.settings.near != "keep":
            _, one = self._looks.get(read_bytes(sample.image), sample.image)
            found = self._near.find(one)
            if found is not None and self.settings.near == "drop":
                return Drop("near_picture", f"looks like {self._first[found][0]}")
            this = (sample.id, sample.group, sample.split)
            if found is not None:
                self.joins.append((self._first[found], this))
            self._near.add(one)
            self._first.append(this)
        self._same.add(key)
        return sample

    def facts(self) -> dict[str, int]:
        return {"grouped": len(self.joins)} if self.joins else {}

    def close(self) -> None:
        self._looks.close()
