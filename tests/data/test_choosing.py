"""Filtering, finding what comes twice, dividing by strata, writing tars."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from cutline.core.errors import DataError, RecipeError
from cutline.data.dataset import Dataset
from cutline.data.steps import filter as filtering
from cutline.data.steps import reasons
from cutline.data.steps.split import stratified
from cutline.images.perceptual import NearDuplicates, perceptual_hash
from tests.conftest import drawing
from tests.data.making import run, table


def photo(seed: int, side: int = 96) -> Image.Image:
    """A picture with structure, different for each seed."""
    values = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(values).resize((side, side), Image.Resampling.BICUBIC)


def saved(folder: Path, pictures: dict[str, Image.Image]) -> list[str]:
    (folder / "images").mkdir(parents=True)
    for name, picture in pictures.items():
        picture.save(folder / "images" / name, quality=90)
    return list(pictures)


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        ("Two dogs run along the water.", ""),
        ("A photo by the river shows two boats.", ""),
        ("IMG shows a test of the bridge.", ""),
        ("Photo by Ann Lee for The Times", "boilerplate"),
        ("Credit: Ann Lee/Reuters", "boilerplate"),
        ("DSC_0123.JPG", "boilerplate"),
        ("holiday-2012-final.jpeg", "boilerplate"),
        ("https://example.org/a", "boilerplate"),
        ("Click here to enlarge", "boilerplate"),
        ("Untitled", "boilerplate"),
        ("A dog.", "short_caption"),
        ("word " * 300, "long_caption"),
        ("caption caption caption caption", "poor_caption"),
        ("12 34 56 78 90", "poor_caption"),
        ("BUY THIS GREAT CAMERA RIGHT NOW", "poor_caption"),
        ("Two dogs at NASA in the USA.", ""),
        ("两只狗在水边 奔跑 着。", ""),
    ],
)
def test_captions_are_judged_by_rules(caption: str, fault: str) -> None:
    assert filtering.Filter(filtering.FilterSettings()).fault(caption) == fault


def test_languages() -> None:
    only = filtering.Filter(filtering.FilterSettings(languages=["en"]))
    assert only.fault("Two dogs are running along the water at the beach.") == ""
    assert only.fault("Zwei Hunde laufen am Strand am Wasser entlang.") == "language"
    with pytest.raises(RecipeError, match="'english' is not known"):
        filtering.Filter(filtering.FilterSettings(languages=["english"]))


def longest_word(path: str, captions: list[str]) -> list[float]:
    assert Path(path).is_file()
    return [max(len(word) for word in caption.split()) for caption in captions]


def test_what_is_filtered_is_counted_but_not_lost(tmp_path: Path) -> None:
    names = saved(tmp_path / "s", {f"{n}.png": photo(n) for n in range(4)} | {"thin.png": photo(9).resize((96, 16))})
    rows = [
        {"image": names[0], "captions": ["Two dogs run along.", "Credit: Ann Lee"]},
        {"image": names[1], "captions": ["Photo: AP", "DSC_1.JPG", "A dog"]},
        {"image": names[2], "captions": ["A tiny red dog"]},
        {"image": names[3], "captions": ["A remarkable elephant here"]},
        {"image": names[4], "captions": ["Two dogs run along."]},
    ]
    source = tmp_path / "s/rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"max_aspect": 3, "scorer": f"{__name__}:longest_word", "min_score": 5}
    report = run(source, tmp_path / "out", steps={"filter": settings | {"min_score": 4}}, max_lost_share=0)
    assert report.lost == 0
    assert report.dropped == 2
    assert report.problems == {"aspect": 1, "boilerplate": 1}
    assert report.steps["filter"] == {"passed": 3, "boilerplate": 1, "aspect": 1, "captions": {"boilerplate": 1}}
    assert Dataset.open(tmp_path / "out")[0].captions == ("Two dogs run along.",)
    problem = json.loads((tmp_path / "out/problems.jsonl").read_text().splitlines()[0])
    assert problem == {"id": "1.png", "reason": "boilerplate", "detail": "'Photo: AP'", "step": "filter"}
    assert {"boilerplate", "aspect", "same_picture"} <= reasons().keys()
    with pytest.raises(DataError, match="steps leave nothing"):
        run(source, tmp_path / "out", steps={"filter": {"min_side_px": 1000}})
    with pytest.raises(RecipeError, match="can't be imported"):
        run(source, tmp_path / "out", steps={"filter": {"scorer": "nothing.here:at_all"}})


def test_pictures_that_look_the_same_are_found_and_others_are_not() -> None:
    originals = [photo(seed) for seed in range(40)]
    near = NearDuplicates(distance=6)
    for picture in originals:
        assert near.find(perceptual_hash(picture)) is None
        near.add(perceptual_hash(picture))
    for number, picture in enumerate(originals):
        assert near.find(perceptual_hash(picture.resize((64, 64)))) == number
        assert near.find(perceptual_hash(ImageEnhance.Brightness(picture).enhance(1.03))) == number
        assert near.find(perceptual_hash(picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT))) is None
    red, blue = Image.new("RGB", (64, 64), (200, 40, 40)), Image.new("RGB", (64, 64), (40, 40, 200))
    near.add(perceptual_hash(red))
    assert near.find(perceptual_hash(blue)) is None  # flat pictures have the same hash


def test_bands_miss_nothing() -> None:
    chance = np.random.default_rng(1)
    from cutline.images.perceptual import PerceptualHash

    hashes = [int(value) for value in chance.integers(0, 2**63, 300, dtype=np.uint64)]
    for distance in (0, 3, 7, 15):
        near = NearDuplicates(distance)
        for value in hashes:
            near.add(PerceptualHash(value, bytes(48)))
        for number in range(0, 300, 7):
            flips = chance.choice(64, distance, replace=False)
            changed = hashes[number]
            for bit in flips:
                changed ^= 1 << int(bit)
            slow = next(i for i, value in enumerate(hashes) if (value ^ changed).bit_count() <= distance)
            assert near.find(PerceptualHash(changed, bytes(48))) == slow


def test_duplicates_are_dropped_or_kept_in_one_split(tmp_path: Path) -> None:
    pictures = {f"{n}.png": photo(n) for n in range(20)}
    pictures |= {f"again{n}.png": photo(n) for n in range(10)} | {f"near{n}.jpg": photo(n, 64) for n in range(10)}
    source = table(tmp_path / "s", [f"{name},a caption" for name in saved(tmp_path / "s", pictures)], "image,caption")
    shares = {"val": 0.3, "test": 0.3}
    report = run(source, tmp_path / "out", steps={"dedup": {"near": "drop"}}, **shares)
    assert report.problems == {"same_picture": 10, "near_picture": 10}
    assert report.samples == 20
    report = run(source, tmp_path / "out", steps={"dedup": {"exact": "group"}}, **shares)
    assert (report.samples, report.dropped) == (40, 0)
    homes: dict[str, set[str]] = {}
    for sample in Dataset.open(tmp_path / "out"):
        number = "".join(char for char in sample.id.partition(".")[0] if char.isdigit())
        homes.setdefault(number, set()).add(sample.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert {split for splits in homes.values() for split in splits} == {"train", "val", "test"}
    # the source's own splits are kept, and what they divide is said
    rows = [f"{name},a caption,{'train' if number < 25 else 'test'}" for number, name in enumerate(pictures)]
    report = run(table(tmp_path / "s", rows), tmp_path / "out", steps={"dedup": {"exact": "drop"}})
    assert report.problems["divided_image"] == 10


def test_each_split_gets_the_same_mix() -> None:
    groups = [f"g{n // 2}" for n in range(2000)]
    strata = [("world", "us", "sports", "rare")[min(3, (n // 2) % 10)] for n in range(2000)]
    found = stratified(groups, strata, 0.1, 0.2, seed=1)
    counts = Counter((found[group], value) for group, value in zip(groups, strata, strict=True))
    sizes = Counter(strata)
    for value, size in sizes.items():
        for split, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
            assert abs(counts[split, value] - share * size) <= 4
    shuffled = dict(zip(reversed(groups), reversed(strata), strict=True))
    assert stratified(list(shuffled), list(shuffled.values()), 0.1, 0.2, seed=1) == stratified(
        list(dict.fromkeys(groups)), [shuffled[group] for group in dict.fromkeys(groups)], 0.1, 0.2, seed=1
    )
    assert stratified(groups, strata, 0.1, 0.2, seed=2) != found


def test_stratified_in_a_dataset(tmp_path: Path) -> None:
    names = saved(tmp_path / "s", {f"{n}.png": photo(n, 16) for n in range(40)})
    rows = [f"{name},a caption,{'day' if n % 2 else 'night'},g{n // 4}" for n, name in enumerate(names)]
    source = table(tmp_path / "s", rows, "image,caption,time,group")
    settings = {"steps": {"split": {"stratify": "time"}}, "val": 0.25, "test": 0.25}
    run(source, tmp_path / "out", **settings)
    rows_by_split = Counter((sample.split, sample.extra["time"]) for sample in Dataset.open(tmp_path / "out"))
    assert all(rows_by_split[split, "day"] == rows_by_split[split, "night"] for split in ("train", "val", "test"))
    assert len({(sample.group, sample.split) for sample in Dataset.open(tmp_path / "out")}) == 10
    with pytest.raises(DataError, match="No sample has a 'colour'"):
        run(source, tmp_path / "early", steps={"split": {"stratify": "colour"}})
    assert not (tmp_path / "early/images").exists()  # known before any image is opened
    named = table(tmp_path / "t", ["/a.png,x,train,day"], "image,caption,split,time")
    drawing(1).save(tmp_path / "t/a.png")
    with pytest.raises(DataError, match="the source has divided already"):
        run(named, tmp_path / "out2", steps={"split": {"stratify": "time"}})


def test_tars_for_webdataset(tmp_path: Path) -> None:
    names = saved(tmp_path / "s", {f"{n}.png": photo(n, 16) for n in range(7)})
    source = table(
        tmp_path / "s", [f"{name},caption of {name},{'val' if n > 4 else 'train'}" for n, name in enumerate(names)]
    )
    steps = {"layout": {"samples_per_tar": 3}}
    report = run(source, tmp_path / "out", steps=steps)
    assert report.steps["layout"] == {"train": 2, "val": 1}
    shards = sorted((tmp_path / "out/__shards__").glob("*.tar"))
    assert [path.name for path in shards] == ["train-000000.tar", "train-000001.tar", "val-000000.tar"]
    with tarfile.open(shards[1]) as tar:
        assert tar.getnames() == [f"{n:09d}.{end}" for n in (3, 4) for end in ("png", "txt", "json")]
        assert tar.extractfile("000000003.txt").read() == b"caption of 3.png"
        assert json.loads(tar.extractfile("000000003.json").read())["id"] == "3.png"
        assert tar.extractfile("000000003.png").read() == (tmp_path / "s/images/3.png").read_bytes()
    before = {path: path.stat().st_ino for path in shards}
    source.write_text(source.read_text().replace("caption of 6.png", "another one"))
    run(source, tmp_path / "out", steps=steps)
    kept = [path.name for path in shards if path.stat().st_ino == before[path]]
    assert kept == ["train-000000.tar", "train-000001.tar"]
    assert not list((tmp_path / "out/__shards__").glob(".*.tmp"))


def test_with_tars_and_a_ledger_it_is_still_an_imagefolder(tmp_path: Path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    names = saved(tmp_path / "s", {f"{n}.png": photo(n, 16) for n in range(3)})
    source = table(tmp_path / "s", [f"{name},a caption,train" for name in names])
    run(source, tmp_path / "out", steps={"layout": {}, "dedup": {}})
    (tmp_path / "out/downloads.sqlite").write_bytes(b"SQLite format 3\0")
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert sorted(loaded["train"]["id"]) == names
