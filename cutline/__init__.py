"""Cutline adapts vision-language models to your own captioned images, captions with them, and scores them honestly.

These names are public; others may move. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cutline.core.version import __version__ as __version__

if TYPE_CHECKING:
    from cutline.api import Captioner as Captioner
    from cutline.api import load as load
    from cutline.api import prepare as prepare
    from cutline.core.errors import CutlineError as CutlineError
    from cutline.core.records import Hit as Hit
    from cutline.core.records import Prediction as Prediction
    from cutline.core.records import Sample as Sample
    from cutline.core.records import Score as Score
    from cutline.core.records import ScoreInfo as ScoreInfo
    from cutline.data.dataset import Dataset as Dataset
    from cutline.metrics.scorer import Scorer as Scorer
    from cutline.metrics.scorer import score as score

_HOMES = {
    "Captioner": "api",
    "CutlineError": "core.errors",
    "Dataset": "data.dataset",
    "Hit": "core.records",
    "Prediction": "core.records",
    "Sample": "core.records",
    "Score": "core.records",
    "ScoreInfo": "core.records",
    "Scorer": "metrics.scorer",
    "load": "api",
    "prepare": "api",
    "score": "metrics.scorer",
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
