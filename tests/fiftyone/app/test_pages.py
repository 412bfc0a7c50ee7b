"""Several pages of one App, samples shown blind, and a server that comes back: in a real browser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cvcoteach.fiftyone.app.operators import panel_beside_grid
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.figures import spot_checks
from tests.fiftyone import browser
from tests.fiftyone.calls import status
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.mongod import free_port

pytestmark = pytest.mark.slow


def test_what_one_page_corrects_another_does_not_take_back(found: NoisyDataset, tmp_path: Path) -> None:
    worst, name = _worst(found), found.dataset.name
    with (
        browser.app_server(free_port(), tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{name}") as one,
    ):
        _panel(one).get_by_text("24 of 60 labels look wrong").wait_for()
        two = one.context.new_page()
        two.goto(f"{address}/datasets/{name}")
        _panel(two).get_by_text("24 of 60 labels look wrong").wait_for()
        _open(one, worst[0])
        one.keyboard.press("a")
        _until(one, lambda: status(found)[worst[0]] == "accepted", "the first page accepts")
        _until(one, lambda: _open_sample(one) != worst[0], "the first page moves on")
        _open(two, worst[1])
        two.keyboard.press("k")
        _until(two, lambda: status(found)[worst[1]] == "kept", "the second page keeps")
        _until(two, lambda: _open_sample(two) != worst[1], "the second page moves on")
        _open(one, worst[5])
        one.keyboard.press("u")
        _until(one, lambda: status(found)[worst[0]] == "unreviewed", "the first page takes back its own")
        _until(one, lambda: _open_sample(one) == worst[0], "the first page shows it again")
        assert status(found)[worst[1]] == "kept"
        _open(two, worst[5])
        two.keyboard.press("u")
        _until(two, lambda: status(found)[worst[1]] == "unreviewed", "the second page takes back its own")
    assert corrections.history(found.dataset)["what"].tolist() == ["accept", "keep", "undo", "undo"]


def test_the_layout_of_the_quickstart_shows_grid_and_panel_at_once(found: NoisyDataset, tmp_path: Path) -> None:
    found.dataset.save_workspace("quickstart", panel_beside_grid())
    with (
        browser.app_server(free_port(), tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{found.dataset.name}?workspace=quickstart") as page,
    ):
        _panel(page).get_by_text("24 of 60 labels look wrong").wait_for()
        page.locator('[data-cy="looker"]').first.wait_for()


def test_a_sample_shown_blind_has_no_suggestion_to_accept(found: NoisyDataset, tmp_path: Path) -> None:
    with (
        browser.app_server(free_port(), tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{found.dataset.name}") as page,
    ):
        _panel(page).get_by_role("button", name="20%").click()
        _panel(page).get_by_text("?", exact=True).first.wait_for()
        _panel(page).get_by_role("button", name="Show all").click()
        _panel(page).get_by_text("From 10 on, precision and recall are measured").wait_for()
        _panel(page).locator("img").first.click()
        _until(page, lambda: _open_sample(page) != "", "a blind sample is open")
        blind = _open_sample(page)
        page.locator('[data-cy="modal"]').get_by_text(blind, exact=True).wait_for()
        page.get_by_text("a accept").wait_for()
        page.keyboard.press("a")
        page.get_by_text("this label is shown without a suggestion to accept").first.wait_for()
        assert status(found)[blind] == "unreviewed"
        _until(page, lambda: _open_sample(page) == blind, "the refused sample is open")
        page.keyboard.press("k")
        _until(page, lambda: status(found)[blind] == "kept", "its label is kept")
        _until(page, lambda: _open_sample(page) not in ("", blind), "the next sample is open")


def test_a_page_comes_back_with_its_panel_once_there_is_a_server_again(found: NoisyDataset, tmp_path: Path) -> None:
    port, worst = free_port(), _worst(found)
    with (
        browser.app_server(port, tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{found.dataset.name}") as page,
    ):
        _panel(page).get_by_text("24 of 60 labels look wrong").wait_for()
        page.wait_for_timeout(1000)
        corrections.keep_labels(found.dataset, worst[:1])
        browser.kill_server(port)
        page.get_by_text("The App's server does not answer. Reviews are saved").wait_for()
        with browser.app_server(port, tmp_path / "second.log"):
            panel = page.locator('[data-cy="panel-content-label_issues"]')  # nobody opens it
            panel.get_by_text("23 of 60 labels still look wrong").wait_for()
            panel.get_by_role("button", name="Undo").click()
            _until(page, lambda: status(found)[worst[0]] == "unreviewed", "the panel works again")


def test_what_the_keys_do_covers_no_message_of_the_app(found: NoisyDataset, tmp_path: Path) -> None:
    worst = _worst(found)
    with (
        browser.app_server(free_port(), tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{found.dataset.name}") as page,
    ):
        _panel(page).get_by_text("24 of 60 labels look wrong").wait_for()
        _open(page, worst[0])
        page.keyboard.press("a")
        told = page.get_by_text("1 label accepted.").first
        told.wait_for()
        message, hint = browser.box(told), browser.box(page.locator("#cvcoteach-keys"))
        assert hint["x"] + hint["width"] < message["x"]


def test_keys_go_on_in_the_view_that_a_card_of_the_panel_has_brought(found: NoisyDataset, tmp_path: Path) -> None:
    worst = _worst(found)
    with (
        browser.app_server(free_port(), tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{found.dataset.name}") as page,
    ):
        _panel(page).get_by_role("button", name="Check 20 at random").click()
        page.locator('[data-cy="entry-counts"]').get_by_text("20 samples").wait_for()
        checks = {*runs.load(found.dataset).ids[spot_checks(runs.load(found.dataset).issues).indices[:20]].tolist()}
        card = next(number for number, sample_id in enumerate(worst) if sample_id.encode() not in checks)
        _panel(page).locator("img").nth(
            card
        ).click()  # in none of the views that are shown: the queue takes their place
        page.get_by_text("a accept").wait_for()
        page.wait_for_timeout(3000)
        page.keyboard.press("a")
        _until(page, lambda: _open_sample(page) == worst[card + 1], "the next worst of the queue is open")


def test_charts_keep_their_height_when_the_window_changes_its_size(found: NoisyDataset, tmp_path: Path) -> None:
    with (
        browser.app_server(free_port(), tmp_path / "app.log") as address,
        browser.page_at(f"{address}/datasets/{found.dataset.name}") as page,
    ):
        panel = _panel(page)
        panel.get_by_role("button", name="Report", exact=True).scroll_into_view_if_needed()
        charts = panel.locator(".js-plotly-plot")
        charts.nth(2).wait_for()
        page.wait_for_timeout(1000)
        before = [browser.box(chart)["height"] for chart in charts.all()]
        assert min(before) > 50
        for size in ((1500, 900), (1100, 700)):
            page.set_viewport_size({"width": size[0], "height": size[1]})
            page.wait_for_timeout(1500)
            assert [browser.box(chart)["height"] for chart in charts.all()] == before


def _worst(found: NoisyDataset) -> list[str]:
    results = runs.load(found.dataset)
    return [sample_id.decode() for sample_id in results.ids[results.issues.worst_first()]]


def _panel(page: Any) -> Any:
    """The panel beside the grid, opened where it is not."""
    panel = page.locator('[data-cy="panel-content-label_issues"]')
    page.locator('[data-cy="looker"]').first.wait_for()
    if not panel.count():
        page.evaluate(
            "window.__foo__.executeOperator('open_panel', {name: 'label_issues', layout: 'horizontal', isActive: true})"
        )
    panel.wait_for()
    return panel


def _open(page: Any, sample_id: str) -> None:
    page.bring_to_front()
    browser.open_sample(page, sample_id)
    page.get_by_text("a accept").wait_for()


def _open_sample(page: Any) -> str:
    return str(page.evaluate("new URLSearchParams(location.search).get('id') || ''"))


def _until(page: Any, condition: Callable[[], bool], what: str) -> None:
    """Wait, while the page goes on."""
    for _ in range(600):
        if condition():
            return
        page.wait_for_timeout(100)
    raise AssertionError(f"it is still not so that {what}")
