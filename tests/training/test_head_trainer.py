"""Heads on given features as fold trainers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics import average_precision_score

from cvcoteach._validation import InputError
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.kfold import cross_validate
from cvcoteach.crossval.trainer import BatchFoldTrainer, Fold
from cvcoteach.training import head_trainer
from cvcoteach.training import rows as rows_module
from cvcoteach.training.head_trainer import HEADS, HeadTrainer, load_features
from cvcoteach.training.loop import EpochReport
from cvcoteach.training.rows import Rows
from tests.features import K, clusters, folds_of


@pytest.mark.parametrize("head", HEADS)
class TestHeads:
    """What holds for both kinds of head."""

    def test_heads_trained_together_answer_as_each_by_itself(self, head):
        X, labels = clusters()
        trainer = HeadTrainer(X, K, head)
        folds = folds_of(labels)
        folds.append(Fold(folds[0].train_idx[:60], folds[0].train_labels[:60], folds[0].eval_idx, 3))  # much smaller
        together = trainer.fit_predict_many(folds)
        for fold, answer in zip(folds, together, strict=True):
            np.testing.assert_allclose(answer, trainer.fit_predict(*fold), atol=2e-5)

    def test_heads_with_little_in_common_answer_as_each_by_itself(self, head):
        X, labels = clusters()
        trainer = HeadTrainer(X, K, head)
        folds = folds_of(labels, n_folds=2)
        for fold, answer in zip(folds, trainer.fit_predict_many(folds), strict=True):
            np.testing.assert_allclose(answer, trainer.fit_predict(*fold), atol=2e-5)

    @pytest.mark.parametrize("n_train", [5, 40])
    def test_batches_without_an_image_of_a_head_do_not_tie_it_to_its_neighbours(self, head, n_train):
        X, labels = clusters()
        rng = np.random.default_rng(0)
        drawn = [rng.choice(600, n_train, replace=False) for _ in range(3)]
        folds = [Fold(train, labels[train], np.arange(600), i) for i, train in enumerate(drawn)]
        trainer = HeadTrainer(X, K, head, batch_size=1)
        for fold, answer in zip(folds, trainer.fit_predict_many(folds), strict=True):
            np.testing.assert_allclose(answer, trainer.fit_predict(*fold), atol=2e-5)

    def test_the_labels_of_other_heads_do_not_matter(self, head):
        X, labels = clusters()
        trainer = HeadTrainer(X, K, head)
        first, second, _ = folds_of(labels)
        turned = second._replace(train_labels=(second.train_labels + 1) % K)
        plain, other = trainer.fit_predict_many([first, second])[0], trainer.fit_predict_many([first, turned])[0]
        np.testing.assert_allclose(plain, other, atol=2e-5)

    def test_a_held_out_label_has_no_influence(self, head):
        X, labels = clusters()
        held_out = folds_of(labels)[0].eval_idx
        turned = labels.copy()
        turned[held_out] = (turned[held_out] + 1) % K
        trainer = HeadTrainer(X, K, head)
        answers = [trainer.fit_predict_many(folds_of(y))[0] for y in (labels, turned)]
        np.testing.assert_allclose(*answers, atol=2e-5)  # the neighbours' rounding
        alone = [trainer.fit_predict(*folds_of(y)[0]) for y in (labels, turned)]
        np.testing.assert_array_equal(*alone)

    def test_the_same_seed_gives_the_same_answer(self, head):
        X, labels = clusters()
        answers = [cross_validate(HeadTrainer(X, K, head), labels, seed=3) for _ in range(2)]
        np.testing.assert_array_equal(*answers)

    def test_a_class_without_training_images_keeps_its_column_and_stays_improbable(self, head):
        X, labels = clusters()
        index = np.flatnonzero(labels != 2)
        answer = HeadTrainer(X, K, head).fit_predict(index, labels[index], np.arange(50), 0)
        assert answer.shape == (50, K)
        np.testing.assert_allclose(answer.sum(axis=1), 1, atol=1e-5)
        assert answer[:, 2].mean() < 0.05

    def test_handwritten_digits_are_read(self, head):
        X, labels = load_digits(return_X_y=True)
        probs = cross_validate(HeadTrainer(X, 10, head), labels, seed=0)
        assert (probs.argmax(axis=1) == labels).mean() > 0.94
        given = probs[np.arange(len(labels)), labels]
        assert -np.log(given).mean() < 0.25

    def test_a_float16_memory_map_is_read_in_pieces_and_answers_the_same(self, head, tmp_path, monkeypatch):
        X, labels = clusters()
        np.save(tmp_path / "features.npy", X.astype(np.float16))
        monkeypatch.setattr(rows_module, "_CHUNK", 64)
        whole = HeadTrainer(X.astype(np.float16), K, head, device="cpu")
        read = Rows._read
        reads: list[int] = []
        monkeypatch.setattr(Rows, "_read", lambda rows, wanted: reads.append(len(wanted)) or read(rows, wanted))
        monkeypatch.setattr(rows_module, "_RESIDENT", 0)
        mapped = load_features(tmp_path / "features.npy")
        assert isinstance(mapped, np.memmap)
        streamed = HeadTrainer(mapped, K, head, device="cpu")
        assert not reads
        from_memory = whole.fit_predict_many(folds_of(labels))
        assert not reads, "all of it is in memory"
        from_disk = streamed.fit_predict_many(folds_of(labels))
        assert reads, "batch by batch"
        assert max(reads) < len(X)
        for a, b in zip(from_memory, from_disk, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-5)


def test_the_seed_draws_an_mlp_and_nothing_of_a_linear_head():
    X, labels = clusters()
    first = folds_of(labels)[0]
    for head, differs in (("linear", False), ("mlp", True)):
        trainer = HeadTrainer(X, K, head)
        a, b = trainer.fit_predict(*first), trainer.fit_predict(*first._replace(seed=99))
        assert bool(np.abs(a - b).max() > 1e-3) is differs


def test_one_call_trains_a_whole_round_and_every_epoch_is_told():
    X, labels = clusters()
    told: list[EpochReport] = []
    trainer = HeadTrainer(X, K, epochs=30, on_epoch=told.append)
    assert isinstance(trainer, BatchFoldTrainer)
    trainer.fit_predict_many(folds_of(labels))
    assert [report.epoch for report in told] == list(range(1, 31))
    assert told[-1].loss < told[0].loss < np.log(K)
    assert all(report.n_epochs == 30 and report.images_per_second > 0 for report in told)


def test_scale_offset_and_empty_columns_of_the_features_do_not_matter():
    X, labels = clusters()
    odd = np.hstack([X * 1000 + 5000, np.full((len(X), 1), 0.1)])
    plain, other = (cross_validate(HeadTrainer(x, K, learning_rate=x.shape[1] / 10), labels) for x in (X, odd))
    # the bound on long rows counts columns, the empty one too
    assert (plain.argmax(axis=1) == other.argmax(axis=1)).mean() > 0.98


def test_incv_on_heads_finds_planted_errors():
    X, true = load_digits(return_X_y=True)
    rng = np.random.default_rng(0)
    labels, wrong = true.copy(), rng.choice(len(true), 180, replace=False)
    labels[wrong] = (labels[wrong] + rng.integers(1, 10, 180)) % 10
    result = IterativeCV("agreement").run(HeadTrainer(X, 10), labels)
    assert (labels == true)[result.selected].mean() > 0.99
    assert (~result.selected)[wrong].mean() > 0.95
    result = IterativeCV().run(HeadTrainer(X, 10), labels)
    assert (labels == true)[~result.flags].mean() > 0.98
    assert average_precision_score(labels != true, result.posterior.wrong) > 0.98


def test_more_images_than_rows_of_features_is_a_sentence():
    X, _ = clusters(100)
    _, labels = clusters(120)
    with pytest.raises(InputError, match=r"features has 100 rows, but image 11[0-9] is asked for"):
        cross_validate(HeadTrainer(X, K), labels)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"head": "lineer"}, "head is 'lineer'; did you mean linear"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": 0}, "learning_rate is 0"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"hidden": 0}, "hidden is 0"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"n_classes": 1}, "n_classes is 1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, sentence):
    X, _ = clusters(20)
    with pytest.raises(InputError, match=sentence):
        HeadTrainer(X, **({"n_classes": K} | settings))


class TestLoadFeatures:
    """Files of features."""

    def test_a_missing_file_is_a_sentence(self, tmp_path):
        with pytest.raises(InputError, match=r"none\.npy does not exist"):
            load_features(tmp_path / "none.npy")

    def test_what_is_not_a_npy_file_is_a_sentence(self, tmp_path):
        (tmp_path / "a.npy").write_text("1,2,3")
        with pytest.raises(InputError, match=r"a\.npy is not a \.npy file of numbers"):
            load_features(tmp_path / "a.npy")
        (tmp_path / "empty.npy").touch()
        with pytest.raises(InputError, match=r"empty\.npy is not a \.npy file"):
            load_features(tmp_path / "empty.npy")

    def test_pickled_objects_are_never_loaded(self, tmp_path):
        np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
        with pytest.raises(InputError, match=r"a\.npy is not a \.npy file of numbers"):
            load_features(tmp_path / "a.npy")

    def test_several_arrays_are_a_sentence(self, tmp_path):
        np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)))
        with pytest.raises(InputError, match=r"a\.npz holds several arrays"):
            load_features(tmp_path / "a.npz")

    def test_one_dimension_is_a_sentence(self, tmp_path):
        np.save(tmp_path / "a.npy", np.zeros(3))
        with pytest.raises(InputError, match=r"a\.npy has shape \(3,\)"):
            load_features(tmp_path / "a.npy")


def test_features_of_another_shape_are_refused_by_the_trainer_too():
    with pytest.raises(InputError, match=r"features has shape \(5,\); it takes one row of numbers per image"):
        HeadTrainer(np.zeros(5), K)


def test_answers_of_many_classes_are_computed_as_they_are_read(monkeypatch):
    X, labels = clusters()
    folds = folds_of(labels)
    whole = HeadTrainer(X, K).fit_predict_many(folds)
    monkeypatch.setattr(head_trainer, "many", lambda n, n_classes: True)
    for fold, expected, answer in zip(folds, whole, HeadTrainer(X, K).fit_predict_many(folds), strict=True):
        assert not isinstance(answer, np.ndarray)
        assert answer.shape == (len(fold.eval_idx), K)
        np.testing.assert_allclose(answer[10:20], expected[10:20], atol=1e-6)
        np.testing.assert_array_equal(np.asarray(answer), expected)
    assert isinstance(HeadTrainer(X, K).fit_predict(*folds[0]), np.ndarray)


# -- captured steps ----------------------------------------------------------------------------------------------


def answers_of(head, captured, *, share=1.0, **options):
    X, labels = clusters(300, seed=3)
    rng = np.random.default_rng(0)
    every = rng.permutation(300)[: round(300 * share)]
    asked = [
        Fold(np.sort(part), labels[np.sort(part)], np.arange(0, 300, 7), seed)
        for seed, part in enumerate(
            [np.delete(every, np.arange(k, len(every), 3)) if head == "linear" else every[k::3] for k in range(3)]
        )
    ]
    losses = []
    trainer = HeadTrainer(
        X,
        K,
        head,
        device="cpu",
        threads=1,
        captured=captured,
        on_epoch=lambda report: losses.append(report.loss),
        **options,
    )
    return trainer.fit_predict_many(asked), losses


@pytest.mark.parametrize("share", [1.0, 0.6], ids=["all rows", "some rows"])
@pytest.mark.parametrize("head", HEADS)
def test_captured_heads_are_those_of_eager_steps(head, share):
    (eager, eager_losses), (captured, losses) = (
        answers_of(head, False, share=share),
        answers_of(head, True, share=share),
    )
    for one, other in zip(eager, captured, strict=True):
        np.testing.assert_allclose(other, one, atol=1e-4)
    np.testing.assert_allclose(losses, eager_losses, rtol=1e-4)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_heads_share_less_memory_where_it_runs_out(error, monkeypatch):
    together = []
    train = HeadTrainer._train

    def crowded(self, folds, n_batches):
        together.append((len(folds), n_batches))
        if len(folds) > 1 or n_batches == together[0][1]:
            raise error
        return train(self, folds, n_batches)

    monkeypatch.setattr(HeadTrainer, "_train", crowded)
    notes = []
    answers, _ = answers_of("linear", None, note=notes.append)
    assert [np.shape(answer) for answer in answers] == [(43, K)] * 3
    n = together[0][1]
    assert notes == [
        "the memory of cpu is full: 1 of 3 heads at the same time.",
        f"the memory of cpu is full: {2 * n} batches, not {n}.",
        "the memory of cpu is full: 1 of 2 heads at the same time.",
        f"the memory of cpu is full: {2 * n} batches, not {n}.",
        f"the memory of cpu is full: {2 * n} batches, not {n}.",
    ]
