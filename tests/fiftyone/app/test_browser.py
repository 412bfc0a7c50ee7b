"""Where the story's Chromium comes from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import chromium
from tests.fiftyone import browser


class Machine:
    """A machine with some binaries that start, and some commands that succeed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *binaries: str) -> None:
        self.binaries = set(binaries)
        self.fetches: dict[str, str] = {}
        self.commands: list[str] = []
        monkeypatch.delenv("CVCOTEACH_CHROMIUM", raising=False)
        monkeypatch.setattr(shutil, "which", lambda name: name if name in self.binaries else None)
        monkeypatch.setattr(chromium, "_playwrights_own", lambda: "/playwright/chrome")
        monkeypatch.setattr(chromium, "_quietly", self.run)

    def run(self, *command: str) -> bool:
        """Start a binary, or fetch one."""
        if command[-1] == "--version":
            return command[0] in self.binaries
        said = " ".join(Path(command[0]).name if part == command[0] else part for part in command)
        self.commands.append(said)
        for words, binary in self.fetches.items():
            if words in said:
                self.binaries.add(binary)
                return True
        return said.endswith("update -q")


def test_one_that_is_there_is_taken_and_nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, "chromium")
    assert chromium.find_chromium() == "chromium"
    assert machine.commands == []


def test_else_playwright_fetches_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch)
    machine.fetches = {"playwright install chromium": "/playwright/chrome"}
    assert chromium.find_chromium() == "/playwright/chrome"
    assert len(machine.commands) == 1


def test_else_apt_get_does(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, "apt-get")
    machine.fetches = {"install -q -y chromium": "chromium"}
    assert chromium.find_chromium() == "chromium"
    assert ["playwright" in said for said in machine.commands] == [True, False, False]


def test_where_none_can_be_had_a_sentence_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    Machine(monkeypatch)
    with pytest.raises(chromium.NoChromiumError, match=r"apt-get install chromium.*playwright install chromium"):
        chromium.find_chromium()


@pytest.mark.slow
def test_a_page_tries_every_way_to_get_one_before_it_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Playwright itself, not a stand-in: it refuses to be started twice at a time."""
    real = chromium._playwrights_own
    machine = Machine(monkeypatch, "apt-get")
    monkeypatch.setattr(chromium, "_playwrights_own", real)
    with pytest.raises(chromium.NoChromiumError, match="apt-get install chromium"), browser.page_at("about:blank"):
        pass
    assert ["playwright" in said for said in machine.commands] == [True, False, False]
