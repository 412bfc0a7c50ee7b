"""The noise transition and the posterior: against slow versions, on data whose truth is known, at the edges."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvcoteach._validation import InputError
from cvcoteach.noise_model import affine as calibration
from cvcoteach.noise_model import posterior as transition
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model import temperature as tempering
from cvcoteach.noise_model.affine import AffineModel, soft_names
from cvcoteach.noise_model.posterior import fit_posterior, label_posterior, noise_transition
from cvcoteach.noise_model.richardson_lucy import DeconvolvedModel
from cvcoteach.noise_model.temperature import TemperatureModel


def known_truth(n=6000, k=5, rate=0.3, sharpness=0.15, seed=0):
    """True posteriors q (n, k), true labels, T, given labels, and p = q·T: what a perfect model of the noise says."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.full(k, sharpness), n)
    true = (rng.random(n)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=k - 1)
    T = noise.class_dependent(rate, k, 0.4, rng)
    return q, true, T, noise.flip_labels(true, T, rng), (q @ T).astype(np.float32)


def bayes(q, T, labels):
    """P(true | image, given), by the book."""
    joint = q * T[:, labels].T
    return joint / joint.sum(axis=1, keepdims=True)


def blobs(n=9000, k=6, rate=0.2, seed=0):
    """A linear model's out-of-sample probabilities on overlapping blobs with noisy labels: true, T, given, probs."""
    rng = np.random.default_rng(seed)
    true = rng.integers(k, size=n)
    x = 1.5 * rng.standard_normal((k, 12))[true] + rng.standard_normal((n, 12))
    T = noise.class_dependent(rate, k, 0.4, rng)
    labels = noise.flip_labels(true, T, rng)
    probs = cross_val_predict(LogisticRegression(max_iter=200), x, labels, cv=3, method="predict_proba")
    return true, T, labels, probs


def self_confidence(labels, probs):
    return probs[np.arange(len(labels)), labels]


def total_variation(a, b):
    """Mean over the classes of the distance between two transitions' rows, in [0, 1]."""
    return np.abs(a - b).sum(axis=1).mean() / 2


class TestKnownTruth:
    def test_a_perfect_model_of_the_noise_gives_transition_and_posterior_back(self):
        q, true, T, labels, probs = known_truth(n=20_000)
        fitted = fit_posterior(labels, probs)
        exact = bayes(q, T, labels)
        assert fitted.fits
        assert isinstance(fitted.model, DeconvolvedModel)
        assert np.abs(fitted.transition - T).max() < 0.05
        assert np.abs(label_posterior(labels, probs) - exact).mean() < 0.02
        best, found, naive = (
            average_precision_score(labels != true, -score)
            for score in (self_confidence(labels, exact), fitted.label_quality, self_confidence(labels, probs))
        )
        assert naive + 0.1 < best - 0.02 < found

    @pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
    def test_a_misfit_model_of_the_noise_is_seen_through(self, rate):
        true, T, labels, probs = blobs(rate=rate)
        fitted = fit_posterior(labels, probs)
        wrong = labels != true
        assert fitted.fits
        assert isinstance(fitted.model, AffineModel)
        assert total_variation(fitted.transition, T) < 0.05
        naive = average_precision_score(wrong, -self_confidence(labels, probs))
        assert 1 - average_precision_score(wrong, fitted.wrong) < (1 - naive) / 2
        assert fitted.wrong.mean() == pytest.approx(wrong.mean(), abs=0.05)
        assert np.mean(fitted.suggested == true) > np.mean(probs.argmax(axis=1) == true) - 0.01

    def test_probabilities_of_a_clean_model_need_no_deconvolution(self):
        q, _, T, labels, _ = known_truth()
        fitted = fit_posterior(labels, q, trained_on="clean")
        assert isinstance(fitted.model, TemperatureModel)
        assert fitted.temperature == pytest.approx(1, abs=0.1)
        assert np.abs(fitted.transition - T).max() < 0.05
        assert np.abs(label_posterior(labels, q, trained_on="clean") - bayes(q, T, labels)).mean() < 0.01

    def test_a_part_of_many_rows_is_enough_to_fit(self, monkeypatch):
        q, _, T, labels, _ = known_truth()
        monkeypatch.setattr(transition, "_N_DRAWN", 2000)
        assert np.abs(fit_posterior(labels, q, trained_on="clean").transition - T).max() < 0.08

    def test_overconfident_clean_probabilities_are_tempered(self):
        q, _, T, labels, _ = known_truth(sharpness=0.5)
        sharp = q**3 / (q**3).sum(axis=1, keepdims=True)
        fitted = fit_posterior(labels, sharp, trained_on="clean")
        assert fitted.temperature == pytest.approx(3, rel=0.15)
        assert np.abs(fitted.transition - T).max() < 0.1

    def test_many_classes_find_a_common_confusion(self):
        k = 40
        rng = np.random.default_rng(0)
        q = rng.dirichlet(np.full(k, 0.02), 8000)
        true = (rng.random(len(q))[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=k - 1)
        T = noise.transition("asymmetric", 0.2, k)
        labels = noise.flip_labels(true, T, rng)
        fitted = fit_posterior(labels, q)
        assert isinstance(fitted.model, TemperatureModel)
        assert total_variation(fitted.transition, T) < 0.06
        wrong = labels != true
        naive = average_precision_score(wrong, -self_confidence(labels, q))
        assert 1 - average_precision_score(wrong, fitted.wrong) < (1 - naive) / 2


class TestFallback:
    @pytest.mark.parametrize("seed", range(5))
    def test_where_there_is_no_noise_to_fit_labels_are_ranked_by_self_confidence(self, seed):
        rng = np.random.default_rng(seed)
        q = rng.dirichlet(np.full(4, 0.3), 3000)
        labels = (rng.random(3000)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=3)
        probs = np.sqrt(q) / np.sqrt(q).sum(axis=1, keepdims=True)  # too little confidence looks like noise
        fitted = fit_posterior(labels, probs)
        assert not fitted.fits
        assert "self-confidence" in fitted.note
        np.testing.assert_array_equal(fitted.label_quality, self_confidence(labels, probs))
        np.testing.assert_allclose(label_posterior(labels, probs), probs, rtol=1e-6)
        np.testing.assert_array_equal(fitted.suggested, probs.argmax(axis=1))

    @pytest.mark.parametrize("rate", [0.05, 0.3])
    def test_of_few_images_the_ranking_stays_near_self_confidence(self, rate):
        """Ten sets of 200 images: what they say of T is mostly chance."""
        behind = []
        for seed in range(10):
            true, _, labels, probs = blobs(n=200, rate=rate, seed=seed)
            naive = average_precision_score(labels != true, -self_confidence(labels, probs))
            behind.append(naive - average_precision_score(labels != true, fit_posterior(labels, probs).wrong))
        assert np.mean(behind) < 0.01

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("rate", [0.1, 0.3])
    def test_feature_dependent_noise_is_ranked_no_worse_than_by_self_confidence(self, rate, seed):
        x, true = load_digits(return_X_y=True)
        labels = noise.flip_by_features(true, x, rate, np.random.default_rng(seed))
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=300))
        probs = cross_val_predict(model, x, labels, cv=5, method="predict_proba")
        naive = average_precision_score(labels != true, -self_confidence(labels, probs))
        assert average_precision_score(labels != true, fit_posterior(labels, probs).wrong) >= naive


class TestSlowVersions:
    def test_deconvolution(self):
        _, _, T, labels, probs = known_truth(n=30)
        share = np.array([0.1, 0.2, 0.3, 0.25, 0.15])
        model = DeconvolvedModel(T, share, strength=4, gain=0.0)
        for row, (p, label) in enumerate(zip(probs.astype(np.float64), labels, strict=True)):
            c = share.copy()
            for _ in range(4):
                c = np.array([c[i] * sum(T[i, j] * p[j] / (c @ T[:, j]) for j in range(5)) for i in range(5)])
            expected = c * T[:, label] / (c @ T[:, label])
            np.testing.assert_allclose(model.posterior(labels, probs)[row], expected, atol=1e-4)

    def test_affine_posterior(self):
        rng = np.random.default_rng(0)
        weights, bias = rng.standard_normal((3, 6)), rng.standard_normal(3)
        mixing, share = rng.dirichlet(np.ones(3), 3), rng.dirichlet(np.ones(3))
        model = AffineModel(weights, bias, mixing, share, 0.0, 0.0)
        p, label = np.array([0.2, 0.7, 0.1]), 2
        logs = np.log(p) - np.log(p).mean()
        c = np.exp([weights[i, :3] @ logs + weights[i, 3:] @ logs**2 / 10 + bias[i] for i in range(3)])
        hidden = c * mixing[:, label] / (c @ mixing[:, label])
        expected = [sum(hidden[i] * model.names[i, k] for i in range(3)) for k in range(3)]
        np.testing.assert_allclose(model.posterior(np.array([label]), p[None])[0], expected)

    @pytest.mark.parametrize("with_noise", [True, False])
    def test_the_gradient_is_that_of_the_likelihood(self, with_noise):
        rng = np.random.default_rng(0)
        probs, labels = rng.dirichlet(np.ones(3), 40), np.sort(rng.integers(2, size=40))  # no label of class 2
        likelihood = calibration._Likelihood(calibration._features(probs), labels, rng.random(40) + 0.5, 3)
        params = likelihood.start(rng.dirichlet(np.ones(3), 3) if with_noise else None)
        params = params + 0.1 * rng.standard_normal(len(params))
        error = check_grad(
            lambda x: likelihood._loss(x, 0.3)[0], lambda x: likelihood._loss(x, 0.3)[1], params, epsilon=1e-7
        )
        assert error < 1e-5

    def test_expectation_maximisation_without_the_image_itself(self):
        k, strength = 40, 10.0
        rng = np.random.default_rng(1)
        probs, labels = rng.dirichlet(np.full(k, 0.05), 50), rng.integers(k, size=50)
        likely = tempering.Likely.of(labels, probs)
        model = replace(tempering.fit_temperature(likely, k), strength=strength)

        tempered = np.exp(likely.logs / model.temperature)
        rest = likely.n_others * np.exp(likely.others / model.temperature)
        own = model.likely_posterior(likely)
        for i in range(50):
            joint = []
            for column, true in enumerate(likely.classes[i]):
                pair = np.flatnonzero(model.pairs == true * k + labels[i])
                smooth = model.noise * model.frequency[labels[i]] + (1 - model.noise) * (column == 16)
                others = max((model.counts[pair].sum() if len(pair) else 0) - own[i, column], 0)
                total = max(model.totals[true] - own[i, column], 0)
                c = tempered[i, column] / (tempered[i].sum() + rest[i])
                joint.append(c * (others + strength * smooth) / (total + strength))
            unnamed = rest[i] / (tempered[i].sum() + rest[i]) * model.noise * model.frequency[labels[i]]
            np.testing.assert_allclose(own[i], np.array(joint) / (sum(joint) + unnamed), atol=2e-2)


class TestNames:
    def test_classes_keep_their_names_where_most_labels_are_right(self):
        T = noise.transition("symmetric", 0.3, 6)
        np.testing.assert_allclose(soft_names(T), np.eye(6), atol=0.01)

    def test_a_class_most_of_whose_labels_went_to_another_shares_both_names(self):
        T = np.array([[0.4, 0.6, 0], [0.45, 0.55, 0], [0, 0, 1]])
        names = soft_names(T)
        assert 0.2 < names[0, 1] < 0.8
        np.testing.assert_allclose(names.sum(axis=0), 1)
        np.testing.assert_allclose(names.sum(axis=1), 1)
        assert names[2, 2] > 0.99


class TestEdges:
    def check(self, labels, probs, **options):
        fitted = fit_posterior(labels, probs, **options)
        posterior = label_posterior(labels, probs, **options)
        n, k = np.shape(probs)
        assert posterior.shape == (n, k)
        assert posterior.dtype == np.float32
        assert np.isfinite(posterior).all()
        assert posterior.min() >= 0
        np.testing.assert_allclose(posterior.sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(fitted.transition.sum(axis=1), 1, atol=1e-9)
        assert fitted.transition.min() >= 0
        assert fitted.prior.sum() == pytest.approx(1)
        np.testing.assert_allclose(fitted.label_quality, self_confidence(np.asarray(labels), posterior), atol=2e-3)
        assert np.isfinite(fitted.held_out_gain)
        return fitted

    @pytest.mark.parametrize("trained_on", ["noisy", "clean"])
    @pytest.mark.parametrize("k", [2, 3, 40])
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10**6), st.integers(4, 60), st.sampled_from([0.01, 0.3, 3.0]))
    def test_any_probabilities_give_a_posterior(self, k, trained_on, seed, n, sharpness):
        rng = np.random.default_rng(seed)
        probs = rng.dirichlet(np.full(k, sharpness), n)
        probs[np.abs(probs.sum(axis=1) - 1) > 1e-6] = np.eye(k)[0]
        labels = rng.integers(k, size=n)
        labels[:2] = [0, 1]
        self.check(labels, probs, trained_on=trained_on)

    @pytest.mark.parametrize("k", [4, 40])
    @pytest.mark.parametrize("trained_on", ["noisy", "clean"])
    def test_certain_probabilities(self, k, trained_on):
        rng = np.random.default_rng(0)
        predicted = rng.integers(k, size=400)
        labels = np.where(rng.random(400) < 0.1, (predicted + 1) % k, predicted)
        fitted = self.check(labels, np.eye(k)[predicted], trained_on=trained_on)
        assert fitted.wrong[labels != predicted].min() > fitted.wrong[labels == predicted].max()

    @pytest.mark.parametrize("k", [4, 40])
    def test_probabilities_that_are_all_alike(self, k):
        fitted = self.check(np.arange(200) % k, np.full((200, k), 1 / k))
        assert np.ptp(fitted.label_quality) < 1e-3

    def test_a_class_without_a_label_and_one_never_predicted(self):
        _, _, labels, probs = blobs(n=1500)
        with_both = np.column_stack([probs, np.full(len(probs), 0.1), np.zeros(len(probs))])
        with_both /= with_both.sum(axis=1, keepdims=True)
        labels[:5] = 7  # given, but never predicted; 6 is predicted a little, but never given
        fitted = self.check(labels, with_both)
        assert fitted.prior[6] < 0.05
        assert fitted.wrong[:5].mean() > 0.5

    def test_two_classes(self):
        rng = np.random.default_rng(0)
        q = rng.beta(0.3, 0.3, 20_000)
        true = (rng.random(20_000) < q).astype(int)
        T = np.array([[0.9, 0.1], [0.3, 0.7]])
        labels = noise.flip_labels(true, T, rng)
        fitted = self.check(labels, np.column_stack([1 - q, q]) @ T)
        assert np.abs(fitted.transition - T).max() < 0.05

    def test_values_and_sums_off_by_a_thousandth_are_taken(self):
        _, _, labels, probs = blobs(n=300)
        probs[0] = np.eye(6)[0] * 1.0009
        probs[1, :2] = [1.0005, -0.0005]
        probs[1, 2:] = 0
        self.check(labels, probs)

    @pytest.mark.parametrize(
        ("probs", "said"),
        [
            (np.zeros((4, 2)), "pred_probs[0] sums to 0"),
            (np.full((4, 2), np.nan), "pred_probs[0] is [nan nan]"),
            (np.full((4, 2), [2, -1]), "pred_probs[0] is [ 2 -1]"),
            (np.full((3, 2), 0.5), "pred_probs has shape (3, 2); 4 images and 2 classes need (4, 2)"),
            (np.full(4, 0.5), "pred_probs has shape (4,)"),
        ],
    )
    def test_what_is_no_probability_is_refused(self, probs, said):
        with pytest.raises(InputError) as refusal:
            fit_posterior([0, 1, 0, 1], probs)
        assert said in str(refusal.value)

    def test_an_unknown_kind_of_training_is_refused(self):
        with pytest.raises(InputError, match="trained_on is 'both'; did you mean"):
            fit_posterior([0, 1], np.full((2, 2), 0.5), trained_on="both")


class TestMechanics:
    @pytest.mark.parametrize("k", [6, 40])
    def test_the_same_again_and_whatever_the_chunks(self, k, monkeypatch):
        _, _, labels, probs = blobs(n=700)
        probs = np.pad(probs, ((0, 0), (0, k - 6)))
        first, posterior = fit_posterior(labels, probs), label_posterior(labels, probs)
        monkeypatch.setattr(transition, "_CHUNK_VALUES", 37 * k)
        second = fit_posterior(labels, np.asfortranarray(probs))
        np.testing.assert_allclose(first.label_quality, second.label_quality, rtol=1e-9)
        np.testing.assert_array_equal(first.transition, second.transition)
        np.testing.assert_allclose(posterior, label_posterior(labels, probs), rtol=1e-5)
        np.testing.assert_array_equal(noise_transition(labels, probs), first.transition)

    def test_neither_argument_is_touched_or_copied(self):
        _, _, labels, probs = blobs(n=700)
        before = labels.copy(), probs.copy()
        fitted = fit_posterior(labels, probs)
        np.testing.assert_array_equal(labels, before[0])
        np.testing.assert_array_equal(probs, before[1])
        assert fitted.pred_probs is probs
        assert fitted.labels is labels

    def test_a_large_set_is_judged_by_a_sample_that_keeps_rare_classes(self):
        rng = np.random.default_rng(0)
        labels = rng.choice(4, size=50_000, p=[0.9, 0.08, 0.019, 0.001])
        rows, weight = transition._spread(labels, 4)
        counts = np.bincount(labels[rows])
        assert 19_000 < len(rows) <= 20_000
        assert (np.diff(labels[rows]) >= 0).all()
        assert len(np.unique(rows)) == len(rows)
        np.testing.assert_array_equal(counts[1:], np.bincount(labels)[1:])
        np.testing.assert_allclose(np.bincount(labels[rows], weight), np.bincount(labels))

    def test_a_small_set_is_taken_whole(self):
        labels = np.random.default_rng(0).integers(7, size=900)
        rows, weight = transition._spread(labels, 7)
        np.testing.assert_array_equal(np.sort(rows), np.arange(900))
        np.testing.assert_array_equal(weight, 1)
