"""The reference scores outside the repository, and the small ones of our own."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

OWN = Path(__file__).with_name("oracle.json")
SHARED = Path(__file__).parents[3] / "shared/data/scores"
SETS = ("official_fakecap", "flickr8k_loo")
NAMES = {
    "bleu1": "Bleu_1",
    "bleu2": "Bleu_2",
    "bleu3": "Bleu_3",
    "bleu4": "Bleu_4",
    "rouge_l": "ROUGE_L",
    "cider": "CIDEr",
    "meteor": "METEOR",
}


def own() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(OWN.read_text(encoding="utf-8"))
    return found


def shared(name: str) -> dict[str, Any]:
    path = SHARED / f"{name}.json.gz"
    if not path.exists():
        pytest.skip(f"reference scores {path.name} are not on this machine")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        found: dict[str, Any] = json.load(file)
    return found
