"""The embedded data set: reproducible, readable like any source, its test made of combinations never shown before."""

from __future__ import annotations

import hashlib
from pathlib import Path

from cutline.core.records import Sample
from cutline.data import readers
from cutline.data.settings import DataSettings
from cutline.images import shapes
from cutline.images.open import open_image


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        shapes.draw(tmp_path / name, train=20, val=4, test=4, seed=seed)
    assert hashes(tmp_path / "a") == hashes(tmp_path / "b")
    assert hashes(tmp_path / "a") != hashes(tmp_path / "c")


def test_the_table_reader_reads_it_and_the_test_split_is_new(tmp_path: Path) -> None:
    path = shapes.draw(tmp_path, train=600, val=50, test=130)
    samples = [item for item in readers.read(DataSettings(source=str(path))) if isinstance(item, Sample)]
    captions: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}
    for sample in samples:
        captions[sample.split].update(sample.captions)
    assert len(samples) == 780
    assert len(captions["train"]) == 490  # all that are not held out
    assert len(captions["test"]) == 122  # 20 % of 612
    assert captions["val"] <= captions["train"]
    assert not captions["test"] & captions["train"]
    assert {Path(sample.image).suffix for sample in samples} == {".jpg", ".png"}
    assert open_image(samples[0].image).size == (48, 48)


def test_the_picture_shows_what_the_caption_says(tmp_path: Path) -> None:
    import random

    chance = random.Random(0)
    above = shapes.picture(("red", "square", "above", "blue", "circle"), 100, chance)
    assert above.getpixel((50, 26)) == shapes.COLOURS["red"]
    assert above.getpixel((50, 74)) == shapes.COLOURS["blue"]
    left = shapes.picture(("orange", "circle", "to the left of", "green", "triangle"), 100, chance)
    assert left.getpixel((26, 50)) == shapes.COLOURS["orange"]
    assert left.getpixel((74, 50)) == shapes.COLOURS["green"]
    scene = ("orange", "circle", "to the left of", "green", "triangle")
    assert shapes.caption(scene) == "an orange circle to the left of a green triangle"
