"""When Co-teaching trains on what, and how much of it is kept."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.coteaching.curriculum import (
    Pace,
    image_passes,
    incv_curriculum,
    keep_rate,
    least_noise_left,
    matched_epochs,
    mixed,
    noise_left,
    vanilla_curriculum,
    warmup_of,
)


def test_the_noise_left_in_the_selected_set_is_that_of_the_paper() -> None:
    assert noise_left(0.5, 10) == pytest.approx(1 / 10)
    assert noise_left(0.2, 10) == pytest.approx(0.04 / (0.04 + 9 * 0.64))
    assert noise_left(0.4, 2) == pytest.approx(0.16 / (0.16 + 0.36))
    assert noise_left(0.0, 10) == 0


def test_no_more_wrong_labels_can_be_gone_than_images() -> None:
    assert least_noise_left(0.2, 1000, 1000) == pytest.approx(0.2), "nothing was left out"
    assert least_noise_left(0.2, 900, 1000) == pytest.approx(100 / 900)
    assert least_noise_left(0.2, 700, 1000) == 0
    full = incv_curriculum(np.arange(900), np.arange(0), 0.2, 20, n=1000, n_classes=10)
    half = incv_curriculum(np.arange(500), np.arange(0), 0.2, 20, n=1000, n_classes=10)
    published = incv_curriculum(np.arange(900), np.arange(0), 0.2, 20, n=1000, n_classes=10, as_published=True)
    assert full.noise_rate == pytest.approx(100 / 900)
    assert half.noise_rate == noise_left(0.2, 10)
    assert published.noise_rate == noise_left(0.2, 10)


def test_once_candidates_have_joined_a_batch_leaves_out_their_wrong_labels_too() -> None:
    s, c = np.arange(600), np.arange(600, 900)
    left = noise_left(0.4, 10)
    outside = (0.4 * 1000 - left * 600) / 400
    counted = incv_curriculum(s, c, 0.4, 20, n=1000, n_classes=10)
    assert counted.noise_rate == pytest.approx(left)
    assert counted.mixed_noise_rate == pytest.approx((600 * left + 300 * outside) / 900)
    assert [counted.keep_rate(e) for e in (0, 3, 4, 19)] == pytest.approx(
        [1, 1 - left, *[1 - counted.mixed_noise_rate] * 2]
    )
    published = incv_curriculum(s, c, 0.4, 20, n=1000, n_classes=10, as_published=True)
    assert (published.noise_rate, published.mixed_noise_rate) == pytest.approx((left, left))


def test_probabilities_of_being_wrong_say_how_many_are_left_but_never_fewer_than_the_paper() -> None:
    s, c = np.arange(600), np.arange(600, 900)
    wrong = np.where(np.arange(1000) < 600, 0.2, 0.7)
    known = incv_curriculum(s, c, 0.4, 20, n=1000, n_classes=10, wrong=wrong)
    assert known.noise_rate == pytest.approx(0.2)
    assert known.mixed_noise_rate == pytest.approx((600 * 0.2 + 300 * 0.7) / 900)
    sure = incv_curriculum(s, c, 0.4, 20, n=1000, n_classes=10, wrong=np.zeros(1000))
    assert sure.noise_rate == pytest.approx(noise_left(0.4, 10))


def test_epochs_of_a_smaller_set_are_more_until_as_many_images_were_shown() -> None:
    assert matched_epochs(1000, 0, 0.2, 12_000) == 12
    assert matched_epochs(500, 0, 0.2, 12_000) == 24
    epochs = matched_epochs(600, 300, 0.2, 12_000)
    passes = image_passes(600, 300, warmup_of(epochs, 0.2), epochs)
    assert abs(passes - 12_000) <= 450, "half an epoch of 900"
    assert matched_epochs(1000, 0, 0.2, 100) == 1
    assert matched_epochs(20, 0, 0.2, 600_000, most=120) == 120


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, math.nan])
def test_a_noise_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"noise_rate is .*, in \[0, 1\)"):
        noise_left(rate, 10)


def test_the_keep_rate_falls_linearly_and_then_stays() -> None:
    assert [keep_rate(e, 0.4, 10) for e in (0, 5, 10, 199)] == pytest.approx([1.0, 0.8, 0.6, 0.6])


def test_the_published_warm_up_and_ramp_come_out_at_200_epochs() -> None:
    rows = np.arange(10), np.arange(0)
    usual, heavy = (incv_curriculum(*rows, noise_rate, 200, n=1000, n_classes=10) for noise_rate in (0.5, 0.61))
    assert (usual.warmup, usual.ramp) == (40, 10)
    assert (heavy.warmup, heavy.ramp) == (80, 10)
    short = incv_curriculum(*rows, 0.5, 12, n=1000, n_classes=10)
    assert (short.warmup, short.ramp) == (2, 1)


def test_batches_are_of_s_alone_until_the_warm_up_is_over() -> None:
    order = mixed(100, 40, 20, warmup=3)
    for epoch in range(3):
        batches = order(epoch, np.random.default_rng(epoch))
        assert sorted(np.concatenate(batches).tolist()) == list(range(100))
    after = order(3, np.random.default_rng(3))
    assert [len(batch) for batch in after] == [28] * 5
    assert sorted(np.concatenate(after).tolist()) == list(range(140)), "|B|·|C|/|S| of each is one pass over C"
    assert all((batch >= 100).sum() == 8 for batch in after)


def test_candidates_make_up_half_of_the_selected_at_most() -> None:
    batches = mixed(100, 1000, 20, warmup=0)(0, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [30] * 5
    added = np.concatenate([batch[batch >= 100] for batch in batches])
    assert len(set(added.tolist())) == 50


def test_an_empty_candidate_set_changes_nothing_after_the_warm_up() -> None:
    batches = mixed(100, 0, 20, warmup=0)(5, np.random.default_rng(0))
    assert [len(batch) for batch in batches] == [20] * 5


def test_a_pace_that_is_given_is_kept() -> None:
    pace = Pace(warmup=3, ramp=2.5)
    paced = incv_curriculum(np.arange(10), np.arange(0), 0.5, 200, n=1000, n_classes=10, pace=pace)
    assert (paced.warmup, paced.ramp) == (3, 2.5)
    assert vanilla_curriculum(10, 0.2, 200, pace=pace).ramp == 2.5
    with pytest.raises(InputError, match="warmup is -1; it takes 0 or more"):
        Pace(warmup=-1)
    with pytest.raises(InputError, match="ramp is 0; it takes a number of epochs above 0"):
        Pace(ramp=0)
