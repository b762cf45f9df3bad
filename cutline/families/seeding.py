"""Random numbers that start from a seed, and leave those of the process as they were."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seeds ``random``, NumPy and PyTorch on every device, and gives them their old states back at the end.

    Args:
        seed: not negative; NumPy takes its lowest 32 bits.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = _device_states()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        _restore(devices)


def _device_states() -> dict[str, Any]:
    """The states of the accelerators that are in use."""
    states: dict[str, Any] = {}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        states["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore(states: dict[str, Any]) -> None:
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])
    elif torch.cuda.is_available():  # not in use before: its first draw would have come from the process's seed
        torch.cuda.manual_seed_all(torch.initial_seed())
    if "mps" in states:
        torch.mps.set_rng_state(states["mps"])
