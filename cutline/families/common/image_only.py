"""Processors of vision–language models without their video half.

The processors of Qwen-VL and others require a video processor, and every video processor needs torchvision, which
Cutline doesn't use. A subclass has the real class's name, so that saved files name the real one, and a constructor
without ``video_processor``: Hugging Face loads and saves what the constructor's arguments name.
"""

from __future__ import annotations

from typing import Any


class _NoVideo:
    num_frames, fps = 64, 1  # SmolVLM's chat template reads them, for images too

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        raise ImportError("video input needs torchvision, which Cutline doesn't use")


class ImageOnly:
    """Stands before a processor's class in the bases of its image-only subclass."""

    video_processor = _NoVideo()


def without_video(options: dict[str, Any]) -> dict[str, Any]:
    """The further arguments of a constructor, for the real class's constructor."""
    return {name: value for name, value in options.items() if name != "video_processor"} | {"video_processor": None}
