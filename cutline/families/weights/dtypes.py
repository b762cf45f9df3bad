"""Names of dtypes."""

from __future__ import annotations

import torch


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's name without its package: "float32"."""
    return str(dtype).removeprefix("torch.")
