"""A run held against limits: pass, fail, undecided."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from cvcoteach._validation import InputError
from cvcoteach.cli.main import main
from cvcoteach.data.sources import Source, read_source
from cvcoteach.issues.precision_recall import Interval, expected_noise_rate
from cvcoteach.pipeline.check import CheckResult, Finding, Limits, check
from cvcoteach.pipeline.page.content import blind_sample
from cvcoteach.pipeline.results import RunResults
from tests.finished_runs import finished_run
from tests.images import class_folders, dataset
from tests.pipeline.test_apply import true_of


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A run in which 60 of 600 labels are wrong."""
    images, true, given = dataset(600, 0.1)
    np.savez(tmp_path / "shapes.npz", images=images, labels=np.array(["a", "b", "c"])[given])
    return finished_run(tmp_path / "run", read_source(tmp_path / "shapes.npz"), true)


def outcome(run: RunResults, **limits: float) -> str:
    return check(run.folder, Limits(**limits)).outcome  # type: ignore[arg-type]


def test_a_limit_well_outside_of_the_interval_decides(run: RunResults) -> None:
    assert run.found.noise_ratio == pytest.approx(0.1, abs=0.01)
    assert outcome(run, max_noise=0.2) == "pass"
    assert outcome(run, max_noise=0.03) == "fail"
    assert outcome(run, max_issues=100) == "pass"
    assert outcome(run, max_issues=10) == "fail"
    assert outcome(run, min_precision=0.5) == "pass"
    assert outcome(run, max_noise=0.2, max_issues=10) == "fail"


def test_a_limit_within_the_interval_is_undecided_and_the_answer_says_how_many_reviews_would_decide(
    run: RunResults,
) -> None:
    found = check(run.folder, Limits(max_noise=run.found.noise_ratio)).findings[0]
    assert found.outcome == "undecided"
    assert "The interval contains the limit; about " in found.sentence
    assert "reviews would decide (cvcoteach report --blind)" in found.sentence


def test_reviews_count_as_they_were_found(run: RunResults, tmp_path: Path) -> None:
    worst = [run.paths[i] for i in run.found.worst_first()]
    file = tmp_path / "reviews.csv"
    pd.DataFrame({"path": worst, "action": "kept", "label": ""}).to_csv(file, index=False)
    limits = Limits(max_noise=0.03, max_issues=0)
    assert [f.outcome for f in check(run.folder, limits).findings] == ["fail", "fail"]
    assert [f.outcome for f in check(run.folder, limits, corrections=file).findings] == ["pass", "pass"]


def test_images_judged_blind_measure(run: RunResults, tmp_path: Path) -> None:
    sample = blind_sample(run)
    rows = []
    for i in sample.indices[:400].tolist():
        true = int(run.paths[i].rsplit("#", 1)[1]) % 3
        wrong = true != run.labels[i]
        rows.append((run.paths[i], "set" if wrong else "kept", run.class_names[true] if wrong else "", "yes"))
    file = tmp_path / "reviews.csv"
    pd.DataFrame(rows, columns=["path", "action", "label", "blind"]).to_csv(file, index=False)
    found = check(run.folder, Limits(min_precision=0.5), corrections=file).findings[0]
    assert found.outcome == "pass"
    assert "measured from 400 blind reviews" in found.sentence


def test_without_a_signal_only_counts_are_decided(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    shuffled = np.random.default_rng(1).permutation(true_of(source))
    run = finished_run(tmp_path / "run", source, shuffled, sure=0.1)
    assert outcome(run, max_noise=0.5) == "undecided"
    assert outcome(run, max_issues=0) == "pass"


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({}, "nothing to check"),
        ({"max_noise": 1.0}, "max_noise is 1.0"),
        ({"min_precision": 0.0}, "min_precision is 0.0"),
    ],
)
def test_limits_that_do_not_fit_are_refused(limits: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_summary_is_markdown_in_which_names_are_text() -> None:
    finding = Finding("noise rate", "undecided", 0.05, 0.05, Interval(0.05, 0.04, 0.06, 0.9), "see <b>|x|</b>")
    text = CheckResult(Path("run"), (finding,)).as_markdown()
    assert "### Label check: undecided" in text
    assert "| noise rate | undecided | 5.0% (4.0% to 6.0%) | at most 5.0% |" in text
    assert "<b>" not in text


def held(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_each_outcome_has_its_own_exit_code(run: RunResults, tmp_path: Path) -> None:
    assert held(run.folder, "--max-noise", 0.2).exit_code == 0
    assert held(run.folder, "--max-noise", 0.03).exit_code == 3
    undecided = held(
        run.folder, "--max-noise", round(run.found.noise_ratio, 4), "--json", "--summary", tmp_path / "s.md"
    )
    assert undecided.exit_code == 4
    assert json.loads(undecided.stdout)["outcome"] == "undecided"
    assert (tmp_path / "s.md").read_text().startswith("### Label check: undecided\n")
    assert held(run.folder).exit_code == 1
    assert held(tmp_path, "--max-noise", 0.1).exit_code == 1
    assert held(run.folder, "--max-noise", 2).exit_code == 2


def test_labels_reviewed_before_the_run_count_as_right(tmp_path: Path) -> None:
    given, n = np.arange(600) % 3, 600
    true = np.where(np.arange(n) < 90, (given + 1) % 3, given)
    source = Source(tmp_path, tmp_path, tuple(f"{i}.png" for i in range(n)), given, ("a", "b", "c"))
    results = finished_run(tmp_path / "run", source, true)
    reviewed = results.with_reviewed(results.found.is_label_issue)
    before, after = expected_noise_rate(results.found), expected_noise_rate(reviewed.found)
    assert before is not None
    assert after is not None
    assert (before.low > 0.14, after.high < 0.01) == (True, True)
    assert (reviewed.summary["n_probably_wrong"], reviewed.summary["n_reviewed"]) == (0, 90)
