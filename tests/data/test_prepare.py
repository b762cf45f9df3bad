"""Preparing: what comes in comes out or is listed; a kill at any moment changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cutline.core.errors import DataError, RecipeError
from cutline.data.captions import tidy
from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.problem import LOSSES, MENDED
from cutline.data.settings import DataSettings
from cutline.images import shapes
from cutline.images.open import open_image
from cutline.run.stages.prepare import describe
from tests.data.bad_images import BROKEN, COLOURFUL, encode, noise
from tests.data.making import pictures, run, table


def problems(folder: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (folder / "problems.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, str]:
    """Hash of every file of a dataset, but for the notes that it works with."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".work" not in path.parts]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_bad_row_is_counted_and_listed(tmp_path: Path) -> None:
    images = tmp_path / "source/images"
    images.mkdir(parents=True)
    for name, make in COLOURFUL.items():
        (images / name).write_bytes(make())
    for name, (broken, _) in BROKEN.items():
        (images / name).write_bytes(broken())
    rows = [f"{name},a caption," for name in (*COLOURFUL, *BROKEN)]
    rows += ["absent.jpg,a caption,", "plain2.jpg,,", "two,many,cells,here"]
    (images / "plain2.jpg").write_bytes(encode(noise(), "JPEG"))
    source = table(tmp_path / "source", rows)
    report = run(source, tmp_path / "out", max_lost_share=0.6)

    expected: dict[str, int] = {"missing": 1, "no_caption": 1, "empty_caption": 1, "bad_row": 1}
    for _, reason in BROKEN.values():
        expected[reason] = expected.get(reason, 0) + 1
    assert report.problems == expected
    assert report.samples == len(COLOURFUL)
    assert report.rows == len(rows)
    assert report.lost == report.rows - report.samples
    listed = problems(tmp_path / "out")
    assert len(listed) == sum(expected.values())
    assert {problem["reason"] for problem in listed} <= {*LOSSES, *MENDED}
    assert {p["id"]: p["reason"] for p in listed if p["id"] in BROKEN} == {n: why for n, (_, why) in BROKEN.items()}

    dataset = Dataset.open(tmp_path / "out")
    assert dataset.marker["problems"] == expected
    for sample in dataset:
        stored, original = Path(sample.image), images / sample.id
        assert stored.read_bytes() == original.read_bytes()  # never encoded again
        assert open_image(stored).size == (sample.extra["width"], sample.extra["height"]) == (96, 64)
        assert sample.extra["source"] == f"images/{sample.id}"
        assert stored.stem == sample.extra["sha256"]
    assert {Path(sample.image).suffix for sample in dataset if sample.id == "webp_named.jpg"} == {".webp"}


def test_too_much_lost_stops_with_the_reasons_and_the_list(tmp_path: Path) -> None:
    names = pictures(tmp_path / "s", 6)
    source = table(tmp_path / "s", [*(f"{name},x,train" for name in names), "gone.png,x,train", "lost.png,x,train"])
    with pytest.raises(DataError, match=r"25\.0% .*max_lost_share = 10%.*2 missing \(gone\.png: .*problems\.jsonl"):
        run(source, tmp_path / "out")
    assert len((tmp_path / "out/.work/problems.jsonl").read_text().splitlines()) == 2
    with pytest.raises(DataError, match="not a finished dataset"):
        Dataset.open(tmp_path / "out")
    assert run(source, tmp_path / "out", max_lost_share=0.25).samples == 6
    source = table(tmp_path / "t", ["gone.png,x,train"])
    with pytest.raises(DataError, match="Every row would be lost"):
        run(source, tmp_path / "out2", max_lost_share=1.0)
    with pytest.raises(DataError, match="has no rows"):
        run(table(tmp_path / "u", []), tmp_path / "out3")


def test_captions_are_tidied_and_duplicates_found(tmp_path: Path) -> None:
    pictures(tmp_path / "s", 3)
    untidy = " two\n lines\t\u2028here\u200b "
    rows = [
        {
            "id": "a",
            "image": "0.png",
            "captions": [untidy, "", " \n", "NaN"],
            "split": "train",
        },
        {"id": "a", "image": "1.png", "captions": ["x"], "split": "train"},
        {"id": "c", "image": "2.png", "captions": [], "split": "train"},
    ]
    source = tmp_path / "s/captions.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    report = run(source, tmp_path / "out", max_lost_share=0.9)
    assert report.problems == {"duplicate_id": 1, "empty_caption": 3, "no_caption": 1}
    assert Dataset.open(tmp_path / "out")[0].captions == ("two lines here",)
    report = run(source, tmp_path / "out", max_lost_share=0.9, captions_required=False)
    assert [sample.captions for sample in Dataset.open(tmp_path / "out")] == [("two lines here",), ()]
    assert tidy("Ça \x00va 👩\u200d🍳") == "Ça va 👩\u200d🍳"


def test_splits_of_the_source_are_kept_and_torn_groups_reported(tmp_path: Path) -> None:
    names = pictures(tmp_path / "s", 6)
    shutil.copy(tmp_path / "s/images/0.png", tmp_path / "s/images/copy.png")
    rows = [
        f"{names[0]},x,train,g1",
        f"{names[1]},x,restval,g2",
        f"{names[2]},x,Validation,g1",
        f"{names[3]},x,test,g3",
    ]
    rows += [f"{names[4]},x,,g3", f"{names[5]},x,,g9", "copy.png,x,test,g8"]
    source = table(tmp_path / "s", rows, "image,caption,split,group")
    report = run(source, tmp_path / "out")
    assert report.split_by == "source"
    assert report.splits == {"train": 3, "val": 1, "test": 3}
    assert report.problems == {"divided_group": 1, "divided_image": 1, "no_split": 2}
    assert report.lost == 0
    details = {problem["id"]: problem["detail"] for problem in problems(tmp_path / "out")}
    assert details["g1"] == "train: 1, val: 1"
    assert details["copy.png"] == "in test; in train it is 0.png"


def test_one_picture_under_two_names_never_lands_in_two_splits(tmp_path: Path) -> None:
    names = pictures(tmp_path / "s", 30)
    for index, name in enumerate(names):
        shutil.copy(tmp_path / f"s/images/{name}", tmp_path / f"s/images/copy{index}.png")
    source = table(tmp_path / "s", [f"{n},x" for n in (*names, *(f"copy{i}.png" for i in range(30)))], "image,caption")
    report = run(source, tmp_path / "out", val=0.3, test=0.3)
    assert report.split_by == "seed"
    assert report.problems == {}
    homes: dict[str, set[tuple[str, str]]] = {}
    for sample in Dataset.open(tmp_path / "out"):
        homes.setdefault(sample.image, set()).add((sample.split, sample.group))
    assert len(homes) == 30
    assert all(len(places) == 1 for places in homes.values())


def test_a_limit_looks_at_few_images_and_counts_the_rest(tmp_path: Path) -> None:
    names = pictures(tmp_path / "s", 40)
    source = table(tmp_path / "s", [f"{name},x," for name in names])
    seen: list[tuple[int, int]] = []
    settings = DataSettings(source=str(source), max_samples=2)
    report = prepare(settings, tmp_path / "out", progress=lambda done, total: seen.append((done, total)))
    assert report.splits == {"train": 2, "val": 2, "test": 2}
    assert (report.left_out, report.decoded) == (34, 6)
    assert seen == [(number, 6) for number in range(1, 7)]
    assert report.columns == {"image": ["image"], "captions": ["caption"], "split": ["split"]}
    assert list(describe(report))[1:] == [
        "prepare: columns: image = image, captions = caption, split = split",
        "prepare: 34 samples left out by max_samples",
    ]
    assert json.loads((tmp_path / "out/dataset.json").read_text())["columns"] == report.columns
    more = run(source, tmp_path / "out")
    assert (more.samples, more.decoded) == (40, 34)  # what was decoded before isn't again


def test_finished_and_unchanged_returns_at_once(tmp_path: Path) -> None:
    names = pictures(tmp_path / "s", 4)
    source = table(tmp_path / "s", [f"{name},x,train" for name in names])
    first = run(source, tmp_path / "out")
    before = contents(tmp_path / "out")
    again = run(source, tmp_path / "out")
    assert again.unchanged
    assert not first.unchanged
    assert again.splits == first.splits
    table(tmp_path / "s", [f"{name},other,train" for name in names[:3]])
    os.utime(source, ns=(1, 1))
    changed = run(source, tmp_path / "out")
    assert (changed.unchanged, changed.samples, changed.decoded) == (False, 3, 0)
    assert len(list((tmp_path / "out/images").rglob("*.png"))) == 3  # the fourth is swept away
    assert contents(tmp_path / "out") != before


def test_the_number_of_threads_does_not_show(tmp_path: Path) -> None:
    source = shapes.draw(tmp_path / "s", train=60, val=5, test=5)
    for workers in (1, 7):
        prepare(DataSettings(source=str(source)), tmp_path / str(workers), workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "7")


CHILD = """
import sys
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
prepare(DataSettings(source=sys.argv[1]), sys.argv[2], progress=lambda done, total: print(done, flush=True), workers=2)
"""


def test_a_kill_at_any_moment_changes_nothing(tmp_path: Path) -> None:
    source = shapes.draw(tmp_path / "s", train=500, val=20, test=20)
    (tmp_path / "s/images/000005.jpg").write_bytes(b"")
    whole = run(source, tmp_path / "whole")
    for moment in (1, 150, 400):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(source), str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for line in child.stdout:
            if int(line) >= moment:
                break
        child.send_signal(signal.SIGKILL)
        child.wait()
        child.stdout.close()
        with pytest.raises(DataError, match="resumes"):
            Dataset.open(tmp_path / "out")
    with open(tmp_path / "out/.work/checked.jsonl", "a") as ledger:
        ledger.write('{"path": "torn')
    report = run(source, tmp_path / "out")
    assert report.decoded <= 540 - 300  # verdicts are written 64 at a time
    assert report.splits == whole.splits
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_two_at_once_and_wrong_folders(tmp_path: Path) -> None:
    source = table(tmp_path / "s", [f"{name},x,train" for name in pictures(tmp_path / "s", 2)])
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="already holds other files"):
        run(source, tmp_path / "full")
    with pytest.raises(DataError, match="overlap"):
        run(source, tmp_path / "s")
    with pytest.raises(DataError, match="overlap"):
        run(tmp_path / "s", tmp_path / "s/dataset")
    with pytest.raises(RecipeError, match="source is missing"):
        prepare(DataSettings(), tmp_path / "out")
    holder = "import fcntl,sys,time; f=open(sys.argv[1],'w'); fcntl.flock(f, fcntl.LOCK_EX); print(1, flush=True); "
    (tmp_path / "out/.work").mkdir(parents=True)
    child = subprocess.Popen(
        [sys.executable, "-c", holder + "time.sleep(60)", str(tmp_path / "out/.work/lock")],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        child.stdout.readline()
        with pytest.raises(DataError, match="Another process"):
            run(source, tmp_path / "out")
    finally:
        child.kill()
        child.wait()
        if child.stdout:
            child.stdout.close()


def test_file_names_that_are_no_unicode_are_listed(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    data = encode(noise(), "PNG")
    try:
        with open(os.fsencode(tmp_path / "s") + b"/gr\xf6\xdfer.png", "wb") as file:
            file.write(data)
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (tmp_path / "s/fine.png").write_bytes(data)
    report = run(tmp_path / "s", tmp_path / "out", captions_required=False, max_lost_share=0.5)
    assert report.samples == 1
    assert report.problems == {"bad_row": 1}
