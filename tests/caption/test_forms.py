"""Every form of output says the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cutline
from cutline.caption import files as caption_files
from cutline.core.errors import CutlineError
from cutline.core.files import write_atomically
from cutline.core.records import Prediction, Sample
from tests.caption.helping import rows
from tests.conftest import drawing


def test_stdout_forms_and_files_say_the_same(checkpoint, photos, tmp_path, command):
    import csv
    import io

    command("caption", checkpoint, photos, "-o", tmp_path / "p.jsonl")
    expected = rows(tmp_path / "p.jsonl")
    said = {id: row.caption or "" for id, row in expected.items()}

    code, out, _ = command("caption", checkpoint, photos)
    assert code == 1
    table = list(csv.DictReader(io.StringIO(out), delimiter="\t"))
    assert {row["id"]: row["caption"] for row in table} == said
    assert [row["status"] for row in table].count("failed") == 1
    assert out.count("status\t") == 1

    _, out, _ = command("caption", checkpoint, photos, "--format", "jsonl")
    assert {row["id"]: Prediction.from_json(row) for row in map(json.loads, out.splitlines())} == expected

    _, out, _ = command("caption", checkpoint, photos, "--format", "coco")
    captioned = {id: text for id, text in said.items() if expected[id].status == "ok"}
    assert {row["image_id"]: row["caption"] for row in json.loads(out)} == captioned

    for name, delimiter in (("p.csv", ","), ("p.tsv", "\t")):
        assert command("caption", checkpoint, photos, "-o", tmp_path / name)[0] == 1
        with open(tmp_path / name, newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file, delimiter=delimiter))
        assert [row["id"] for row in table] == sorted(said)
        assert {row["id"]: row["caption"] for row in table} == said
    assert command("caption", checkpoint, photos, "-o", tmp_path / "p.json")[0] == 1
    assert {row["image_id"]: row["caption"] for row in json.loads((tmp_path / "p.json").read_text())} == captioned
    assert {path.name for path in tmp_path.iterdir()} == {
        "photos", "p.jsonl", "p.jsonl.made-by", "p.csv", "p.tsv", "p.json"
    }  # fmt: skip
    code, _, talk = command("caption", checkpoint, photos, "-o", tmp_path / "p.xlsx")
    assert (code, "can't tell from the name" in talk) == (2, True)


def test_submission_has_each_image_by_its_number_and_no_invented_caption(checkpoint, photos, tmp_path, command):
    import csv

    command("caption", checkpoint, photos, "-o", tmp_path / "p.jsonl")
    said = {Path(id).stem: row.caption or "" for id, row in rows(tmp_path / "p.jsonl").items()}
    assert command("caption", checkpoint, photos, "--format", "submission", "-o", tmp_path / "submission.csv")[0] == 1
    with open(tmp_path / "submission.csv", newline="", encoding="utf-8") as file:
        header, *table = csv.reader(file)
    assert header == ["image_id", "caption"]
    assert dict(table) == said
    assert said["cut"] == ""
    (photos / "again").mkdir()
    (photos / "0.png").rename(photos / "again/1.png")
    code, _, talk = command("caption", checkpoint, photos, "--format", "submission", "-o", tmp_path / "other.csv")
    assert (code, "would both be image_id 1" in talk) == (2, True)


def test_files_that_are_there_are_not_replaced_unasked(checkpoint, photos, tmp_path, command):
    target = tmp_path / "captions.csv"
    target.write_text("image,caption\n1.png,written by hand\n")
    code, _, talk = command("caption", checkpoint, photos, "-o", target)
    assert (code, f"error: {target} already exists." in talk) == (2, True)
    assert "by hand" in target.read_text()
    assert command("caption", checkpoint, photos, "-o", target, "--overwrite")[0] == 1
    assert "by hand" not in target.read_text()


def test_sidecars_lie_beside_their_images(checkpoint, photos, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (photos / "3.txt").write_text("written by hand\n")
    code, _, talk = command("caption", checkpoint, photos, "--format", "txt")
    assert (code, f"{photos / '3.txt'} already exists" in talk) == (2, True)
    assert [path.name for path in photos.glob("*.txt")] == ["3.txt"]
    assert (photos / "3.txt").read_text() == "written by hand\n"
    assert command("caption", checkpoint, photos, "--format", "txt", "--overwrite")[0] == 1
    _, out, _ = command("caption", checkpoint, photos, "--format", "jsonl")
    made = {row["id"]: row["caption"] for row in map(json.loads, out.splitlines())}
    assert not (photos / "cut.txt").exists()  # never an invented caption, not even an empty one
    for number in range(10):
        text = (photos / f"{number}.txt").read_text(encoding="utf-8")
        assert text == made[str(photos / f"{number}.png")] + "\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos"]


def test_sidecars_in_a_folder_keep_images_of_one_name_apart(checkpoint, tmp_path, command):
    for number, place in enumerate(("a/1.png", "b/1.png", "b/c/1.png")):
        (tmp_path / "photos" / place).parent.mkdir(parents=True, exist_ok=True)
        drawing(number).save(tmp_path / "photos" / place)
    out = tmp_path / "texts"
    assert command("caption", checkpoint, tmp_path / "photos", "--format", "txt", "-o", out)[0] == 0
    found = sorted(str(path.relative_to(out)) for path in out.rglob("*.txt"))
    assert found == ["a/1.txt", "b/1.txt", "b/c/1.txt"]
    drawing(3).save(tmp_path / "photos/a/1.jpg")
    code, _, talk = command("caption", checkpoint, tmp_path / "photos", "--format", "txt", "-o", tmp_path / "more")
    assert code == 2
    assert "would both have the captions of" in talk
    assert not (tmp_path / "more").exists()


def test_sidecars_are_gone_on_with_after_a_kill(checkpoint, photos, tmp_path, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    real, calls = write_atomically, []

    def stopped(path, data, **rest):
        calls.append(path)
        if len([path for path in calls if str(path).endswith(".txt")]) > 3:
            raise KeyboardInterrupt
        real(path, data, **rest)

    monkeypatch.setattr(caption_files, "write_atomically", stopped)
    assert command("caption", checkpoint, photos, "--format", "txt")[0] == 130
    monkeypatch.setattr(caption_files, "write_atomically", real)
    assert len(list(photos.glob("*.txt"))) == 3
    assert command("caption", checkpoint, photos, "--format", "txt")[0] == 1
    assert len(list(photos.glob("*.txt"))) == 10


def test_sidecar_names():
    def name(id: str, folder: str = "out") -> str:
        return str(caption_files.sidecars([Sample(id=id, image=id)], folder)[id])

    assert name("a/b.jpeg") == "out/b.txt"
    assert name("a/b.jpeg", "") == "a/b.txt"
    assert name("v1.2") == "out/v1.2.txt"
    assert name("../../etc/x.png") == "out/x.txt"
    with pytest.raises(CutlineError, match="would both have"):
        caption_files.sidecars([Sample(id=id, image=id) for id in ("a.jpg", "./a.jpg")], "out")


def test_a_prepared_dataset_is_captioned_by_split_and_by_id(checkpoint, tmp_path, command):
    from cutline.images import shapes

    shapes.draw(tmp_path / "shapes", train=4, val=3, test=3)
    data = tmp_path / "dataset"
    assert command("prepare", tmp_path / "shapes", "-o", data)[0] == 0
    for split, count in (("val", 3), ("", 10)):
        out = tmp_path / f"{split or 'all'}.jsonl"
        assert command("caption", checkpoint, data, "-o", out, *(["--split", split] if split else []))[0] == 0
        ids = {sample.id for sample in cutline.Dataset.open(data) if split in ("", sample.split)}
        assert rows(out).keys() == ids
        assert len(ids) == count
    code, _, talk = command("caption", checkpoint, data, "--split", "dev")
    assert (code, "has no split 'dev'" in talk, "val (3)" in talk) == (2, True, True)
    code, _, talk = command("caption", checkpoint, data, "--format", "txt")
    assert (code, "is a prepared dataset" in talk) == (2, True)
    code, _, talk = command("caption", checkpoint, tmp_path / "shapes", "--split", "val")
    assert (code, "needs a prepared dataset" in talk) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "xml"], "There is no format 'xml'"),
        (["--set", "beems=3"], "--set: unknown key generate.beems. Did you mean generate.num_beams?"),
        (["--set", "num_beams"], "--set num_beams is not of the form key=value"),
        (["--set", "temperature=0"], "--set: generate.temperature = 0: must be above 0"),
        (["--dtype", "float23"], "dtype = \"float23\": must be one of 'auto', 'float32'"),
        (["--device", "cuda:99"], "The device 'cuda:99' can't be used here"),
        (["-o", "{photos}"], "can't tell from the name"),
        (["-o", "{photos}/1.png/p.jsonl"], "File exists: {photos}/1.png"),
    ],
)
def test_wrong_options_are_user_errors(checkpoint, photos, command, arguments, words):
    filled = [text.format(photos=photos) for text in arguments]
    code, out, talk = command("caption", checkpoint, photos, *filled)
    assert (code, out) == (2, "")
    assert words.format(photos=photos) in " ".join(talk.split())
    assert len(talk.splitlines()) == 2
