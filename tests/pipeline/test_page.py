"""The report of a finished run: what it says, in which form, and that labels are text in all of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source
from cvcoteach.issues.reviews import review_sample
from cvcoteach.pipeline.page import report as report_run
from cvcoteach.pipeline.page.content import blind_sample, listed
from cvcoteach.pipeline.page.report import ReportSettings, pictured, report
from cvcoteach.pipeline.results import RunResults
from tests.finished_runs import finished_run
from tests.images import class_folders
from tests.pipeline.test_apply import true_of
from tests.pipeline.test_find_issues import Recorder

MARKUP = "<img src=x onerror=alert(1)>"
EVIL = ("</script><script>alert(1)</script>", "=1+1", '"><img src=x onerror=alert(1)>', "a|b `c` [d](e)\n# f")


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A run on a folder with twelve wrong labels."""
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, true_of(source))


@pytest.fixture
def evil(tmp_path: Path) -> RunResults:
    """A run whose class and file names are markup and formulas."""
    rng = np.random.default_rng(0)
    true = np.arange(160) % 4
    labels = np.where(rng.random(160) < 0.2, (true + 1) % 4, true)
    paths = tuple([f"{EVIL[label]}/{i}.png" for i, label in enumerate(labels.tolist())])
    array = np.zeros((160, 8, 8), np.uint8)
    return finished_run(tmp_path / "evil", Source(Path("<b>"), Path("/"), paths, labels, EVIL, array=array), true)


def changed_leaves(record: Any, value: Any) -> Iterator[Any]:
    """Yield JSON as often as it has values, each time with another one changed."""
    if not isinstance(record, dict | list):
        yield value
        return
    for key, inside in record.items() if isinstance(record, dict) else enumerate(record):
        for change in changed_leaves(inside, value):
            whole = record.copy()
            whole[key] = change
            yield whole


def data_of(page: str) -> dict[str, Any]:
    """The data in a page, as its script reads them."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    return json.loads(found[1])


def test_the_page_holds_the_figures_the_images_and_their_pictures(run: RunResults) -> None:
    page = report(run.folder)
    assert f"<dd>{run.summary['noise_rate']:.1%}</dd>" in page
    assert "<dd>120</dd>" in page
    data = data_of(page)
    flagged = [image for image in data["images"] if image[5]]
    assert [image[0] for image in flagged] == [run.paths[i] for i in run.found.worst_first()]
    worst = run.found.worst_first()[0]
    assert flagged[0][1:5] == [
        run.labels[worst],
        run.found.suggested[worst],
        round(float(run.found.wrong[worst]), 4),
        round(float(run.found.suggested_prob[worst]), 4),
    ]
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in data["pictures"])
    assert data["confusions"] == run.found.confusions().round(4).to_dict("records")
    assert data["classes"] == list(run.class_names)


def test_the_page_reaches_for_nothing_outside_itself(run: RunResults) -> None:
    page = report(run.folder)
    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=[\"'](?!#|data:)|@import|url\(|https?://", page)


def test_labels_are_text_in_every_form(evil: RunResults) -> None:
    page = report(evil.folder)
    outside = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert page.count("<script") == 2
    assert "alert(1)" in page
    assert "<img" not in outside
    assert "onerror=alert(1)>" not in outside
    assert data_of(page)["classes"] == list(EVIL)
    text = report(evil.folder, ReportSettings("markdown"))
    assert "<script" not in text
    assert "\n# f" not in text
    assert "a\\|b \\`c\\`" in text
    assert json.loads(report(evil.folder, ReportSettings("json")))["classes"][0]["name"] == EVIL[0]


def test_whatever_a_shared_record_holds_is_text(run: RunResults) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    for change in changed_leaves(record, MARKUP):
        (run.folder / "run.json").write_text(json.dumps(change))
        for format in ("html", "markdown"):
            with suppress(InputError):
                assert MARKUP not in report(run.folder, ReportSettings(format, pictures=0))


def test_markdown_and_json_say_the_same(run: RunResults) -> None:
    content = json.loads(report(run.folder, ReportSettings("json")))
    assert content["summary"] == run.summary
    assert sum(image["flagged"] for image in content["images"]) == run.found.n_issues
    assert [row["n_images"] for row in content["classes"]] == np.bincount(run.labels).tolist()
    text = report(run.folder, ReportSettings("markdown"))
    worst = run.paths[run.found.worst_first()[0]]
    assert f"| {worst} |" in text
    assert f"| Estimated noise rate | {run.summary['noise_rate']:.1%} |" in text


def test_copies_with_other_labels_come_first_and_say_which(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    right = np.flatnonzero(source.labels == true_of(source))
    a, b = int(right[0]), int(right[-1])  # of different classes, neither flagged
    copies = np.full(120, -1)
    copies[b] = a
    run = finished_run(tmp_path / "run", source, true_of(source), duplicate_of=copies)
    assert not run.found.is_label_issue[[a, b]].any()
    page = report(run.folder)
    assert "1 image is an exact copy of another one; 2 images contradict a copy by their label." in page
    images = data_of(page)["images"]
    names = run.class_names
    assert {image[0]: image[8] for image in images[:2]} == {
        run.paths[a]: [names[run.labels[b]]],
        run.paths[b]: [names[run.labels[a]]],
    }
    assert not any(image[8] for image in images[2:])
    assert not any(image[10] for image in images)
    assert "1 image is an exact copy" in report(run.folder, ReportSettings("markdown"))


def test_near_copies_with_other_labels_are_called_so(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    right = np.flatnonzero(source.labels == true_of(source))
    a, b = int(right[0]), int(right[-1])
    copies = np.full(120, -1)
    copies[b] = a
    run = finished_run(tmp_path / "run", source, true_of(source), near_copy_of=copies)
    page = report(run.folder)
    assert "1 image is a near copy of another one; 2 near copies have different labels." in page
    images = data_of(page)["images"]
    assert {image[0] for image in images[:2]} == {run.paths[a], run.paths[b]}
    assert [image[10] for image in images] == [1, 1] + [0] * (len(images) - 2)
    assert "2 near copies have different labels" in report(run.folder, ReportSettings("markdown"))


def test_without_a_signal_the_page_says_so(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    run = finished_run(tmp_path / "run", source, np.random.default_rng(1).permutation(source.labels), sure=0.1)
    page = report(run.folder)
    assert "<dd>no signal</dd>" in page
    assert run.found.note.split(".")[0] in page
    assert len(data_of(page)["images"]) == 100


def test_images_that_are_gone_leave_the_page_without_pictures(run: RunResults, tmp_path: Path) -> None:
    watcher = Recorder()
    (tmp_path / "shapes" / run.paths[0]).unlink()
    assert set(data_of(report(run.folder, watcher=watcher))["pictures"]) == {None}
    assert watcher.notes == [f"The page has no pictures: 1 image of the run is not in {tmp_path / 'shapes'} any more."]


def test_pictures_are_few_enough_and_cover_every_pair_of_classes(tmp_path: Path, monkeypatch: Any) -> None:
    rng = np.random.default_rng(0)
    true = np.arange(3000) % 10
    labels = np.where(rng.random(3000) < 0.3, rng.integers(0, 10, 3000), true)
    names = tuple("abcdefghij")
    array = rng.integers(0, 256, (3000, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", images=array, labels=np.array(names)[labels])
    run = finished_run(tmp_path / "run", read_source(tmp_path / "many.npz"), true)
    shown = listed(run)
    places = pictured(run, shown, 400)
    assert len(places) == 400
    assert set(range(200)) <= set(places.tolist())
    seen = shown.images[places]
    pairs = {(run.labels[i], run.found.suggested[i]) for i in seen[run.found.is_label_issue[seen]].tolist()}
    assert len(pairs) == len(run.found.confusions())
    monkeypatch.setattr(report_run, "MOST_BYTES", 100_000)
    page = report(run.folder)
    assert 0 < sum(picture is not None for picture in data_of(page)["pictures"]) < 400
    assert len(page) < 600_000


def test_images_to_be_judged_blind_are_a_random_sample_spread_over_the_list(run: RunResults) -> None:
    shown = listed(run, 0.2)
    share = len(shown.blind) / len(shown.images)
    assert share == pytest.approx(0.2, abs=0.01)
    assert shown.blind.tolist() == review_sample(run.found, len(shown.blind)).indices.tolist()
    assert len(set(shown.images.tolist())) == len(shown.images)
    images = data_of(report(run.folder, ReportSettings(blind=0.2)))["images"]
    assert sum(image[6] for image in images) == len(shown.blind)
    assert any(image[6] for image in images[:10])


def test_reviews_tell_how_often_people_agree_blind_and_not(run: RunResults, tmp_path: Path) -> None:
    sample = blind_sample(run)
    rows = []
    for i in sample.indices[:30].tolist():
        true = int(Path(run.paths[i]).stem) % 3
        action = "kept" if true == run.labels[i] else "set"
        rows.append((run.paths[i], action, run.class_names[true] if action == "set" else "", "yes"))
    seen = [i for i in run.found.worst_first().tolist() if i not in sample.indices[:30].tolist()]
    rows += [(run.paths[i], "kept", "", "no") for i in seen]
    file = tmp_path / "reviews.csv"
    pd.DataFrame(rows, columns=["path", "action", "label", "blind"]).to_csv(file, index=False)
    reviews = json.loads(report(run.folder, ReportSettings("json", corrections=file)))["reviews"]
    assert reviews["agreed_blind"] == {"agreed": 30, "of": 30}
    assert reviews["agreed_not_blind"] == {"agreed": 0, "of": len(seen)}
    assert reviews["n_measured"] == 30
    assert reviews["measured_precision"]["estimate"] > 0.8
    groups = reviews["reliability"]
    assert sum(group["n"] for group in groups) == 30
    assert [group["said"] for group in groups] == sorted(group["said"] for group in groups)
    assert groups[0]["found"] < 0.2 < groups[-1]["found"]
    page = report(run.folder, ReportSettings(corrections=file))
    assert "wrong, as people found" in page
    assert "wrong, as people found" in report(run.folder, ReportSettings("markdown", corrections=file))
    assert "Reviewed without our suggestion, people agreed with us about 30 of 30 images (100%)." in page
    assert sum(image[7] is not None for image in data_of(page)["images"]) == len(rows)
    decided = {image[0]: image[7] for image in data_of(page)["images"] if image[7]}
    assert decided[run.paths[seen[0]]] == {"action": "kept", "label": "", "blind": False} if seen else True


def test_a_page_keeps_decisions_apart_from_those_of_pages_with_other_reviews(run: RunResults, tmp_path: Path) -> None:
    file, keys = tmp_path / "reviews.csv", []
    for actions in (["kept", "kept"], ["kept", "excluded"], ["kept", "kept"]):
        pd.DataFrame({"path": run.paths[:2], "action": actions, "label": ""}).to_csv(file, index=False)
        keys.append(data_of(report(run.folder, ReportSettings(corrections=file)))["key"])
    keys.append(data_of(report(run.folder))["key"])
    assert keys[0] == keys[2]
    assert len(set(keys)) == 3


def test_a_cell_that_was_kept_from_being_a_formula_is_read_back(evil: RunResults, tmp_path: Path) -> None:
    path = next(path for path in evil.paths if path.startswith("=1+1"))
    file = tmp_path / "reviews.csv"
    pd.DataFrame({"path": ["'" + path], "action": ["set"], "label": ["'=1+1"]}).to_csv(file, index=False)
    reviews = json.loads(report(evil.folder, ReportSettings("json", corrections=file)))["reviews"]
    assert reviews["n_kept"] == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"format": "htm"}, "did you mean html"),
        ({"blind": 1.0}, "up to but not including 1"),
        ({"pictures": -1}, "pictures is -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ReportSettings(**settings)


def test_an_unfinished_or_damaged_run_is_refused(run: RunResults, tmp_path: Path) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**record, "state": "running"}))
    with pytest.raises(InputError, match="is not finished"):
        report(run.folder)
    (run.folder / "run.json").write_text(json.dumps(record))
    (run.folder / "probabilities.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match="is damaged"):
        report(run.folder)


def edited(run: RunResults, **changes: Any) -> None:
    """Change entries of run.json."""
    file = run.folder / "run.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"versions": 5},
        {"machine": "fast"},
        {"timings": [5]},
        {"summary": {"n_images": "many"}},
        {"rounds": [{"noise_rate": 0.1}]},
    ],
)
@pytest.mark.parametrize("format", ["html", "markdown"])
def test_a_record_that_cannot_be_is_refused_in_a_sentence(run: RunResults, changes: Any, format: Any) -> None:
    edited(run, **changes)
    with pytest.raises(InputError, match=r"run\.json is damaged"):
        report(run.folder, ReportSettings(format))


def test_what_changed_since_the_last_run_is_shown(run: RunResults) -> None:
    assert 'id="since"' not in report(run.folder)
    since = {
        "run": "/photos/<b>-issues", "labels_changed": 4, "images_added": 2, "images_removed": 0, "fixed": 3,
        "still_flagged": 1_200, "new": 1, "cleared": 0,
    }  # fmt: skip
    edited(run, summary={**run.summary, "since": since})
    page = report(run.folder)
    assert "<h2>Since the run in &lt;b&gt;-issues</h2>" in page
    assert '<th scope="row">still flagged</th><td>1,200</td>' in page
    text = report(run.folder, ReportSettings("markdown"))
    assert "| fixed | 3 | flagged then, changed since, not flagged now |" in text
    assert "| images added | 2 |" in text
    assert json.loads(report(run.folder, ReportSettings("json")))["summary"]["since"] == since
