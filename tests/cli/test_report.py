"""`cvcoteach report` as its user meets it, and its page in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from cvcoteach.cli.main import main
from cvcoteach.data.sources import read_source
from cvcoteach.pipeline.apply_plan import ApplySettings, plan
from cvcoteach.pipeline.results import RunResults
from tests.chromium import OPTIONS, find_chromium
from tests.finished_runs import finished_run
from tests.images import class_folders
from tests.pipeline.test_apply import true_of


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A run on a folder with twelve wrong labels."""
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, true_of(source))


def report(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["report", *map(str, arguments)])


def test_the_page_goes_into_the_run_or_where_it_is_wanted(run: RunResults, tmp_path: Path, monkeypatch: Any) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert report(run.folder, "--open").stdout == f"Report: {run.folder / 'issues.html'}\n"
    assert opened == [(run.folder / "issues.html").as_uri()]
    report(run.folder, "--html", tmp_path / "page.html", "--pictures", 0)
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    refused = report(run.folder, "--html", tmp_path / "nowhere" / "page.html")
    assert refused.exit_code == 1
    assert refused.stderr.endswith("--html takes a file in a folder that exists.\n")


def test_a_page_replaces_pages_and_nothing_else(run: RunResults, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("path,label\n")
    refused = report(run.folder, "--html", table)
    assert refused.exit_code == 1
    assert "exists and is not a web page" in refused.stderr
    assert table.read_text() == "path,label\n"
    for _ in range(2):
        assert report(run.folder, "--html", tmp_path / "page.html").exit_code == 0


def test_other_formats_go_to_standard_output(run: RunResults) -> None:
    assert report(run.folder, "--format", "markdown").stdout.startswith("# Label issues in shapes\n")
    assert json.loads(report(run.folder, "--format", "json").stdout)["summary"]["n_images"] == 120
    assert report(run.folder, "--format", "json", "--open").exit_code == 2


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    result = report(tmp_path)
    assert result.exit_code == 1
    assert "holds no run of cvcoteach" in result.stderr


@pytest.mark.slow
def test_images_are_reviewed_by_key_and_saved_as_corrections(run: RunResults, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    report(run.folder, "--blind", 0.1)
    binary = find_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=OPTIONS)
        page = browser.new_page(viewport={"width": 380, "height": 800})
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else wrong.append(asked.url),
        )
        page.goto((run.folder / "issues.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") == 380

        first = page.locator(".card").first
        assert "What is it?" in first.inner_text()  # the first is shown blind
        page.keyboard.press("a")  # the first key begins
        page.keyboard.press("k")
        for key in "ake":
            page.keyboard.press(key)
        page.keyboard.press("s")
        page.locator("#pick-search").fill("no class")
        page.keyboard.press("Enter")
        assert "is not a class of the run" in page.locator("#pick-error").inner_text()
        page.locator("#pick-search").fill("RING")
        page.keyboard.press("Enter")
        page.wait_for_function("document.querySelector('#count').textContent.includes('5 reviewed')")
        page.keyboard.press("e")
        page.keyboard.press("u")
        assert "agreed blind" in page.locator("#count").inner_text()
        page.reload()  # decisions are kept, and what was judged blind is still shown without the suggestion
        assert "What is it?" in page.locator(".card").first.inner_text()
        assert "kept" in page.locator(".card").first.inner_text()
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "corrections.csv")

        cell = page.locator("#matrix td button").first
        n = int(cell.inner_text())
        cell.click()
        assert 0 < int(page.locator("#count").inner_text().split()[0]) <= n  # without those to be judged blind
        report(run.folder)  # a page that may list other images still saves all that was decided
        page.reload()
        with page.expect_download() as download:
            page.locator("#save").click()
        download.value.save_as(tmp_path / "again.csv")
        browser.close()
    assert wrong == []
    assert len(pd.read_csv(tmp_path / "again.csv")) == 5
    table = pd.read_csv(tmp_path / "corrections.csv", keep_default_na=False)
    assert table.columns.tolist() == ["path", "action", "label", "given_label", "suggested_label", "blind"]
    assert table.action.tolist()[:4] == ["kept", "accepted", "kept", "excluded"]
    assert table.action.tolist()[4] in ("set", "kept")
    assert table.blind.tolist()[0] == "yes"
    settings = ApplySettings("reviews", corrections=tmp_path / "corrections.csv")
    assert set(plan(run.folder, settings).changes["path"]) <= set(table.path)
    assert (
        "5 images reviewed"
        in report(run.folder, "--format", "markdown", "--corrections", tmp_path / "corrections.csv").stdout
    )


@pytest.mark.slow
def test_a_decision_of_the_corrections_that_is_taken_back_stays_so(run: RunResults, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    file, worst = tmp_path / "corrections.csv", run.paths[run.worst_first()[0]]
    pd.DataFrame({"path": [worst], "action": ["kept"], "label": [""]}).to_csv(file, index=False)
    report(run.folder, "--corrections", file)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=OPTIONS)
        page = browser.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto((run.folder / "issues.html").as_uri())
        assert "1 reviewed" in page.locator("#count").inner_text()
        page.locator(".card [aria-pressed=true]").click()
        for _ in range(2):
            assert "0 reviewed" in page.locator("#count").inner_text()
            page.reload()
        pd.DataFrame({"path": [worst], "action": ["excluded"], "label": [""]}).to_csv(file, index=False)
        report(run.folder, "--corrections", file)
        page.reload()
        assert "excluded" in page.locator(".verdict").all_inner_texts()
        browser.close()
    assert wrong == []
