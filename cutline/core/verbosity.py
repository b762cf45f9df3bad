"""Keeps libraries from talking between our own lines."""

from __future__ import annotations


def quiet_libraries(load: bool = True) -> None:
    """Stops the libraries' own bars and notes; ours say what is going on.

    Args:
        load: whether the libraries will be needed in any case; if not, they are told by the environment alone.
    """
    import os

    # threads that wait must sleep: on busy cores spinning ones take the time of those that work
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import logging as standard

    standard.getLogger("huggingface_hub").setLevel(standard.ERROR)
    if not load:
        return
    from transformers.utils import logging

    standard.getLogger("bitsandbytes").setLevel(standard.ERROR)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
