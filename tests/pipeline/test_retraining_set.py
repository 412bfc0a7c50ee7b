"""What a classifier is retrained on, without images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.issues.corrections import Corrected
from cvcoteach.pipeline.retraining_set import Estimates, ImageProperties, RetrainingSet, numbers_of, selection_of
from cvcoteach.pipeline.settings import RetrainSettings
from cvcoteach.training.inputs import FeatureInputs

RUN_NOISE_RATE = 0.4


def data_of(wrong: np.ndarray | None, **changes: Any) -> RetrainingSet:
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
        inputs=FeatureInputs(np.zeros((10, 2), np.float32)),
        given=places % 2,
        corrected=Corrected(**sets),
        estimates=Estimates(wrong, suggested, prob),
        class_names=("cat", "dog"),
        images=ImageProperties(8, 1, "key"),
    )


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


def test_labels_are_numbered_as_the_model_numbers_its_classes() -> None:
    here = Path("shapes")
    source = Source(here, here, ("0", "1", "2"), np.array([0, 1, 0]), ("cat", "dog"))
    assert numbers_of(source, ("ant", "dog", "cat"), "shapes").tolist() == [2, 1, 2]
    with pytest.raises(InputError, match="shapes has the class 'dog', which the model lacks; "):
        numbers_of(source, ("ant", "cat"), "shapes")
