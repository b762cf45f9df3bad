"""Preparing in shards: the same dataset as in one go, finished shards left alone, nothing fetched twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cutline.core.errors import CutlineError, DataError
from cutline.data.prepare import ray_engine, shards
from cutline.data.prepare.prepare import Report, prepare
from cutline.data.settings import DataSettings
from tests.data.bad_images import encode, noise
from tests.data.faulty_server import Server, serving
from tests.data.test_download import QUICK
from tests.data.test_prepare import contents


def serially(made: Any, step: Any, scorer=None) -> None:
    """What Ray does, one shard after the other."""
    for shard in made:
        shards.work(shard)
        step()


@pytest.fixture
def source(tmp_path):
    """Addresses with faults, a picture that comes again in another shard, and texts that context comes from."""
    pictures = {f"{n}.jpg": encode(noise(80 + n, 60), "JPEG") for n in range(20)} | {
        "again.jpg": encode(noise(83, 60), "JPEG")
    }
    with serving(pictures) as server:
        paths = [f"good/{n}.jpg" for n in range(20)]
        paths += ["good/again.jpg", "404/x.jpg", "short/1.jpg", "once/2.jpg", "hang/3.jpg"]
        rows = [
            {"url": f"{server.address}/{path}", "caption": f"a picture of {path}", "headline": f"The Olympics of {n}"}
            for n, path in enumerate(paths)
        ]
        listed = tmp_path / "list.jsonl"
        listed.write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield listed, server


def made(source: Path, out: Path, engine: Any = "threads", **how: Any) -> Report:
    steps = {"download": QUICK, "resize": {"size_px": 32}, "filter": {}, "dedup": {}, "context": {"model": ""}}
    settings = DataSettings.model_validate({"source": str(source), "max_lost_share": 0.5, "steps": steps})
    return prepare(settings, out, engine=engine, **how)


def files(out: Path) -> dict[str, str]:
    """The dataset, without ledgers, and without the counts: context is written for what dedup then drops, too."""
    ledgers = ("downloads", "dataset.json")
    return {path: digest for path, digest in contents(out).items() if not path.startswith(ledgers)}


def check_same(source: Path, server: Server, tmp_path: Path) -> None:
    whole = made(source, tmp_path / "whole")
    server.asked.clear()
    seen: list[tuple[int, int]] = []
    report = made(source, tmp_path / "sharded", "ray", progress=lambda done, total: seen.append((done, total)))
    assert files(tmp_path / "sharded") == files(tmp_path / "whole")
    assert seen == [(n, 4) for n in (1, 2, 3, 4)]
    assert report.steps["download"] == whole.steps["download"]
    assert report.steps["filter"] == whole.steps["filter"]
    assert report.steps["dedup"] == whole.steps["dedup"]
    assert (report.samples, report.dropped, report.problems) == (whole.samples, whole.dropped, whole.problems)
    assert report.dropped == 2  # pictures that came again, in other shards
    assert max(server.asked[f"/good/{n}.jpg"] for n in range(20)) == 1


def test_the_same_dataset_as_in_one_go(source, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "SHARD", 7)
    monkeypatch.setattr(ray_engine, "run", serially)
    listed, server = source
    check_same(listed, server, tmp_path)
    # all is in the dataset's own ledger now, which any engine reads
    before = server.asked.copy()
    made(listed, tmp_path / "sharded", retry_failed=False)
    (tmp_path / "sharded/dataset.json").unlink()
    made(listed, tmp_path / "sharded")
    assert server.asked == before


def test_finished_shards_are_left_alone_and_failed_addresses_are_tried_again_when_asked(source, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_engine, "SHARD", 7)
    listed, server = source
    worked: list[str] = []

    def some(made: Any, step: Any, scorer=None) -> None:
        for shard in made:
            if not shard.finished:
                if len(worked) == 2:
                    raise KeyboardInterrupt
                shards.work(shard)
                worked.append(shard.shard_folder)

    monkeypatch.setattr(ray_engine, "run", some)
    with pytest.raises(KeyboardInterrupt):
        made(listed, tmp_path / "out", "ray")
    asked = server.asked.copy()
    monkeypatch.setattr(ray_engine, "run", serially)
    report = made(listed, tmp_path / "out", "ray")
    assert all(server.asked[path] == times for path, times in asked.items())
    assert report.problems["not_found"] == 1
    server.files["x.jpg"] = server.files["1.jpg"]
    again = made(listed, tmp_path / "out", "ray", retry_failed=True)
    assert server.asked["/404/x.jpg"] == 2
    assert again.problems == report.problems
    assert all(server.asked[f"/good/{n}.jpg"] == 1 for n in range(20))


def test_what_stops_a_shard_stops_the_job_in_plain_words(source, tmp_path, monkeypatch):
    listed, server = source
    server.down = True
    monkeypatch.setattr(ray_engine, "run", serially)
    with pytest.raises(DataError, match=r"None of \d+ images could be fetched"):
        made(listed, tmp_path / "out", "ray")
    shard = shards.divide([], 5, tmp_path, DataSettings(source="x"))
    assert shard == []


def test_without_ray_it_is_said_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CutlineError, match="--engine ray needs Ray"):
        made(source[0], tmp_path / "out", "ray")


KILLED = """
import sys
from cutline.data.prepare import ray_engine
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
ray_engine.SHARD = 7
prepare(DataSettings.model_validate_json(sys.argv[1]), sys.argv[2], engine="ray")
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray")  # Ray's own, as it is imported
def test_on_a_local_cluster_killed_and_started_again(source, tmp_path, monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray: pip install 'cutline[ray]'")
    pytest.importorskip("ray.data", reason="needs Ray Data: pip install 'cutline[ray]'")
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    )
    listed, server = source
    steps = {"download": QUICK, "resize": {"size_px": 32}, "filter": {}, "dedup": {}, "context": {"model": ""}}
    settings = DataSettings.model_validate({"source": str(listed), "max_lost_share": 0.5, "steps": steps})
    process = subprocess.Popen([sys.executable, "-c", KILLED, settings.model_dump_json(), str(tmp_path / "out")])
    deadline = time.monotonic() + 400
    while not list((tmp_path / "out/.work/shards").glob("*/result.jsonl")):
        assert process.poll() is None, "it ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(2)  # its workers notice, and end
    done = {path for path in server.asked if path.startswith("/good/")}
    asked = server.asked.copy()
    monkeypatch.setattr(ray_engine, "SHARD", 7)
    ray.init(num_cpus=2, log_to_driver=False, include_dashboard=False)
    try:
        made(listed, tmp_path / "out", "ray")
    finally:
        ray.shutdown()
    finished = {path for path in done if server.asked[path] == asked[path]}
    assert len(finished) >= 7  # the shards that were finished asked nobody
    made(listed, tmp_path / "whole")
    assert files(tmp_path / "out") == files(tmp_path / "whole")
