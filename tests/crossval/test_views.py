"""Independent views: fused by evidence, and refused where they do not fit."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.testing import assert_allclose

from cvcoteach._validation import InputError, IntArray, PredProbs
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.crossval.views import fuse_pred_probs

N, K = 600, 3
RNG = np.random.default_rng(0)
TRUE = np.arange(N) % K
GIVEN = np.where(RNG.random(N) < 0.15, (TRUE + 1) % K, TRUE)


def view(strength: float, seed: int) -> PredProbs:
    """Probabilities (N, K) that know the true classes, more or less."""
    logits = np.random.default_rng(seed).normal(size=(N, K)) + strength * np.eye(K)[TRUE]
    return (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)


class Answers:
    """A trainer that has its answers already."""

    def __init__(self, probs: PredProbs, n_images: int = N) -> None:
        self.probs, self.n_images, self.calls = probs, n_images, 0
        self.trained: list[IntArray] = []

    def fit_predict(self, train_idx: IntArray, train_labels: IntArray, eval_idx: IntArray, seed: int) -> PredProbs:
        self.calls += 1
        self.trained.append(train_idx)
        return self.probs[eval_idx]


def right(probs: PredProbs) -> float:
    return float((probs.argmax(axis=1) == TRUE).mean())


def test_views_that_err_differently_know_more_together() -> None:
    a, b = view(2, 1), view(2, 2)
    both = fuse_pred_probs(GIVEN, [a, b])
    assert_allclose(both.sum(axis=1), 1, atol=1e-5)
    assert right(both) > max(right(a), right(b)) + 0.03


def test_a_view_that_knows_nothing_changes_next_to_nothing() -> None:
    a = view(2, 1)
    assert right(fuse_pred_probs(GIVEN, [a, view(0, 2)])) > right(a) - 0.01
    assert_allclose(fuse_pred_probs(GIVEN, [a, a]), np.maximum(a, 0.01 / K), atol=0.005)


def test_a_class_that_a_view_never_saw_is_left_to_the_other() -> None:
    a, b = view(3, 1), view(3, 2)
    b[:, 2] = 0
    b /= b.sum(axis=1, keepdims=True)
    assert (fuse_pred_probs(GIVEN, [a, b]).argmax(axis=1) == 2).mean() > 0.2


@pytest.mark.parametrize(
    ("views", "sentence"),
    [
        ([], "views is empty; it takes the probabilities of at least one view"),
        ([view(1, 0), view(1, 1)[1:]], "view 2 has 599 images, but view 1 has 600; all views give"),
        ([view(1, 0), view(1, 1)[:, :2]], "view 2 has 2 classes, but view 1 has 3; all views give"),
        ([view(1, 0)[0]], r"view 1 has shape \(3,\); each view has one row per image"),
        ([view(1, 0), 2 * view(1, 1)], "view 2"),
    ],
)
def test_views_that_do_not_fit_are_refused_in_a_sentence(views: list[PredProbs], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        fuse_pred_probs(GIVEN, views)


def test_the_rounds_fuse_their_trainers_which_learn_from_the_same_selection() -> None:
    a, b = Answers(view(2, 1)), Answers(view(1.5, 2))
    result = IterativeCV().run([a, b], GIVEN)
    assert a.calls == b.calls == 2 + 5 + 5
    assert all(map(np.array_equal, a.trained, b.trained))
    assert_allclose(result.pred_probs, fuse_pred_probs(GIVEN, [a.probs, b.probs]), atol=1e-5)
    assert result.views[0].weight > result.views[1].weight
    assert sum(each.weight for each in result.views) == pytest.approx(1)
    assert IterativeCV().run([a], GIVEN).views == ()


def test_finished_folds_of_each_view_are_not_trained_again() -> None:
    whole, finished = IterativeCV().run([Answers(view(2, 1)), Answers(view(2, 2))], GIVEN), ({}, {})
    IterativeCV().run([Answers(view(2, 1)), Answers(view(2, 2))], GIVEN, finished=finished)
    del finished[1][FoldKey(3, 5)]
    a, b = Answers(view(2, 1)), Answers(view(2, 2))
    again = IterativeCV().run([a, b], GIVEN, finished=finished)
    assert (a.calls, b.calls) == (0, 1)
    np.testing.assert_array_equal(again.pred_probs, whole.pred_probs)


@pytest.mark.parametrize(
    ("trainers", "sentence"),
    [
        ([], "trainer is an empty list"),
        ([Answers(view(1, 0)), "linear"], "trainer 2 is a str without fit_predict"),
        ([Answers(view(1, 0)), Answers(view(1, 1), 599)], "trainer 2 has 599 images, but there are 600 labels"),
        ([Answers(view(1, 0)), Answers(view(1, 1)[:, :2])], "the answer of trainer 2 for fold 1 of round 1"),
    ],
)
def test_trainers_that_do_not_fit_are_refused_in_a_sentence(trainers: list[object], sentence: str) -> None:
    with pytest.raises(InputError, match=re.escape(sentence)):
        IterativeCV().run(trainers, GIVEN)


def test_the_published_algorithm_takes_one_trainer() -> None:
    with pytest.raises(InputError, match="2 trainers are given, but select agreement is algorithm 1"):
        IterativeCV("agreement").run([Answers(view(1, 0)), Answers(view(1, 1))], GIVEN)
