"""Prepares URLs as a folder of 224 px JPEGs: Cutline against img2dataset and a plain script, with one local server.

    python benchmarks/prepare.py --photos ../shared/data/photos --img2dataset /path/to/its/venv/bin/python
    python benchmarks/prepare.py --memory 1000000

The server is nginx (apt install nginx-light) with photographs enlarged to 2048 px, over http and over https with a
certificate made for this benchmark. All tools trust the same bundle: this machine's certificate authorities (or
certifi's) and that certificate, because on the web a TLS context also loads a whole bundle. CPU seconds are those of a
tool's whole process tree, including start-up. The plain script uses requests in 32 threads and Pillow at full
resolution. Quality is the PSNR of the results against the photograph decoded completely and scaled with Lanczos.
img2dataset has other requirements and therefore an environment of its own.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import math
import os
import resource
import shutil
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SIZE = 224

CUTLINE = """
import sys
from pathlib import Path
from cutline.data.prepare.prepare import prepare
from cutline.data.settings import DataSettings
settings = {"source": sys.argv[1], "steps": {"download": {"private": True, "per_host": 32}, "resize": {"size_px": 224}}}
report = prepare(DataSettings.model_validate(settings), Path(sys.argv[2]))
print(report.samples)
"""

IMG2DATASET = """
import sys
from pathlib import Path
from img2dataset import download
if __name__ == "__main__":
    download(url_list=sys.argv[1], output_folder=sys.argv[2], input_format="csv", url_col="url", caption_col="caption",
             image_size=224, resize_mode="center_crop", encode_quality=95, output_format="files", processes_count=2,
             thread_count=32, number_sample_per_shard=200, retries=0, enable_wandb=False)
    print(len(list(Path(sys.argv[2]).rglob("*.jpg"))))
"""

PLAIN = """
import csv, io, sys, threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import requests
from PIL import Image, ImageOps
out = Path(sys.argv[2])
out.mkdir(parents=True)
local = threading.local()
def one(item):
    number, url = item
    body = requests.get(url, timeout=60).content
    picture = ImageOps.exif_transpose(Image.open(io.BytesIO(body))).convert("RGB")
    ImageOps.fit(picture, (224, 224), Image.Resampling.LANCZOS).save(out / f"{number:06d}.jpg", quality=95)
with open(sys.argv[1]) as file:
    urls = [row["url"] for row in csv.DictReader(file)]
with ThreadPoolExecutor(32) as pool:
    list(pool.map(one, enumerate(urls)))
print(len(list(out.glob("*.jpg"))))
"""

NGINX = """
worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log; daemon off;
events {{ worker_connections 1024; }}
http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000; types {{ image/jpeg jpg; }}
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{ listen 127.0.0.1:18443 ssl; listen 127.0.0.1:18080; root {folder}/www;
            ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; }} }}
"""

ADDRESS = {"https": "https://localhost:18443", "http": "http://localhost:18080"}


def photographs(source: Path, folder: Path, number: int) -> None:
    """Different JPEGs of 2048 px on the longer side: photographs enlarged, rotated, with a little noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in (".jpg", ".jpeg"))
    turns = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.ROTATE_180]
    for index in range(number):
        picture = Image.open(paths[index % len(paths)]).convert("RGB")
        share = 2048 / max(picture.size)
        picture = picture.resize(
            (round(picture.width * share), round(picture.height * share)), Image.Resampling.BICUBIC
        )
        if turn := turns[index // len(paths) % 4]:
            picture = picture.transpose(turn)
        grain = chance.normal(0, 5, (picture.height, picture.width, 1))
        values = (np.asarray(picture).astype(np.float32) + grain).clip(0, 255).astype(np.uint8)
        Image.fromarray(values).save(folder / f"{index:06d}.jpg", quality=80)


def authorities() -> str:
    """The certificates that this machine trusts, or else certifi's: about 140."""
    import certifi

    return Path(ssl.get_default_verify_paths().cafile or certifi.where()).read_text(encoding="utf-8")


@contextmanager
def server(folder: Path) -> Iterator[None]:
    """nginx serving the folder's www, and beside it ``bundle.pem``, which the tools trust."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", folder / "key.pem",
         "-out", folder / "cert.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    bundle = authorities() + "\n" + (folder / "cert.pem").read_text()
    (folder / "bundle.pem").write_text(bundle, encoding="utf-8")
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    folder.chmod(0o755)
    process = subprocess.Popen(
        [shutil.which("nginx") or "nginx", "-c", folder / "nginx.conf", "-e", folder / "error.log"]
    )
    time.sleep(1)
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def measure(python: str, script: str, table: Path, out: Path, bundle: Path) -> dict[str, Any]:
    """Runs one tool; returns CPU seconds of its process tree, wall seconds, and the number of resulting images."""
    environment = os.environ | {
        "SSL_CERT_FILE": str(bundle), "REQUESTS_CA_BUNDLE": str(bundle), "PYTHONPATH": str(ROOT),
        "NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    file = out.with_suffix(".py")
    file.write_text(script)
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([python, file, table, out], env=environment, capture_output=True, text=True, check=False)
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{file.stem} failed:\n{done.stdout[-500:]}\n{done.stderr[-3000:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"images": int(done.stdout.split()[-1]), "cpu_s": cpu, "wall_s": wall}


def quality(out: Path, www: Path, number: int) -> float:
    """Median PSNR in dB of results against the completely decoded photograph; each is matched with its nearest."""
    import numpy as np
    from PIL import Image, ImageOps

    def pixels(picture: Image.Image) -> Any:
        return np.asarray(picture.convert("RGB"), np.float32)

    results = [pixels(Image.open(path)) for path in sorted(out.rglob("*.jpg"))]
    stacked = np.stack(results)  # [N, 224, 224, 3]
    found = []
    for path in sorted(www.iterdir())[:number]:
        wanted = pixels(ImageOps.fit(Image.open(path), (SIZE, SIZE), Image.Resampling.LANCZOS))
        error = min(float(((one - wanted) ** 2).mean()) for one in stacked)
        found.append(10 * math.log10(255**2 / max(error, 1e-9)))
    return statistics.median(found)


def compare(args: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(prefix="cutline-benchmark-"))
    if args.large:
        (folder / "www").symlink_to(args.large.resolve())
        args.images = len(list(args.large.iterdir()))
    else:
        photographs(args.photos, folder / "www", args.images)
    tools = {"cutline": (sys.executable, CUTLINE), "plain": (sys.executable, PLAIN)}
    if args.img2dataset:
        tools["img2dataset"] = (args.img2dataset, IMG2DATASET)
    rows: list[dict[str, Any]] = []
    with server(folder):
        for scheme in ("https", "http"):
            table = folder / f"{scheme}.csv"
            with open(table, "w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(["url", "caption"])
                writer.writerows([f"{ADDRESS[scheme]}/{n:06d}.jpg", "a caption"] for n in range(args.images))
            for repeat in range(args.repeats):  # alternately, so that other work on the machine affects all tools alike
                for name, (python, script) in tools.items():
                    out = folder / f"{scheme}-{name}-{repeat}"
                    found = measure(python, script, table, out, folder / "bundle.pem")
                    if repeat == 0:
                        found["psnr"] = quality(out / "images" if name == "cutline" else out, folder / "www", 12)
                    shutil.rmtree(out)
                    rows.append({"scheme": scheme, "tool": name} | found)
                    print(json.dumps(rows[-1]), flush=True)
    show(rows)
    shutil.rmtree(folder)


def show(rows: list[dict[str, Any]]) -> None:
    """The table of medians, with Cutline's speed-up."""
    print("\n| | CPU ms an image | wall ms an image | PSNR dB | Cutline's images per CPU second | per second |")
    print("|---|---|---|---|---|---|")
    for scheme in ("https", "http"):
        costs = {}
        for tool in dict.fromkeys(row["tool"] for row in rows):
            runs = [row for row in rows if (row["scheme"], row["tool"]) == (scheme, tool)]
            cpu, wall = (
                statistics.median(1000 * run[key] / run["images"] for run in runs) for key in ("cpu_s", "wall_s")
            )
            costs[tool] = cpu, wall, next(run["psnr"] for run in runs if "psnr" in run)
        for tool, (cpu, wall, psnr) in costs.items():
            ours = costs["cutline"]
            cells = [f"{tool}, {scheme}", f"{cpu:.1f}", f"{wall:.1f}", f"{psnr:.1f}"]
            cells += [f"×{cpu / ours[0]:.2f}", f"×{wall / ours[1]:.2f}"]
            print(f"| {' | '.join(cells)} |")


def memory(rows: int) -> None:
    """Peak memory of preparing this many rows, each with its own URL and image, which are already in the ledger.

    So nothing is fetched, and the images' files, whose bytes are never in memory together, needn't be there.
    """
    from cutline.data.download.ledger import NAME, Download, DownloadLedger
    from cutline.data.image_store import ImageStore
    from cutline.data.prepare.prepare import prepare
    from cutline.data.settings import DataSettings
    from cutline.images.open import ImageFacts

    folder = Path(tempfile.mkdtemp(prefix="cutline-benchmark-"))
    (folder / "out/.work").mkdir(parents=True)
    (folder / "out/images").mkdir()
    asked = {"source": str(folder / "rows.jsonl"), "columns": {"id": "id"},
             "steps": {"download": {}, "resize": {"size_px": SIZE}}}  # fmt: skip
    settings = DataSettings.model_validate(asked)
    made = ImageStore(folder / "out", settings.max_pixels, settings.steps.chosen("images")["resize"]).made
    with open(folder / "rows.jsonl", "w") as out, DownloadLedger(folder / "out" / NAME) as ledger:
        ledger._db.execute("begin")  # one transaction per row would take longer than the benchmark
        for number in range(rows):
            url = f"https://images.example.org/photos/2019/{number:07d}.jpg"
            out.write(json.dumps({"id": f"sample-{number}", "url": url, "caption": f"caption {number}"}) + "\n")
            facts = ImageFacts(hashlib.sha256(url.encode()).hexdigest(), SIZE, SIZE, ".jpg", (2048, 1365))
            known = Download(address=url, state="done", tries=1, status=200, bytes=450_000, made=made, facts=facts)
            ledger.record(known)
        ledger._db.execute("commit")
    ImageStore.holds = lambda self, facts, size=None: True  # type: ignore[method-assign]
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, time.process_time()
    report = prepare(settings, folder / "out")
    peak, spent = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, time.process_time() - begun
    print(f"{report.samples:,} rows: {peak} MB at most, {before} MB before it began; {spent:.0f} CPU s")
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, default=ROOT / "../shared/data/photos", help="folder with JPEGs")
    parser.add_argument("--large", type=Path, help="folder with 000000.jpg … of 2048 px from an earlier run, instead")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--img2dataset", default="", help="Python of the environment with img2dataset")
    parser.add_argument("--memory", type=int, default=0, metavar="ROWS", help="measure memory instead")
    args = parser.parse_args()
    if args.memory:
        memory(args.memory)
    else:
        compare(args)


if __name__ == "__main__":
    main()
