"""Keys in a real browser, faster than the server answers: none lost, none doubled, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.edits import catch_up
from tests.fiftyone import browser
from tests.fiftyone.calls import status
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.mongod import free_port

pytestmark = pytest.mark.slow

BECOMES = {"a": "accepted", "k": "kept", "e": "excluded"}


def test_keys_pressed_faster_than_the_server_answers(found: NoisyDataset, tmp_path: Path) -> None:
    worst = [sample_id.decode() for sample_id in _worst(found)]
    port, name = free_port(), found.dataset.name
    with (
        browser.app_server(port, tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{name}") as page,
    ):
        _open(page, worst[0])

        # eight at once, of samples that are open for a moment only
        _press(page, "aakeakaa")
        _recorded(page, found, 8)
        assert [status(found)[i] for i in worst[:8]] == [BECOMES[key] for key in "aakeakaa"]
        _is_open(page, worst[8])
        page.keyboard.press("u")
        _until(page, lambda: status(found)[worst[7]] == "unreviewed", "the last one is taken back")
        _is_open(page, worst[7])
        _press(page, "k")
        _recorded(page, found, 10)
        assert status(found)[worst[7]] == "kept"

        # what somebody else reviews meanwhile is not overruled: its sample opens again, and a second press decides
        _is_open(page, worst[8])
        corrections.keep_labels(found.dataset, [worst[9]], who="somebody else")
        _press(page, "aaa")
        page.get_by_text("somebody else has reviewed this sample").first.wait_for()
        _recorded(page, found, 13)
        assert [status(found)[i] for i in worst[8:11]] == ["accepted", "kept", "accepted"]
        _is_open(page, worst[9])
        page.keyboard.press("e")
        _until(page, lambda: status(found)[worst[9]] == "excluded", "a second press decides")
        _is_open(page, worst[11])

        # answers that get lost on their way: asked for again, and written once
        lost = _lose(page, 4)
        _press(page, "ka")
        _until(page, lambda: len(lost) == 4, "four answers are lost")
        _is_open(page, worst[13])
        _until(page, lambda: status(found)[worst[12]] == "accepted", "the second is written")
        page.wait_for_timeout(3000)
        assert len(corrections.history(found.dataset)) == 16, "a correction was written twice"

        # a server that is killed amid the presses, and another one in its place: the rest stays to be reviewed
        _press(page, "kkk")
        browser.kill_server(port)
        page.get_by_text("not written yet: the server does not answer").wait_for()
        catch_up(found.dataset, runs.load(found.dataset))  # what is on record counts
        left = [i for i in worst[13:16] if status(found)[i] == "unreviewed"]
        assert left == worst[16 - len(left) : 16]
        page.on("dialog", lambda dialog: dialog.accept())
        with browser.app_server(port, tmp_path / "second.log"):
            page.goto(f"{address}/datasets/{name}")
            _open(page, left[0])
            _press(page, "k" * len(left))
            _recorded(page, found, 19)
            _is_open(page, worst[16])
    assert [status(found)[i] for i in worst[11:16]] == ["kept", "accepted", "kept", "kept", "kept"]
    assert len(corrections.history(found.dataset)) == 19
    assert {status(found)[i] for i in worst[16:]} == {"unreviewed"}


def _worst(found: NoisyDataset) -> Any:
    results = runs.load(found.dataset)
    return results.ids[results.issues.worst_first()]


def _open(page: Any, sample_id: str) -> None:
    page.locator('[data-cy="looker"]').first.wait_for()
    browser.open_sample(page, sample_id)
    page.get_by_text("a accept").wait_for()


def _is_open(page: Any, sample_id: str) -> None:
    page.locator('[data-cy="modal"]').get_by_text(sample_id, exact=True).wait_for()


def _press(page: Any, keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def _until(page: Any, condition: Callable[[], bool], what: str) -> None:
    """Wait, while the page goes on."""
    for _ in range(1200):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it is still not so that {what}")


def _recorded(page: Any, found: NoisyDataset, n: int) -> None:
    _until(page, lambda: len(corrections.history(found.dataset)) >= n, f"{n} corrections are on record")


def _lose(page: Any, n: int) -> list[str]:
    """Let the server do what the next n presses ask for, and its answers never arrive."""
    lost: list[str] = []

    def handle(route: Any) -> None:
        if len(lost) < n and '"press"' in (route.request.post_data or ""):
            route.fetch()
            lost.append(route.request.url)
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route("**/operators/execute", handle)
    return lost
