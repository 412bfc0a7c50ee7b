"""The example that sets the paper's theory beside measurements."""

from __future__ import annotations

import io

import numpy as np
import pytest
import theory as example


def test_a_model_that_reproduces_the_noise_behaves_as_the_theory_says() -> None:
    table = example.measured({"symmetric": [0.4], "asymmetric": [0.3]})
    for _, row in table[table["model"] == "nearest neighbor"].iterrows():
        expected = example.formulas(row["pattern"], [row["noise_rate"]]).iloc[0]
        for name in example.FIGURES:
            assert row[name] == pytest.approx(expected[name], abs=0.05), name
        assert row["noise_rate_estimate"] == pytest.approx(row["noise_rate"], abs=0.05)
    regularized = table[(table["model"] == "logistic regression") & (table["pattern"] == "symmetric")].iloc[0]
    assert regularized["noise_rate_estimate"] < regularized["noise_rate"] - 0.1  # biased low
    picture = io.BytesIO()
    example.draw(table).savefig(picture, format="png")
    assert picture.getvalue().startswith(b"\x89PNG")


def test_without_noise_the_formulas_say_that_all_is_well() -> None:
    assert np.allclose(example.formulas("symmetric", [0.0])[list(example.FIGURES)], 1)
