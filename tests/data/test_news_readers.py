"""Readers of news datasets, of WebDataset tars and of the hub: a small source of each, and what it must become."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from cutline.core.errors import DataError
from cutline.core.records import Sample
from cutline.data import readers
from cutline.data.dataset import Dataset
from cutline.data.settings import DataSettings
from cutline.data.tables.rows import json_members
from cutline.images.open import open_image
from tests.data.bad_images import encode, marker, noise
from tests.data.making import run
from tests.data.reading import image, read, write

GOODNEWS = {
    "4fd2a": {
        "images": {"0": "Ann Lee at the harbor.", "1": "The harbor."},
        "headline": {"main": "A harbor reopens"},
        "abstract": "After years",
        "article": "OSLO — The harbor reopened.",
        "article_url": "https://www.nytimes.com/2012/01/02/world/europe/harbor.html",
    },
    "5abc0": {"images": {"0": "A cat."}, "headline": "", "article": "About a cat."},
    "6none": {"headline": {"main": "No pictures"}},
}


def test_goodnews(tmp_path: Path) -> None:
    write(tmp_path / "captioning_dataset.json", json.dumps(GOODNEWS))
    write(tmp_path / "img_splits.json", json.dumps({"4fd2a_0": "train", "4fd2a_1": "train", "5abc0_0": "val"}))
    for name in ("4fd2a_0", "4fd2a_1"):
        image(tmp_path / f"resized/{name}.jpg")
    assert readers.recognise(tmp_path) == readers.recognise(tmp_path / "captioning_dataset.json") == "goodnews"
    samples, problems = read(tmp_path)
    assert [(one.id, one.captions, one.split, one.group) for one in samples] == [
        ("4fd2a_0", ("Ann Lee at the harbor.",), "train", "4fd2a"),
        ("4fd2a_1", ("The harbor.",), "train", "4fd2a"),
        ("5abc0_0", ("A cat.",), "val", "5abc0"),
    ]
    assert samples[0].image == str(tmp_path / "resized/4fd2a_0.jpg")
    assert samples[0].extra == {
        "headline": "A harbor reopens", "abstract": "After years", "article": "OSLO — The harbor reopened.",
        "article_url": "https://www.nytimes.com/2012/01/02/world/europe/harbor.html",
    }  # fmt: skip
    assert samples[2].extra == {"article": "About a cat."}
    assert [(one.id, one.reason) for one in problems] == [("captioning_dataset.json, 6none", "bad_row")]

    address = "http://graphics8.nytimes.com/images/2012/01/02/world/02h/02h-articleLarge.jpg"
    write(tmp_path / "img_urls.json", json.dumps({"4fd2a": {"0": address, "1": None}, "5abc0_0": address}))
    samples, _ = read(tmp_path)
    assert [one.image for one in samples] == [address, str(tmp_path / "resized/4fd2a_1.jpg"), address]


def test_goodnews_goes_the_whole_way(tmp_path: Path) -> None:
    """Files, split by article, context from the article."""
    write(tmp_path / "s/captioning_dataset.json", json.dumps(GOODNEWS))
    for name, picture in (("4fd2a_0", marker()), ("4fd2a_1", marker(40, 40)), ("5abc0_0", noise())):
        (tmp_path / "s/resized").mkdir(exist_ok=True)
        (tmp_path / f"s/resized/{name}.jpg").write_bytes(encode(picture, "JPEG"))
    steps = {"context": {"model": ""}, "resize": {"size_px": 32}}
    report = run(tmp_path / "s", tmp_path / "out", steps=steps, max_lost_share=0.3, val=0.4, test=0)
    assert report.samples == 3
    found = {one.id: one for one in Dataset.open(tmp_path / "out")}
    assert found["4fd2a_0"].split == found["4fd2a_1"].split
    assert found["4fd2a_0"].context == {"context": "[world/europe | 2012-01-02]"}
    assert found["5abc0_0"].context == {}


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_large_json_is_read_member_by_member(tmp_path: Path, size: int) -> None:
    content = {"a": {"text": "x" * size, "quote": 'a "brace" } here'}, "ü": [1, 2, {"b": None}], "last": 12}
    for indent in (None, 2):
        path = write(tmp_path / "big.json", json.dumps(content, indent=indent, ensure_ascii=False))
        assert dict(json_members(path)) == content
    with pytest.raises(DataError, match="not a JSON object"):
        list(json_members(write(tmp_path / "cut.json", json.dumps(content)[:-6])))
    with pytest.raises(DataError, match="not a JSON object"):
        list(json_members(write(tmp_path / "list.json", "[1]")))
    with pytest.raises(DataError, match="nested too deeply"):
        list(json_members(write(tmp_path / "deep.json", '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}")))
    (tmp_path / "latin.json").write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        list(json_members(tmp_path / "latin.json"))


def test_nytimes800k(tmp_path: Path) -> None:
    articles: list[Any] = [
        {
            "_id": "a1", "web_url": "https://www.nytimes.com/2019/01/02/us/x.html", "headline": {"main": "Snow"},
            "split": "valid",
            "parsed_section": [
                {"type": "paragraph", "text": "Snow fell."},
                {"type": "caption", "text": "A plow.", "hash": "ff00", "order": 1},
                {"type": "paragraph", "text": "More came."},
                {"type": "caption", "text": "A sled.", "hash": "ff01"},
                {"type": "caption", "text": "Nothing."},
            ],
        },
        {
            "_id": {"$oid": "a2"}, "pub_date": {"$date": 1546387200000}, "article": "Text.",
            "images": [{"url": "https://x.org/1.jpg", "caption": "One."}],
        },
        {"_id": "a3", "parsed_section": []},
    ]  # fmt: skip
    source = write(tmp_path / "articles.jsonl", "{broken\n" + "".join(json.dumps(one) + "\n" for one in articles))
    image(tmp_path / "images/ff00.jpg")
    assert readers.recognise(source) == "nytimes800k"
    samples, problems = read(source)
    around = {
        "headline": "Snow", "web_url": "https://www.nytimes.com/2019/01/02/us/x.html",
        "article": "Snow fell.\nMore came.",
    }  # fmt: skip
    assert samples == [
        Sample(
            id="ff00", image=str(tmp_path / "images/ff00.jpg"), captions=("A plow.",), split="valid", group="a1",
            extra=around,
        ),
        Sample(
            id="ff01", image=str(tmp_path / "images/ff01"), captions=("A sled.",), split="valid", group="a1",
            extra=around,
        ),
        Sample(
            id="a2_0", image="https://x.org/1.jpg", captions=("One.",), group="a2",
            extra={"pub_date": "2019-01-02", "article": "Text."}
        ),
    ]  # fmt: skip
    assert [(one.id, one.reason) for one in problems] == [
        ("articles.jsonl, row 1", "bad_row"), ("a1_2", "bad_row"), ("a3", "no_image"),
    ]  # fmt: skip


def tar(path: Path, **members: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_webdataset(tmp_path: Path) -> None:
    jpeg, png = encode(marker(), "JPEG"), encode(noise(), "PNG")
    tar(
        tmp_path / "train-000.tar",
        **{
            "00.jpg": jpeg, "00.txt": b"One.\n\nTwo.\n", "00.json": b'{"width": 96, "caption": "Said here."}',
            "deep/01.PNG": png, "deep/01.txt": b"Three.", "02.txt": b"Nobody.", "03.jpg": jpeg, "03.json": b"{no",
        },
    )  # fmt: skip
    tar(tmp_path / "val-000.tar", **{"x.jpg": jpeg, "x.txt": b"Four."})
    assert readers.recognise(tmp_path) == readers.recognise(tmp_path / "val-000.tar") == "webdataset"
    samples, problems = read(tmp_path)
    assert [(one.id, one.captions, one.split, one.extra) for one in samples] == [
        ("train-000/00", ("Said here.",), "train", {"width": 96}),
        ("train-000/deep/01", ("Three.",), "train", {}),
        ("val-000/x", ("Four.",), "val", {}),
    ]
    assert open_image(samples[1].image).tobytes() == noise().tobytes()
    assert [(one.id, one.reason) for one in problems] == [
        ("train-000/02", "caption_without_image"), ("train-000/03", "bad_row"),
    ]  # fmt: skip
    with pytest.raises(DataError, match="can't be read as a tar"):
        read(write(tmp_path / "no.tar", "nothing of the kind" * 99))


def test_tars_are_prepared_and_come_back_from_ours(tmp_path: Path) -> None:
    members = {f"{n}.{end}": data for n in range(4) for end, data in (
        ("jpg", encode(noise(40 + n, 30), "JPEG")), ("txt", f"Caption {n}.".encode()))}  # fmt: skip
    source = tar(tmp_path / "s/a.tar", **members)
    report = run(source, tmp_path / "out", steps={"layout": {}})
    assert (report.samples, report.decoded) == (4, 4)
    assert run(source, tmp_path / "out", seed=5).decoded == 0  # known by tar, place and time
    dataset = Dataset.open(tmp_path / "out")
    assert Path(dataset[0].image).read_bytes() == members["0.jpg"]
    run(source, tmp_path / "out", steps={"layout": {}})
    again, _ = read(tmp_path / "out/__shards__")

    def key(one: Sample) -> Any:
        return one.id, one.captions, one.split, one.group

    assert sorted(map(key, again)) == sorted(map(key, Dataset.open(tmp_path / "out")))


def test_hub(tmp_path: Path, monkeypatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "caption": datasets.List(datasets.Value("string")),
            "photo_id": datasets.Value("int64"),
        }
    )
    rows = {
        "image": [
            {"bytes": encode(marker(), "PNG"), "path": None},
            {"bytes": encode(noise(), "JPEG"), "path": None},
            None,
        ],
        "caption": [["One.", "Two."], ["Three."], ["Four."]],
        "photo_id": [7, 8, 9],
    }
    table = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": table, "validation": table.select([0])}).save_to_disk(tmp_path / "saved")
    assert readers.recognise(tmp_path / "saved") == "hub"
    samples, problems = read(tmp_path / "saved")
    assert [(one.id, one.captions, one.split, one.extra) for one in samples] == [
        ("train/0", ("One.", "Two."), "train", {"photo_id": 7}),
        ("train/1", ("Three.",), "train", {"photo_id": 8}),
        ("validation/0", ("One.", "Two."), "validation", {"photo_id": 7}),
    ]
    assert open_image(samples[1].image).size == (96, 64)
    assert [(one.id, one.reason) for one in problems] == [("train/2", "missing")]

    (tmp_path / "parquet/data").mkdir(parents=True)
    table.to_parquet(tmp_path / "parquet/data/train-0.parquet")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    found, _ = read(Path(f"hub:{tmp_path / 'parquet'}"))
    assert [one.captions for one in found] == [("One.", "Two."), ("Three.",)]
    with pytest.raises(DataError, match="can't be loaded"):
        read(Path("hub:nobody/nothing"))
    assert DataSettings(source="hub:a/b").source == "hub:a/b"
