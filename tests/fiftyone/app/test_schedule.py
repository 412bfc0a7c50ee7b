"""A run scheduled by the App's own button in a browser, carried out by FiftyOne's service, watched in the panel."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import pytest
from fiftyone.operators.delegated import DelegatedOperationService

from cvcoteach.fiftyone import install
from cvcoteach.fiftyone.app.operators import PLUGIN
from cvcoteach.fiftyone.store import runs
from tests.fiftyone import browser
from tests.fiftyone.app.test_delegated import service
from tests.fiftyone.app.test_story import PICTURES
from tests.fiftyone.browser import wait_until
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.mongod import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path: Path) -> Iterator[NoisyDataset]:
    """240 images of three shapes, 24 of them under a wrong name."""
    install.install(Path(fo.config.plugins_dir))
    found = NoisyDataset.make(tmp_path, 240, 24)
    found.dataset.name, found.dataset.persistent = f"schedule-{os.getpid()}", True
    yield found
    found.dataset.delete()


def test_a_scheduled_run_waits_is_carried_out_and_shows_its_progress_in_the_panel(made: NoisyDataset) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        browser.app_server(free_port(), PICTURES / "schedule.log") as address,
        browser.page_at(f"{address}/datasets/{made.dataset.name}") as page,
    ):
        try:
            _tell(page, made)
        except BaseException:
            page.screenshot(path=PICTURES / "schedule-failed.png")
            raise


def _tell(page: Any, made: NoisyDataset) -> None:
    panel = page.locator('[data-cy="panel-content-label_issues"]')
    form = page.locator('[data-cy="operators-prompt-modal"]')
    operations = DelegatedOperationService()
    before = {operation.id for operation in operations.list_operations()}

    # the App's own button, with what it offers beside carrying it out at once
    page.locator('[data-cy="looker"]').first.wait_for()
    ask = "([uri]) => window.__foo__.executeOperator('prompt_user_for_operation', {operator_uri: uri})"
    page.evaluate(ask, [f"{PLUGIN}/find_label_issues"])
    form.get_by_text("Label field").wait_for()
    for label, value in (("Rounds", "2"), ("Epochs", "30")):
        place = form.get_by_text(re.compile(f"^{label} ")).locator("xpath=ancestor::*[.//input][1]")
        place.locator("input").fill(value)
    find = form.get_by_role("button", name="Find", exact=True)
    wait_until(find.is_enabled, "the form can be sent")
    find.locator("xpath=following-sibling::button").click()
    page.get_by_role("menuitem").get_by_text("Schedule").click()
    wait_until(lambda: not form.count() or form.get_by_role("button", name="Schedule").count(), "it is chosen")
    if form.count():
        schedule = form.get_by_role("button", name="Schedule", exact=True)
        wait_until(schedule.is_enabled, "it can be scheduled")
        schedule.click()

    def queued() -> list[Any]:
        return [operation for operation in operations.list_operations() if operation.id not in before]

    (operation,) = wait_until(queued, "the run is queued")
    assert operation.operator == f"{PLUGIN}/find_label_issues"
    assert operation.context.request_params["params"]["rounds"] == 2

    # in the panel it waits, then goes on before one's eyes, then is there
    page.keyboard.press("Escape")
    page.evaluate("window.__foo__.executeOperator('open_panel', {name: 'label_issues', layout: 'horizontal'})")
    panel.get_by_text("waiting for the service").wait_for()
    page.screenshot(path=PICTURES / "schedule-waiting.png")
    shares: list[int] = []

    def done() -> bool:
        told = panel.inner_text()
        for share in re.findall(r"delegated: (\d+)%", told):
            if int(share) not in shares:
                shares.append(int(share))
        return "labels look wrong" in told

    with service() as process:
        wait_until(lambda: done() or process.poll() is not None, "the run is in the panel")
        assert process.poll() is None, "the service has ended"
    page.screenshot(path=PICTURES / "schedule-done.png")
    assert len(shares) >= 2, "no progress was seen"
    assert shares == sorted(shares)
    made.dataset.reload()
    n = runs.load(made.dataset).issues.n_issues
    assert panel.get_by_text(f"{n} of 240 labels look wrong").is_visible()
    assert not panel.get_by_text("delegated").count()
    assert operations.get(operation.id).run_state == "completed"
