"""Cutline adapts vision-language models to your own captioned images, captions with them, and scores them honestly.

The door is here; behind it, names may move. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cutline.api import Captioner as Captioner
    from cutline.api import load as load
    from cutline.data.dataset import Dataset as Dataset
    from cutline.data.prepare import prepare as prepare
    from cutline.errors import CutlineError as CutlineError
    from cutline.evaluate import Scorer as Scorer
    from cutline.evaluate import score as score
    from cutline.records import Hit as Hit
    from cutline.records import Prediction as Prediction
    from cutline.records import Sample as Sample
    from cutline.records import Score as Score

_HOMES = {
    "Captioner": "api",
    "CutlineError": "errors",
    "Dataset": "data.dataset",
    "Hit": "records",
    "Prediction": "records",
    "Sample": "records",
    "Score": "records",
    "Scorer": "evaluate",
    "load": "api",
    "prepare": "data.prepare",
    "score": "evaluate",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cutline' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"cutline.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


__version__ = "0.1.0"
