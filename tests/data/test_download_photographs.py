"""Hundreds of real photographs among every fault, killed at random moments: the same dataset, nothing fetched twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from PIL import Image, ImageOps

from cutline.data.dataset import Dataset
from cutline.data.download.ledger import DownloadLedger
from tests.data.bad_images import BROKEN, COLOURFUL, encode
from tests.data.faulty_server import Server, serving
from tests.data.test_download import KILLED, OUTCOMES, QUICK, count, files, listed
from tests.data.test_prepare import contents


def photographs(folder: Path) -> dict[str, bytes]:
    """All photographs, and each mirrored."""
    found = {}
    for number, path in enumerate(sorted(folder.glob("*.JPEG"))):
        found[f"{number}.jpg"] = path.read_bytes()
        with Image.open(path) as opened:
            mirrored = ImageOps.mirror(opened.convert("RGB"))
        found[f"{number}-mirrored.jpg"] = encode(mirrored, "JPEG", quality=85)
    return found


def outcomes(out: Path) -> dict[str, str]:
    """Address → reason why there is no image, or "" where there is one."""
    found = dict.fromkeys(Dataset.open(out).column("source"), "")
    with open(out / "problems.jsonl") as lines:
        return found | {row["id"]: row["reason"] for row in map(json.loads, lines)}


def images(out: Path) -> dict[str, str]:
    apart = (
        "downloads",
        "problems.jsonl",
        "dataset.json",
    )  # which tell of tries, and in curl's own words why one failed
    return {path: digest for path, digest in contents(out).items() if not path.startswith(apart)}


def settle(server: Server) -> None:
    """Waits until requests of a client that is dead, which the server had not come to, are counted, too."""
    before = -1
    while before < (now := sum(server.asked.values())):
        before = now
        time.sleep(0.3)


def test_photographs_among_all_faults_survive_five_kills(shared: Path, tmp_path: Path) -> None:
    photos = photographs(shared / "photos")
    assert len(photos) >= 200
    with serving(files() | photos) as server:
        wanted = {f"{server.address}/slow/{name}": "" for name in photos}
        wanted |= {f"{server.address}/good/{name}": "" for name in COLOURFUL}
        wanted |= {f"{server.address}/{path}": reason for path, reason in OUTCOMES.items()}
        addresses = random.Random(0).sample(sorted(wanted), len(wanted))
        source = listed(tmp_path / "s", addresses)
        download = QUICK | {"per_host": 6, "timeout_s": 2.5, "read_timeout_s": 2, "tries": 2}
        steps = {"download": download, "resize": {"size_px": 64}}
        settings = {"source": str(source), "max_lost_share": 0.5, "steps": steps}
        command = [sys.executable, "-c", KILLED, json.dumps(settings)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        ledger = tmp_path / "killed/downloads.sqlite"
        done: Counter[str] = Counter()  # path → requests when it was done

        def fetched_again() -> set[str]:
            return {path for path, times in done.items() if server.asked[path] > times}

        for moment in sorted(random.sample(range(5, len(addresses) - 40), 5)):
            process = subprocess.Popen([*command, str(tmp_path / "killed")], env=environment)
            begun = time.monotonic()
            while count(ledger) < moment and time.monotonic() - begun < 120:
                assert process.poll() is None, "it was too fast to be killed"
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
            settle(server)
            assert not fetched_again()
            with DownloadLedger(ledger) as known:
                for address in addresses:
                    row = known.find(address)
                    path = address.removeprefix(server.address).replace(" ", "%20")
                    if row and row.state == "done":
                        done.setdefault(path, server.asked[path])
        assert len(done) > 20
        subprocess.run([*command, str(tmp_path / "killed")], env=environment, check=True)
        assert not fetched_again()
        subprocess.run([*command, str(tmp_path / "unbroken")], env=environment, check=True)
        for name in ("killed", "unbroken"):
            assert {address: outcomes(tmp_path / name).get(address) for address in addresses} == wanted
        assert images(tmp_path / "killed") == images(tmp_path / "unbroken")
        reasons = Counter(outcomes(tmp_path / "killed").values())
        assert reasons[""] == sum(not reason for reason in wanted.values())
        assert set(reasons) >= {reason for _, reason in BROKEN.values()}
