"""How the finished dataset lies on the disk: image files in fan-out folders, WebDataset tars, or both."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from cutline.core.config import Section
from cutline.core.records import Sample
from cutline.data.step import Step, Workspace

DESCRIPTION = "the dataset → fan-out folders, WebDataset tars, or both"
PHASE: Literal["end"] = "end"
ORDER = 20
REASONS: dict[str, str] = {}


class LayoutSettings(Section):
    """[data.steps.layout]"""

    tars: bool = Field(
        default=True, description="write __shards__/<split>-000000.tar …, which WebDataset's loaders can read"
    )
    folders: bool = Field(
        default=True,
        description="keep the images as files, images/00 … ff; false keeps them in the tars alone: few files instead "
        "of millions, but no imagefolder for datasets",
    )
    samples_per_tar: int = Field(default=5000, ge=1, description="samples in one tar")

    @model_validator(mode="after")
    def _somewhere(self) -> LayoutSettings:
        if not (self.tars or self.folders):
            raise ValueError("tars and folders are both false, so the images would be nowhere")
        return self


SETTINGS = LayoutSettings


def open(settings: LayoutSettings, workspace: Workspace) -> Step:
    """Tars are made of all samples: preparing has ``tars`` write them when the table is written."""

    def step(sample: Sample) -> Sample:
        return sample

    return step
