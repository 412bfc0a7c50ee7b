"""Published weights, fetched in time or not at all."""

from __future__ import annotations

import hashlib
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cvcoteach._validation import InputError
from cvcoteach.training import fetching
from cvcoteach.training.fetching import OFFLINE_VARIABLE, Patience, fetch_in_time


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of torch's, and no wish to stay offline."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.delenv(OFFLINE_VARIABLE)
    return tmp_path / "hub/checkpoints"


def published_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "published_weights", lambda model: SimpleNamespace(url=url))


def test_weights_come_whole_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights" * 100_000
    file = tmp_path / f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    file.write_bytes(content)
    published_at(file.as_uri(), monkeypatch)
    fetch_in_time("net")
    assert (cache / file.name).read_bytes() == content
    file.unlink()
    fetch_in_time("net")


def test_a_damaged_file_leaves_nothing_behind(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net-00000000.pth").write_bytes(b"half of it")
    published_at((tmp_path / "net-00000000.pth").as_uri(), monkeypatch)
    with pytest.raises(
        InputError, match=r"net could not be fetched in time \(ValueError: the file that came is damaged"
    ):
        fetch_in_time("net")
    assert list(cache.iterdir()) == []


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        published_at(f"http://127.0.0.1:{silent.getsockname()[1]}/net-00000000.pth", monkeypatch)
        began = time.monotonic()
        with pytest.raises(InputError, match="could not be fetched in time"):
            fetch_in_time("net", Patience(0.1, 0.1))
    assert time.monotonic() - began < 5


def test_nothing_is_fetched_where_the_user_stays_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OFFLINE_VARIABLE, "1")
    published_at("http://127.0.0.1:1/net-00000000.pth", monkeypatch)
    with pytest.raises(InputError, match="CVCOTEACH_OFFLINE keeps them from being fetched"):
        fetch_in_time("net")
