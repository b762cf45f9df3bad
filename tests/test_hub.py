"""A hub out of reach is noticed in moments; what is here never asks for it."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest
from huggingface_hub import constants

from cutline.core import hub
from cutline.core.errors import CheckpointError
from cutline.families.open import find, open_checkpoint

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")


@pytest.fixture
def endpoint(monkeypatch):
    """A socket on this machine that nobody listens on (bound, so that nobody else will)."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # the tests as a whole are offline
    hub._is_reachable.cache_clear()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{bound.getsockname()[1]}")
        yield bound
    hub._is_reachable.cache_clear()


def test_out_of_reach_the_copy_in_the_cache_is_opened(endpoint, monkeypatch, tmp_path, messages):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    copy = tmp_path / "models--someone--something/snapshots/abc"
    copy.mkdir(parents=True)
    (copy.parents[1] / "refs").mkdir()
    (copy.parents[1] / "refs/main").write_text("abc")
    before = dict(os.environ), dict(vars(constants))
    assert hub.resolve("someone/something") == str(copy)
    with pytest.raises(OSError, match=r"no connection to 127\.0\.0\.1, and someone/else is not in the hub's cache"):
        hub.resolve("someone/else")
    with pytest.raises(OSError, match="no connection"):
        hub.resolve("someone/something", "dataset")
    assert (dict(os.environ), dict(vars(constants))) == before
    assert messages().count("no connection to 127.0.0.1") == 1


def test_a_checkpoint_in_the_cache_is_opened_without_the_hub(endpoint, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    copy = tmp_path / "models--someone--clip/snapshots/abc"
    find("clip").tiny().save(copy)
    (copy.parents[1] / "refs").mkdir()
    (copy.parents[1] / "refs/main").write_text("abc")
    (copy / "cutline.json").unlink()  # as other people's checkpoints
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: pytest.fail("waits for the next try"))
    family = open_checkpoint("someone/clip", "float32", "cpu", task="embed")
    assert (family.name(), family.origin) == ("clip", "someone/clip")


def test_a_hub_that_answers_is_used(endpoint, messages):
    endpoint.listen()
    assert hub.resolve("someone/something") == "someone/something"
    assert not messages()


@pytest.mark.parametrize("way", ["a folder here", "a proxy", "offline already"])
def test_nothing_is_asked_where_there_is_nothing_to_ask(way, endpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_answers", lambda host, port: pytest.fail("asked"))
    if way == "a proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    if way == "offline already":
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", "yes")
    name = str(tmp_path) if way == "a folder here" else "someone/something"
    assert hub.resolve(name) == name


def test_a_name_server_that_says_nothing_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(hub, "TIMEOUT_S", 0.05)

    def wait(*given: object) -> None:
        never.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", wait)
    begun = time.monotonic()
    assert not hub._answers("huggingface.co", 443)
    assert time.monotonic() - begun < 5
    never.set()


def test_a_name_of_the_hub_is_refused_without_retries(endpoint, monkeypatch, messages):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: pytest.fail("waits for the next try"))
    with pytest.raises(CheckpointError, match="neither a folder here nor a checkpoint"):
        open_checkpoint("someone/something")
    assert "no connection to 127.0.0.1" in messages()
