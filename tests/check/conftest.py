"""Fixtures for all tests of probes."""

from __future__ import annotations

import pytest

from cutline.families import open as opening
from cutline.families.open import find
from tests.check.making import BROKEN


@pytest.fixture(autouse=True)
def _broken_families_are_found_by_name(monkeypatch):
    """A checkpoint of a broken family opens as the broken family again."""
    monkeypatch.setattr(opening, "find", lambda name: BROKEN.get(name) or find(name))
    BROKEN.clear()
