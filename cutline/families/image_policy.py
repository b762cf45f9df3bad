"""Applies an image policy to an image processor with one fixed input size."""

from __future__ import annotations

from typing import Any

from cutline.core.errors import CheckpointError
from cutline.families.settings import ImagePolicy


def fixed_size(image_processor: Any, policy: ImagePolicy) -> None:
    """Applies a policy to an image processor with a fixed input size.

    Args:
        image_processor: a Hugging Face image processor, changed in place.
        policy: ``size`` None keeps the processor's own side; ``fit`` "model" keeps its way of resizing and cropping.
    """
    if policy.size is None and policy.fit == "model":
        return
    crop = dict(getattr(image_processor, "crop_size", None) or {})
    size = dict(image_processor.size)
    side = policy.size or crop.get("height") or size.get("height") or size.get("shortest_edge")
    if side is None:
        raise CheckpointError(
            f"{type(image_processor).__name__} doesn't state its input size.", "Set [model.image] size = … (px)."
        )
    if policy.fit == "stretch" or (policy.fit == "model" and "height" in size):
        image_processor.size = {"height": side, "width": side}
        image_processor.do_center_crop = False
    else:
        shortest = size.get("shortest_edge", side)
        scale = shortest / crop["height"] if policy.fit == "model" and crop else 1.0
        image_processor.size = {"shortest_edge": round(side * scale)}
        image_processor.crop_size = {"height": side, "width": side}
        image_processor.do_center_crop = True
