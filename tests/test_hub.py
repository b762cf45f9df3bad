"""A hub out of reach is noticed in moments; what is here never asks for it."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from cutline.core import hub
from cutline.core.errors import CheckpointError
from cutline.families.open import open_checkpoint

PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy")


@pytest.fixture
def endpoint(monkeypatch):
    """A socket on this machine that nobody listens on (bound, so that nobody else will)."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", *PROXIES):
        monkeypatch.delenv(name, raising=False)
    hub._look.cache_clear()
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{bound.getsockname()[1]}")
        yield bound
    hub._look.cache_clear()


def test_out_of_reach_the_libraries_are_told_once(endpoint, monkeypatch, messages):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")  # so that it is put back afterwards
    hub.look_before("someone/something")
    hub.look_before("someone/else")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert constants.HF_HUB_OFFLINE
    assert messages().count("127.0.0.1 can't be reached") == 1


def test_a_hub_that_answers_is_used(endpoint, monkeypatch, messages):
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    endpoint.listen()
    hub.look_before("someone/something")
    assert os.environ["HF_HUB_OFFLINE"] == ""
    assert not messages()


@pytest.mark.parametrize("way", ["a folder here", "a proxy", "offline already"])
def test_nothing_is_asked_where_there_is_nothing_to_ask(way, endpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "_answers", lambda host, port: pytest.fail("asked"))
    if way == "a proxy":
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    if way == "offline already":
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", "yes")
    hub.look_before(tmp_path if way == "a folder here" else "someone/something")


def test_a_name_server_that_says_nothing_is_not_waited_for(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(hub, "PATIENCE_S", 0.05)

    def wait(*given: object) -> None:
        never.wait(10)
        raise OSError

    monkeypatch.setattr(socket, "create_connection", wait)
    begun = time.monotonic()
    assert not hub._answers("huggingface.co", 443)
    assert time.monotonic() - begun < 5
    never.set()


def test_a_name_of_the_hub_is_refused_without_retries(endpoint, monkeypatch, messages):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: pytest.fail("waits for the next try"))
    with pytest.raises(CheckpointError, match="neither a folder here nor a checkpoint"):
        open_checkpoint("someone/something")
    assert "127.0.0.1 can't be reached" in messages()
