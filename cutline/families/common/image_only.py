"""Processors of vision–language models without their video half.

The processors of Qwen-VL and others insist on a video processor, and every video processor needs torchvision, which
Cutline does without. The real processor class is subclassed under its own name, so that what is saved still names it.
"""

from __future__ import annotations

import functools
from typing import Any


class _NoVideo:
    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError("video input needs torchvision, which Cutline does without")


@functools.cache
def image_only(processor_class: type) -> Any:
    """A subclass of a processor that takes images only.

    Args:
        processor_class: a ``ProcessorMixin`` whose constructor takes image_processor, tokenizer and chat_template.
    """

    # Hugging Face reads the attributes off this function's own argument names, so they are written out
    def __init__(
        self: Any, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None, **kwargs: Any
    ) -> None:
        kwargs.pop("video_processor", None)
        processor_class.__init__(  # type: ignore[misc]
            self, image_processor, tokenizer, video_processor=None, chat_template=chat_template, **kwargs
        )

    members = {"__init__": __init__, "__module__": processor_class.__module__, "video_processor": _NoVideo()}
    return type(processor_class.__name__, (processor_class,), members)
