"""How good a classifier is."""

from __future__ import annotations

import numpy as np

from cvcoteach.pipeline.scores import Comparison, comparison_text, confusion_table, figures, per_class_table, score


def test_scores_count_right_predictions_by_class_and_confusions() -> None:
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    scores = score(probs, np.array([0, 0, 1, 1]))
    assert scores.top1 == 0.75
    assert scores.top5 is None, "with two classes it would always be 1"
    assert scores.per_class == (0.5, 1.0)
    assert scores.confusion.tolist() == [[1, 1], [0, 2]]


def test_top_5_asks_for_the_right_class_among_the_five_most_probable() -> None:
    probs = np.tile(np.array([0.3, 0.25, 0.2, 0.1, 0.09, 0.06], np.float32), (2, 1))
    assert score(probs, np.array([4, 5])).top5 == 0.5


def test_a_class_without_test_images_has_no_accuracy() -> None:
    scores = score(np.eye(3, dtype=np.float32)[[0, 1]], np.array([0, 1]))
    assert np.isnan(scores.per_class[2])
    assert "on 2 test images" in comparison_text(Comparison(scores, scores), ("a", "b", "c")).lower()


def test_two_classifiers_are_compared_in_figures_tables_and_words() -> None:
    truth = np.array([0, 0, 1, 1])
    ours, plain = (
        score(np.eye(2, dtype=np.float32)[truth], truth),
        score(np.eye(2, dtype=np.float32)[[0, 1, 1, 1]], truth),
    )
    compared = Comparison(ours, plain, plain)
    assert figures(compared) == {
        "n_images": 4,
        "top1": 1.0,
        "top1_plain": 0.75,
        "top1_left_out": 0.75,
        "top5": None,
        "top5_plain": None,
        "top5_left_out": None,
    }
    assert figures(Comparison(ours, plain))["top1_left_out"] is None
    table = per_class_table(compared, ("a", "b"))
    assert table.to_dict("list") == {
        "class": ["a", "b"],
        "n_images": [2, 2],
        "accuracy": [1.0, 1.0],
        "accuracy_plain": [0.5, 1.0],
        "accuracy_left_out": [0.5, 1.0],
    }
    assert confusion_table(plain, ("a", "b")).loc["a"].tolist() == [1, 1]
    text = comparison_text(compared, ("a", "b"))
    assert "right prediction           100.0%   75.0%    +25.0 points" in text
    assert "flagged left out, plain    100.0%   75.0%    +25.0 points" in text
    assert [line.split()[0] for line in text.splitlines()[3:]] == ["a"], "classes that differ"
