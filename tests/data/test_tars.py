"""Datasets whose images lie in tars alone: every reader opens them there, and a kill at any moment loses nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cutline.bootstrap.merge import merge
from cutline.core.config import parse
from cutline.core.errors import RecipeError
from cutline.data.dataset import Dataset
from cutline.data.inspect.inspection import inspect_dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.images.open import container, image_hash, open_image
from cutline.report.thumbnails import thumbnail
from cutline.retrieve.gallery import gather
from tests.data.bad_images import encode, noise
from tests.data.faulty_server import serving
from tests.data.making import pictures, run, table
from tests.data.test_download import QUICK, listed

TARS = {"layout": {"folders": False, "samples_per_tar": 2}}


def rows(folder: Path, number: int = 7) -> Path:
    names = pictures(folder, number)
    return table(folder, [f"{name},caption of {name},{'val' if n % 3 else 'train'}" for n, name in enumerate(names)])


def files(folder: Path) -> dict[str, bytes]:
    """All of a dataset but its notes for going on."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in sorted(found.items()) if not name.startswith(".work/")}


def test_every_reader_opens_the_images_in_the_tars(tmp_path: Path) -> None:
    source = rows(tmp_path / "s")
    run(source, tmp_path / "plain")
    report = run(source, tmp_path / "out", steps=TARS)
    assert report.steps["layout"] == {"train": 2, "val": 2}
    assert not (tmp_path / "out/images").exists()
    plain, packed = Dataset.open(tmp_path / "plain"), Dataset.open(tmp_path / "out")
    assert all(container(sample.image) for sample in packed)
    assert [image_hash(one.image) for one in packed] == packed.column("sha256") == plain.column("sha256")
    for one, other in zip(plain, packed, strict=True):
        assert open_image(one.image).tobytes() == open_image(other.image).tobytes()
        assert thumbnail(one.image, 8) == thumbnail(other.image, 8)
    seen = [inspect_dataset(dataset, "name").to_json() for dataset in (plain, packed)]
    assert seen[0] == seen[1]
    assert len(gather(list(packed), list).pictures) == len(plain)
    merge(packed, packed.split("val"), [], [], tmp_path / "merged")
    assert [open_image(one.image).tobytes() for one in Dataset.open(tmp_path / "merged")] == [
        open_image(one.image).tobytes() for one in plain
    ]
    run(tmp_path / "out", tmp_path / "again")  # as a source, and so are the tars by themselves
    run(tmp_path / "out/__shards__", tmp_path / "tars")
    for name in ("again", "tars"):
        assert sorted(Dataset.open(tmp_path / name).column("sha256")) == sorted(plain.column("sha256"))
    assert run(source, tmp_path / "out", steps=TARS).unchanged


def test_datasets_reads_the_tars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    run(rows(tmp_path / "s"), tmp_path / "out", steps=TARS)
    tars = {"train": str(tmp_path / "out/__shards__/train-*.tar")}
    loaded = datasets.load_dataset("webdataset", data_files=tars, cache_dir=str(tmp_path / "cache"))["train"]
    assert sorted(row["txt"] for row in loaded) == [f"caption of {n}.png" for n in (0, 3, 6)]
    assert loaded[0]["png"].size == (16, 16)


def killed(event: int, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Does some work, and is killed before its n-th change of a file's name or presence; whether it was."""
    seen = 0

    def counted(change: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **options: Any) -> Any:
            nonlocal seen
            seen += 1
            if seen >= event:
                raise KeyboardInterrupt
            return change(*arguments, **options)

        return changed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        for name in ("unlink", "rmdir"):
            patch.setattr(Path, name, counted(getattr(Path, name)))
        try:
            work()
        except KeyboardInterrupt:
            return True
    return False


def test_killed_at_any_change_of_a_file_it_ends_with_the_same_bytes(tmp_path: Path, monkeypatch: Any) -> None:
    source = rows(tmp_path / "s", 5)
    first = DataSettings.model_validate({"source": str(source), "steps": TARS})
    steps = {"layout": {"folders": False, "samples_per_tar": 3}, "filter": {"min_words": 1}}
    second = DataSettings.model_validate({"source": str(source), "max_samples": 4, "steps": steps})
    prepare(second, tmp_path / "whole")
    event = 0
    stopped = True
    while stopped:
        event += 1
        out = tmp_path / str(event)
        prepare(first, out)
        stopped = killed(event, partial(prepare, second, out, workers=1), monkeypatch)
        prepare(second, out)
        assert files(out) == files(tmp_path / "whole"), event
    assert event > 20  # storing, tars and their index, tables, image files, empty folders


def test_what_was_downloaded_is_not_fetched_again_for_another_recipe(tmp_path: Path) -> None:
    photos = {f"{n}.jpg": encode(noise(40 + n, 40), "JPEG") for n in range(5)}
    with serving(photos) as server:
        source = listed(tmp_path / "s", [f"{server.address}/good/{name}" for name in photos])
        download: dict[str, Any] = {"download": QUICK}
        run(source, tmp_path / "out", steps=download | TARS)
        small = {"filter": {"min_words": 1, "min_side_px": 40}, "layout": {"folders": False, "samples_per_tar": 3}}
        run(source, tmp_path / "out", steps=download | small)
        run(source, tmp_path / "out", steps=download)
        assert not (tmp_path / "out/__shards__").exists()
        assert {path: count for path, count in server.asked.items() if count != 1} == {}
        run(source, tmp_path / "plain", steps=download)
    ours, plain = files(tmp_path / "out"), files(tmp_path / "plain")
    assert {name: data for name, data in ours.items() if name.startswith(("images/", "metadata"))} == {
        name: data for name, data in plain.items() if name.startswith(("images/", "metadata"))
    }


def test_a_recipe_that_keeps_the_images_nowhere_is_refused() -> None:
    with pytest.raises(RecipeError, match="nowhere"):
        parse({"source": "x", "steps": {"layout": {"tars": False, "folders": False}}}, DataSettings)
