"""Which labels are trained on, and as what; without images."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.issues.corrections import Corrected
from cvcoteach.pipeline.retrain_selection import mode_of, selection_of
from cvcoteach.pipeline.retraining_set import Estimates, FrozenBackbone, ImageProperties, RetrainingSet
from cvcoteach.pipeline.settings import RetrainSettings
from cvcoteach.training.inputs import FeatureInputs

RUN_NOISE_RATE = 0.4


def data_of(wrong: np.ndarray | None, posterior: np.ndarray | None = None, **changes: Any) -> RetrainingSet:
    """Ten images of two classes: six selected, two candidates; the first was reviewed."""
    places = np.arange(10)
    sets = {
        "labels": places % 2,
        "selected": places < 6,
        "candidate": (places >= 6) & (places < 8),
        "excluded": places < 0,
        "reviewed": places == 0,
        **changes,
    }
    suggested, prob = 1 - places % 2, np.full(10, 0.8)
    return RetrainingSet(
        paths=tuple(map(str, places)),
        rows=places,
        inputs=FeatureInputs(np.zeros((10, 2), np.float32)),
        given=places % 2,
        corrected=Corrected(**sets),
        estimates=Estimates(wrong, suggested, prob, posterior),
        class_names=("cat", "dog"),
        images=ImageProperties(8, 1, "key"),
    )


def heads_of(data: RetrainingSet) -> RetrainingSet:
    """The same, as features of a backbone."""
    frozen = cast(FrozenBackbone, object())  # that there is one counts
    return replace(data, frozen=frozen)


def test_what_is_held_out_is_trained_on_in_no_mode_but_the_published_ones() -> None:
    wrong = np.where(np.arange(10) < 6, 0.1, 0.9)
    posterior = np.full((10, 2), 0.5, np.float32)
    data = replace(data_of(wrong, posterior), held_out=np.array([1, 7]))
    for mode in ("posterior", "incv", "correct"):
        selection = selection_of(data, RetrainSettings(mode=mode), RUN_NOISE_RATE)  # type: ignore[arg-type]
        assert not (selection.selected | selection.candidate)[[1, 7]].any()
        assert selection.selected[[0, 2]].all()
    assert selection_of(data, RetrainSettings(mode="vanilla"), RUN_NOISE_RATE).selected.all()
    assert selection_of(data, RetrainSettings(mode="paper"), RUN_NOISE_RATE).selected[1]


def test_the_noise_rate_is_what_the_run_expects_of_the_labels_as_they_are_now() -> None:
    wrong = np.where(np.arange(10) < 6, 0.1, 0.9)
    wrong[0] = 0.0
    selection = selection_of(data_of(wrong), RetrainSettings(), RUN_NOISE_RATE)
    assert selection.noise_rate == pytest.approx((5 * 0.1 + 4 * 0.9) / 10)
    assert selection.wrong is not None
    assert selection_of(data_of(wrong), RetrainSettings(noise_rate=0.2), RUN_NOISE_RATE).noise_rate == 0.2


def test_where_the_runs_probabilities_say_nothing_the_first_rounds_estimate_counts_for_what_was_not_reviewed() -> None:
    selection = selection_of(data_of(None), RetrainSettings(), RUN_NOISE_RATE)
    assert selection.noise_rate == pytest.approx(0.4 * 0.9)
    assert not selection.as_published


def test_selection_by_agreement_is_as_published() -> None:
    assert selection_of(data_of(None), RetrainSettings(select="agreement"), RUN_NOISE_RATE).as_published
    assert selection_of(data_of(None), RetrainSettings(preset="paper"), RUN_NOISE_RATE).as_published


def test_corrected_what_is_not_selected_is_trained_on_under_the_suggested_class() -> None:
    wrong = np.where(np.arange(10) < 6, 0.1, 0.9)
    selection = selection_of(data_of(wrong), RetrainSettings(mode="correct"), RUN_NOISE_RATE)
    assert selection.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0, 1, 0]
    assert selection.candidate.tolist() == [False] * 6 + [True] * 4
    assert selection.weights is not None
    assert selection.weights.tolist() == [1.0] * 6 + [0.8] * 4


def test_by_the_posterior_every_image_is_learned_as_the_classes_that_it_is_taken_for() -> None:
    wrong = np.where(np.arange(10) < 6, 0.1, 0.9)
    posterior = np.stack([np.linspace(0, 1, 10), np.linspace(1, 0, 10)], axis=1).astype(np.float32)
    data = heads_of(data_of(wrong, posterior))
    assert mode_of(data, RetrainSettings()) == "posterior"
    assert mode_of(data_of(wrong, posterior), RetrainSettings()) == "incv", "networks on images"
    selection = selection_of(data, RetrainSettings(), RUN_NOISE_RATE)
    assert selection.selected.all()
    assert selection.soft is not None
    assert selection.soft.tolist() == posterior.tolist()
    everything_flagged = heads_of(data_of(wrong, posterior, selected=np.zeros(10, bool)))
    assert selection_of(everything_flagged, RetrainSettings(), RUN_NOISE_RATE).selected.all()
    for setting in ({"preset": "paper"}, {"select": "agreement"}, {"mode": "paper"}):
        settings = RetrainSettings(**setting)  # type: ignore[arg-type]
        assert mode_of(data, settings) == "paper"
        assert selection_of(data, settings, RUN_NOISE_RATE).as_published


def test_where_the_posterior_is_not_known_labels_are_taught_as_they_are_unless_it_is_asked_for() -> None:
    assert mode_of(heads_of(data_of(None)), RetrainSettings()) == "incv"
    assert selection_of(data_of(None), RetrainSettings(), RUN_NOISE_RATE).soft is None
    with pytest.raises(InputError, match="no posterior to learn from; take --mode incv"):
        selection_of(data_of(None), RetrainSettings(mode="posterior"), RUN_NOISE_RATE)


def test_a_class_that_no_image_is_taken_for_is_refused() -> None:
    sure = np.tile(np.array([1, 0], np.float32), (10, 1))
    with pytest.raises(InputError, match="no image of class 'dog' counts as clean"):
        selection_of(data_of(np.full(10, 0.1), sure), RetrainSettings(mode="posterior"), RUN_NOISE_RATE)


def test_the_papers_mode_takes_no_other_selection() -> None:
    with pytest.raises(InputError, match="mode is 'paper', which takes what INCV selected by agreement"):
        selection_of(data_of(None), RetrainSettings(mode="paper", select="flags"), RUN_NOISE_RATE)


@pytest.mark.parametrize(("select", "way"), [("flags", "take --mode incv."), ("agreement", "or --select flags.")])
def test_where_nothing_tells_what_is_wrong_nothing_can_be_corrected(select: Any, way: str) -> None:
    with pytest.raises(InputError, match="does not tell which of its labels are wrong") as error:
        selection_of(data_of(None), RetrainSettings(mode="correct", select=select), RUN_NOISE_RATE)
    assert str(error.value).endswith(way)


def test_vanilla_is_trained_on_everything() -> None:
    selection = selection_of(data_of(None), RetrainSettings(mode="vanilla", noise_rate=0.3), RUN_NOISE_RATE)
    assert selection.selected.all()
    assert not selection.candidate.any()
    curriculum = selection.curriculum(2, 10)
    assert curriculum.rows.tolist() == list(range(10))
    assert curriculum.noise_rate == 0.3
    heavy = selection_of(data_of(None), RetrainSettings(mode="vanilla", noise_rate=0.6), RUN_NOISE_RATE)
    assert heavy.curriculum(2, 10).noise_rate == 0.6, "the paper's formula for S would say 0.69"


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_noise_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"noise_rate is .*, in \[0, 1\)"):
        selection_of(data_of(None), RetrainSettings(noise_rate=rate), RUN_NOISE_RATE)


def test_nothing_or_nothing_of_a_class_to_train_on_is_refused() -> None:
    with pytest.raises(InputError, match="no label of the run counts as clean"):
        selection_of(data_of(None, selected=np.zeros(10, bool)), RetrainSettings(), RUN_NOISE_RATE)
    with pytest.raises(InputError, match="no image of class 'dog' counts as clean"):
        selection_of(data_of(None, selected=np.arange(10) % 2 == 0), RetrainSettings(), RUN_NOISE_RATE)
