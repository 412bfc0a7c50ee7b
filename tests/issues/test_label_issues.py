"""LabelIssues: what it says, the frames it gives, and its file."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.unpacking import unpack_limit
from cvcoteach.issues.flags import FlagRule, flags_of_best_f1
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.issues.label_issues import LabelIssues, sample_weights


def noisy_data(n: int = 600, n_classes: int = 4, rate: float = 0.2, seed: int = 0):
    """Given labels (n,), out-of-sample-like probabilities (n, K) and true labels (n,): pair noise, a decent model."""
    rng = np.random.default_rng(seed)
    true = rng.integers(n_classes, size=n)
    given = np.where(rng.random(n) < rate, (true + 1) % n_classes, true)
    logits = 3 * (3 * np.eye(n_classes)[true] + rng.normal(size=(n, n_classes)))  # Bayes: it knows the clean posterior
    clean = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    transition = (1 - rate) * np.eye(n_classes) + rate * np.roll(np.eye(n_classes), 1, axis=1)
    return given, (clean @ transition).astype(np.float32), true


def issues_of(
    labels: list[int], quality: list[float], suggested: list[int], flags: list[bool] | None = None, k: int = 3
) -> LabelIssues:
    """Hand-made issues with a uniform transition off the diagonal."""
    transition = np.full((k, k), 0.1 / (k - 1))
    np.fill_diagonal(transition, 0.9)
    q = np.array(quality)
    return LabelIssues(
        labels=np.array(labels),
        predicted=np.array(suggested),
        label_quality=q,
        is_label_issue=q < 0.5 if flags is None else np.array(flags),
        suggested=np.array(suggested),
        suggested_prob=np.maximum(q, 1 - q),
        transition=transition,
        prior=np.full(k, 1 / k),
        class_names=("cat", "dog", "owl")[:k],
        filter_by="posterior",
        has_signal=True,
        note="",
    )


def test_as_many_labels_are_flagged_as_give_the_best_expected_f1():
    given, probs, true = noisy_data()
    issues = posterior_issues(given, probs)
    assert np.array_equal(issues.is_label_issue, flags_of_best_f1(issues.wrong))
    assert np.array_equal(issues.wrong, 1 - issues.label_quality)
    assert (issues.is_label_issue == (given != true)).mean() > 0.95
    assert abs(issues.noise_ratio - (given != true).mean()) < 0.04
    assert (issues.filter_by, issues.flag_for) == ("posterior", "f1")


def test_probably_wrong_is_what_is_above_one_half_and_worth_a_look_what_is_flagged():
    given, probs, _ = noisy_data()
    issues = posterior_issues(given, probs)
    assert issues.n_probably_wrong == (issues.wrong > 0.5).sum()
    assert issues.n_worth_a_look == issues.n_issues == issues.is_label_issue.sum()
    assert issues.n_probably_wrong <= issues.n_worth_a_look


@pytest.mark.parametrize("rule", [FlagRule("precision"), FlagRule("recall"), FlagRule(min_probability=0.9)])
def test_another_rule_gives_other_flags_of_the_same_probabilities(rule):
    given, probs, _ = noisy_data()
    usual, other = posterior_issues(given, probs), posterior_issues(given, probs, rule=rule)
    assert np.array_equal(other.label_quality, usual.label_quality)
    assert np.array_equal(other.is_label_issue, rule.flags(usual.wrong))
    assert other.flag_for == str(rule)
    assert (other.suggested != given)[other.is_label_issue].all()


def blind_data(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,), and probabilities that know nothing about them."""
    rng = np.random.default_rng(0)
    return rng.integers(10, size=n), rng.dirichlet(np.ones(10), n).astype(np.float32)


def test_without_a_signal_nothing_is_flagged_and_no_noise_rate_is_given():
    labels, probs = blind_data()
    issues = posterior_issues(labels, probs)
    assert not issues.has_signal
    assert not issues.fits
    assert issues.n_issues == issues.n_probably_wrong == issues.n_worth_a_look == 0
    assert np.isnan(issues.noise_ratio)
    assert np.isnan(issues.noise_ratio_per_class).all()
    assert np.array_equal(sample_weights(issues), np.ones(600))
    assert issues.note.startswith("The labels carry no signal that these models can see: ")
    assert np.array_equal(issues.confident_joint, np.diag(np.bincount(labels)))


def test_of_a_class_nobody_gave_no_noise_ratio_is_given():
    issues = issues_of([0, 0, 1], [0.5, 0.7, 0.2], [1, 0, 0])
    assert issues.noise_ratio_per_class[:2] == pytest.approx([0.4, 0.8])
    assert np.isnan(issues.noise_ratio_per_class[2])


def test_worst_first_lists_the_flagged_by_quality_and_ties_in_order():
    issues = issues_of([0, 1, 2, 0], [0.4, 0.1, 0.9, 0.1], [1, 2, 2, 1])
    assert issues.worst_first().tolist() == [1, 3, 0]
    assert issues.worst_first(flagged_only=False).tolist() == [1, 3, 0, 2]
    assert issues.worst_first().dtype == np.int64
    assert issues.n_issues == 3


def test_confusions_count_flags_by_given_and_suggested_class():
    issues = issues_of([0, 0, 1, 0, 2, 2], [0.2, 0.4, 0.3, 0.9, 0.45, 0.8], [1, 1, 0, 0, 2, 2])
    frame = issues.confusions()
    assert frame.columns.tolist() == ["given", "suggested", "count", "share", "mean_wrong"]
    assert frame[["given", "suggested", "count"]].to_numpy().tolist() == [["cat", "dog", 2], ["dog", "cat", 1]]
    assert frame["share"].tolist() == pytest.approx([2 / 3, 1])
    assert frame["mean_wrong"].tolist() == pytest.approx([0.7, 0.7])


def test_confusions_of_nothing_flagged_are_an_empty_frame():
    frame = issues_of([0, 1], [0.9, 0.8], [0, 1]).confusions()
    assert len(frame) == 0
    assert frame.columns.tolist() == ["given", "suggested", "count", "share", "mean_wrong"]


def test_noise_ratio_per_class_is_that_of_the_given_class_and_nan_without_images():
    per_class = issues_of([0, 0, 1], [0.2, 0.8, 0.9], [1, 0, 1]).noise_ratio_per_class
    assert per_class[:2] == pytest.approx([0.5, 0.1])
    assert np.isnan(per_class[2])


def test_the_frame_starts_with_the_columns_and_dtypes_of_clean_learning():
    from cleanlab.classification import CleanLearning

    given, probs, _ = noisy_data()
    theirs = CleanLearning().find_label_issues(labels=given, pred_probs=probs.astype(np.float64))
    ours = posterior_issues(given, probs).to_frame()
    assert ours.columns[:4].tolist() == theirs.columns.tolist()
    assert ours.dtypes[:4].tolist() == theirs.dtypes.tolist()
    assert ours.index.equals(theirs.index)
    assert isinstance(ours.index, pd.RangeIndex)
    assert np.array_equal(ours["given_label"], theirs["given_label"])
    assert np.array_equal(ours["predicted_label"], theirs["predicted_label"])


def test_the_frame_names_the_classes():
    frame = issues_of([0, 2], [0.1, 0.9], [1, 2]).to_frame()
    assert frame["given_class"].tolist() == ["cat", "owl"]
    assert frame["suggested_class"].tolist() == ["dog", "owl"]
    assert frame["suggested_label"].dtype == np.int16


def test_the_confident_joint_has_the_given_counts_as_rows_in_whole_numbers():
    given, probs, true = noisy_data(2000)
    joint = posterior_issues(given, probs).confident_joint
    assert joint.dtype == np.int64
    assert np.array_equal(joint.sum(axis=1), np.bincount(given))
    truth = np.zeros((4, 4))
    np.add.at(truth, (given, true), 1)
    assert np.abs(joint - truth).max() < 60


def test_sample_weights_of_the_exact_posterior_give_every_class_its_true_size_back():
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=100000)
    given = np.where((true == 0) & (rng.random(100000) < 0.4), 1, true)  # class 0 loses 40 % to class 1
    logits = 2 * (2 * np.eye(2)[true] + rng.normal(size=(100000, 2)))
    clean = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    transition = np.array([[0.6, 0.4], [0, 1]])
    exact = clean * transition[:, given].T
    exact /= exact.sum(axis=1, keepdims=True)
    issues = replace(
        issues_of(given.tolist(), exact[np.arange(100000), given].tolist(), exact.argmax(axis=1).tolist(), k=2),
        transition=transition,
    )
    total = np.bincount(given, sample_weights(issues))
    assert np.bincount(given)[0] < 0.32 * 100000
    assert total / 100000 == pytest.approx([0.5, 0.5], abs=0.01)


def test_what_was_saved_comes_back_bit_for_bit(tmp_path):
    given, probs, _ = noisy_data()
    issues = posterior_issues(given, probs, class_names=["a", "b", "ç", "d"])
    issues.save(tmp_path / "issues.npz")
    back = LabelIssues.load(tmp_path / "issues.npz")
    for name, value in vars(issues).items():
        other = getattr(back, name)
        assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, name
        assert getattr(value, "dtype", None) == getattr(other, "dtype", None), name
    assert [path.name for path in tmp_path.iterdir()] == ["issues.npz"]


@pytest.mark.parametrize("fits", [True, False])
def test_a_file_of_the_former_format_is_read(tmp_path, fits):
    issues = issues_of([0, 1], [0.1, 0.9], [1, 1])
    issues.save(tmp_path / "issues.npz")
    with np.load(tmp_path / "issues.npz") as content:
        arrays = dict(content)
    header = json.loads(arrays.pop("header").tobytes())
    del header["has_signal"], header["flag_for"]
    header |= {"version": 1, "fits": fits}
    np.savez(tmp_path / "old.npz", header=np.frombuffer(json.dumps(header).encode(), np.uint8), **arrays)
    back = LabelIssues.load(tmp_path / "old.npz")
    assert back.has_signal is fits
    assert back.flag_for == ""
    assert np.array_equal(back.label_quality, issues.label_quality)


def test_a_file_of_a_later_format_is_refused(tmp_path):
    header = json.dumps({"format": "cvcoteach.LabelIssues", "version": 3}).encode()
    np.savez(tmp_path / "new.npz", header=np.frombuffer(header, np.uint8))
    with pytest.raises(InputError, match="was written in format 3; this version of cvcoteach reads 1 to 2"):
        LabelIssues.load(tmp_path / "new.npz")


def test_saving_keeps_the_name_it_was_given(tmp_path):
    issues_of([0, 1], [0.1, 0.9], [1, 1]).save(tmp_path / "labels.issues")
    assert (tmp_path / "labels.issues").exists()


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "issues.npz"
    issues_of([0, 1], [0.1, 0.9], [1, 1]).save(path)
    before = path.read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    with pytest.raises(OSError, match="No space"):
        issues_of([0, 1], [0.2, 0.9], [1, 1]).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["issues.npz"]


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04broken"])
def test_a_foreign_file_is_refused_in_a_sentence(tmp_path, content):
    path = tmp_path / "other.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.npz is no file written by LabelIssues\.save\."):
        LabelIssues.load(path)


def test_an_npz_of_something_else_and_a_pickle_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(3))
    with pytest.raises(InputError, match="no file written by"):
        LabelIssues.load(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", header=np.array([{"format": "x"}], dtype=object))
    with pytest.raises(InputError, match="no file written by"):
        LabelIssues.load(tmp_path / "b.npz")


def test_names_must_be_one_a_class_and_differ():
    given, probs, _ = noisy_data()
    with pytest.raises(InputError, match="class_names holds 2 names, but pred_probs has columns for 4 classes"):
        posterior_issues(given, probs, class_names=["a", "b"])
    with pytest.raises(InputError, match="class_names holds 'a' twice"):
        posterior_issues(given, probs, class_names=["a", "b", "a", "c"])


def test_the_repr_is_one_short_line() -> None:
    given, probs, _ = noisy_data()
    issues = posterior_issues(given, probs)
    assert repr(issues) == (
        f"LabelIssues({issues.n_issues} of {len(given)} labels flagged by 'posterior', 4 classes, "
        f"expected noise ratio {issues.noise_ratio:.3f})"
    )
    assert repr(posterior_issues(*blind_data())).endswith("classes, no signal)")


def test_contradictions_come_first_and_copies_count_once(tmp_path):
    labels = np.array([0, 1, 1, 0, 0, 1] * 100)
    probs = np.where(labels[:, None] == np.arange(2), 0.95, 0.05)
    issues = posterior_issues(labels, probs)
    first = np.full(600, -1)
    first[[7, 11]] = 3  # a copy of image 3, with the other label, twice
    first[12] = 0  # and one of image 0, with the same
    copied = replace(issues, duplicate_of=first)
    assert np.flatnonzero(copied.contradiction).tolist() == [3, 7, 11]
    assert set(copied.worst_first(flagged_only=False)[:3]) == {3, 7, 11}
    frame = copied.to_frame()
    assert frame["duplicate_of"].tolist() == first.tolist()
    assert frame["contradiction"].sum() == 3
    assert "contradiction" not in issues.to_frame()
    alone = np.delete(np.arange(600), [3, 7, 11, 12])
    together = issues.wrong[[3, 7, 11]].mean()
    assert copied.noise_ratio == pytest.approx((issues.wrong[alone].sum() + together) / 597)
    copied.save(tmp_path / "found")
    assert (LabelIssues.load(tmp_path / "found").duplicate_of == first).all()


def test_near_copies_with_different_labels_come_after_exact_ones_and_before_all_others():
    labels = np.array([0, 1, 1, 0, 0, 1] * 100)
    probs = np.where(labels[:, None] == np.arange(2), 0.95, 0.05)
    issues = replace(posterior_issues(labels, probs), label_quality=np.where(np.arange(600) == 20, 0.1, 0.9))
    exact, near = np.full(600, -1), np.full(600, -1)
    exact[7] = 3
    near[[100, 104]] = 96, 99  # image 100 with the label of 96, 104 with another than 99
    copied = replace(issues, duplicate_of=exact, near_copy_of=near)
    assert np.flatnonzero(copied.exact_contradiction).tolist() == [3, 7]
    assert np.flatnonzero(copied.contradiction).tolist() == [3, 7, 99, 104]
    order = copied.worst_first(flagged_only=False)
    assert set(order[:2]) == {3, 7}
    assert set(order[2:4]) == {99, 104}
    assert order[4] == 20
    assert np.flatnonzero(copied.to_frame()["contradiction"]).tolist() == [3, 7, 99, 104]
    assert (copied.label_quality == issues.label_quality).all()
    assert (copied.is_label_issue == issues.is_label_issue).all()


def test_splits_survive_saving(tmp_path):
    labels = np.array([0, 1, 1, 0, 0, 1] * 100)
    probs = np.where(labels[:, None] == np.arange(2), 0.95, 0.05)
    splits = np.where(np.arange(600) % 3, "train", "test")
    issues = replace(posterior_issues(labels, probs), splits=splits)
    issues.save(tmp_path / "found")
    loaded = LabelIssues.load(tmp_path / "found")
    assert (loaded.splits == splits).all()
    assert loaded.by_split().equals(issues.by_split())
    assert posterior_issues(labels, probs).by_split().empty


def test_a_subset_keeps_its_copies_and_what_contradicts_among_them():
    found = replace(issues_of([0, 0, 1, 0, 1], [0.9] * 5, [0] * 5), duplicate_of=np.array([-1, 0, 0, -1, 3]))
    part = found.subset(np.array([1, 2, 4]))
    assert part.duplicate_of.tolist() == [-1, 0, -1]
    assert part.contradiction.tolist() == [True, True, False]
    assert part.noise_ratio == pytest.approx(0.1)
    assert found.subset(np.array([4, 1])).duplicate_of.tolist() == [-1, -1]


def test_of_a_subset_the_first_copy_in_it_is_the_one_that_others_repeat() -> None:
    labels, pred_probs, _ = noisy_data()
    nothing = np.full(len(labels), -1)
    exact, near = nothing.copy(), nothing.copy()
    exact[3], near[3], near[[5, 7]] = 0, 0, 2
    found = replace(posterior_issues(labels, pred_probs), duplicate_of=exact, near_copy_of=near)
    part = found.subset(np.array([3, 4, 5, 7]))
    assert part.duplicate_of is not None
    assert part.near_copy_of is not None
    assert part.duplicate_of.tolist() == [-1, -1, -1, -1], "image 0 is not among them"
    assert part.near_copy_of.tolist() == [-1, -1, -1, 2], "5 and 7 are near copies of image 2"


@pytest.mark.parametrize("writeable", [True, False])
def test_probabilities_are_not_copied_a_memory_map_neither(writeable):
    rng = np.random.default_rng(0)
    labels, probs = np.arange(6_000) % 1_000, rng.random((6_000, 1_000), np.float32)
    probs[np.arange(6_000), labels] += 1_000
    probs /= probs.sum(axis=1, keepdims=True)
    probs.flags.writeable = writeable
    tracemalloc.start()
    try:
        posterior_issues(labels, probs)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < probs.nbytes


@pytest.mark.parametrize("change", [{"header": b"[" * 100_000}, {"header": b"{}"}, {"header": None}, {"labels": None}])
def test_a_file_whose_parts_do_not_fit_is_refused_in_a_sentence(tmp_path, change):
    issues_of([0, 1], [0.1, 0.9], [1, 1]).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as content:
        arrays = dict(content)
    for name, value in change.items():
        if value is None:
            del arrays[name]
        else:
            arrays[name] = np.frombuffer(value, np.uint8)
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError):
        LabelIssues.load(tmp_path / "a.npz")


def test_a_small_file_that_unpacks_to_far_more_is_refused_unless_it_is_allowed(tmp_path):
    issues_of([0, 1], [0.1, 0.9], [1, 1]).save(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as content:
        arrays = dict(content)
    np.savez_compressed(tmp_path / "a.npz", **arrays, more=np.zeros(2**22))
    with unpack_limit(2**20), pytest.raises(InputError, match=r"more.npy in .* would unpack from"):
        LabelIssues.load(tmp_path / "a.npz")
