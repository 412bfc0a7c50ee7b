"""Probabilities of many classes are kept without a column for each, and mean the same."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.cleanlab.filter import find_label_issues
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.issues.from_posterior import issues_of
from cvcoteach.issues.label_issues import LabelIssues, pairs_counted, sample_weights
from cvcoteach.noise_model import base, no_signal, sparse_transition, temperature
from cvcoteach.noise_model import top_probs as top_probabilities
from cvcoteach.noise_model.posterior import Posterior, fit_posterior, noise_transition
from cvcoteach.noise_model.sparse_transition import SparseTransition
from cvcoteach.noise_model.temperature import TemperatureModel
from cvcoteach.noise_model.top_probs import MANY_CLASSES, N_KEPT, TopProbs, latest, many, mean_of, top_probs
from tests.fakes import Table


def confused(n=600, k=300, seed=0):
    """Labels of which a tenth is the next class, and probabilities that often know better."""
    rng = np.random.default_rng(seed)
    true = np.arange(n) % k
    logits = rng.standard_normal((n, k))
    logits[np.arange(n), true] += rng.normal(9, 2, n)
    probs = np.exp(logits - logits.max(axis=1, keepdims=True))
    labels = np.where(rng.random(n) < 0.1, (true + 1) % k, true)
    return labels, (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def few_are_many(monkeypatch):
    """Take more than 200 classes for many, so that tests are quick."""
    for module in (temperature, top_probabilities):
        monkeypatch.setattr(module, "MANY_CLASSES", 200)


def test_the_largest_of_each_row_and_that_of_the_label_are_kept_exactly_and_rows_keep_their_sum():
    labels, probs = confused()
    least = probs.argmin(axis=1)
    top = top_probs(probs, least)
    assert top.shape == probs.shape
    assert top.values.shape == (600, N_KEPT)
    assert np.array_equal(top.at(least), probs.min(axis=1))
    assert np.array_equal(top.at(labels)[:50], top[:50][np.arange(50), labels[:50]])
    assert np.array_equal(top.argmax(axis=1), probs.argmax(axis=1))
    assert np.array_equal(top.max(axis=1), probs.max(axis=1))
    whole = np.asarray(top)
    assert np.allclose(whole.sum(axis=1), probs.sum(axis=1), atol=1e-6)
    largest = np.argsort(-probs, axis=1)[:, : N_KEPT - 1]
    assert np.array_equal(np.take_along_axis(whole, largest, 1), np.take_along_axis(probs, largest, 1))


def test_the_posterior_is_that_of_all_probabilities():
    labels, probs = confused()
    whole, kept = fit_posterior(labels, probs), fit_posterior(labels, top_probs(probs, labels))
    assert whole.has_signal
    assert kept.note == whole.note
    assert np.array_equal(kept.label_quality, whole.label_quality)
    assert np.array_equal(kept.suggested, whole.suggested)
    assert np.allclose(kept.alternative_prob, whole.alternative_prob)


@pytest.mark.parametrize("sharp", [0.02, 1.0, 50.0])
def test_the_best_two_classes_are_those_of_the_whole_posterior(sharp):
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(40, sharp), 3000).astype(np.float32)
    labels = np.where(rng.random(3000) < 0.7, probs.argmax(axis=1), rng.integers(40, size=3000))
    likely = temperature.Likely.of(labels, probs)
    model = temperature.fit_temperature(likely, 40)
    found = model.two_best(labels, probs)
    for ours, theirs in zip(found, base.two_best(model.posterior(labels, probs), labels), strict=True):
        assert np.array_equal(ours, theirs)


def test_a_sparse_transition_is_the_whole_one(monkeypatch):
    labels, probs = confused(k=60)
    whole = noise_transition(labels, probs)
    monkeypatch.setattr(temperature, "MANY_CLASSES", 50)
    sparse = noise_transition(labels, probs)
    assert isinstance(sparse, SparseTransition)
    assert sparse.shape == whole.shape
    assert np.allclose(np.asarray(sparse), whole, atol=1e-15)
    assert np.allclose(sparse.diagonal(), np.diag(whole), atol=1e-15)
    again = SparseTransition.of_arrays(sparse.arrays(), 60)
    assert np.array_equal(np.asarray(again), np.asarray(sparse))
    with pytest.raises(ValueError, match="pairs of other classes"):
        SparseTransition.of_arrays({**sparse.arrays(), "pairs": sparse.pairs + 3600}, 60)


def test_where_there_is_no_signal_the_transition_of_many_classes_is_the_sparse_identity():
    model = no_signal.NoSignalModel(np.full(MANY_CLASSES + 1, 1 / (MANY_CLASSES + 1)))
    assert np.array_equal(np.asarray(model.transition()), np.eye(MANY_CLASSES + 1))


def test_issues_of_many_classes_are_saved_and_read_with_their_sparse_transition(tmp_path, few_are_many):
    k = 300
    labels, probs = confused(2 * k, k)
    issues = issues_of(fit_posterior(labels, top_probs(probs, labels)))
    issues.save(tmp_path / "issues.npz")
    again = LabelIssues.load(tmp_path / "issues.npz")
    assert again.n_classes == k
    assert np.array_equal(again.transition.diagonal(), issues.transition.diagonal())
    assert np.array_equal(sample_weights(again), sample_weights(issues))
    assert issues.confident_joint.sum() == 2 * k


def test_no_array_has_a_cell_for_each_pair_of_many_classes():
    k = 6_000
    rng = np.random.default_rng(0)
    labels = np.arange(2 * k) % k
    classes = (labels[:, None] + np.arange(N_KEPT)) % k
    values = rng.dirichlet(np.full(N_KEPT, 0.1), 2 * k).astype(np.float32)
    order = np.argsort(classes, axis=1)
    kept = np.take_along_axis(classes, order, 1).astype(np.int32), np.take_along_axis(values, order, 1)
    probs = TopProbs(*kept, np.zeros(2 * k, np.float32), k)
    tracemalloc.start()
    try:
        issues = issues_of(fit_posterior(labels, probs))
        issues.confusions()
        sample_weights(issues)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(issues.transition, SparseTransition)
    assert peak < 8 * k * k / 2


def test_a_matrix_that_the_memory_does_not_hold_ends_in_a_sentence(monkeypatch):
    monkeypatch.setattr("cvcoteach._memory.available", lambda: 1_000_000)
    sparse = SparseTransition(np.ones(3000), np.zeros(3000), np.array(1.0), np.zeros(0, np.int64), np.zeros(0))
    with pytest.raises(InputError, match=r"a matrix of 3,000 by 3,000 classes takes 0.2 GB of memory; 0.0 GB are free"):
        sparse_transition.dense(sparse)
    labels, probs = confused(5000, 40)
    with pytest.raises(InputError, match="the posterior of 5,000 images takes"):
        find_label_issues(labels, probs, filter_by="posterior")


def test_records_are_read_as_they_were_written_and_others_are_refused():
    labels, probs = confused()
    records = top_probs(probs, labels).records()
    assert np.array_equal(np.asarray(TopProbs.of_records(records)), np.asarray(top_probs(probs, labels)))
    for name, value in (("classes", 0), ("values", np.nan), ("rest", np.inf), ("n_others", -5)):
        odd = records.copy()
        odd[name] = value
        with pytest.raises(ValueError, match="records"):
            TopProbs.of_records(odd)
    for other in (records[:0], records[["classes", "values"]], np.zeros(3, [("classes", "<i4")])):
        with pytest.raises(ValueError, match="hold no probabilities"):
            TopProbs.of_records(other)


def test_the_mean_and_the_latest_of_several_are_those_of_the_arrays():
    labels, probs = confused()
    other = confused(seed=1)[1]
    parts = [top_probs(each, labels) for each in (probs, other)]
    mean = mean_of(parts, labels)
    assert np.allclose(mean.max(axis=1), ((probs + other) / 2).max(axis=1), atol=1e-6)
    rows = np.arange(0, 600, 3)
    found = latest([(np.arange(600), parts[0]), (rows, parts[1].rows(rows))])
    assert np.array_equal(found.at(labels)[rows], parts[1].at(labels)[rows])
    assert np.array_equal(found.at(labels)[1::3], parts[0].at(labels)[1::3])


@pytest.mark.parametrize("select", ["posterior", "agreement"])
def test_rounds_on_many_classes_keep_no_column_for_each(select, few_are_many):
    k = 300
    labels, probs = confused(2 * k, k)
    folds: dict = {}
    result = IterativeCV(select=select).run(Table(probs), labels, n_classes=k, finished=folds)
    assert isinstance(result.pred_probs, TopProbs)
    assert all(isinstance(fold, TopProbs) for fold in folds.values())
    assert all(isinstance(each.pred_probs, TopProbs) for each in result.rounds)
    assert np.array_equal(result.pred_probs.argmax(axis=1), probs.argmax(axis=1))
    assert result.flags.sum() > 0.05 * len(labels)
    again = IterativeCV(select=select).run(Table(probs[:, ::-1]), labels, n_classes=k, finished=folds)
    assert np.array_equal(again.posterior.label_quality, result.posterior.label_quality)


def test_pairs_of_many_classes_are_counted_sparsely():
    rows, columns = np.array([5, 5, 7]), np.array([1, 1, 7])
    counted = pairs_counted(rows, columns, MANY_CLASSES + 1)
    assert (counted[5, 1], counted[7, 7], counted.sum(), counted.nnz) == (2, 1, 3, 2)
    assert np.array_equal(counted[:10][:, :10].toarray(), pairs_counted(rows, columns, 10))


def test_a_posterior_without_a_model_of_temperature_finds_the_same_best_classes():
    labels, probs = confused(k=200)
    fitted = fit_posterior(labels, probs)
    assert isinstance(fitted.model, TemperatureModel)
    plain = replace(fitted, model=no_signal.NoSignalModel(np.full(200, 1 / 200)))
    assert isinstance(plain, Posterior)
    assert np.array_equal(plain.suggested, probs.argmax(axis=1))


def test_a_few_hundred_classes_of_very_many_images_are_kept_as_many_classes_are(monkeypatch):
    assert not many(1_000_000, 250)
    assert not many(100_000, 1_000)
    assert many(1_000_000, 1_000)
    assert many(10, MANY_CLASSES + 1)
    labels, probs = confused(1200)
    plain = IterativeCV().run(Table(probs), labels, n_classes=300)
    monkeypatch.setattr(top_probabilities, "_MOST_WHOLE", 1000)
    result = IterativeCV().run(Table(probs), labels, n_classes=300)
    assert isinstance(plain.pred_probs, np.ndarray)
    assert isinstance(result.pred_probs, TopProbs)
    np.testing.assert_allclose(result.posterior.label_quality, plain.posterior.label_quality, atol=1e-6)
    with pytest.raises(InputError, match="300 classes of 1,200 images are too many probabilities to fuse"):
        IterativeCV().run([Table(probs), Table(probs)], labels, n_classes=300)
