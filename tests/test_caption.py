"""Captioning survives any image and any kill, loses nothing, and never invents a caption."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from PIL import Image

import cutline
from cutline import caption_files, cli, jsonl
from cutline.caption import HOPELESS, caption
from cutline.caption_files import PredictionFile
from cutline.data.images import open_image
from cutline.errors import CheckpointError, CutlineError
from cutline.families.base import Family, Generation
from cutline.families.open import find, open_checkpoint
from cutline.families.settings import GenerateSettings
from cutline.records import Prediction, Sample
from tests.conftest import drawing
from tests.data.bad_images import BROKEN, COLOURFUL, encode, grey16, marker, palette_transparent, see_through


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    """A random captioner that says different things of different images, four at a time."""
    family = find("cnn_rnn").tiny()
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in family.model.named_parameters():
            if family.part_of(name) != "vision":
                parameter.add_(torch.randn_like(parameter) * 0.3)
    family.generation = GenerateSettings(max_tokens=6, batch_size=4)
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


def rows(path: Path) -> dict[str, Prediction]:
    """What a file of predictions says; an image has one row."""
    lines = [Prediction.from_json(row) for row in jsonl.read(path)]
    found = {row.id: row for row in lines}
    assert len(found) == len(lines)
    return found


# ---- bad images

ODD: dict[str, Any] = {
    **{name: COLOURFUL[name] for name in ("cmyk.jpg", "rgb16.png", "frames.gif", "turned6.jpg", "broken_exif.jpg",
                                          "webp_named.jpg", "trailing.jpg", "tagged.tif", "portable.ppm")},
    "grey16.png": grey16,
    "grey.jpg": lambda: encode(marker().convert("L"), "JPEG"),
    "alpha.png": lambda: encode(see_through("RGBA"), "PNG"),
    "palette.png": palette_transparent,
    "dot.png": lambda: encode(Image.new("RGB", (1, 1)), "PNG"),
    "line.png": lambda: encode(Image.new("RGB", (900, 1)), "PNG"),
}  # fmt: skip


def test_among_bad_images_every_good_one_is_captioned_and_every_bad_one_says_why(checkpoint, tmp_path, command):
    folder = tmp_path / "photos"
    (folder / "deep/er.jpg").mkdir(parents=True)  # a folder, whatever it is called
    expected: dict[str, str | None] = {}

    def put(name: str, data: bytes, reason: str | None) -> None:
        (folder / name).write_bytes(data)
        expected[str(folder / name)] = reason

    for name, (make, why) in BROKEN.items():
        # a Photoshop file isn't looked for in a folder, so it hides behind another ending
        put(name if name != "layers.psd" else "layers.jpg", make(), why)
    for name, whole in ODD.items():
        put(name, whole(), None)
    for number in range(5):
        put(f"deep/er.jpg/{number}.JPG", encode(drawing(number), "JPEG"), None)
    put("größe 本.jpg", encode(drawing(9), "JPEG"), None)
    put(".hidden.jpg", b"", None)
    put("notes.txt", b"not looked for", None)
    del expected[str(folder / ".hidden.jpg")], expected[str(folder / "notes.txt")]
    (folder / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    expected[str(folder / "dangling.jpg")] = "missing"
    put("closed.jpg", encode(drawing(1), "JPEG"), "unreadable" if os.geteuid() else None)  # root reads anything
    (folder / "closed.jpg").chmod(0)

    code, out, talk = command("caption", checkpoint, folder, "-o", tmp_path / "p.jsonl")
    assert code == 1
    assert out == ""
    found = rows(tmp_path / "p.jsonl")
    assert found.keys() == expected.keys()
    for name, reason in expected.items():
        row = found[name]
        if reason is None:
            assert (row.status, row.error) == ("ok", None), row
            assert row.caption is not None
            assert row.logprob is not None
            assert row.tokens > 0
        else:
            assert (row.status, row.caption, row.logprob, row.tokens) == ("failed", None, None, 0), row
            assert row.error is not None
            assert row.error.startswith(f"{reason}: "), row
    failed = sum(reason is not None for reason in expected.values())
    assert failed >= 20
    assert f"{len(expected) - failed} of {len(expected)} images captioned in" in talk.splitlines()[-1]
    assert f"{failed} have no caption" in talk.splitlines()[-1]
    assert talk.count("no caption: ") == 20
    assert f"… and {failed - 20} more" in talk


def test_a_folder_that_cannot_be_read_gets_a_row(checkpoint, photos, command, monkeypatch):
    real = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    (photos / "closed").mkdir()
    monkeypatch.setattr(os, "scandir", scandir)
    code, out, _ = command("caption", checkpoint, photos, "--format", "jsonl")
    assert code == 1
    assert sum(json.loads(line)["id"] == str(photos / "closed") for line in out.splitlines()) == 1
    assert len(out.splitlines()) == 12


def test_names_on_stdin_that_are_missing_or_strange_get_rows(checkpoint, photos, tmp_path, monkeypatch):
    odd = os.fsdecode(os.fsencode(str(photos)) + b"/caf\xe9.png")
    drawing(3).save(odd, "PNG")
    names = [str(photos / "1.png"), str(photos / "gone.jpg"), str(photos), odd, str(photos / "1.png"), "", "a\0b.jpg"]
    done = subprocess.run(
        [sys.executable, "-m", "cutline.cli", "caption", str(checkpoint), "-", "-o", str(tmp_path / "p.jsonl")],
        input=os.fsencode("\r\n".join(names)), capture_output=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = rows(tmp_path / "p.jsonl")
    assert list(found) != []
    assert {name: (row.error or "").partition(":")[0] for name, row in found.items()} == {
        names[0]: "", names[1]: "missing", names[2]: "unreadable", odd: "", "a\0b.jpg": "unreadable",
    }  # fmt: skip
    assert found[odd].caption


def test_a_missing_argument_is_a_user_error_before_the_model_is_opened(photos, command):
    code, out, talk = command("caption", "no/such/checkpoint/here", photos, photos / "gone.jpg")
    assert (code, out) == (2, "")
    assert talk.startswith(f"error: There is no image or folder {photos / 'gone.jpg'}.\n")
    assert len(talk.splitlines()) == 2


# ---- resume


def test_cut_at_any_byte_the_file_becomes_what_an_unbroken_run_makes(family, photos, tmp_path):
    samples = [Sample(id=str(path), image=str(path)) for path in sorted(photos.iterdir())]
    settings = GenerateSettings(max_tokens=6, batch_size=4)

    def go_on(path: Path) -> None:
        file = PredictionFile(path, {"model": "a"})
        done = file.open()
        with jsonl.Appender(path) as out:
            for batch in caption(family, samples, settings, done=done):
                assert not {row.id for row in batch} & done.keys()
                out.write(row.to_json() for row in batch)

    go_on(tmp_path / "whole.jsonl")
    whole = (tmp_path / "whole.jsonl").read_bytes()
    expected = rows(tmp_path / "whole.jsonl")
    assert len(expected) == 11
    assert len({row.caption for row in expected.values()}) > 3
    ends = [place + 1 for place, sign in enumerate(whole) if sign == ord("\n")]
    cuts = {0, 1, len(whole), *ends, *(end - 1 for end in ends), *(end + 1 for end in ends[:-1])}
    cuts |= set(random.Random(0).sample(range(len(whole)), 30))
    path = tmp_path / "whole.jsonl"
    for cut in sorted(cuts):
        go_on_from = whole[:cut]
        path.write_bytes(go_on_from)
        go_on(path)
        assert rows(path) == expected, cut  # captions, log-probabilities, errors
        complete = go_on_from[: go_on_from.rfind(b"\n") + 1]
        assert path.read_bytes().startswith(complete)  # nothing is made twice


def test_sampling_draws_the_same_after_a_cut(checkpoint, photos, tmp_path, command):
    how = ("--set", "sample=true", "--set", "temperature=1.5")
    command("caption", checkpoint, photos, "-o", tmp_path / "p.jsonl", *how)
    expected = rows(tmp_path / "p.jsonl")
    lines = (tmp_path / "p.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "p.jsonl").write_bytes(b"".join(lines[:6])[:-9])
    command("caption", checkpoint, photos, "-o", tmp_path / "p.jsonl", *how)
    assert rows(tmp_path / "p.jsonl") == expected
    command("caption", checkpoint, photos, "-o", tmp_path / "other.jsonl", *how, "--set", "seed=1")
    assert rows(tmp_path / "other.jsonl") != expected


def test_killed_for_real_it_goes_on(checkpoint, photos, tmp_path, command):
    """kill -9 in the middle of the work, twice; the writer is slowed down so that there is a middle."""
    out = tmp_path / "p.jsonl"
    slow = (
        "import time, cutline.caption as c\nreal = c._Captioner._generate\n"
        "def slow(self, items):\n    time.sleep(0.4)\n    return real(self, items)\n"
        "c._Captioner._generate = slow\nfrom cutline.cli import main\nmain()"
    )
    arguments = [str(checkpoint), str(photos), "-o", str(out), "--batch-size", "2"]
    for lines in (1, 5):
        child = subprocess.Popen([sys.executable, "-c", slow, "caption", *arguments], stderr=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not out.exists() or out.read_bytes().count(b"\n") < lines:
            assert child.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert len(rows(out)) < 11
    assert command("caption", *arguments)[0] == 1
    command("caption", checkpoint, photos, "-o", tmp_path / "whole.jsonl", "--batch-size", "2")
    assert rows(out) == rows(tmp_path / "whole.jsonl")
    before = out.stat()
    assert command("caption", *arguments)[0] == 1  # all is done; still not all have captions
    assert out.stat().st_mtime_ns == before.st_mtime_ns


def test_captions_of_other_settings_or_models_are_never_mixed(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    command("caption", checkpoint, photos, "-o", out)
    before = out.read_bytes()
    code, _, talk = command("caption", checkpoint, photos, "-o", out, "--beams", 2)
    assert code == 2
    assert f"error: {out} was made differently: beams was 1, is 2." in talk
    assert "--overwrite" in talk
    code, _, talk = command("caption", checkpoint, photos, "-o", out, "--dtype", "bfloat16")
    assert (code, 'dtype was "float32", is "bfloat16"' in talk) == (2, True)
    other = tmp_path / "other"
    find("cnn_rnn").tiny(seed=1).save(other)
    code, _, talk = command("caption", other, photos, "-o", out)
    assert (code, "made differently: another checkpoint" in talk) == (2, True)
    assert out.read_bytes() == before
    # the size of the batch decides nothing
    assert command("caption", checkpoint, photos, "-o", out, "--batch-size", 2)[0] == 1
    assert out.read_bytes() == before
    assert command("caption", checkpoint, photos, "-o", out, "--beams", 2, "--overwrite")[0] == 1
    assert len(rows(out)) == 11
    assert out.read_bytes() != before
    # a file that something else made is not touched
    foreign = tmp_path / "mine.jsonl"
    foreign.write_text('{"id": "a", "caption": "my own"}\n')
    code, _, talk = command("caption", checkpoint, photos, "-o", foreign)
    assert (code, "by something else" in talk) == (2, True)
    assert foreign.read_text() == '{"id": "a", "caption": "my own"}\n'


def test_retry_failed_tries_only_the_failed_and_leaves_one_row_each(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    assert command("caption", checkpoint, photos, "-o", out)[0] == 1
    first = rows(out)
    drawing(77).save(photos / "cut.jpg")
    assert command("caption", checkpoint, photos, "-o", out)[0] == 1  # not asked for
    assert rows(out) == first
    assert command("caption", checkpoint, photos, "-o", out, "--retry-failed")[0] == 0
    second = rows(out)
    assert second[str(photos / "cut.jpg")].caption
    assert {id: row for id, row in second.items() if first[id].status == "ok"} == {
        id: row for id, row in first.items() if row.status == "ok"
    }


def test_images_that_came_later_are_added(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    command("caption", checkpoint, photos, "-o", out)
    first = rows(out)
    drawing(50).save(photos / "new.png")
    command("caption", checkpoint, photos, "-o", out)
    assert rows(out).keys() - first.keys() == {str(photos / "new.png")}


def test_two_commands_dont_write_one_file(checkpoint, photos, tmp_path, command):
    out = tmp_path / "p.jsonl"
    command("caption", checkpoint, photos, "-o", out)
    before = out.read_bytes()
    with jsonl.Appender(out):
        for more in ([], ["--overwrite"], ["--retry-failed"]):
            code, _, talk = command("caption", checkpoint, photos, "-o", out, *more)
            assert code == 2
            assert "Another process is writing" in talk
    assert out.read_bytes() == before


# ---- full memory and broken models


class Fake:
    """A family whose ``generate`` does as it is told; everything else is the real one's."""

    def __init__(self, family: Family, generate: Any) -> None:
        self.family, self._generate = family, generate

    def __getattr__(self, name):
        return getattr(self.family, name)

    def generate(self, batch, settings):
        return self._generate(batch, settings)


def fake(family: Family, generate) -> Family:
    return cast(Family, Fake(family, generate))


def some(photos: Path, count: int) -> list[Sample]:
    paths = [path for path in sorted(photos.iterdir()) if path.suffix == ".png"]
    return [Sample(id=str(n), image=str(paths[n % len(paths)])) for n in range(count)]


def every(made) -> dict[str, Prediction]:
    lines = [row for batch in made for row in batch]
    found = {row.id: row for row in lines}
    assert len(found) == len(lines)
    return found


def test_full_memory_halves_the_batch_and_loses_nothing(family, photos):
    sizes = []

    def generate(batch, settings):
        sizes.append(len(batch["pixel_values"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return family.generate(batch, settings)

    settings = GenerateSettings(max_tokens=6, batch_size=16)
    samples = some(photos, 40)
    made = every(caption(fake(family, generate), samples, settings))
    assert sizes[:4] == [16, 8, 4, 2]
    assert max(sizes[4:]) == 2  # it doesn't try again at once
    expected = every(caption(family, samples, settings))
    assert {id: row.caption for id, row in made.items()} == {id: row.caption for id, row in expected.items()}
    assert all(row.status == "ok" for row in made.values())


def test_after_one_large_image_the_batch_grows_again(family, photos):
    sizes = []

    def generate(batch, settings):
        sizes.append(len(batch["pixel_values"]))
        if len(sizes) < 4:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9999 bytes")
        return family.generate(batch, settings)

    made = every(caption(fake(family, generate), some(photos, 120), GenerateSettings(max_tokens=2, batch_size=4)))
    assert sizes[:4] == [4, 2, 1, 1]
    assert sizes[-1] == 4
    assert all(row.status == "ok" for row in made.values())


def test_an_image_too_large_for_the_memory_is_tried_smaller_and_then_named(family, photos):
    large = photos / "large.png"
    drawing(1, (300, 200)).save(large)
    samples = [*some(photos, 5), Sample(id="large", image=str(large))]
    seen = []
    real = type(family).pixels

    class Sized(Fake):
        """Remembers by the pixels which image they are of."""

        def pixels(self, images):
            made = real(family, images)
            if images[0].size in ((300, 200), (150, 100)):
                seen.append((images[0].size, made["pixel_values"]))
            return made

    def fits(limit: int) -> Any:
        def generate(batch, settings):
            for size, pixels in seen:
                if size[0] > limit and any(torch.equal(one, pixels[0]) for one in batch["pixel_values"]):
                    raise torch.OutOfMemoryError("CUDA out of memory")
            return family.generate(batch, settings)

        return generate

    settings = GenerateSettings(max_tokens=6, batch_size=4)
    made = every(caption(cast(Family, Sized(family, fits(200))), samples, settings))
    assert all(row.status == "ok" for row in made.values())
    made = every(caption(cast(Family, Sized(family, fits(100))), samples, settings))
    assert [id for id, row in made.items() if row.status == "failed"] == ["large"]
    assert made["large"].error is not None
    assert made["large"].error.startswith("out_of_memory: ")
    assert "300 × 200 px" in made["large"].error


@pytest.mark.parametrize("words", ["CUDA error: device-side assert\ntriggered", ""])
def test_a_poison_image_costs_its_own_row_only(family, photos, words):
    samples = some(photos, 10)
    expected = every(caption(family, samples, GenerateSettings(max_tokens=6, batch_size=4)))
    poison = family.pixels([open_image(samples[7].image)])["pixel_values"][0]

    def generate(batch, settings):
        if any(torch.equal(one, poison) for one in batch["pixel_values"]):
            raise RuntimeError(words)
        return family.generate(batch, settings)

    made = every(caption(fake(family, generate), samples, GenerateSettings(max_tokens=6, batch_size=4)))
    failed = made.pop("7")
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.startswith("model_error: RuntimeError: ")
    assert "\n" not in failed.error
    assert {id: row.caption for id, row in made.items()} == {
        id: row.caption for id, row in expected.items() if id != "7"
    }


def test_a_shape_that_the_processor_refuses_costs_its_own_row_only(family, photos):
    class Picky(Fake):
        def pixels(self, images):
            if images[0].size[0] == 48:
                raise ValueError("absolute aspect ratio must be smaller than 200")
            return family.pixels(images)

    made = every(
        caption(cast(Family, Picky(family, family.generate)), some(photos, 10), GenerateSettings(max_tokens=2))
    )
    failed = [row for row in made.values() if row.status == "failed"]
    assert len(failed) == 3
    assert all("refuses 48 × 48 px: absolute aspect ratio" in (row.error or "") for row in failed)


@pytest.mark.parametrize("how", ["raises", "not a number"])
def test_a_model_that_never_works_stops_and_leaves_no_rows(family, photos, how):
    def generate(batch, settings):
        if how == "raises":
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return [Generation("a a a", float("nan"), 3, True) for _ in batch["pixel_values"]]

    written: list[Prediction] = []
    samples = [*some(photos, 200), Sample(id="cut", image=str(photos / "cut.jpg"))]
    made = caption(fake(family, generate), samples, GenerateSettings(batch_size=16))
    with pytest.raises(CheckpointError, match=f"failed on each of the first {HOPELESS if how == 'raises' else 32}"):
        written.extend(row for batch in made for row in batch)
    assert all(row.error and row.error.startswith("truncated") for row in written)
    # a handful of images is too few to blame the model: each says why
    few = every(caption(fake(family, generate), some(photos, 5), GenerateSettings(batch_size=2)))
    assert len(few) == 5
    assert all(row.status == "failed" and row.caption is None for row in few.values())


def test_a_model_that_worked_once_may_fail_often(family, photos):
    calls = []

    def generate(batch, settings):
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("broken")
        return family.generate(batch, settings)

    made = every(caption(fake(family, generate), some(photos, 60), GenerateSettings(max_tokens=2, batch_size=2)))
    assert sum(row.status == "ok" for row in made.values()) == 2
    assert sum(row.status == "failed" for row in made.values()) == 58


def test_an_empty_caption_is_a_caption_and_a_missing_one_is_none(family, photos):
    def generate(batch, settings):
        return [Generation("", -1.0, 1, True) for _ in batch["pixel_values"]]

    made = every(caption(fake(family, generate), some(photos, 2), GenerateSettings()))
    assert {(row.caption, row.status) for row in made.values()} == {("", "ok")}

    def too_few(batch, settings):
        return family.generate(batch, settings)[1:]

    made = every(caption(fake(family, too_few), some(photos, 3), GenerateSettings(max_tokens=2)))
    assert all(row.status == "failed" and row.caption is None for row in made.values())


# ---- output forms


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
    assert (code, f"error: {target} exists already." in talk) == (2, True)
    assert "by hand" in target.read_text()
    assert command("caption", checkpoint, photos, "-o", target, "--overwrite")[0] == 1
    assert "by hand" not in target.read_text()


def test_sidecars_lie_beside_their_images(checkpoint, photos, command, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (photos / "3.txt").write_text("written by hand\n")
    code, _, talk = command("caption", checkpoint, photos, "--format", "txt")
    assert (code, f"{photos / '3.txt'} exists already" in talk) == (2, True)
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
    real, calls = jsonl.write_atomically, []

    def stopped(path, data):
        calls.append(path)
        if len([path for path in calls if str(path).endswith(".txt")]) > 3:
            raise KeyboardInterrupt
        real(path, data)

    monkeypatch.setattr(jsonl, "write_atomically", stopped)
    assert command("caption", checkpoint, photos, "--format", "txt")[0] == 130
    monkeypatch.setattr(jsonl, "write_atomically", real)
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
    from cutline.data import shapes

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
        (["--set", "beems=3"], "--set: unknown key generate.beems. Did you mean generate.beams?"),
        (["--set", "beams"], "--set beams is not of the form key=value"),
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


# ---- Python


def test_python_says_what_the_command_line_says(checkpoint, photos, tmp_path, command):
    for name in ("cmyk.jpg", "rgb16.png", "turned6.jpg"):
        (photos / name).write_bytes(COLOURFUL[name]())
    (photos / "alpha.png").write_bytes(encode(see_through("RGBA"), "PNG"))
    (photos / "grey16.png").write_bytes(grey16())
    _, out, _ = command("caption", checkpoint, photos, "--format", "jsonl")
    expected = {row["id"]: Prediction.from_json(row) for row in map(json.loads, out.splitlines())}
    captioner = cutline.load(checkpoint)
    names = sorted(expected)
    assert captioner.caption(names) == [expected[name] for name in names]
    assert captioner.caption([Path(name) for name in names]) == [expected[name] for name in names]
    (one,) = captioner.caption(photos / "1.png")
    assert one.caption == expected[str(photos / "1.png")].caption
    # pictures in memory, also those that Pillow opens lazily, are seen as their files are
    for name in names:
        if name.endswith("cut.jpg"):
            continue
        with Image.open(name) as picture:
            (made,) = captioner.caption(picture)
        assert made.caption == expected[name].caption, name
        assert made.logprob == pytest.approx(expected[name].logprob, abs=1e-3)
        assert made.id == "0"
    assert captioner.caption([]) == []
    assert captioner.caption(drawing(1), beams=3, max_tokens=2)[0].tokens <= 2


def test_python_gives_one_answer_an_image_in_order(checkpoint, photos):
    captioner = cutline.load(str(checkpoint.parent / "model"))
    with Image.open(photos / "cut.jpg") as cut_off:
        given = [photos / "1.png", drawing(2), photos / "gone.jpg", cut_off, photos / "1.png"]
        made = captioner.caption(given)
    assert [row.id for row in made] == [
        str(photos / "1.png"),
        "1",
        str(photos / "gone.jpg"),
        "3",
        str(photos / "1.png"),
    ]
    assert [row.status for row in made] == ["ok", "ok", "failed", "failed", "ok"]
    assert made[0].caption == made[4].caption
    assert (made[2].error or "").startswith("missing: ")
    assert (made[3].error or "").startswith("truncated: ")
    with pytest.raises(TypeError, match="images are paths or PIL images, not ndarray"):
        captioner.caption([torch.zeros(2, 2).numpy()])  # type: ignore[list-item]
    with pytest.raises(CutlineError, match=r"caption\(\): unknown key beems"):
        captioner.caption(given, beems=2)


# ---- checkpoints


@pytest.mark.parametrize("name", ["cnn_rnn", "vision_encoder_decoder", "qwen2_5_vl"])
def test_a_checkpoint_without_our_own_file_is_opened_by_its_config(name, tmp_path):
    find(name).tiny().save(tmp_path)
    (tmp_path / "cutline.json").unlink()
    assert open_checkpoint(tmp_path).name() == name


@pytest.mark.parametrize("name", ["cnn_rnn", "vision_encoder_decoder", "qwen2_5_vl"])
def test_a_checkpoint_that_lacks_weights_is_refused(name, tmp_path):
    """Hugging Face draws them by chance and goes on: captions would come, and mean nothing."""
    from safetensors.torch import load_file, save_file

    find(name).tiny().save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    names = [key for key in weights if key.endswith("weight") and "pooler" not in key]
    del weights[names[len(names) // 2]]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="lacks 1 weights that"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "could not be opened as cnn_rnn"),
        (lambda folder: [path.unlink() for path in folder.glob("c*.json")], "holds no config.json"),
        (lambda folder: (folder / "cutline.json").write_text("{"), "doesn't say the checkpoint's family"),
        (lambda folder: (folder / "cutline.json").write_text('{"family": "cnn-rmn"}'), "Did you mean cnn_rnn?"),
        (lambda folder: os.truncate(folder / "model.safetensors", 1000), "could not be opened as cnn_rnn"),
        (lambda folder: (folder / "model.safetensors").unlink(), "could not be opened as cnn_rnn"),
    ],
)
def test_a_damaged_checkpoint_is_a_user_error(damage, words, checkpoint, photos, tmp_path, command):
    import shutil

    shutil.copytree(checkpoint, tmp_path / "copy")
    damage(tmp_path / "copy")
    code, out, talk = command("caption", tmp_path / "copy", photos / "1.png")
    assert (code, out) == (2, "")
    assert words in talk
    assert len(talk.splitlines()) == 2
