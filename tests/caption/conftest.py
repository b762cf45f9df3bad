"""A random captioner, its checkpoint, pictures and the command line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from cutline.cli import main as cli
from cutline.families.base import Family
from cutline.families.open import find, open_checkpoint
from cutline.families.settings import GenerateSettings
from tests.conftest import drawing
from tests.data.bad_images import BROKEN


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A random captioner that says different things of different images, four at a time."""
    family = find("cnn_rnn").tiny()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in family.model.named_parameters():
            if family.part_of(name) != "vision":
                parameter.add_(torch.randn_like(parameter) * 0.3)
    family.generation = GenerateSettings(max_new_tokens=6, batch_size=4)
    folder: Path = tmp_path_factory.mktemp("checkpoint") / "model"
    family.save(folder)
    return folder


@pytest.fixture(scope="session")
def family(checkpoint) -> Family:
    return open_checkpoint(checkpoint, device="cpu")


@pytest.fixture
def photos(tmp_path) -> Path:
    """Ten good pictures of different sizes, one of them cut off."""
    folder: Path = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        drawing(number, (40 + 8 * (number % 3), 48)).save(folder / f"{number}.png")
    (folder / "cut.jpg").write_bytes(BROKEN["cut.jpg"][0]())
    return folder


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs ``cutline …`` in this process; gives exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["cutline", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
