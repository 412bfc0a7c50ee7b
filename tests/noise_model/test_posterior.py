"""The posterior on data whose truth is known, on few images, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from cvcoteach._validation import InputError
from cvcoteach.issues.flags import flags_of
from cvcoteach.noise_model import base
from cvcoteach.noise_model import simulate as noise
from cvcoteach.noise_model.base import NoiseModel
from cvcoteach.noise_model.ensemble import MeanModel
from cvcoteach.noise_model.posterior import fit_posterior, label_posterior, noise_transition
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


def confident(x, true, rate, seed):
    """Given labels with a share `rate` of wrong ones, and a scaled logistic regression's probabilities of them."""
    rng = np.random.default_rng(seed)
    k = int(true.max()) + 1
    flipped = rng.choice(len(true), round(rate * len(true)), replace=False)
    labels = true.copy()
    labels[flipped] = (labels[flipped] + rng.integers(1, k, len(flipped))) % k
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return labels, cross_val_predict(model, x, labels, cv=folds, method="predict_proba")


class TestKnownTruth:
    def test_a_perfect_model_of_the_noise_gives_transition_and_posterior_back(self):
        q, true, T, labels, probs = known_truth(n=20_000)
        fitted = fit_posterior(labels, probs)
        exact = bayes(q, T, labels)
        assert fitted.has_signal
        # calibrated probabilities cannot tell T from no noise by likelihood: the mean of both readings is the hedge
        assert total_variation(fitted.transition, T) < 0.2
        assert np.abs(label_posterior(labels, probs) - exact).mean() < 0.08
        best, found, naive = (
            average_precision_score(labels != true, -score)
            for score in (self_confidence(labels, exact), fitted.label_quality, self_confidence(labels, probs))
        )
        assert naive + 0.18 < best - 0.05 < found

    @pytest.mark.parametrize("rate", [0.05, 0.2, 0.4])
    def test_a_misfit_model_of_the_noise_is_seen_through(self, rate):
        true, T, labels, probs = blobs(rate=rate)
        fitted = fit_posterior(labels, probs)
        wrong = labels != true
        assert fitted.has_signal
        assert total_variation(fitted.transition, T) < 0.05
        naive = average_precision_score(wrong, -self_confidence(labels, probs))
        assert 1 - average_precision_score(wrong, fitted.wrong) < (1 - naive) / 2
        assert fitted.wrong.mean() == pytest.approx(wrong.mean(), abs=0.05)
        assert np.mean(fitted.suggested == true) > np.mean(probs.argmax(axis=1) == true) - 0.01

    @pytest.mark.parametrize("power", [1, 3])
    def test_probabilities_of_a_model_that_learned_cleaned_labels_need_no_hint(self, power):
        q, true, T, labels, _ = known_truth(sharpness=0.3)
        probs = q**power / (q**power).sum(axis=1, keepdims=True)  # 3: overconfident
        fitted = fit_posterior(labels, probs)
        assert total_variation(fitted.transition, T) < 0.1
        exact = bayes(q, T, labels)
        best = average_precision_score(labels != true, -self_confidence(labels, exact))
        assert average_precision_score(labels != true, fitted.wrong) > best - 0.03
        assert fitted.wrong.mean() == pytest.approx(np.mean(labels != true), abs=0.07)

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


class TestNoRefusal:
    @pytest.mark.parametrize("seed", range(5))
    def test_where_there_is_no_noise_nearly_nothing_looks_wrong(self, seed):
        rng = np.random.default_rng(seed)
        q = rng.dirichlet(np.full(4, 0.3), 3000)
        labels = (rng.random(3000)[:, None] > q.cumsum(axis=1)).sum(axis=1).clip(max=3)
        probs = np.sqrt(q) / np.sqrt(q).sum(axis=1, keepdims=True)  # too little confidence looks like noise
        fitted = fit_posterior(labels, probs)
        assert 1 - self_confidence(labels, probs).mean() > 0.5
        assert fitted.wrong.mean() < 0.02
        assert flags_of(fitted).sum() <= 1

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

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(3))
    def test_few_wrong_labels_among_confident_predictions_are_found(self, seed):
        """Breast cancer, 5 % flipped: the former fallback flagged nothing in one draw and said .4 % noise."""
        x, true = load_breast_cancer(return_X_y=True)
        labels, probs = confident(x, true, 0.05, seed)
        fitted = fit_posterior(labels, probs)
        wrong = labels != true
        flags = flags_of(fitted)
        assert fitted.wrong.mean() == pytest.approx(0.05, abs=0.02)
        assert 2 * (flags & wrong).sum() / (flags.sum() + wrong.sum()) > 0.7


class TestStability:
    @pytest.mark.slow
    def test_a_lone_label_of_a_class_nobody_else_has_changes_nothing_else(self):
        x, true = load_digits(return_X_y=True)
        labels, probs = confident(x, true, 0.05, 7)
        with_eleven = np.column_stack([probs, np.zeros(len(probs))])
        lone = labels.copy()
        lone[100] = 10
        usual, other = fit_posterior(labels, probs), fit_posterior(lone, with_eleven)
        assert flags_of(other).sum() == pytest.approx(flags_of(usual).sum(), rel=0.05)
        assert other.wrong.mean() == pytest.approx(usual.wrong.mean(), rel=0.05)
        assert other.label_quality[100] == pytest.approx(0.5)
        np.testing.assert_allclose(np.delete(other.wrong, 100), np.delete(usual.wrong, 100), atol=0.05)

    @pytest.mark.slow
    def test_a_row_less_moves_flags_and_noise_rate_by_a_few_per_cent_at_most(self):
        x, true = load_digits(return_X_y=True)
        labels, probs = confident(x, true, 0.05, 8)
        usual = fit_posterior(labels, probs)
        for row in (0, 700, 1400):
            kept = np.delete(np.arange(len(labels)), row)
            fewer = fit_posterior(labels[kept], probs[kept])
            assert flags_of(fewer).sum() == pytest.approx(flags_of(usual).sum(), rel=0.04)
            assert fewer.wrong.mean() == pytest.approx(usual.wrong.mean(), rel=0.03)

    def test_the_order_of_the_images_does_not_matter(self):
        _, _, labels, probs = blobs(n=1500)
        order = np.random.default_rng(0).permutation(1500)
        usual, other = fit_posterior(labels, probs), fit_posterior(labels[order], probs[order])
        np.testing.assert_allclose(other.label_quality, usual.label_quality[order], atol=1e-6)


class TestEdges:
    def check(self, labels, probs):
        fitted = fit_posterior(labels, probs)
        posterior = label_posterior(labels, probs)
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
        assert isinstance(fitted.model, NoiseModel)
        before = fitted.model.before_label(np.asarray(probs)[:50].clip(0, 1))
        np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-5)
        assert before.min() >= 0
        return fitted

    @pytest.mark.parametrize("signal", [False, True])
    @pytest.mark.parametrize("k", [2, 3, 40])
    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 10**6), st.integers(4, 100), st.sampled_from([0.01, 0.3, 3.0]))
    def test_any_probabilities_give_a_posterior(self, k, signal, seed, n, sharpness):
        rng = np.random.default_rng(seed)
        probs = rng.dirichlet(np.full(k, sharpness), n)
        probs[np.abs(probs.sum(axis=1) - 1) > 1e-6] = np.eye(k)[0]
        labels = probs.argmax(axis=1) if signal else rng.integers(k, size=n)
        labels[:2] = [0, 1]
        self.check(labels, probs)

    @pytest.mark.parametrize("k", [4, 40])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_certain_probabilities(self, k, dtype):
        rng = np.random.default_rng(0)
        predicted = rng.integers(k, size=400)
        labels = np.where(rng.random(400) < 0.1, (predicted + 1) % k, predicted)
        fitted = self.check(labels, np.eye(k, dtype=dtype)[predicted])
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
        assert np.abs(fitted.transition - T).max() < 0.15
        assert fitted.transition[1, 0] > 2 * fitted.transition[0, 1]

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
            (np.full((3, 2), 0.5), "labels has 4 rows, but pred_probs has 3"),
            (np.full(4, 0.5), "pred_probs has shape (4,)"),
        ],
    )
    def test_what_is_no_probability_is_refused(self, probs, said):
        with pytest.raises(InputError) as refusal:
            fit_posterior([0, 1, 0, 1], probs)
        assert said in str(refusal.value)

    def test_a_label_beyond_the_columns_is_refused(self):
        with pytest.raises(InputError, match=r"labels\[1\] is 2"):
            fit_posterior([0, 2], np.full((2, 2), 0.5))

    def test_a_class_that_one_fold_never_saw_is_judged_all_the_same(self):
        true, _, labels, probs = blobs(n=1500)
        probs[:500, 3] = 0  # the model of the first fold had no image of it
        probs[:500] /= probs[:500].sum(axis=1, keepdims=True)
        fitted = self.check(labels, probs)
        wrong = labels != true
        assert average_precision_score(wrong[500:], fitted.wrong[500:]) > 0.9


class TestMechanics:
    @pytest.mark.parametrize("k", [6, 40])
    def test_the_same_again_and_whatever_the_chunks(self, k, monkeypatch):
        _, _, labels, probs = blobs(n=700)
        probs = np.pad(probs, ((0, 0), (0, k - 6)))
        first, posterior = fit_posterior(labels, probs), label_posterior(labels, probs)
        monkeypatch.setattr(base, "_CHUNK_VALUES", 37 * k)
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

    @pytest.mark.parametrize("k", [6, 40])
    def test_the_alternative_is_the_best_class_but_the_given(self, k):
        _, _, labels, probs = blobs(n=700)
        probs = np.pad(probs, ((0, 0), (0, k - 6)))
        fitted, posterior = fit_posterior(labels, probs), label_posterior(labels, probs).astype(float)
        posterior[np.arange(700), labels] = -1
        assert (fitted.alternative != labels).all()
        np.testing.assert_allclose(fitted.alternative_prob, posterior.max(axis=1), atol=1e-6)
        np.testing.assert_array_equal(fitted.alternative, posterior.argmax(axis=1))

    def test_more_than_32_classes_are_fitted_with_a_temperature(self):
        _, _, labels, probs = blobs(n=700)
        for k, kind in ((32, MeanModel), (33, TemperatureModel)):
            fitted = fit_posterior(labels, np.pad(probs, ((0, 0), (0, k - 6))))
            assert isinstance(fitted.model, kind)
