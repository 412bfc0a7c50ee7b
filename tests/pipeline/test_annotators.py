"""Several annotators: each is weighed by how good it is, and the images are one more witness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from cvcoteach import label_issues
from cvcoteach._validation import InputError
from cvcoteach.cli.main import main
from cvcoteach.data.annotations import Annotations
from cvcoteach.noise_model.consensus import seen_in_images
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.pipeline.results import RunResults

RIGHT = dict(zip("ann bob cy dan eve fay kim lea".split(), (0.98, 0.95, 0.9, 0.9, 0.85, 0.8, 0.5, 0.35), strict=True))


def annotated(n: int, k: int, each: int, seed: int = 0) -> tuple[np.ndarray, pd.DataFrame]:
    """True labels, and what some of eight annotators of very different quality labelled, NaN elsewhere."""
    rng = np.random.default_rng(seed)
    true = rng.integers(k, size=n)
    chosen = np.argsort(rng.random((n, len(RIGHT))), axis=1)[:, :each]
    labels = np.full((n, len(RIGHT)), np.nan)
    for column, right in enumerate(RIGHT.values()):
        rows = np.flatnonzero((chosen == column).any(axis=1))
        wrong = rng.random(len(rows)) > right
        labels[rows, column] = np.where(wrong, (true[rows] + rng.integers(1, k, len(rows))) % k, true[rows])
    return true, pd.DataFrame(labels, columns=list(RIGHT))


def seen(true: np.ndarray, k: int, seed: int = 1) -> np.ndarray:
    """Probabilities of a model that is right about nine of ten images."""
    logits = 3.5 * np.eye(k)[true] + np.random.default_rng(seed).normal(size=(len(true), k)) * 1.4
    probs = np.exp(logits)
    return np.asarray(probs / probs.sum(axis=1, keepdims=True))


@pytest.mark.parametrize("each", [2, 3])
def test_annotators_tell_wrong_consensus_labels_better_than_the_images_alone(each: int) -> None:
    true, labels = annotated(1500, 6, each)
    probs = seen(true, 6)
    issues = label_issues(labels, probs)
    alone = label_issues(issues.labels, probs)
    wrong = issues.labels != true
    of_all, of_images = (average_precision_score(wrong, each.wrong) for each in (issues, alone))
    assert of_all > of_images + 0.02
    assert abs(issues.noise_ratio - wrong.mean()) < 0.03
    assert (wrong & issues.is_label_issue).sum() > 0.7 * issues.n_issues
    table = issues.annotators
    assert table is not None
    assert list(table["annotator"][:2]) == ["lea", "kim"]
    quality = table.set_index("annotator")["quality"]
    assert abs(quality["ann"] - RIGHT["ann"]) < 0.2
    assert abs(quality["lea"] - RIGHT["lea"]) < 0.2
    frame = issues.to_frame()
    assert (frame["n_annotators"] == each).all()
    assert frame["agreement"].between(0, 1).all()


def test_names_and_numbers_give_the_same_answer() -> None:
    true, labels = annotated(400, 3, 3)
    probs = seen(true, 3)
    names = labels.replace({0.0: "cat", 1.0: "cow", 2.0: "dog"})
    numbers, named = label_issues(labels, probs), label_issues(names, probs, class_names=["cat", "cow", "dog"])
    assert (numbers.labels == named.labels).all()
    assert (numbers.label_quality == named.label_quality).all()
    array = label_issues(labels.to_numpy(), probs)
    assert (numbers.label_quality == array.label_quality).all()


def test_an_annotator_of_one_image_counts_like_the_usual_one() -> None:
    true, labels = annotated(400, 3, 3)
    labels["zoe"] = np.where(np.arange(400) == 7, (true + 1) % 3, np.nan)
    issues = label_issues(labels, seen(true, 3))
    assert issues.annotators is not None
    assert issues.annotators.set_index("annotator").loc["zoe", "n_labels"] == 1
    without = label_issues(labels.drop(columns="zoe"), seen(true, 3))
    others = np.arange(400) != 7
    assert np.allclose(issues.label_quality[others], without.label_quality[others], atol=0.05)


def test_the_majority_is_counted_per_image() -> None:
    image, annotator, label = np.array([[0, 0, 0, 1, 1], [0, 1, 2, 0, 1], [2, 1, 1, 2, 0]])
    made = Annotations(("a", "b", "c"), 2, image, annotator, label)
    assert made.majority(3).tolist() == [1, 2]
    assert made.agreement(np.array([1, 2])).tolist() == [2 / 3, 1 / 2]
    assert made.subset(np.array([1])).label.tolist() == [2, 0]


def test_annotators_that_do_not_fit_get_a_sentence() -> None:
    true, labels = annotated(400, 3, 3)
    labels.iloc[5] = np.nan
    with pytest.raises(InputError, match=r"labels\[5\] has no label by any annotator"):
        label_issues(labels, seen(true, 3))
    lone = labels[["ann"]].assign(other=np.where(labels["ann"].isna(), 1, np.nan))
    with pytest.raises(InputError, match="no image of labels has labels of two annotators"):
        label_issues(lone, seen(true, 3))


@pytest.mark.slow
def test_a_run_lists_its_annotators_and_the_doubtful_consensus_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels, digits = load_digits(return_X_y=True)
    true, labels = annotated(600, 10, 3)
    rows = np.empty(len(true), np.int64)
    for k in range(10):
        rows[true == k] = np.flatnonzero(digits == k)[: int((true == k).sum())]  # each digit once: copies go first
    np.save("x.npy", pixels[rows].astype(np.float32) / 16)
    table = labels.stack().dropna().astype(int).reset_index().set_axis(["row", "who", "label"], axis="columns")
    table["path"] = [f"{row:03}.png" for row in table["row"]]
    for path in table["path"]:
        Path(path).touch()
    table[["path", "label", "who"]].to_csv("t.csv", index=False)
    options = ("--features", "x.npy", "--device", "cpu", "--threads", "1", "--quiet", "--annotator-column", "who")
    result = CliRunner().invoke(main, ["find-issues", "t.csv", *options])
    assert result.exit_code == 0, result.output
    assert "8 annotators gave 1,800 labels; the least reliable, by quality from 0 to 1: lea" in result.stdout
    run = RunResults.load("t-issues")
    wrong = run.labels != true
    first = run.worst_first()[: int(wrong.sum())]
    assert wrong[first].mean() > 0.8
    assert list(run.annotators()["annotator"][:2]) == ["lea", "kim"]
    assert {"n_annotators", "agreement"} <= {*pd.read_csv("t-issues/issues.csv").columns}
    assert "8 annotators gave 1,800 labels" in Path("t-issues/issues.html").read_text()
    refused = CliRunner().invoke(main, ["apply", "t-issues", "--action", "relabel", "-o", "fixed.csv"])
    assert "t.csv holds the labels of several annotators" in refused.stderr
    listed = CliRunner().invoke(main, ["apply", "t-issues", "--action", "list"])
    assert listed.exit_code == 0, listed.output


def test_what_images_show_is_asked_of_some_of_them() -> None:
    true, _ = annotated(300, 5, 2)
    posterior = fit_posterior(true, seen(true, 5))
    every, some = seen_in_images(posterior, np.arange(300)), np.array([7, 3, 250])
    np.testing.assert_array_equal(seen_in_images(posterior, some), every[some])
    np.testing.assert_allclose(every.sum(axis=1), 1)


def test_of_many_classes_crowdlab_gets_some_images(monkeypatch: pytest.MonkeyPatch) -> None:
    true, labels = annotated(400, 40, 3)
    asked: list[int] = []

    def some(posterior: Posterior, which: np.ndarray) -> np.ndarray:
        asked.append(len(which))
        return seen_in_images(posterior, which)

    monkeypatch.setattr("cvcoteach.pipeline.annotators._MOST_CELLS", 4000)
    monkeypatch.setattr("cvcoteach.pipeline.annotators.seen_in_images", some)
    assert label_issues(labels, seen(true, 40)).annotators is not None
    assert asked == [100]
