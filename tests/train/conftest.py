"""Data that all training tests share."""

from __future__ import annotations

import pytest

from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.images import shapes


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    source = shapes.draw(folder / "shapes", train=24, val=6, test=0)
    prepare(DataSettings(source=str(source)), folder / "dataset")
    return Dataset.open(folder / "dataset")
