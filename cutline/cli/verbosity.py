"""Silences messages and progress bars of other libraries."""

from __future__ import annotations

import logging
import os
import sys


def quiet_libraries() -> None:
    """Silences progress bars and messages of libraries that a verb may import, without importing them."""
    # waiting threads sleep: on busy cores, spinning ones would slow down the working ones
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # transformers reads this variable, too
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    for library in ("huggingface_hub", "bitsandbytes"):
        logging.getLogger(library).setLevel(logging.ERROR)
    if "transformers" in sys.modules:  # it was imported before, and has read the variables
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        transformers_logging.set_verbosity_error()
