"""Resizes images to what a model sees, once, when they are stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cutline.core.records import Sample
from cutline.data.step import Drop, Step, Workspace
from cutline.images.open import ImageProblem, read_bytes
from cutline.images.resize import ResizeSettings

DESCRIPTION = "images → RGB JPEGs of one size"
PHASE: Literal["images"] = "images"
ORDER = 20
REASONS: dict[str, str] = {}
SETTINGS = ResizeSettings


def open(settings: ResizeSettings, workspace: Workspace) -> Step:
    """The step by itself: a sample with the path of an image → the same with the path of the resized one."""

    def step(sample: Sample) -> Sample | Drop:
        try:
            facts = workspace.store(read_bytes(sample.image), sample.image)
        except ImageProblem as problem:
            return Drop(problem.reason, problem.detail)
        return replace(sample, image=str(workspace.store.path(facts)))

    return step
