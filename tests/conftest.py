"""Shared by all tests: one thread, no network, and caches that vanish."""

from __future__ import annotations

import logging
import os
import random
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

# what numba compiled stays from one session to the next; it reads this when it is imported
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache/numba"))
os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

SHARED = Path(__file__).parent.parent / "../shared/data"


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    # tiny models: a second thread only waits for the first
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    # models leave the process's random numbers alone, so what a test draws itself starts here
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def session_cache(pytestconfig, tmp_path_factory):
    """A cache that begins with METEOR's index, if an earlier session built it: that takes a minute."""
    cache = tmp_path_factory.mktemp("cache", numbered=False)
    if not hasattr(pytestconfig, "cache"):  # -p no:cacheprovider
        yield cache
        return
    kept = pytestconfig.cache.mkdir("cutline")
    whole = "meteor-" + "[0-9a-f]" * 12  # not one that is being built or copied
    for index in kept.glob(whole):
        (cache / index.name).symlink_to(index)
    yield cache
    for index in cache.glob(whole):
        if not index.is_symlink() and not (kept / index.name).exists():
            shutil.copytree(index, kept / f"{index.name}.copy").rename(kept / index.name)


@pytest.fixture(autouse=True)
def _own_cache(session_cache, monkeypatch):
    monkeypatch.setenv("CUTLINE_CACHE", str(session_cache))


@pytest.fixture
def messages(caplog):
    """A function that returns what the package logged, from INFO on, since it was last called."""
    caplog.set_level(logging.INFO, "cutline")

    def read() -> str:
        text = "\n".join(caplog.messages)
        caplog.clear()
        return text

    return read


@pytest.fixture
def shared():
    """The folder of real data; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not part of the repository")
    return SHARED


def drawing(seed: int, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """A picture that differs from others by its seed: a coloured square on another colour."""
    chance = random.Random(seed)
    image = Image.new("RGB", size, tuple(chance.randrange(256) for _ in range(3)))
    corner = (chance.randrange(size[0] // 2), chance.randrange(size[1] // 2))
    box = (*corner, corner[0] + size[0] // 3, corner[1] + size[1] // 3)
    ImageDraw.Draw(image).rectangle(box, fill=tuple(chance.randrange(256) for _ in range(3)))
    return image
