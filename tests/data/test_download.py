"""Downloading against a server with every fault there is; killed, restarted, and the same in the end."""

from __future__ import annotations

import datetime
import email.utils
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cutline.core.errors import DataError
from cutline.data.dataset import Dataset
from cutline.data.download.ledger import DownloadLedger
from cutline.data.download.request import IS_TRANSIENT, opted_out, seconds
from cutline.data.prepare.prepare import Report
from cutline.data.problem import FETCHING
from tests.data.bad_images import BROKEN, COLOURFUL, encode, noise
from tests.data.faulty_server import Server, serving
from tests.data.making import run
from tests.data.test_prepare import contents

#: Fast enough for a test, and this machine is allowed.
QUICK: dict[str, Any] = {
    "private": True, "read_timeout_s": 1, "timeout_s": 1.5, "backoff_s": 0.05, "tries": 2, "longest_wait_s": 5,
    "max_bytes": 2_000_000,
}  # fmt: skip


def files() -> dict[str, bytes]:
    broken = {name: make() for name, (make, _) in BROKEN.items()}
    return {name: make() for name, make in COLOURFUL.items()} | broken | {"photo.jpg": encode(noise(300, 200), "JPEG")}


def listed(folder: Path, addresses: list[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "list.csv"
    path.write_text("url,caption\n" + "".join(f'"{address}",a caption\n' for address in addresses))
    return path


def fetch(source: Path, out: Path, resize: dict[str, Any] | None = None, **download: Any) -> Report:
    steps: dict[str, Any] = {"download": QUICK | download} | ({"resize": resize} if resize is not None else {})
    return run(source, out, max_lost_share=1.0, steps=steps)


@pytest.fixture(scope="module")
def server():
    with serving(files()) as running:
        yield running


#: Path → reason why there is no image, or "" where there is one.
OUTCOMES = {
    "good/photo.jpg": "",
    "good/webp_named.jpg": "",
    "moved/plain.jpg": "",
    "once/progressive.jpg": "",
    "busy/cmyk.jpg": "",
    "resetonce/rgb16.png": "",
    "shortonce/bitmap.bmp": "",
    "otherbot/tagged.tif": "",
    "method/a/plain.jpg": "",
    "letters/photo.jpg": "",
    "packed/photo.jpg": "",
    "chunked/photo.jpg": "",
    "old/photo.jpg": "",
    "date/photo.jpg": "",
    "odd/photo.jpg": "",
    "explosive/a.jpg": "too_large",
    "partial/photo.jpg": "http_error",
    "204/a.jpg": "http_error",
    "304/a.jpg": "http_error",
    "302/a.jpg": "http_error",
    "451/a.jpg": "refused",
    "lostforever/a.jpg": "not_found",
    "reserved/photo.jpg": "opted_out",
    "previews/photo.jpg": "opted_out",
    "good/frames.gif?size=large&x=a b": "",
    "404/a.jpg": "not_found",
    "410/a.jpg": "not_found",
    "403/a.jpg": "refused",
    "401/a.jpg": "refused",
    "418/a.jpg": "http_error",
    "500/a.jpg": "server_error",
    "patience/photo.jpg": "server_error",
    "429/a.jpg": "too_many_requests",
    "hang/photo.jpg": "timeout",
    "drip/photo.jpg": "timeout",
    "reset/photo.jpg": "connection",
    "nonsense/a.jpg": "connection",
    "short/photo.jpg": "cut_off",
    "endless/a.jpg": "too_large",
    "promise/a.jpg": "too_large",
    "loop/a.jpg": "redirects",
    "elsewhere/a.jpg": "redirects",
    "nowhere/a.jpg": "redirects",
    "noai/photo.jpg": "opted_out",
} | {f"good/{name}": reason for name, (_, reason) in BROKEN.items()}


def test_each_fault_has_the_outcome_that_it_should(server: Server, tmp_path: Path) -> None:
    addresses = {f"{server.address}/{path}": reason for path, reason in OUTCOMES.items()}
    addresses |= {"http://": "bad_address", "http://nowhere.invalid/a.jpg": "dns", "http://127.0.0.1:9/a": "connection"}
    report = fetch(listed(tmp_path / "s", list(addresses)), tmp_path / "out")
    found = dict.fromkeys(Dataset.open(tmp_path / "out").column("source"), "")
    with open(tmp_path / "out/problems.jsonl") as lines:
        found |= {row["id"]: row["reason"] for row in map(json.loads, lines)}
    assert {address: found.get(address) for address in addresses} == addresses
    assert report.samples == sum(not reason for reason in addresses.values())
    assert set(report.problems) <= {*FETCHING, *(reason for _, reason in BROKEN.values())}
    assert set(IS_TRANSIENT) == set(FETCHING)

    asked = {path: server.asked["/" + path.replace(" ", "%20")] for path in OUTCOMES}
    for path, reason in OUTCOMES.items():
        again = path.partition("/")[0] in ("once", "busy", "resetonce", "shortonce", "date", "odd")
        hops = 6 if path.startswith("loop") else 1
        tries = 2 if (IS_TRANSIENT.get(reason) and not path.startswith("patience")) or again else hops
        if path.startswith("reset/"):  # libcurl itself tries once more where a kept connection breaks
            assert asked[path] >= tries
        else:
            assert asked[path] == tries, path
    first, second = server.times["/busy/cmyk.jpg"]
    assert second - first >= 1  # as Retry-After asked

    # everything is known now: nobody is asked again, unless it is wanted, and then only for what failed
    before = server.asked.copy()
    fetch(tmp_path / "s/list.csv", tmp_path / "out", user_agent="another recipe")
    assert server.asked == before


def test_failed_ones_are_tried_again_when_asked(tmp_path: Path) -> None:
    from cutline.data.prepare.prepare import prepare
    from cutline.data.settings import DataSettings

    with serving({"a.jpg": encode(noise(), "JPEG")}) as server:
        source = listed(tmp_path / "s", [f"{server.address}/good/a.jpg", f"{server.address}/once/a.jpg"])
        settings = DataSettings.model_validate(
            {"source": str(source), "max_lost_share": 1, "steps": {"download": QUICK | {"tries": 1}}}
        )
        assert prepare(settings, tmp_path / "out").steps["download"] == {"done": 1, "server_error": 1}
        assert prepare(settings, tmp_path / "out").unchanged
        assert prepare(settings, tmp_path / "out", retry_failed=True).steps["download"] == {"done": 2}
        assert server.asked == {"/good/a.jpg": 1, "/once/a.jpg": 2}
        rows = sqlite3.connect(tmp_path / "out/downloads.sqlite").execute("select tries, bytes, sha256 from downloads")
        assert sorted(rows)[1][0] == 2


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:{port}/good/a.jpg", "http://localhost:{port}/good/a.jpg", "http://[::1]:{port}/good/a.jpg",
     "http://[::ffff:127.0.0.1]:{port}/good/a.jpg", "http://0.0.0.0:{port}/good/a.jpg", "http://2130706433:{port}/good/a.jpg",
     "http://169.254.169.254/latest/meta-data", "http://192.0.0.192/a", "http://%31%32%37.0.0.1:{port}/good/a.jpg",
     "http://10.0.0.1/a.jpg", "http://[fd00::1]/a.jpg"],
)  # fmt: skip
def test_private_networks_are_left_alone(address: str, tmp_path: Path) -> None:
    with serving({"a.jpg": encode(noise(), "JPEG")}) as server:
        source = listed(tmp_path / "s", [address.format(port=server.server_address[1])])
        with pytest.raises(DataError, match=r"Every row would be lost: 1 (private_address|connection) |None of 1"):
            fetch(source, tmp_path / "out", private=False, connect_timeout_s=1)
        assert not server.asked
        assert not server.connections


def test_a_redirect_or_a_changing_name_leads_to_no_private_network(tmp_path: Path, monkeypatch) -> None:
    """The socket is judged, not the name: whatever a name server said before, and wherever a redirect leads."""
    from cutline.data import addresses

    with serving({"a.jpg": encode(noise(), "JPEG")}) as server:
        judged: list[str] = []

        def is_public(ip: str) -> bool:  # the first connection goes to a "public" machine, later ones to private ones
            judged.append(ip)
            return len(judged) == 1

        monkeypatch.setattr(addresses, "is_public", is_public)
        other = server.address.replace("127.0.0.1", "localhost")
        server.files["to"] = b""
        source = listed(tmp_path / "s", [f"{server.address}/moved/a.jpg", f"{other}/good/a.jpg"])
        fetch(source, tmp_path / "out", private=False, per_host=1, connections=1)
        assert server.asked == {
            "/moved/a.jpg": 1,
            "/good/a.jpg": 1,
        }
        assert len(judged) >= 2  # the redirect itself went over the connection that was judged before


def test_few_connections_are_kept_and_hosts_are_not_flooded(tmp_path: Path) -> None:
    pictures = {f"{n}.jpg": encode(noise(40 + n, 30), "JPEG") for n in range(60)}
    with serving(pictures) as server:
        report = fetch(
            listed(tmp_path / "s", [f"{server.address}/slow/{n}.jpg" for n in range(60)]), tmp_path / "out", per_host=3
        )
        assert report.samples == 60
        assert server.most == 3
        assert server.connections == 3


def test_one_address_of_many_samples_is_fetched_once(tmp_path: Path) -> None:
    with serving({"a.jpg": encode(noise(), "JPEG")}) as server:
        source = tmp_path / "list.jsonl"
        rows = [{"id": str(n), "image": f"{server.address}/good/a.jpg", "caption": "x"} for n in range(20)]
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        report = run(source, tmp_path / "out", columns={"id": "id"}, steps={"download": QUICK})
        assert report.samples == 20
        assert server.asked == {"/good/a.jpg": 1}


def test_the_original_is_tried_when_the_better_rendition_is_absent(tmp_path: Path) -> None:
    with serving({"a.jpg": encode(noise(), "JPEG"), "b.jpg": encode(noise(50), "JPEG")}) as server:
        source = listed(
            tmp_path / "s", [f"{server.address}/{place}" for place in ("good/a.jpg", "404/b.jpg?or=good/b.jpg")]
        )
        rule = {"match": r"(.*)/good/a\.jpg", "replace": r"\1/404/a-large.jpg"}
        back = {"match": r"(.*)/404/b\.jpg.*", "replace": r"\1/good/b.jpg"}
        steps = {"rewrite": {"own": {"first": rule, "second": back}}, "download": QUICK}
        report = run(source, tmp_path / "out", steps=steps)
        assert report.samples == 2
        assert sorted(Dataset.open(tmp_path / "out").column("source")) == [
            f"{server.address}/good/{name}.jpg" for name in "ab"
        ]
        assert server.asked["/404/a-large.jpg"] == 1


def test_the_job_stops_when_nothing_comes_any_more(tmp_path: Path) -> None:
    pictures = {f"{n}.jpg": encode(noise(40 + n, 30), "JPEG") for n in range(12)}
    with serving(pictures) as server:
        source = listed(tmp_path / "s", [f"{server.address}/good/{n}.jpg" for n in range(12)])
        server.down = True
        with pytest.raises(DataError, match=r"The last 5 images all failed: 5 connection .*Is the network up"):
            fetch(source, tmp_path / "out", stop_after=5, tries=1, per_host=1)
        assert len(server.asked) < 10  # it didn't go through the whole list
        server.down = False
        assert fetch(source, tmp_path / "out").samples == 12  # none was marked as failed for good
    with pytest.raises(DataError, match=r"None of 2 images could be fetched: 2 dns .*name server"):
        fetch(listed(tmp_path / "t", ["http://a.invalid/1", "http://b.invalid/2"]), tmp_path / "out2", tries=1)


def test_without_the_step_addresses_are_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 images are URLs.*data\.steps\.download"):
        run(listed(tmp_path / "s", ["http://example.org/1.jpg"]), tmp_path / "out")


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch) -> None:
    from cutline.data import image_store as store

    with serving({"a.jpg": encode(noise(), "JPEG")}) as server:
        source = listed(tmp_path / "s", [f"{server.address}/good/a.jpg"])

        def full(*args: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(store, "store_image", full)
            with pytest.raises(DataError, match="can't be written: No space left"):
                fetch(source, tmp_path / "out")
        assert fetch(source, tmp_path / "out").samples == 1


def test_another_size_needs_no_download_when_the_files_are_kept(tmp_path: Path) -> None:
    with serving({"a.jpg": encode(noise(), "JPEG")}) as server:
        source = listed(tmp_path / "s", [f"{server.address}/good/a.jpg"])
        for size in (32, 48):
            fetch(source, tmp_path / "out", keep=True, resize={"size_px": size})
            assert Dataset.open(tmp_path / "out").column("width") == [size]
        assert sum(server.asked.values()) == 1
        fetch(source, tmp_path / "out2", resize={"size_px": 32})
        fetch(source, tmp_path / "out2", resize={"size_px": 48})
        assert Dataset.open(tmp_path / "out2").column("width") == [48]
        assert sum(server.asked.values()) == 3


def test_opting_out_is_understood() -> None:
    directives = ["noai", "noimageai"]
    assert opted_out(" noai", directives, "cutline/1") == "noai"
    assert opted_out("NoIndex, NOIMAGEAI", directives, "cutline/1") == "noimageai"
    assert opted_out("cutline: noai", directives, "cutline/1") == "noai"
    assert opted_out("googlebot: noai", directives, "cutline/1") == ""
    assert opted_out("max-snippet:5, noindex", directives, "cutline/1") == ""
    assert opted_out("noai", [], "cutline/1") == ""
    assert opted_out("max-image-preview: large, noai", directives, "cutline/1") == "noai"
    assert opted_out("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", directives, "cutline/1") == "noai"
    assert opted_out("googlebot: nofollow, otherbot: noindex, noai", directives, "cutline/1") == ""
    assert opted_out("googlebot: noindex, Cutline: noai", directives, "cutline (me@example.org)") == "noai"
    assert opted_out("*: noai", directives, "cutline/1") == "noai"
    assert opted_out("none", ["noindex"], "cutline/1") == "noindex"


def test_how_long_a_server_asks_to_wait() -> None:
    assert seconds("120") == 120
    assert seconds("Sat, 01 Jan 2000 00:00:00 GMT") == seconds("Sat, 01 Jan 2000 00:00:00 -0000") == 0
    assert seconds("9" * 400) == float("9" * 20)
    assert [seconds(value) for value in ("", "soon", "-5", "1.5", "\xb2", "Sat, 99 Jan 2000 00:00:00 GMT")] == [
        None
    ] * 6
    in_an_hour = email.utils.format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1))
    assert 3590 < (seconds(in_an_hour) or 0) <= 3600


def test_a_ledger_of_another_version_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with sqlite3.connect(tmp_path / "out/downloads.sqlite") as old:
        old.execute("create table downloads (address text primary key, state text)")
    with pytest.raises(DataError, match="another version of Cutline"):
        DownloadLedger(tmp_path / "out/downloads.sqlite")
    (tmp_path / "damaged.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(DataError, match="is damaged"):
        DownloadLedger(tmp_path / "damaged.sqlite")


KILLED = """
import sys
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
prepare(DataSettings.model_validate_json(sys.argv[1]), sys.argv[2])
"""


def test_killed_five_times_ends_the_same_and_fetches_nothing_twice(tmp_path: Path) -> None:
    pictures = {f"{n}.jpg": encode(noise(80 + n, 60), "JPEG") for n in range(100)}
    with serving(pictures) as server:
        addresses = [f"{server.address}/slow/{n}.jpg" for n in range(100)] + [f"{server.address}/404/x"]
        source = listed(tmp_path / "s", addresses)
        download = QUICK | {"per_host": 3, "timeout_s": 20, "read_timeout_s": 10}
        settings = {"source": str(source), "steps": {"download": download, "resize": {"size_px": 32}}}
        command = [sys.executable, "-c", KILLED, json.dumps(settings)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done: set[str] = set()
        asked = server.asked.copy()
        ledger = tmp_path / "killed/downloads.sqlite"
        for kill in range(5):
            process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
            waited = time.monotonic()
            while count(ledger) < (kill + 1) * 15 and time.monotonic() - waited < 60:
                assert process.poll() is None, "it was too fast to be killed"
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with DownloadLedger(ledger) as known:
                now = {f"/slow/{n}.jpg" for n in range(100) if known.find(f"{server.address}/slow/{n}.jpg")}
            assert done <= now
            assert not {path for path in done if server.asked[path] > asked[path]}, "done, and fetched again"
            done, asked = now, server.asked.copy()
        assert len(done) >= 75
        subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True)
        assert not {path for path in done if server.asked[path] > asked[path]}
        subprocess.run([*command, str(tmp_path / "unbroken")], env=environment, check=True)

        def dataset(name: str) -> dict[str, str]:
            return {
                path: digest for path, digest in contents(tmp_path / name).items() if not path.startswith("downloads")
            }

        assert dataset("killed") == dataset("unbroken")
        assert len(Dataset.open(tmp_path / "killed")) == 100


def count(ledger: Path) -> int:
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as database:
            found: int = database.execute("select count(*) from downloads").fetchone()[0]
            return found
    except sqlite3.OperationalError:
        return 0
