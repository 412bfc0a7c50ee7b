"""Parameters of operators: whole floats are whole numbers, other floats a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.app.params import given, whole
from cvcoteach.fiftyone.store import runs
from tests.fiftyone.calls import execute, form, in_the_app, toasts
from tests.fiftyone.store.test_runs import imported
from tests.fiftyone.work.test_find import with_embeddings


@pytest.mark.parametrize("value", [2, 2.0])
def test_whole_floats_are_whole_numbers(value: Any) -> None:
    number = whole("rounds", value)
    assert (number, type(number)) == (2, int)


@pytest.mark.parametrize("value", [1.5, float("nan"), float("inf"), "2", True])
def test_anything_else_is_a_sentence(value: Any) -> None:
    with pytest.raises(InputError, match=f"rounds is {value!r}; it takes a whole number."):
        whole("rounds", value)


def test_what_is_not_set_is_left_to_the_defaults() -> None:
    params = {"rounds": 3.0, "epochs": None, "backbone": "", "other": 1}
    assert given(params, {"rounds": "n_rounds", "epochs": "epochs", "backbone": "backbone"}) == {"n_rounds": 3}


@pytest.mark.parametrize("name", ["find_label_issues", "retrain_coteaching"])
def test_half_an_epoch_is_refused_in_the_form_and_as_a_toast(noisy: Any, name: str) -> None:
    with_embeddings(noisy)
    imported(noisy, "there")
    params = {"epochs": 1.5, "embeddings_field": "embedding"}
    assert form(name, noisy.dataset, params=params) == "epochs is 1.5; it takes a whole number."
    assert toasts(in_the_app(name, noisy.dataset, params=params)) == [
        ("error", "epochs is 1.5; it takes a whole number.")
    ]


@pytest.mark.slow
def test_a_run_asked_for_in_whole_floats_is_the_one_in_whole_numbers(noisy: Any) -> None:
    with_embeddings(noisy)
    for key, number in (("whole", 1), ("float", 1.0)):
        params = {"embeddings_field": "embedding", "rounds": number, "seed": number, "brain_key": key}
        execute("find_label_issues", noisy.dataset, params=params)
    one, other = (runs.load(noisy.dataset, key) for key in ("whole", "float"))
    assert (one.issues.label_quality == other.issues.label_quality).all()
    assert one.config.settings == other.config.settings
