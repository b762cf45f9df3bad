"""Processors of vision–language models without their video half.

The processors of Qwen-VL and others insist on a video processor, and every video processor needs torchvision, which
Cutline does without. The real processor class is subclassed under its own name, so that what is saved still names it.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any


class _NoVideo:
    num_frames, fps = 64, 1  # SmolVLM's chat template reads them, for images too

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError("video input needs torchvision, which Cutline does without")


@functools.cache
def image_only(processor_class: type) -> Any:
    """A subclass of a processor that takes images only.

    Args:
        processor_class: a ``ProcessorMixin`` whose constructor takes a video_processor.
    """
    # Hugging Face reads what to load and to save off the constructor's own argument names, in its signature and in its
    # code object, so a function with the same names is written, less the video's
    signature = inspect.signature(processor_class.__init__)  # type: ignore[misc]
    kept = [
        parameter
        for name, parameter in signature.parameters.items()
        if name not in ("self", "video_processor") and parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    ]
    known: dict[str, Any] = {"real": processor_class}
    known |= {f"default_{one.name}": None if one.default is one.empty else one.default for one in kept}
    arguments = ", ".join(f"{one.name}=default_{one.name}" for one in kept)
    passed = ", ".join(f"{one.name}={one.name}" for one in kept)
    exec(
        f"def __init__(self, {arguments}, **kwargs):\n"
        "    kwargs.pop('video_processor', None)\n"
        f"    real.__init__(self, {passed}, video_processor=None, **kwargs)\n",
        known,
    )
    members = {
        "__init__": known["__init__"],
        "__module__": processor_class.__module__,
        "video_processor": _NoVideo(),
    }
    return type(processor_class.__name__, (processor_class,), members)
