"""What a retraining is made from, without images."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.issues.corrections import Corrected
from cvcoteach.pipeline.retrain_task import Task, lesson_of
from cvcoteach.pipeline.settings import RetrainSettings

RECORD = {"rounds": [{"noise_rate": 0.4}]}


def task_of(wrong: np.ndarray | None, **changes: Any) -> Task:
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
    return Task(
        tuple(map(str, places)),
        None,
        places,
        places % 2,
        Corrected(**sets),
        wrong,
        suggested,
        prob,
        ("cat", "dog"),
        8,
        1,
        "key",
    )


def test_the_noise_rate_is_what_the_run_expects_of_the_labels_as_they_are_now() -> None:
    wrong = np.where(np.arange(10) < 6, 0.1, 0.9)
    wrong[0] = 0.0
    lesson = lesson_of(task_of(wrong), RetrainSettings(), RECORD)
    assert lesson.noise_rate == pytest.approx((5 * 0.1 + 4 * 0.9) / 10)
    assert lesson.wrong is not None
    assert lesson_of(task_of(wrong), RetrainSettings(noise_rate=0.2), RECORD).noise_rate == 0.2


def test_where_the_runs_probabilities_say_nothing_the_first_rounds_estimate_counts_for_what_was_not_reviewed() -> None:
    lesson = lesson_of(task_of(None), RetrainSettings(), RECORD)
    assert lesson.noise_rate == pytest.approx(0.4 * 0.9)
    assert not lesson.as_published


def test_selection_by_agreement_is_as_published() -> None:
    assert lesson_of(task_of(None), RetrainSettings(select="agreement"), RECORD).as_published
    assert lesson_of(task_of(None), RetrainSettings(preset="paper"), RECORD).as_published


def test_corrected_what_is_not_selected_is_taught_under_the_suggested_class() -> None:
    wrong = np.where(np.arange(10) < 6, 0.1, 0.9)
    lesson = lesson_of(task_of(wrong), RetrainSettings(mode="correct"), RECORD)
    assert lesson.labels.tolist() == [0, 1, 0, 1, 0, 1, 1, 0, 1, 0]
    assert lesson.candidate.tolist() == [False] * 6 + [True] * 4
    assert lesson.weights is not None
    assert lesson.weights.tolist() == [1.0] * 6 + [0.8] * 4


@pytest.mark.parametrize(("select", "way"), [("flags", "take --mode incv."), ("agreement", "or --select flags.")])
def test_where_nothing_tells_what_is_wrong_nothing_can_be_corrected(select: Any, way: str) -> None:
    with pytest.raises(InputError, match="does not tell which of its labels are wrong") as error:
        lesson_of(task_of(None), RetrainSettings(mode="correct", select=select), RECORD)
    assert str(error.value).endswith(way)


def test_vanilla_is_taught_everything() -> None:
    lesson = lesson_of(task_of(None), RetrainSettings(mode="vanilla", noise_rate=0.3), RECORD)
    assert lesson.selected.all()
    assert not lesson.candidate.any()
    curriculum = lesson.curriculum(2, 10)
    assert curriculum.rows.tolist() == list(range(10))
    assert curriculum.noise_rate == 0.3
    heavy = lesson_of(task_of(None), RetrainSettings(mode="vanilla", noise_rate=0.6), RECORD)
    assert heavy.curriculum(2, 10).noise_rate == 0.6, "the paper's formula for S would say 0.69"


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_noise_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(InputError, match=r"noise_rate is .*, in \[0, 1\)"):
        lesson_of(task_of(None), RetrainSettings(noise_rate=rate), RECORD)


def test_nothing_or_nothing_of_a_class_to_train_on_is_told() -> None:
    with pytest.raises(InputError, match="no label of the run counts as clean"):
        lesson_of(task_of(None, selected=np.zeros(10, bool)), RetrainSettings(), RECORD)
    with pytest.raises(InputError, match="no image of class 'dog' counts as clean"):
        lesson_of(task_of(None, selected=np.arange(10) % 2 == 0), RetrainSettings(), RECORD)
