"""A run scheduled by the App's own button: FiftyOne's service carries it out, the panel shows how far it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import fiftyone as fo
import pytest

from cvcoteach.fiftyone import install
from cvcoteach.fiftyone.store import runs
from tests.fiftyone import browser
from tests.fiftyone.app.test_delegated import service
from tests.fiftyone.app.test_story import PICTURES, _dismiss_promotion
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.mongod import free_port

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path: Path) -> Iterator[NoisyDataset]:
    """240 images that the App finds by the name of the dataset."""
    install.install(Path(fo.config.plugins_dir))
    made = NoisyDataset.make(tmp_path, 240, 24)
    made.dataset.name = f"scheduled-{os.getpid()}"
    made.dataset.persistent = True
    yield made
    made.dataset.delete()


def test_a_run_scheduled_in_the_app_shows_its_progress_and_ends_in_the_panel(made: NoisyDataset) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    with (
        browser.app_server(free_port(), PICTURES / "app-scheduled.log") as address,
        browser.page_at(f"{address}/datasets/{made.dataset.name}") as page,
    ):
        page.locator('[data-cy="looker"]').first.wait_for()
        _dismiss_promotion(page)
        page.evaluate(
            "window.__foo__.executeOperator('open_panel', {name: 'label_issues', layout: 'horizontal', isActive: true})"
        )
        panel = page.locator('[data-cy="panel-content-label_issues"]')
        panel.get_by_role("button", name="Find label issues").click()
        form = page.locator('[data-cy="operators-prompt-modal"]')
        form.get_by_text("Label field").wait_for()
        form.locator('[aria-haspopup="menu"]').last.click()
        page.locator("#split-button-menu").get_by_text("Schedule", exact=True).click()
        button = form.get_by_role("button", name="Schedule", exact=True)
        browser.wait_until(button.is_enabled, "the run can be scheduled")
        button.click()
        panel.get_by_text("waiting for the service").wait_for()
        with service():
            panel.get_by_text(re.compile(r"\d+%, .*(reading|training|round)")).wait_for()
            page.screenshot(path=PICTURES / "scheduled.png")
            panel.get_by_text("of 240 labels look wrong").wait_for()
        assert page.evaluate("window.__errors || []") == []
    made.dataset.reload()
    assert runs.load(made.dataset).issues.n_issues > 10
