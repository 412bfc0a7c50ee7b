"""The drop-in: cleanlab's answer where cleanlab is asked, ours where ours is."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import warnings
from pathlib import Path

import cleanlab.filter
import cleanlab.rank
import numpy as np
import pytest
import torch

from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.cleanlab.filter import CLEANLAB_FILTERS, find_label_issues, get_label_quality_scores
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.pipeline.in_memory import label_issues

from ..issues.test_label_issues import noisy_data

RANKINGS = (None, "self_confidence", "normalized_margin", "confidence_weighted_entropy")


class NearestMean:
    """A FoldTrainer: softmax of the distance to the class means of what it is given."""

    def __init__(self, x: np.ndarray, n_classes: int) -> None:
        self.x, self.n_classes, self.calls = x, n_classes, 0

    def fit_predict(self, train_idx, train_labels, eval_idx, seed):
        self.calls += 1
        means = np.stack([self.x[train_idx[train_labels == k]].mean(axis=0) for k in range(self.n_classes)])
        distance = ((self.x[eval_idx, None] - means) ** 2).sum(axis=2)
        weight = np.exp(-(distance - distance.min(axis=1, keepdims=True)) / 2)
        return (weight / weight.sum(axis=1, keepdims=True)).astype(np.float32)


def blobs(n: int = 400, rate: float = 0.2, seed: int = 0):
    """Features (n, 2) of four blobs, given labels with symmetric noise, true labels."""
    rng = np.random.default_rng(seed)
    true = rng.integers(4, size=n)
    x = 5 * np.array([[0, 0], [1, 0], [0, 1], [1, 1]])[true] + rng.normal(size=(n, 2))
    given = np.where(rng.random(n) < rate, (true + rng.integers(1, 4, size=n)) % 4, true)
    return x, given, true


def outcome(function, *args, **kwargs):
    """What a call gives: the result, or the exception's type and text; and its warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            result = error
    return result, [(w.category, str(w.message)) for w in caught]


def assert_same_as_cleanlab(*args, **kwargs):
    theirs, their_warnings = outcome(cleanlab.filter.find_label_issues, *args, **({"n_jobs": 1} | kwargs))
    ours, our_warnings = outcome(find_label_issues, *args, **kwargs)
    assert our_warnings == their_warnings
    if isinstance(theirs, BaseException):
        assert type(ours) is type(theirs)
        assert str(ours) == str(theirs)
    else:
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def test_every_argument_of_cleanlab_is_there_in_the_same_order_with_the_same_default():
    theirs = inspect.signature(cleanlab.filter.find_label_issues).parameters
    ours = inspect.signature(find_label_issues).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    for name, parameter in theirs.items():
        assert ours[name].kind == parameter.kind
        if name not in ("pred_probs", "filter_by"):
            assert ours[name].default == parameter.default, name
    assert theirs["filter_by"].default == "prune_by_noise_rate"


@pytest.mark.parametrize("ranking", RANKINGS)
@pytest.mark.parametrize("filter_by", CLEANLAB_FILTERS)
def test_on_pred_probs_the_answer_is_cleanlabs(filter_by, ranking):
    given, probs, _ = noisy_data()
    assert_same_as_cleanlab(given, probs, filter_by=filter_by, return_indices_ranked_by=ranking)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"frac_noise": 0.5},
        {"min_examples_per_class": 140},
        {"min_examples_per_class": 1000},
        {"num_to_remove_per_class": [5, 0, 1, 2], "filter_by": "prune_by_class"},
        {"num_to_remove_per_class": [5, 0, 1, 2], "filter_by": "confident_learning"},
        {"confident_joint": np.full((4, 4), 10), "filter_by": "confident_learning"},
        {"rank_by_kwargs": {"adjust_pred_probs": True}, "return_indices_ranked_by": "self_confidence"},
        {"return_indices_ranked_by": "nothing"},
        {"n_jobs": 0},
        {"n_jobs": 2},
        {"multi_label": True},
    ],
    ids=str,
)
def test_options_warnings_and_errors_are_cleanlabs(options):
    given, probs, _ = noisy_data()
    if "n_jobs" in options:  # processes: forking under a threaded test run may warn by itself
        assert_same_as_cleanlab(given[:50], probs[:50], **options, filter_by="predicted_neq_given")
    else:
        assert_same_as_cleanlab(given, probs, **options)


@pytest.mark.parametrize(
    ("labels", "probs"),
    [
        ([0, 1, 1], None),
        (["a", "b", "a"], np.full((3, 2), 0.5)),
        ([0, 1, 2], np.full((3, 2), 0.5)),
        ([0, 0, 0], np.full((3, 2), 0.5)),
        ([0, 1], np.full((3, 2), 0.5)),
        ([0, 1, -1], np.full((3, 2), 0.5)),
        ([0.5, 1, 0], np.full((3, 2), 0.5)),
        (np.array([0, 1, 1]), [[0.5, 0.5]] * 3),
        (np.array([0, 1, 1]), np.full((3, 2), 1.5)),
        (np.array([0, 1, 1]), np.full((3, 2), np.nan)),
        (None, np.full((3, 2), 0.5)),
        ([[0], [0, 1], [1]], np.full((3, 2), 0.5)),
    ],
    ids=str,
)
def test_wrong_input_is_refused_or_taken_as_cleanlab_does(labels, probs):
    assert_same_as_cleanlab(labels, probs)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"filter_by": "posteriori"},
            "filter_by is 'posteriori'; it takes posterior, incv, prune_by_noise_rate, prune_by_class, both",
        ),
        ({"flag_for": "precision"}, "flag_for and min_probability go with filter_by='posterior'"),
        ({"min_probability": 0.9}, "flag_for and min_probability go with filter_by='posterior'"),
        ({"flag_for": "speed"}, "flag_for is 'speed'"),
        ({"min_probability": 7}, "min_probability is 7"),
    ],
    ids=str,
)
def test_what_cleanlabs_filters_do_not_know_is_refused(options, sentence):
    given, probs, _ = noisy_data()
    with pytest.raises(InputError, match=re.escape(sentence)):
        find_label_issues(given, probs, **options)


@pytest.mark.parametrize("filter_by", ["both", "posterior"])
def test_torch_tensors_are_taken(filter_by):
    given, probs, _ = noisy_data()
    tensors = torch.tensor(given), torch.tensor(probs, requires_grad=True)
    assert np.array_equal(
        find_label_issues(*tensors, filter_by=filter_by), find_label_issues(given, probs, filter_by=filter_by)
    )
    assert np.array_equal(get_label_quality_scores(*tensors), get_label_quality_scores(given, probs))


def test_tensors_of_bfloat16_and_features_with_a_gradient_are_taken():
    given, probs, _ = noisy_data()
    coarse = np.round(probs * 64) / 64  # what bfloat16 holds exactly, but for the row sums
    coarse[np.arange(len(probs)), probs.argmax(axis=1)] += 1 - coarse.sum(axis=1)
    found = find_label_issues(given, torch.tensor(coarse).bfloat16(), filter_by="posterior")
    assert np.array_equal(found, find_label_issues(given, coarse, filter_by="posterior"))
    features = torch.tensor(probs, requires_grad=True)
    quality = label_issues(given, features=features, progress=False).label_quality
    assert np.array_equal(quality, label_issues(given, features=probs, progress=False).label_quality)


def test_multi_label_input_is_handed_to_cleanlab():
    rng = np.random.default_rng(0)
    probs = rng.random((60, 3))
    labels = [np.flatnonzero(row > 0.5).tolist() for row in probs]
    assert_same_as_cleanlab(labels, probs, multi_label=True)
    assert_same_as_cleanlab(labels, probs, multi_label=True, return_indices_ranked_by="self_confidence")


def test_cleanlabs_answer_does_not_depend_on_the_processes_left_out():
    given, probs, _ = noisy_data(2000, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons: forking with threads about
        theirs = cleanlab.filter.find_label_issues(given, probs, n_jobs=2)
    assert np.array_equal(find_label_issues(given, probs), theirs)


def test_posterior_flags_what_is_more_probably_wrong_than_right():
    given, probs, _ = noisy_data()
    mask = find_label_issues(given, probs, filter_by="posterior")
    assert mask.dtype == np.bool_
    assert np.array_equal(mask, posterior_issues(given, probs).is_label_issue)
    indices = find_label_issues(given, probs, filter_by="posterior", return_indices_ranked_by="posterior")
    assert indices.dtype == np.int64
    assert np.array_equal(indices, posterior_issues(given, probs).worst_first())


def test_incv_on_given_probabilities_is_predicted_neq_given():
    given, probs, _ = noisy_data()
    probs[:3] = 0.25  # ties are agreement
    theirs = cleanlab.filter.find_label_issues(given, probs, filter_by="predicted_neq_given", n_jobs=1)
    assert np.array_equal(find_label_issues(given, probs, filter_by="incv"), theirs)


@pytest.mark.parametrize("ranking", RANKINGS[1:])
def test_our_flags_can_be_ranked_by_a_score_of_cleanlabs(ranking):
    given, probs, _ = noisy_data()
    mask = find_label_issues(given, probs, filter_by="posterior")
    theirs = cleanlab.rank.order_label_issues(mask, given, probs, rank_by=ranking, rank_by_kwargs={})
    ours = find_label_issues(given, probs, filter_by="posterior", return_indices_ranked_by=ranking)
    assert np.array_equal(ours, theirs)


def test_flags_of_cleanlabs_can_be_ranked_by_the_posterior():
    given, probs, _ = noisy_data()
    mask = cleanlab.filter.find_label_issues(given, probs, filter_by="both", n_jobs=1)
    ours = find_label_issues(given, probs, filter_by="both", return_indices_ranked_by="posterior")
    assert sorted(ours) == np.flatnonzero(mask).tolist()
    assert (np.diff(posterior_issues(given, probs).label_quality[ours]) >= 0).all()


def test_frac_noise_leaves_the_worst_share():
    given, probs, _ = noisy_data()
    everything = find_label_issues(given, probs, filter_by="posterior", return_indices_ranked_by="posterior")
    half = find_label_issues(given, probs, filter_by="posterior", return_indices_ranked_by="posterior", frac_noise=0.5)
    assert np.array_equal(half, everything[: round(len(everything) / 2)])
    assert not find_label_issues(given, probs, filter_by="posterior", frac_noise=0).any()


def test_num_to_remove_per_class_flags_exactly_so_many_of_each_given_class():
    given, probs, _ = noisy_data()
    mask = find_label_issues(given, probs, filter_by="posterior", num_to_remove_per_class=[5, 0, 1, 60])
    assert np.bincount(given[mask], minlength=4).tolist() == [5, 0, 1, 60]
    quality = posterior_issues(given, probs).label_quality
    assert quality[mask & (given == 0)].max() <= quality[~mask & (given == 0)].min()


def test_min_examples_per_class_stay_in_each_class():
    given, probs, _ = noisy_data()
    counts = np.bincount(given)
    mask = find_label_issues(given, probs, filter_by="incv", min_examples_per_class=int(counts.min()) - 3)
    assert (np.bincount(given[~mask], minlength=4) >= counts.min() - 3).all()
    assert mask.sum() > 3
    assert not find_label_issues(given, probs, filter_by="incv", min_examples_per_class=10**6).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"multi_label": True}, "multi_label is True, but filter_by='posterior' takes one label per image"),
        (
            {"confident_joint": np.eye(4)},
            "confident_joint is given, but filter_by='posterior' estimates the noise itself",
        ),
        ({"frac_noise": 1.5}, "frac_noise is 1.5; it is the share of the flags that stays, from 0 to 1"),
        (
            {"frac_noise": 0.5, "num_to_remove_per_class": [1, 1, 1, 1]},
            "frac_noise and num_to_remove_per_class are both",
        ),
        ({"num_to_remove_per_class": [1, 1]}, r"num_to_remove_per_class is \[1, 1\]; it takes one whole number"),
        ({"num_to_remove_per_class": [1, 1, 1, -1]}, "num_to_remove_per_class is"),
        ({"min_examples_per_class": -1}, "min_examples_per_class is -1; it takes 0 or more"),
        ({"n_jobs": 0}, "n_jobs is 0; it takes 1 or more"),
        (
            {"return_indices_ranked_by": "posteriori"},
            "return_indices_ranked_by is 'posteriori'; did you mean posterior",
        ),
        (
            {"return_indices_ranked_by": "posterior", "rank_by_kwargs": {"adjust_pred_probs": True}},
            "the ranking by posterior has no options",
        ),
    ],
)
def test_an_option_without_meaning_for_our_filters_is_refused(options, sentence):
    given, probs, _ = noisy_data()
    with pytest.raises(InputError, match=sentence):
        find_label_issues(given, probs, filter_by="posterior", **options)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ([np.nan, 0.5, 0.25, 0.25], r"pred_probs\[7\] is .*probabilities lie between 0 and 1"),
        ([0.5, 0.5, 0.5, 0.5], r"pred_probs\[7\] sums to 2; each row of probabilities sums to 1"),
    ],
)
@pytest.mark.parametrize("filter_by", ["posterior", "incv"])
def test_our_filters_refuse_what_is_no_probability(filter_by, row, sentence):
    given, probs, _ = noisy_data()
    probs[7] = row
    with pytest.raises(InputError, match=sentence):
        find_label_issues(given, probs, filter_by=filter_by)


def test_a_trainer_is_run_in_three_rounds_and_flags_by_the_posterior():
    x, given, true = blobs()
    trainer = NearestMean(x, 4)
    mask = find_label_issues(given, trainer=trainer, progress=False)
    assert trainer.calls == 2 + 5 + 5
    assert ((given != true) == mask).mean() > 0.95


def test_the_posterior_flags_what_the_rounds_flag():
    x, given, _ = blobs()
    result = IterativeCV(n_rounds=2, n_folds=3, seed=7).run(NearestMean(x, 4), given)
    options = {"trainer": NearestMean(x, 4), "n_rounds": 2, "n_folds": 3, "seed": 7, "progress": False}
    assert np.array_equal(find_label_issues(given, **options), result.flags)
    ranked = find_label_issues(given, **options, return_indices_ranked_by="posterior")
    assert np.array_equal(ranked, result.issues().worst_first())


def test_incv_flags_what_was_not_selected():
    x, given, _ = blobs()
    result = IterativeCV("agreement", n_rounds=3, n_folds=4, seed=5).run(NearestMean(x, 4), given)
    mask = find_label_issues(
        given, trainer=NearestMean(x, 4), filter_by="incv", n_rounds=3, n_folds=4, seed=5, progress=False
    )
    assert np.array_equal(mask, ~result.selected)
    assert np.array_equal(result.issues().is_label_issue, ~result.selected)
    assert result.issues().to_frame().columns[:4].tolist() == [
        "is_label_issue",
        "label_quality",
        "given_label",
        "predicted_label",
    ]


def test_class_names_as_labels_give_what_their_numbers_give():
    x, given, _ = blobs()
    names = np.array(["ant", "bee", "cow", "dog"])
    numbers = find_label_issues(given, trainer=NearestMean(x, 4), progress=False)
    assert np.array_equal(find_label_issues(names[given], trainer=NearestMean(x, 4), progress=False), numbers)
    assert np.array_equal(find_label_issues(names[given].tolist(), trainer=NearestMean(x, 4), progress=False), numbers)


def test_a_function_given_as_progress_gets_every_fold_of_the_whole_run():
    x, given, _ = blobs()
    updates: list[Progress] = []
    find_label_issues(given, trainer=NearestMean(x, 4), n_rounds=2, n_folds=2, progress=updates.append)
    assert [update.message for update in updates[1::2]] == [
        "round 1 of 2, fold 1 of 2",
        "round 1 of 2, fold 2 of 2",
        "round 2 of 2, fold 1 of 2",
        "round 2 of 2, fold 2 of 2",
    ]
    assert [update.finished for update in updates if update.finished] == ["round 1 of 2", "round 2 of 2"]
    assert {update.stage for update in updates} == {"training"}
    done = [update.done for update in updates]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, updates[-1].total)


def test_progress_shows_a_bar_on_stderr_and_nothing_on_stdout(capsys):
    x, given, _ = blobs()
    find_label_issues(given, trainer=NearestMean(x, 4))
    captured = capsys.readouterr()
    assert "training: round 1 of 3, fold 1 of 2" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("sources", "sentence"),
    [
        ({"pred_probs": np.full((4, 2), 0.5), "features": np.zeros((4, 2))}, "pred_probs and features are given"),
        ({"images": np.zeros((4, 2, 2, 3)), "features": np.zeros((4, 2))}, "images and features are given"),
    ],
)
def test_probabilities_come_from_one_source(sources, sentence):
    with pytest.raises(InputError, match=sentence):
        find_label_issues([0, 1, 0, 1], **sources)


def test_a_filter_of_cleanlabs_needs_pred_probs():
    with pytest.raises(InputError, match="filter_by is 'both', cleanlab's way with pred_probs; with trainer it takes"):
        find_label_issues([0, 1, 0, 1], trainer=NearestMean(np.zeros((4, 2)), 2), filter_by="both")


def test_our_filters_without_a_source_say_what_is_missing():
    with pytest.raises(InputError, match="pred_probs is missing; give it, or images, features or a trainer"):
        find_label_issues([0, 1, 0, 1], filter_by="posterior")


def test_without_a_signal_the_caller_is_warned_and_nothing_is_flagged():
    given = np.arange(300) % 10
    probs = np.random.default_rng(0).dirichlet(np.ones(10), 300)
    for call in (
        lambda: find_label_issues(given, probs, filter_by="posterior"),
        lambda: find_label_issues(given, probs, return_indices_ranked_by="posterior"),
        lambda: get_label_quality_scores(given, probs, method="posterior"),
    ):
        with pytest.warns(UserWarning, match="carry no signal") as caught:
            found = call()
        assert isinstance(found, np.ndarray)
        assert [Path(warning.filename).name for warning in caught] == [Path(__file__).name]


def test_quality_scores_are_cleanlabs_or_the_posterior():
    given, probs, _ = noisy_data()
    for method in RANKINGS[1:]:
        theirs = cleanlab.rank.get_label_quality_scores(given, probs, method=method)
        assert np.array_equal(get_label_quality_scores(given, probs, method=method), theirs)
    theirs = cleanlab.rank.get_label_quality_scores(given, probs, adjust_pred_probs=True)
    assert np.array_equal(get_label_quality_scores(given, probs, adjust_pred_probs=True), theirs)
    posterior = get_label_quality_scores(given, probs, method="posterior")
    assert np.array_equal(posterior, posterior_issues(given, probs).label_quality)
    with pytest.raises(ValueError, match="nothing is not a valid scoring method"):
        get_label_quality_scores(given, probs, method="nothing")
    with pytest.raises(InputError, match="adjust_pred_probs is True"):
        get_label_quality_scores(given, probs, method="posterior", adjust_pred_probs=True)


@pytest.mark.slow
def test_features_train_heads_and_find_the_wrong_labels():
    x, given, true = blobs(1000)
    mask = find_label_issues(given, features=x.astype(np.float32), progress=False)
    assert ((given != true) == mask).mean() > 0.95


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*self-confidence")  # so few images may not tell the noise
def test_images_train_networks_and_rank_the_wrong_labels_first():
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=240)
    images = rng.integers(0, 90, size=(240, 16, 16, 3), dtype=np.uint8)
    images[true == 1, 4:12, 4:12] += 120  # a bright square
    given = np.where(rng.random(240) < 0.15, 1 - true, true)
    ranked = find_label_issues(given, images=images, n_folds=2, return_indices_ranked_by="posterior", progress=False)
    wrong = np.flatnonzero(given != true)
    assert len(set(ranked[:20]) & set(wrong)) >= 16


def test_the_warning_reaches_a_program_of_its_own():
    """cleanlab's Datalab silences all warnings of the program that imports it."""
    code = (
        "import numpy as np; from cvcoteach import find_label_issues; "
        "find_label_issues(np.arange(300) % 10, np.full((300, 10), 0.1), filter_by='posterior')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UserWarning: The labels carry no signal that these models can see: " in result.stderr
