"""Which labels are flagged, for each goal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from cvcoteach import fit_posterior
from cvcoteach._validation import InputError
from cvcoteach.issues.flags import (
    ENOUGH_NOISE,
    GOAL,
    LEAST_FLAGGED,
    LITTLE_NOISE,
    PROBABLY_WRONG,
    FlagRule,
    flags_of,
    flags_of_best_f1,
    least_flagged,
)

from .test_label_issues import noisy_data


def probabilities(seed: int = 1, n: int = 500) -> np.ndarray:
    """Return calibrated probabilities of being wrong, two fifths of them expected to be."""
    return np.random.default_rng(seed).beta(0.4, 0.6, n)


def test_flags_give_the_largest_expected_f1() -> None:
    wrong = probabilities()

    def expected(flags: np.ndarray) -> float:
        return float(2 * wrong[flags].sum() / (flags.sum() + wrong.sum()))

    best = max(expected(wrong >= threshold) for threshold in wrong[wrong >= LEAST_FLAGGED])
    assert expected(flags_of_best_f1(wrong)) == pytest.approx(best)
    assert_array_equal(FlagRule().flags(wrong), flags_of_best_f1(wrong))


def test_clean_labels_are_not_flagged_for_the_sake_of_recall() -> None:
    assert not flags_of_best_f1(np.full(100, 0.02)).any()
    assert_array_equal(np.flatnonzero(flags_of_best_f1(np.r_[np.full(99, 0.02), 0.9])), [99])


def test_where_little_is_wrong_only_what_is_probably_wrong_is_flagged() -> None:
    few = np.r_[np.full(980, 0.001), np.full(20, 0.4)]
    assert few.mean() < LITTLE_NOISE
    assert not flags_of_best_f1(few).any()
    many = np.r_[np.full(800, 0.001), np.full(200, 0.4)]
    assert flags_of_best_f1(many).sum() == 200


def test_the_bound_falls_evenly_as_the_expected_noise_rises() -> None:
    assert least_flagged(0.0) == least_flagged(LITTLE_NOISE) == PROBABLY_WRONG
    assert least_flagged(ENOUGH_NOISE) == least_flagged(1.0) == LEAST_FLAGGED
    assert least_flagged((LITTLE_NOISE + ENOUGH_NOISE) / 2) == pytest.approx((PROBABLY_WRONG + LEAST_FLAGGED) / 2)


@pytest.mark.parametrize("seed", range(5))
def test_for_precision_as_many_are_flagged_as_the_expected_precision_allows(seed: int) -> None:
    wrong = probabilities(seed)
    flags = FlagRule("precision").flags(wrong)
    assert wrong[flags].mean() >= GOAL
    with_next = wrong >= wrong[~flags].max()
    assert wrong[with_next].mean() < GOAL
    assert wrong[flags].min() > wrong[~flags].max()


@pytest.mark.parametrize("seed", range(5))
def test_for_recall_as_few_are_flagged_as_the_expected_recall_takes(seed: int) -> None:
    wrong = probabilities(seed)
    flags = FlagRule("recall").flags(wrong)
    assert wrong[flags].sum() >= GOAL * wrong.sum()
    fewer = wrong > wrong[flags].min()
    assert wrong[fewer].sum() < GOAL * wrong.sum()


def test_no_precision_no_flags() -> None:
    assert not FlagRule("precision").flags(np.full(50, 0.8)).any()
    assert not FlagRule("recall").flags(np.zeros(50)).any()


def test_equal_probabilities_are_flagged_together() -> None:
    wrong = np.r_[0.99, np.full(10, 0.88), np.full(10, 0.01)]
    assert FlagRule("precision").flags(wrong).sum() == 1
    assert FlagRule("recall").flags(np.r_[np.full(10, 0.6), np.full(10, 0.01)]).sum() == 10


def test_a_minimum_probability_is_a_rule_of_its_own() -> None:
    wrong = probabilities()
    rule = FlagRule(min_probability=0.9)
    assert_array_equal(rule.flags(wrong), wrong >= 0.9)
    assert (str(rule), str(FlagRule("recall"))) == ("probability 0.9", "recall")


def test_goals_flag_more_or_less_but_never_in_another_order() -> None:
    wrong = probabilities()
    precise, best, complete = (FlagRule(goal).flags(wrong) for goal in ("precision", "f1", "recall"))
    assert 0 < precise.sum() < best.sum() < complete.sum()
    assert (precise <= best).all()
    assert (best <= complete).all()


def test_no_images_no_flags() -> None:
    assert FlagRule().flags(np.empty(0)).shape == (0,)


@pytest.mark.parametrize("rule", [None, FlagRule("precision"), FlagRule("recall"), FlagRule(min_probability=0.1)])
def test_without_a_signal_no_rule_flags_anything(rule: FlagRule | None) -> None:
    given, probs, _ = noisy_data()
    found = fit_posterior(given, probs)
    assert flags_of(found, rule).any()
    blind = replace(found, signal=replace(found.signal, share=0.0))
    assert not flags_of(blind, rule).any()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"flag_for": "precison"}, "flag_for is 'precison'; did you mean precision"),
        ({"min_probability": 0.0}, "min_probability is 0.0; flags take a probability above 0 and up to 1"),
        ({"min_probability": 90}, "min_probability is 90"),
    ],
)
def test_a_rule_that_does_not_exist_is_refused(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        FlagRule(**settings)


def test_accepting_all_flags_leaves_a_rare_class_three_quarters_of_its_right_labels() -> None:
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(2000, np.int64), np.ones(60, np.int64)]
    wrong = np.r_[rng.beta(0.2, 5, 2000), rng.beta(3, 1, 60)]
    rare = labels == 1
    unspared = flags_of_best_f1(wrong)
    assert unspared[rare].mean() > 0.9
    for goal in ("f1", "recall"):
        flags = FlagRule(goal).flags(wrong, labels)
        assert 0.2 * (1 - wrong[rare]).sum() < (1 - wrong)[flags & rare].sum() <= 0.25 * (1 - wrong[rare]).sum()
        assert wrong[flags & rare].min() >= wrong[~flags & rare].max()  # the least doubtful keep their labels
    assert_array_equal(FlagRule().flags(wrong, labels)[~rare], unspared[~rare])
    assert_array_equal(FlagRule(min_probability=0.5).flags(wrong, labels), wrong >= 0.5)


def test_a_class_whose_labels_are_all_wrong_is_flagged_whole() -> None:
    labels = np.r_[np.zeros(100, np.int64), np.ones(10, np.int64)]
    assert FlagRule().flags(np.r_[np.full(100, 0.01), np.full(10, 0.99)], labels)[100:].all()


def test_classes_of_up_to_three_labels_are_beyond_judgment() -> None:
    labels = np.r_[np.zeros(100, np.int64), [1, 1, 1, 2, 2, 2, 2]]
    flags = FlagRule().flags(np.r_[np.full(100, 0.01), np.full(7, 0.95)], labels)
    assert flags[100:].tolist() == [False] * 3 + [True] * 4


@pytest.mark.parametrize("rule", [FlagRule(), FlagRule("precision"), FlagRule("recall"), FlagRule("f1", 0.35)])
def test_a_rule_is_known_by_its_name(rule: FlagRule) -> None:
    assert FlagRule.named(str(rule)) == rule
    for name in ("bogus", "probability x", "probability 2"):
        with pytest.raises(InputError):
            FlagRule.named(name)
