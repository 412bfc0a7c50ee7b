"""One person's afternoon, in a real browser and without one: the same corrections, the same exported labels."""

from __future__ import annotations

import io
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
import pytest
from PIL import Image

from cvcoteach.fiftyone import install
from cvcoteach.fiftyone.app.operators import PLUGIN
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.issues.precision_recall import expected_precision_recall
from tests import real_images
from tests.fiftyone import browser
from tests.fiftyone.browser import wait_until
from tests.fiftyone.conftest import NoisyDataset
from tests.fiftyone.mongod import free_port

pytestmark = pytest.mark.slow

FIELDS = Fields("label_issues")
N = 240
ROOT = Path(__file__).parents[3]
PICTURES = ROOT / "build" / "pictures"
"""Screenshots, kept to be looked at."""
README_PICTURES = ROOT / "fiftyone_plugin" / "pictures"
"""Those that the plugin's README shows, made anew where CVCOTEACH_README_PICTURES is set."""
GRID_AND_PANEL = (300, 75, 1280, 660)
"""Left, top, right, bottom."""

FORMS = {
    "import_label_issues": "Import",
    "accept_suggestions": "Accept",
    "keep_labels": "Keep",
    "set_label": "Set",
    "exclude_samples": "Exclude",
    "undo_corrections": "Undo",
    "accept_probable": "Accept",
    "report_label_issues": "Write",
}
"""Operators whose forms are looked at only, with the button of each."""
FAST_HANDS = "keakeaaaka"


@pytest.fixture
def story(tmp_path: Path) -> Iterator[NoisyDataset]:
    """240 real images of three classes, 30 of them under a wrong name, with embeddings that tell the classes apart."""
    install.install(Path(fo.config.plugins_dir))
    (tmp_path / "images").mkdir()
    pictures, true, labels, names = real_images.three_classes(N, 30)
    made = NoisyDataset.of(tmp_path / "images", pictures, true, labels, names, side=112)
    made.dataset.name = f"story-{os.getpid()}"
    made.dataset.persistent = True
    rng = np.random.default_rng(0)
    vectors = np.eye(3)[made.true] * 4 + rng.normal(size=(N, 3))
    made.dataset.add_sample_field("embedding", fo.VectorField)
    made.dataset.set_values("embedding", list(vectors))
    made.dataset.select(made.ids[::6]).tag_samples("test")
    yield made
    made.dataset.delete()


def status(made: NoisyDataset) -> dict[str, str]:
    """Of every sample, as the database has it."""
    found = made.dataset._sample_collection.find({}, {FIELDS.review: 1})
    return {str(sample["_id"]): sample.get(FIELDS.review) for sample in found}


def reviewed(made: NoisyDataset) -> Counter[str]:
    """How many samples have each status, of those somebody decided about."""
    return Counter(value for value in status(made).values() if value not in (None, "unreviewed"))


def expected_files(made: NoisyDataset, given: dict[str, str], suggested: dict[str, str]) -> set[str]:
    """What the export must hold: accepted samples under the suggested name, all others under the given one."""
    names = {"accepted": suggested}
    return {
        f"{names.get(status(made)[i], given)[i]}/{number:05d}.png"
        for number, i in enumerate(made.ids)
        if status(made)[i] != "excluded"
    }


def exported_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}


def test_the_story_without_the_app(story: NoisyDataset, tmp_path: Path) -> None:
    dataset, given = story.dataset, dict(zip(story.ids, story.labels(), strict=True))

    def execute(name: str, **options: Any) -> Any:
        return foo.execute_operator(f"{PLUGIN}/{name}", dataset=dataset, **options).result

    execute("find_label_issues", params={"embeddings_field": "embedding", "rounds": 2, "filter_by": "incv"})
    results = runs.load(dataset)
    worst = [results.ids[row].decode() for row in results.issues.worst_first()]
    assert len(worst) >= 20
    suggested = dict(zip(*dataset.values(["id", f"{FIELDS.suggested}.label"]), strict=True))

    here = worst[0]
    for _ in range(10):
        here = execute("review_and_move_on", current_sample=here, params={"what": "accept"})["next"]
    execute("apply_marks", selected_samples=[{"id": i, "type": "alt"} for i in worst[10:12]])
    execute("undo_corrections", selected=worst[9:10])
    assert reviewed(story) == {"accepted": 9, "kept": 2}

    retrained = execute("retrain_coteaching", params={"embeddings_field": "embedding", "test_tag": "test"})
    assert retrained is None  # a generator: its figures are with the run
    assert "on 40 samples that were not trained on" in runs.load(dataset).info["retrained"]
    execute("export_corrected", params={"kind": "imagefolder", "to": str(tmp_path / "out")})
    assert exported_files(tmp_path / "out") == expected_files(story, given, suggested)


def test_the_story_in_a_browser(story: NoisyDataset, tmp_path: Path) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    given = dict(zip(story.ids, story.labels(), strict=True))
    with (
        browser.app_server(free_port(), PICTURES / "app.log") as address,
        browser.page_at(f"{address}/datasets/{story.dataset.name}") as page,
    ):
        try:
            _tell(page, story, given, tmp_path / "out")
        except BaseException:
            _picture(page, "where-it-failed")
            raise


def _tell(page: Any, story: NoisyDataset, given: dict[str, str], out: Path) -> None:
    panel = page.locator('[data-cy="panel-content-label_issues"]')
    form = page.locator('[data-cy="operators-prompt-modal"]')
    modal = page.locator('[data-cy="modal"]')

    # the button in the grid's bar, the form, the progress
    page.locator('[data-cy="looker"]').first.wait_for()
    page.locator('[data-itemid="grid-actions-row"]').get_by_text("rule", exact=True).click()
    form.get_by_text("Label field").wait_for()
    _choose(page, form, "Embeddings", "embedding")
    _choose(page, form, "Flag", "labels that INCV did not select")
    _press(form, "Find", "find_label_issues")
    under_way = page.get_by_text(re.compile(r"round \d+ of \d+, fold \d+ of \d+"))
    under_way.or_(panel.get_by_text("labels look wrong")).first.wait_for()
    if under_way.count():  # a quick machine may be done before the page is looked at
        _picture(page, "progress", page.locator('[data-cy="operators-prompt-modal"]'))

    # the panel, with the run's own figures
    panel.get_by_text("labels look wrong").wait_for()
    _close_progress(page)
    story.dataset.reload()
    results = runs.load(story.dataset)
    n = results.issues.n_issues
    assert n >= 22
    assert panel.get_by_text(f"{n} of {N} labels look wrong").is_visible()
    suggested = dict(zip(*story.dataset.values(["id", f"{FIELDS.suggested}.label"]), strict=True))
    worst = [results.ids[row].decode() for row in results.issues.worst_first()]
    panel.locator("img").nth(7).wait_for()
    assert not panel.locator(".js-plotly-plot").count(), "charts are drawn before anybody has scrolled to them"
    panel.get_by_role("button", name="Report", exact=True).scroll_into_view_if_needed()
    panel.locator(".js-plotly-plot").nth(2).wait_for()
    panel.get_by_text("labels look wrong").scroll_into_view_if_needed()
    _settled(page)
    _picture(page, "panel", page, GRID_AND_PANEL)
    if os.environ.get("CVCOTEACH_README_PICTURES"):  # all of it, as a taller screen would show it
        page.set_viewport_size({"width": 1280, "height": 1500})
        _settled(page)
        _picture(page, "panel-whole", panel)
        page.set_viewport_size({"width": 1280, "height": 800})
        _settled(page)
    assert _overflow(page) <= 1, "the panel is wider than its place"
    precision = expected_precision_recall(results.issues).precision
    assert panel.get_by_text(f"{precision.estimate:.0%}", exact=True).first.is_visible()

    # the other operators' forms
    for name, button in FORMS.items():
        _operator(page, name)
        pressed = form.get_by_role("button", name=button, exact=True)
        pressed.wait_for()
        if name == "import_label_issues":
            wait_until(lambda: form.get_by_text("there is already a run 'label_issues'").count(), "the key is refused")
            assert pressed.is_disabled()
        _picture(page, name, form)
        form.get_by_role("button", name="Cancel").click()
        form.wait_for(state="hidden")

    # a click on the fullest cell of the matrix, on a bar and on a class shows exactly their samples
    counts = browse.confused(results)
    assert np.trace(counts) == 0, "a flagged label is suggested itself"
    row, column = np.unravel_index(counts.argmax(), counts.shape)
    _click_plot(page, panel, 0, row / 3 + 1 / 6, column / 3 + 1 / 6)
    _grid_holds(page, counts.max())
    _settled(page)
    _picture(page, "cell")
    in_bars = np.add(*browse.quality_histogram(results))
    fullest = int(in_bars.argmax())
    _click_plot(page, panel, 1, 0.97, (fullest + 0.5) / browse.QUALITY_BINS)
    _grid_holds(page, in_bars[fullest])
    noisiest = int(results.issues.noise_ratio_per_class.argmax())
    _click_plot(page, panel, 2, 1 / 6, 0.05)
    _grid_holds(page, counts[noisiest].sum())

    # ten accepted by ten keys, the worst first of all
    page.evaluate("window.__foo__.executeOperator('clear_view')")
    _grid_holds(page, N)
    panel.locator("img").first.click()
    modal.wait_for()
    for number in range(10):
        _open_sample_is(page, worst[number])
        page.keyboard.press("a")
        wait_until(lambda n=number: reviewed(story)["accepted"] == n + 1, f"{number + 1} are accepted")
    assert {i for i, value in status(story).items() if value == "accepted"} == set(worst[:10])
    _open_sample_is(page, worst[10])
    _picture(page, "modal")
    modal.get_by_text("Label issues").first.click()
    modal.get_by_text("each moves on").wait_for()
    modal.get_by_text("10 accepted").first.wait_for()
    _picture(page, "modal-panel", modal.locator('[data-cy="panel-content-label_issues_sample"]'))
    _close_sample(page, modal)

    # the work queue in the grid: Alt-click two to keep, Apply
    panel.get_by_text(f"Show all {n - 10} in the grid").click()
    _grid_holds(page, n - 10)
    _settled(page)
    for tile in range(2):
        _mark(page, tile, "Alt")
        panel.get_by_text(f"Apply marks: accept 0, keep {tile + 1}").wait_for()
    _settled(page)
    _picture(page, "marks", page, GRID_AND_PANEL)
    panel.get_by_text("Apply marks").click()
    wait_until(lambda: reviewed(story)["kept"] == 2, "two are kept")
    assert {i for i, value in status(story).items() if value == "kept"} == set(worst[10:12])
    panel.get_by_text("2 kept").wait_for()

    # one of them taken back, and the figures follow
    _settled(page)
    _mark(page, 1)
    panel.get_by_text("Apply marks: accept 1, keep 0").wait_for()
    panel.get_by_role("button", name="Undo").click()
    wait_until(lambda: reviewed(story)["kept"] == 1, "one is taken back")
    panel.get_by_text("1 kept").wait_for()
    assert reviewed(story) == {"accepted": 10, "kept": 1}
    assert status(story)[worst[11]] == "unreviewed"
    assert dict(zip(story.ids, story.labels(), strict=True))[worst[11]] == given[worst[11]]
    _picture(page, "reviewed")

    # fast hands: ten keys more for ten samples more, without waiting for anything, then one back
    panel.locator("img").first.click()
    _open_sample_is(page, worst[11])
    before = len(corrections.history(story.dataset))
    for key in FAST_HANDS:
        page.keyboard.press(key)
    wait_until(lambda: len(corrections.history(story.dataset)) >= before + 10, "the keys have been worked off")
    _open_sample_is(page, worst[21])
    now = status(story)
    assert [now[i] for i in worst[11:21]] == [
        {"a": "accepted", "k": "kept", "e": "excluded"}[key] for key in FAST_HANDS
    ]
    page.keyboard.press("u")
    _open_sample_is(page, worst[20])
    wait_until(lambda: status(story)[worst[20]] == "unreviewed", "the last one is taken back")
    assert sum(reviewed(story).values()) == 11 + 9
    _close_sample(page, modal)

    # retrain, then export: the whole dataset again
    page.evaluate("window.__foo__.executeOperator('clear_view')")
    _grid_holds(page, N)
    _operator(page, "retrain_coteaching")
    form.get_by_text("Test samples").wait_for()
    _choose(page, form, "Test samples", "test")
    _choose(page, form, "Embeddings", "embedding")
    _press(form, "Retrain", "retrain_coteaching")
    panel.get_by_text("Accuracy").wait_for()
    _close_progress(page)
    story.dataset.reload()
    assert panel.get_by_text(runs.load(story.dataset).info["retrained"]).is_visible()
    _picture(page, "retrained", panel, (0, 0, 490, 240))

    _operator(page, "export_corrected")
    form.get_by_text("New folder", exact=True).wait_for()
    form.get_by_role("textbox").last.fill("corrected")
    _picture(page, "export_corrected", form)
    form.get_by_role("textbox").last.fill(str(out))
    _press(form, "Export")
    page.get_by_text("samples exported to").wait_for()
    assert exported_files(out) == expected_files(story, given, suggested)
    assert corrections.history(story.dataset)["who"].unique().tolist() == ["story"]
    assert page.evaluate("window.__errors || []") == []


def _picture(page: Any, name: str, readme: Any = None, part: tuple[int, int, int, int] | None = None) -> None:
    """What is on the screen; `readme`: what the plugin's README shows of it, or a part of that, in few colours."""
    page.screenshot(path=PICTURES / f"{name}.png")
    if readme is not None and os.environ.get("CVCOTEACH_README_PICTURES"):
        shot = Image.open(io.BytesIO(readme.screenshot())).convert("RGB")
        README_PICTURES.mkdir(exist_ok=True)
        few = shot.crop(part or (0, 0, *shot.size)).quantize(128, Image.Quantize.MAXCOVERAGE)
        few.save(README_PICTURES / f"{name}.png", optimize=True)


def _choose(page: Any, form: Any, label: str, value: str) -> None:
    """An entry of a dropdown."""
    box = form.get_by_text(label).locator("xpath=ancestor::*[.//*[@role='combobox']][1]").get_by_role("combobox")
    box.click()
    page.get_by_role("option", name=value, exact=True).click()
    box.get_by_text(value).wait_for()


def _press(form: Any, name: str, picture: str | None = None) -> None:
    """The form's button, as soon as it can be pressed."""
    button = form.get_by_role("button", name=name, exact=True)
    wait_until(button.is_enabled, f"{name} can be pressed")
    if picture:
        _picture(form.page, picture, form)
    button.click()


def _close_progress(page: Any) -> None:
    """The bar that an operator leaves on the screen when it is done."""
    done = page.get_by_role("button", name="Done", exact=True)
    done.click()
    done.wait_for(state="hidden")


def _operator(page: Any, name: str) -> None:
    """Open an operator's form, as its entry in the operators' browser does."""
    page.evaluate(
        "([uri]) => window.__foo__.executeOperator('prompt_user_for_operation', {operator_uri: uri})",
        [f"{PLUGIN}/{name}"],
    )


def _click_plot(page: Any, panel: Any, number: int, down: float, across: float) -> None:
    """A point of a chart, as shares of its height and width."""
    area = panel.locator(".js-plotly-plot").nth(number).locator(".nsewdrag")
    area.scroll_into_view_if_needed()
    box = browser.box(area)
    page.mouse.move(box["x"] + box["width"] * across, box["y"] + box["height"] * down)
    page.mouse.click(box["x"] + box["width"] * across, box["y"] + box["height"] * down)


def _grid_holds(page: Any, n: int) -> None:
    """Wait until the grid counts so many samples."""
    page.locator('[data-cy="entry-counts"]').get_by_text(re.compile(rf"^\s*{n:,} samples?\b")).wait_for()


def _close_sample(page: Any, modal: Any) -> None:
    page.evaluate("window.__foo__.executeOperator('close_sample')")
    modal.wait_for(state="hidden")


def _mark(page: Any, tile: int, key: str | None = None) -> None:
    """Click a tile's checkbox, with a key held."""
    box = browser.box(page.locator('[data-cy="looker"]').nth(tile))
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    if key:
        page.keyboard.down(key)
    page.mouse.click(box["x"] + 12, box["y"] + 12)
    if key:
        page.keyboard.up(key)


def _open_sample_is(page: Any, sample_id: str) -> None:
    """Wait until the modal shows the sample: its id stands in the sidebar."""
    page.locator('[data-cy="modal"]').get_by_text(sample_id, exact=True).wait_for()


def _settled(page: Any) -> None:
    """Wait until the grid has drawn its tiles and nothing moves."""
    page.locator('[data-cy="tag-ground_truth"]').first.wait_for()
    page.wait_for_function(
        """() => {
            const places = [...document.querySelectorAll('[data-cy="looker"], .js-plotly-plot')]
                .map(e => JSON.stringify(e.getBoundingClientRect())).join();
            if (window.__places !== places) [window.__places, window.__since] = [places, performance.now()];
            return performance.now() - window.__since > 400;
        }"""
    )


def _overflow(page: Any) -> float:
    """By how many pixels anything in the panel reaches over its right edge."""
    return float(
        page.evaluate(
            """() => {
                const panel = document.querySelector('[data-cy="panel-content-label_issues"]');
                const edge = panel.getBoundingClientRect().right;
                return Math.max(...[...panel.querySelectorAll('*')].map(e => e.getBoundingClientRect().right - edge));
            }"""
        )
    )
