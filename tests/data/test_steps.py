"""What all steps keep to, each of them alone, and the verb that runs some of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from cutline.cli import main as cli
from cutline.core.config import Section
from cutline.core.records import Sample
from cutline.data import steps
from cutline.data.addresses import BadAddress, is_public, joined, normal
from cutline.data.dataset import Dataset
from cutline.data.image_store import ImageStore
from cutline.data.problem import LOSSES, MENDED
from cutline.data.step import PHASES, Drop, Workspace
from tests.data.bad_images import encode, marker
from tests.data.faulty_server import serving
from tests.data.test_download import QUICK, listed


@pytest.mark.parametrize("name", steps.names())
def test_every_step_keeps_the_contract(name: str) -> None:
    module = steps.load(name)
    assert module.DESCRIPTION
    assert module.PHASE in PHASES
    assert module.ORDER > 0
    assert issubclass(module.SETTINGS, Section)
    for key, field in module.SETTINGS.model_fields.items():
        assert field.description, f"{name}.{key} is not explained"
    if module.REASONS is not LOSSES and module.PHASE != "images":
        assert not module.REASONS.keys() & (LOSSES.keys() | MENDED.keys())


def test_their_order_and_that_they_load_nothing_heavy() -> None:
    assert steps.names() == ("rewrite", "download", "resize", "filter", "dedup", "context", "split", "layout")
    code = "import sys; from cutline.data import settings; print([m for m in ('spacy', 'pycurl', 'torch', 'datasets', "
    code += "'py3langid') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_download_and_resize_alone(tmp_path: Path) -> None:
    from cutline.data.steps import download, resize

    place = Workspace(tmp_path, ImageStore(tmp_path))
    with serving({"a.png": encode(marker(), "PNG")}) as server:
        step = download.open(download.SETTINGS(**QUICK), place)
        sample = step(Sample(id="a", image=f"{server.address}/good/a.png"))
        assert isinstance(sample, Sample)
        assert Path(sample.image).read_bytes() == server.files["a.png"]
        missing = step(Sample(id="b", image=f"{server.address}/404/b.png"))
        assert isinstance(missing, Drop)
        assert missing.reason == "not_found"
        step.close()  # type: ignore[attr-defined]
    settings = resize.SETTINGS(size_px=16)
    resized = resize.open(settings, Workspace(tmp_path, ImageStore(tmp_path, resize=settings)))(sample)
    assert isinstance(resized, Sample)
    with Image.open(resized.image) as picture:
        assert (picture.size, picture.format) == ((16, 16), "JPEG")
    absent = resize.open(settings, place)(Sample(id="c", image=str(tmp_path / "no.png")))
    assert isinstance(absent, Drop)
    assert absent.reason == "missing"


@pytest.mark.parametrize(
    "ip",
    ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "240.0.0.1", "::1", "::", "fe80::1%eth0", "fd00::1", "fec0::1", "ff02::1", "::ffff:10.0.0.1",
     "2002:7f00:1::", "64:ff9b::a00:1", "2001:db8::1", "nonsense", ""],
)  # fmt: skip
def test_inner_addresses_are_not_public(ip: str) -> None:
    assert not is_public(ip)


@pytest.mark.parametrize("ip", ["8.8.8.8", "151.101.1.164", "2606:4700::6810:1", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_others_are(ip: str) -> None:
    assert is_public(ip)


def test_addresses_are_written_as_requests_need_them() -> None:
    assert normal(" http://Example.org/a b/ü.jpg?x=1 2&y=%20#part ") == (
        "http://example.org/a%20b/%C3%BC.jpg?x=1%202&y=%20"
    )
    assert normal("https://müller.example:8443") == "https://xn--mller-kva.example:8443/"
    assert normal("http://[2606:4700::1]:80/a") == "http://[2606:4700::1]:80/a"
    assert joined("https://a.example/x/y.jpg", "../z.jpg") == "https://a.example/z.jpg"
    for bad in ("ftp://a.example/x", "http://", "http://a.example:port/", "javascript:x", "http://a b/c", "http://[x/"):
        with pytest.raises(BadAddress):
            normal(bad)


def test_the_verb_runs_some_steps_and_tries_again(tmp_path: Path, monkeypatch, capsys) -> None:
    def cutline(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["cutline", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return code, capsys.readouterr().err

    with serving({"a.png": encode(marker(), "PNG")}) as server:
        source = listed(tmp_path / "s", [f"{server.address}/good/a.png", f"{server.address}/once/a.png"])
        recipe = tmp_path / "news.toml"
        recipe.write_text(
            f'[data]\nsource = "{source}"\nmax_lost_share = 0.5\n'
            "[data.steps.rewrite]\n[data.steps.resize]\nsize_px = 16\n"
            "[data.steps.download]\nprivate = true\ntries = 1\n"
        )
        out = str(tmp_path / "out")
        code, said = cutline("prepare", str(recipe), "-o", out, "--steps", "rewrite")
        assert (code, sum(server.asked.values())) == (0, 0)
        assert "manifest.jsonl (2 passed)" in said
        assert len((tmp_path / "out/manifest.jsonl").read_text().splitlines()) == 2
        code, said = cutline("prepare", str(recipe), "-o", out, "--steps", "rewrite,download")
        assert code == 0, said
        assert "download: 1 done, 1 server_error" in said
        assert Dataset.open(out).column("width") == [96]
        code, said = cutline("prepare", str(recipe), "-o", out, "--retry", "failed")
        assert code == 0, said
        assert "download: 2 done" in said
        assert Dataset.open(out).column("width") == [16, 16]
        code, said = cutline("prepare", str(recipe), "-o", out, "--steps", "dedup")
        assert code == 2
        assert "no such step" in said
        assert "rewrite, download, resize" in said
        assert cutline("prepare", str(recipe), "-o", out, "--retry", "all")[0] == 2
