"""Features brought to mean 0 and deviation 1."""

from __future__ import annotations

import numpy as np

from cvcoteach.training.standardisation import Standardisation


def test_features_get_mean_0_and_deviation_1_and_constant_ones_0() -> None:
    features = np.random.default_rng(0).normal(5, 3, (500, 4))
    features[:, 2] = 7
    standard = Standardisation.of(features)
    assert standard.scale[2] == 1
    applied = standard.applied(features)
    assert applied.dtype == np.float32
    np.testing.assert_allclose(applied.mean(axis=0), 0, atol=1e-6)
    np.testing.assert_allclose(applied.std(axis=0), [1, 1, 0, 1], atol=1e-5)


def test_others_are_standardised_by_the_same_statistics() -> None:
    standard = Standardisation(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert standard.applied(np.array([[3.0, 2.0]])).tolist() == [[1.0, 0.0]]
