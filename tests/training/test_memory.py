"""Memory between batches."""

from __future__ import annotations

import pytest

from cvcoteach.training import memory


class Malloc:
    """Stands for glibc; remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, ...]] = []

    def mallopt(self, parameter: int, value: int) -> None:
        self.calls.append((parameter, value))

    def malloc_trim(self, pad: int) -> None:
        self.calls.append((pad,))


def test_memory_is_kept_during_the_training_and_given_back_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    malloc = Malloc()
    monkeypatch.setattr(memory, "_glibc", lambda: malloc)
    with memory.kept_between_batches():
        assert malloc.calls[0] == (-1, 2**31 - 1)
    assert malloc.calls[-2:] == [(-1, 64 << 20), (0,)]


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with memory.kept_between_batches():
        pass
