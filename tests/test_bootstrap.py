"""Caption bootstrapping: what is written, scored, kept and merged; a round that is killed goes on to the same."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from cutline.bootstrap.bootstrap import bootstrap, summary
from cutline.bootstrap.captions import ScoredCaption, chosen, of_image
from cutline.bootstrap.settings import BootstrapSettings, KeepSettings
from cutline.cli.main import main
from cutline.core import config as recipe
from cutline.core import jsonl
from cutline.core.errors import CheckpointError, CutlineError, DataError, RecipeError
from cutline.core.records import Sample
from cutline.data.dataset import Dataset
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
from cutline.families.open import find, open_checkpoint
from cutline.images import shapes
from cutline.images.open import open_image
from cutline.run.stages.bootstrap import write_report
from cutline.train import train as training
from cutline.train.settings import TrainSettings

CAPTIONS = ["a red circle above a blue square"]


def mixture(seed=0):
    """Captions, embeds and matches; its matching head is sharpened, so that it is sure of something."""
    family = find("vision_mixture").tiny(CAPTIONS, seed=seed)
    with torch.no_grad():
        family.model.itm_head.weight.mul_(20)
    return family.eval()


@pytest.fixture(scope="module")
def human(tmp_path_factory):
    folder = tmp_path_factory.mktemp("human")
    prepare(DataSettings(source=str(shapes.draw(folder / "shapes", train=6, val=4, test=0))), folder / "dataset")
    return Dataset.open(folder / "dataset")


@pytest.fixture(scope="module")
def web(tmp_path_factory, human):
    """Forty images with one or two captions, one image without, one broken, and one of the human val split."""
    folder = tmp_path_factory.mktemp("web")
    source = shapes.draw(folder / "shapes", train=40, val=0, test=0, seed=5)
    rows = list(csv.reader(source.read_text().splitlines()))[1:]
    held = next(iter(human.split("val")))
    (folder / "shapes/images/held.png").write_bytes(Path(held.image).read_bytes())
    with source.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "caption"])
        for number, (image, caption, _) in enumerate(rows):
            table.writerow([image, "" if number == 7 else caption])
            if number % 3 == 0 and number:
                table.writerow([image, "buy now, free delivery"])
        table.writerow(["held.png", "a picture of the val split"])
    settings = DataSettings(source=str(source), captions_required=False, val=0.0, test=0.0)
    prepare(settings, folder / "dataset")
    dataset = Dataset.open(folder / "dataset")
    broken = dataset[11].image
    os.truncate(broken, 40)  # since it was prepared
    return dataset


def settings(**changes):
    table = {
        "captions": 2,
        "generate": {"max_new_tokens": 6, "min_new_tokens": 2, "batch_size": 8},
        "keep": {"share": 0.5},
    }
    return recipe.parse(table | changes, BootstrapSettings)


@pytest.fixture(scope="module")
def done(web, human, tmp_path_factory):
    folder = tmp_path_factory.mktemp("round")
    family = mixture()
    found = bootstrap(family, family, web, human, settings(), folder, {"models": "tiny"})
    return found, folder


def test_each_caption_is_scored_by_the_plain_way_too(done, web):
    """The fast re-ranker's log-odds are those of both logits of each pair by itself."""
    found, _ = done
    family, samples = mixture(), {sample.id: sample for sample in web}
    assert len(found.captions) > 100
    for one in found.captions[::9]:
        with torch.no_grad():
            seen = family.encode_images(family.pixels([open_image(samples[one.image].image)]))
            pair = family.encode_texts([one.text])
            doesnt, does = family.match_logits(seen, pair, torch.zeros(1, dtype=torch.int64))[0].tolist()
        assert one.log_odds == pytest.approx(does - doesnt, abs=1e-3)


def test_every_caption_has_its_kind_and_every_image_a_line(done, web):
    found, folder = done
    rows = {row["image"]: row for row in jsonl.read(folder / "scores.jsonl")}
    assert len(rows) == len(web)
    by_id = {sample.id: sample for sample in web}
    written = [{row["id"]: row["caption"] for row in jsonl.read(folder / f"synthetic-{n}.jsonl")} for n in (0, 1)]
    assert written[0] != written[1]  # drawn, each with a seed of its own
    broken = web[11].id
    for image, row in rows.items():
        texts = {kind: [text for text, one, _ in row["captions"] if one == kind] for kind in ("web", "synthetic")}
        if image == broken:
            assert row["error"]
            assert row["captions"] == []
            continue
        assert texts["web"] == list(by_id[image].captions)
        assert set(texts["synthetic"]) <= {written[0][image], written[1][image]}
        assert len({text for text, _, _ in row["captions"]}) == len(row["captions"])
    assert list(found.failed) == [broken]
    assert found.uncaptioned == 2
    assert any(f"{len(found.failed)} images could not be scored" in text for text in summary(found))


def test_what_is_kept_is_merged_with_where_it_came_from(done, web, human):
    found, folder = done
    merged = Dataset.open(folder / "dataset")
    kept = {(one.image, one.text): one.kind for one, stay in zip(found.captions, found.kept, strict=True) if stay}
    assert 0 < len(kept) < len(found.captions)
    assert merged.splits()["val"] == 4
    held = next(iter(human.split("val")))
    from_web = 0
    for sample in merged:
        origin = sample.extra["captions_from"]
        assert len(origin) == len(sample.captions) > 0
        if sample.id.startswith("web/"):
            from_web += 1
            assert sample.split == "train"
            assert sample.extra["sha256"] != held.extra["sha256"]
            for text, kind in zip(sample.captions, origin, strict=True):
                assert kept[sample.id.removeprefix("web/"), text] == kind
        else:
            assert set(origin) == {"human"}
        assert open_image(sample.image).size
    assert from_web == found.merged.web == len({image for image, _ in kept} - {"held.png"})
    told = list(jsonl.read(folder / "captions.jsonl"))
    assert len(told) == len(found.captions)
    assert sum(row["kept"] for row in told) == len(kept)


def test_the_merged_dataset_is_trained_on(done, tmp_path):
    _, folder = done
    chosen = TrainSettings(max_steps=2, eval_steps=2, batch_size=4, warmup_steps=0, retrieval={})
    facts = training.train(mixture(), Dataset.open(folder / "dataset"), chosen, tmp_path)
    assert facts["steps"] == 2


def test_other_bounds_need_no_model(done, web, human):
    """What was written and scored stays; only what is kept is decided anew."""
    found, folder = done
    before = (folder / "scores.jsonl").read_bytes()

    class Unused:
        tasks = frozenset({"match", "caption"})

        def require(self, task):
            pass

        def __getattr__(self, name):
            if name == "device":
                return torch.device("cpu")
            raise AssertionError(name)

    unused: Any = Unused()
    changed = settings(keep={"threshold": 0.0})
    again = bootstrap(unused, unused, web, human, changed, folder, {"models": "tiny"})
    assert all(again.kept)
    assert (folder / "scores.jsonl").read_bytes() == before
    assert again.merged.held_out == 1
    back = bootstrap(unused, unused, web, human, settings(), folder, {"models": "tiny"})
    assert back.kept == found.kept
    with pytest.raises(CutlineError, match='models was "tiny", is "others"'):
        bootstrap(unused, unused, web, human, settings(), folder, {"models": "others"})
    with pytest.raises(CutlineError, match="top_p was"):
        bootstrap(unused, unused, web, human, settings(generate={"top_p": 0.5}), folder, {"models": "tiny"})


def test_the_page_shows_what_was_kept_and_dropped(done, web):
    found, folder = done
    page = write_report(found, web, settings(), folder).read_text()
    assert page.count("data:image/jpeg") > 20
    assert "the best 50% of each kind" in page
    assert "buy now, free delivery" in page
    assert page.count('class="dropped"') > 5
    assert page.count('class="kept"') > 5
    assert found.failed[web[11].id].split(":")[0] in page


def test_a_filter_that_drops_all_says_so(web, tmp_path):
    with pytest.raises(DataError, match="drops all"):
        bootstrap(None, mixture(), web, None, settings(captions=0, keep={"threshold": 1.0}), tmp_path, {})


def test_without_human_captions_the_web_is_a_dataset_of_its_own(web, tmp_path):
    found = bootstrap(None, mixture(), web, None, settings(captions=0, keep={"threshold": 0.0}), tmp_path, {})
    assert found.merged.human == 0
    merged = Dataset.open(tmp_path / "dataset")
    assert len(merged) == len(web) - 2  # one is broken, one has no caption
    assert {kind for sample in merged for kind in sample.extra["captions_from"]} == {"web"}


def test_a_model_that_cannot_match_is_refused(web, tmp_path):
    with pytest.raises(CheckpointError, match="can't match"):
        bootstrap(None, find("clip").tiny(), web, None, settings(captions=0), tmp_path, {})


def test_a_round_never_lands_in_a_dataset_and_overwriting_leaves_other_files(web, tmp_path, monkeypatch, capsys):
    mixture().save(tmp_path / "model")

    def bootstrap_to(out: Path, *more: str) -> int:
        arguments = ["bootstrap", str(web.path), "--filter", str(tmp_path / "model"), "--device", "cpu", "-o", str(out)]
        monkeypatch.setattr("sys.argv", ["cutline", *arguments, "--set", "keep.threshold=0.0", *more])
        with pytest.raises(SystemExit) as stopped:
            main()
        return int(stopped.value.code or 0)

    before = sorted(path.name for path in web.path.iterdir())
    assert bootstrap_to(web.path, "--overwrite") == 2
    assert "a dataset" in capsys.readouterr().err
    assert sorted(path.name for path in web.path.iterdir()) == before
    out = tmp_path / "round"
    assert bootstrap_to(out) == 1  # one image is broken
    (out / "notes.txt").write_text("mine")
    assert bootstrap_to(out, "--overwrite") == 1
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "dataset/dataset.json").is_file()


def test_captions_that_people_wrote_count_as_theirs():
    sample = Sample(id="1", image="", captions=("a dog ", "", "a cat"))
    assert of_image(sample, ["a cat", "a bird", "a bird"]) == [
        ("a dog", "web"),
        ("a cat", "web"),
        ("a bird", "synthetic"),
    ]


def test_a_share_is_kept_of_each_kind_and_a_threshold_is_a_probability():
    candidates = [ScoredCaption("1", str(n), "web", float(n)) for n in range(4)]
    candidates += [ScoredCaption("1", f"s{n}", "synthetic", n - 10.0) for n in range(4)]
    kept = chosen(candidates, KeepSettings(share=0.5))
    assert kept == [False, False, True, True] * 2
    exact = math.log(0.9 / 0.1)
    several = [ScoredCaption("1", "a", "web", exact + 1e-9), ScoredCaption("1", "b", "web", exact - 1e-9)]
    assert chosen(several, KeepSettings(threshold=0.9)) == [True, False]
    assert chosen(several, KeepSettings(threshold=1.0)) == [False, False]


def test_several_greedy_captions_would_be_alike():
    with pytest.raises(RecipeError, match="alike"):
        settings(generate={"do_sample": False})


SLOW = """
import sys, time
from cutline.cli.main import main
from cutline.core import jsonl
real = jsonl.Appender.write
def write(self, rows):
    real(self, rows)
    time.sleep(0.05)  # so that there is a moment to be killed in
jsonl.Appender.write = write
sys.argv = ["cutline", *sys.argv[1:]]
main()
"""


def test_killed_at_any_moment_it_goes_on_to_the_same_files(web, human, tmp_path):
    """SIGKILL while captions are written, while they are scored, and at the end; then the same command again."""
    mixture().save(tmp_path / "model")
    (tmp_path / "slow.py").write_text(SLOW)
    command = [
        "bootstrap",
        str(web.path),
        "--filter",
        str(tmp_path / "model"),
        "--captioner",
        str(tmp_path / "model"),
        "--human",
        str(human.path),
        "--set",
        "captions=1",
        "--set",
        "keep.share=0.5",
        "--set",
        "generate.max_new_tokens=6",
        "--set",
        "generate.min_new_tokens=2",
        "--set",
        "generate.batch_size=4",
        "--device",
        "cpu",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}

    def start(out, *python):
        return subprocess.Popen(
            [sys.executable, *python, *command, "-o", str(out)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def lines(path):
        return path.read_bytes().count(b"\n") if path.exists() else 0

    killed = tmp_path / "killed"
    for name, most in (("synthetic-0.jsonl", 8), ("scores.jsonl", 8)):
        process = start(killed, str(tmp_path / "slow.py"))
        until = time.monotonic() + 240
        while lines(killed / name) < most and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        assert most <= lines(killed / name) < len(web)
        with (killed / name).open("ab") as file:
            file.write(b'{"image": "torn')  # as a kill in the middle of a line leaves it
    process = start(killed, "-m", "cutline.cli.main")
    said = process.communicate(timeout=300)[1]
    assert process.returncode == 1, said  # one image is broken
    assert "captions kept" in said
    unbroken, model = tmp_path / "unbroken", open_checkpoint(tmp_path / "model", "float32", "cpu", task="match")
    table = {
        "captions": 1,
        "keep": {"share": 0.5},
        "generate": {"max_new_tokens": 6, "min_new_tokens": 2, "batch_size": 4},
    }
    wanted = recipe.parse(table, BootstrapSettings)
    write_report(bootstrap(model, model, web, human, wanted, unbroken, {}), web, wanted, unbroken)
    for name in ("synthetic-0.jsonl", "scores.jsonl", "captions.jsonl", "dataset/dataset.json", "report.html"):
        one, other = ((folder / name).read_text() for folder in (killed, unbroken))
        assert one.replace("killed", "unbroken") == other, name
    assert json.loads((killed / "dataset/dataset.json").read_text())["samples"] > 10
