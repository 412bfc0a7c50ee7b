"""The figures and closing lines: how many labels are doubtful, and how far to trust the flags."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cvcoteach.issues.flags import FlagRule
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import expected_precision_recall
from cvcoteach.issues.summary import figures, sentences

from .test_label_issues import blind_data, issues_of, noisy_data


def of_quality(quality: list[float], **changes: object) -> LabelIssues:
    """Return issues with these label qualities, flagged below one half."""
    n = len(quality)
    return replace(issues_of([0] * n, quality, [1] * n), flag_for="f1", **changes)


def test_the_figures_say_how_far_to_trust_the_flags() -> None:
    given, probs, _ = noisy_data(2000)
    issues = posterior_issues(given, probs)
    found = figures(issues)
    readout = expected_precision_recall(issues)
    assert readout.precision is not None
    assert readout.recall is not None
    assert found["n_probably_wrong"] == issues.n_probably_wrong
    assert found["n_worth_a_look"] == found["n_issues"] == issues.n_issues
    assert found["noise_rate"] == pytest.approx(issues.noise_ratio, abs=1e-4)
    for name, interval in (("expected_precision", readout.precision), ("expected_recall", readout.recall)):
        assert found[name]["estimate"] == pytest.approx(interval.estimate, abs=1e-4)
        assert found[name]["low"] <= found[name]["estimate"] <= found[name]["high"]
        assert found[name]["level"] == 0.9
    assert json.loads(json.dumps(found)) == found


def test_the_lines_name_flags_noise_rate_precision_and_recall() -> None:
    given, probs, _ = noisy_data(2000)
    found = figures(posterior_issues(given, probs))
    lines = sentences(found)
    assert lines[0].startswith(f"{found['n_probably_wrong']} of 2,000 labels are probably wrong (")
    assert lines[0].endswith(f"{found['n_issues']} are worth a look (the flags with the best expected F1).")
    assert lines[1] == f"Estimated noise rate: {found['noise_rate']:.1%} (the expected share of wrong labels)."
    precision, recall = found["expected_precision"], found["expected_recall"]
    assert lines[2:] == [
        f"Expected precision of the flags: {precision['estimate']:.0%} ({precision['low']:.0%} to "
        f"{precision['high']:.0%}).",
        f"Expected recall: {recall['estimate']:.0%} ({recall['low']:.0%} to {recall['high']:.0%}).",
    ]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (FlagRule("precision"), "(as many flags as an expected precision of 90% allows)"),
        (FlagRule("recall"), "(as few flags as an expected recall of 90% takes)"),
        (FlagRule(min_probability=0.9), "(those wrong with probability 0.9 or more)"),
    ],
)
def test_the_lines_name_the_rule(rule: FlagRule, said: str) -> None:
    given, probs, _ = noisy_data()
    assert said in sentences(figures(posterior_issues(given, probs, rule=rule)))[0]


def test_without_a_signal_the_lines_say_so_and_no_number_is_given() -> None:
    found = figures(posterior_issues(*blind_data()))
    assert found["noise_rate"] is found["expected_precision"] is found["expected_recall"] is None
    assert (found["n_issues"], found["n_probably_wrong"], found["has_signal"]) == (0, 0, False)
    assert json.loads(json.dumps(found)) == found
    assert sentences(found) == [
        "The labels carry no signal that these models can see: none of 600 labels is flagged.",
        "The noise rate cannot be estimated. More images or a pretrained backbone would help.",
    ]


@pytest.mark.parametrize(
    ("trained_on", "advice"), [("backbone", "more similar images"), ("features", "another network")]
)
def test_no_backbone_is_recommended_where_one_is_used(trained_on: str, advice: str) -> None:
    lines = sentences(figures(posterior_issues(*blind_data())) | {"trained_on": trained_on})
    assert advice in lines[1]
    assert "pretrained backbone" not in lines[1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (0, "None of 1,797 labels looks doubtful; no sign of noise."),
        (1, "1 of 1,797 labels looks doubtful; no sign of noise."),
        (3, "3 of 1,797 labels look doubtful; no sign of noise."),
    ],
)
def test_clean_data_reads_well(wrong: int, said: str) -> None:
    lines = sentences(figures(of_quality([0.2] * wrong + [0.999] * (1797 - wrong))))
    assert lines[0] == said
    assert len(lines) == 2


def test_of_little_noise_the_lines_say_why_there_is_no_interval() -> None:
    lines = sentences(figures(of_quality([0.1] * 20 + [0.999] * 980)))
    assert lines[0].startswith("20 of 1,000 labels are probably wrong (2.0%), 20 are worth a look")
    assert lines[2].endswith("too few to tell them from the model's own errors; reviews can.")


def test_more_than_half_flagged_is_worth_a_warning() -> None:
    mostly = sentences(figures(of_quality([0.2] * 60 + [0.9] * 40)))
    assert mostly[-1].startswith("Warning: more than half of all labels are flagged.")
    half = sentences(figures(of_quality([0.2] * 50 + [0.9] * 50)))
    assert not any("Warning" in line for line in half)


def test_one_is_one() -> None:
    line = sentences(figures(of_quality([0.2] + [0.9] * 9)))[0]
    assert line.startswith("1 of 10 labels is probably wrong (10.0%), 1 is worth a look")


def test_flags_of_another_rule_have_no_expected_precision() -> None:
    given, probs, _ = noisy_data()
    issues = replace(posterior_issues(given, probs), filter_by="incv", flag_for="")
    found = figures(issues)
    assert found["expected_precision"] is None
    assert sentences(found)[0].endswith("are worth a look.")
    assert np.isfinite(found["noise_rate"])


def test_flags_of_incv_are_not_denied_where_there_is_no_signal() -> None:
    known = {"n_images": 100, "n_worth_a_look": 76, "n_probably_wrong": 0, "has_signal": False}
    assert "none of 100" in sentences(known | {"n_worth_a_look": 0})[0]
    assert sentences(known)[0].endswith("the 76 flags say only what INCV did not select.")
