"""CoTeaching as a scikit-learn classifier: features, images, cleanlab."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import make_blobs
from sklearn.utils.estimator_checks import check_estimator
from torch import Tensor
from torch.utils.data import Dataset

from cvcoteach._validation import InputError, IntArray
from cvcoteach.coteaching.estimator import CoTeaching
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.inputs import ImageInputs
from cvcoteach.training.loop import Training
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.recipe import Recipe
from tests.backbones import counted
from tests.images import dataset


def noisy_blobs(n: int = 600, wrong: float = 0.3, seed: int = 0) -> tuple[np.ndarray, IntArray, IntArray]:
    X, true = make_blobs(n, n_features=8, centers=4, cluster_std=3.0, random_state=seed)
    rng = np.random.default_rng(seed)
    given = np.where(rng.random(n) < wrong, (true + rng.integers(1, 4, n)) % 4, true)
    return X, true, given


@pytest.mark.slow
def test_it_keeps_scikit_learns_rules() -> None:
    failed = [each for each in check_estimator(CoTeaching(threads=1), on_skip=None, on_fail=None) if each["exception"]]
    assert [each["check_name"] for each in failed if each["status"] == "failed"] == []


@pytest.mark.slow
def test_given_nothing_but_features_and_labels_it_finds_the_clean_ones_first() -> None:
    X, true, given = noisy_blobs(seed=1)
    model = CoTeaching(random_state=0, threads=1).fit(X[:400], given[:400])
    assert model.score(X[400:], true[400:]) > 0.95
    wrong = given[:400] != true[:400]
    assert wrong[model.selected_].mean() < 0.1 < wrong.mean()
    assert model.cross_validation_ is not None
    assert model.cross_validation_.posterior.has_signal
    np.testing.assert_array_equal(model.selected_, ~model.cross_validation_.flags)
    np.testing.assert_array_equal(model.candidate_, model.cross_validation_.flags)
    assert model.noise_rate_ == pytest.approx(wrong.mean(), abs=0.1)
    assert len(model.history_) == model.recipe_.epochs
    probs = model.predict_proba(X[400:])
    assert probs.shape == (200, 4)
    np.testing.assert_allclose(probs.sum(axis=1), 1)


@pytest.mark.slow
def test_corrected_everything_is_taught_sooner_or_later() -> None:
    X, true, given = noisy_blobs(seed=1)
    model = CoTeaching(mode="correct", random_state=0, threads=1).fit(X[:400], given[:400])
    assert (model.candidate_ == ~model.selected_).all()
    assert model.score(X[400:], true[400:]) > 0.95
    with pytest.raises(InputError, match="mode 'correct' finds by itself what to correct"):
        model.fit(X, given, selected=np.ones(600, bool))


@pytest.mark.slow
def test_a_smaller_selected_set_is_shown_as_often_as_everything_would_be() -> None:
    X, true, _ = noisy_blobs(400)
    recipe = Recipe(epochs=12, batch_size=32, optimizer="adamw", learning_rate=1e-3)
    half = np.arange(200)
    model = CoTeaching(recipe=recipe, threads=1).fit(X, true, selected=half, noise_rate=0.1)
    assert sum(epoch.images for epoch in model.history_) == 12 * 400
    exactly = CoTeaching(recipe=recipe, epochs=3, threads=1).fit(X, true, selected=half, noise_rate=0.1)
    assert [epoch.images for epoch in exactly.history_] == [200] * 3


@pytest.mark.slow
def test_each_epoch_is_on_record() -> None:
    X, _, given = noisy_blobs(400)
    s, c = np.arange(300), np.arange(300, 400)
    model = CoTeaching(epochs=10, threads=1, random_state=0).fit(X, given, selected=s, candidate=c, noise_rate=0.3)
    assert [epoch.stage for epoch in model.history_] == ["warm-up"] * 2 + ["mixed"] * 8
    assert [epoch.images for epoch in model.history_] == [300] * 2 + [400] * 8
    assert model.history_[0].keep_rate == 1
    assert np.isnan(model.history_[0].loss_left_out)
    last = model.history_[-1]
    assert last.keep_rate == pytest.approx(0.7), "of all 400, three in ten are said to be wrong"
    assert last.loss_left_out > 2 * last.loss_kept
    assert 0.5 < last.agreement <= 1


def test_there_is_one_training_loop(monkeypatch) -> None:
    def nothing(self) -> None:
        raise NotImplementedError("the one loop")

    monkeypatch.setattr(Training, "run_epoch", nothing)
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 4
    with pytest.raises(NotImplementedError, match="the one loop"):
        CoTeaching(threads=1).fit(X, y, selected=np.ones(40, bool), noise_rate=0.1)


@pytest.mark.slow
def test_the_same_random_state_gives_the_same_probabilities() -> None:
    X, _, given = noisy_blobs(200)
    model = CoTeaching(random_state=3, epochs=3, threads=1)
    again = clone(model).fit(X, given).predict_proba(X)
    np.testing.assert_array_equal(model.fit(X, given).predict_proba(X), again)


@pytest.mark.slow
def test_vanilla_trains_on_everything_at_the_given_noise_rate() -> None:
    X, true, given = noisy_blobs()
    model = CoTeaching(mode="vanilla", random_state=0, threads=1).fit(X, given, noise_rate=0.3)
    assert model.selected_.all()
    assert not model.candidate_.any()
    assert model.history_[-1].keep_rate == pytest.approx(0.7)
    assert model.cross_validation_ is None
    assert model.score(X, true) > 0.95


@pytest.mark.slow
def test_vanilla_without_a_noise_rate_estimates_it_in_one_round() -> None:
    X, true, given = noisy_blobs()
    model = CoTeaching(mode="vanilla", random_state=0, threads=1).fit(X, given)
    assert model.noise_rate_ == pytest.approx((given != true).mean(), abs=0.1)
    assert len(model.cross_validation_.rounds) == 1


def test_labels_may_be_names() -> None:
    X, true, _ = noisy_blobs(200)
    names = np.array(["ant", "bee", "cat", "dog"])[true]
    model = CoTeaching(epochs=5, threads=1).fit(X, names, selected=np.arange(200), noise_rate=0.0)
    assert set(model.predict(X)) <= {"ant", "bee", "cat", "dog"}
    assert model.classes_.tolist() == ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"selected": np.zeros(40, bool)}, "selected is empty"),
        ({"selected": np.arange(40) % 4 != 2}, "selected holds no image of class '2'; the networks could not learn it"),
        (
            {"selected": np.ones(40, bool), "candidate": [3]},
            "image 3 is both selected and candidate; an image can only be one of them",
        ),
        ({"selected": np.ones(39, bool)}, r"selected has shape \(39,\); a mask of 40 images has \(40,\)"),
        ({"selected": [40]}, "selected is neither a mask \\(40,\\) nor indices in 0-39"),
        ({"candidate": [1]}, "candidate is given without selected"),
        ({"noise_rate": 1.0}, r"noise_rate is 1.0; .* in \[0, 1\)"),
        ({"noise_rate": -0.1}, r"noise_rate is -0.1"),
    ],
)
def test_what_does_not_fit_is_one_sentence(arguments: dict, sentence: str) -> None:
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 4
    with pytest.raises(InputError, match=sentence):
        CoTeaching(threads=1).fit(X, y, **arguments)


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InputError, match="mode is 'inc'; did you mean incv"):
        CoTeaching(mode="inc").fit(np.zeros((4, 2)), [0, 1, 0, 1])


def test_what_a_mode_would_ignore_is_refused() -> None:
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 4
    everything = np.ones(40, bool)
    with pytest.raises(InputError, match="selected is given, but mode 'vanilla' selects nothing; take mode 'incv'"):
        CoTeaching(mode="vanilla").fit(X, y, selected=everything)
    with pytest.raises(InputError, match="selected is given, but mode 'correct' finds by itself what to correct"):
        CoTeaching(mode="correct").fit(X, y, selected=everything)
    with pytest.raises(InputError, match="mode is 'correct', which corrects by the posterior; take select 'posterior'"):
        CoTeaching(mode="correct", select="agreement").fit(X, y)


@pytest.mark.slow
def test_where_the_labels_do_not_tell_what_is_wrong_nothing_is_corrected_silently(monkeypatch) -> None:
    monkeypatch.setattr("cvcoteach.noise_model.posterior.Posterior.has_signal", False)
    X, y = np.random.default_rng(0).random((60, 3)), np.random.default_rng(1).integers(0, 3, 60)
    with pytest.raises(InputError, match="the 60 labels do not tell which of them are wrong"):
        CoTeaching(mode="correct", n_rounds=1, threads=1, random_state=0).fit(X, y)


def test_the_folds_are_trained_by_their_own_recipe() -> None:
    images, _, _ = dataset(30, 0.0)
    data = ImageInputs(images[..., None], ModelFactory(ModelSpec.parse("small")))
    asked = Recipe(epochs=7)

    def epochs(**options) -> int:
        model = CoTeaching(device="cpu", threads=1, **options)
        model._plan = ComputePlan()
        return model._trainer(data, 3).recipe.epochs

    assert epochs(recipe=asked, epochs=99) == 7, "epochs are of the two networks"
    assert epochs(recipe=asked, fold_recipe=replace(asked, epochs=3)) == 3
    assert epochs(epochs=1) == epochs() >= 10


def test_an_empty_candidate_set_is_no_error() -> None:
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 4
    model = CoTeaching(epochs=2, threads=1).fit(X, y, selected=np.ones(40, bool), candidate=[], noise_rate=0.1)
    assert [epoch.images for epoch in model.history_] == [40, 40]


# -- images --

SMALL = Recipe(epochs=2, batch_size=32)


class Shapes(Dataset):
    """Images of a torch Dataset, as PIL or tensors, with their labels."""

    def __init__(self, images: np.ndarray, labels: IntArray, as_tensors: bool) -> None:
        self.images, self.labels, self.as_tensors = images, labels, as_tensors

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Image.Image | Tensor, int]:
        image = self.images[row]
        if self.as_tensors:
            return torch.from_numpy(image)[None].float() / 255, int(self.labels[row])
        return Image.fromarray(image), int(self.labels[row])


@pytest.mark.slow
def test_arrays_paths_and_datasets_of_the_same_images_give_the_same_classifier(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    # the number format is chosen by a stopwatch, and another one is another answer
    monkeypatch.setattr(CoTeaching, "_make_plan", lambda *arguments: ComputePlan(threads=1))
    images, true, _ = dataset(90, 0.0)
    paths = [tmp_path / f"{i}.png" for i in range(90)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    everything = np.ones(90, bool)

    def probabilities(X, y) -> np.ndarray:
        model = CoTeaching(recipe=SMALL, device="cpu", threads=1, random_state=0)
        model.fit(X, y, selected=everything, noise_rate=0.1)
        return model.predict_proba(X)

    expected = probabilities(images, true)
    assert expected.shape == (90, 3)
    for X, y in ((images[..., None], true), (paths, true), (Shapes(images, true, False), None)):
        np.testing.assert_allclose(probabilities(X, y), expected, atol=1e-4)
    np.testing.assert_allclose(probabilities(Shapes(images, true, True), None), expected, atol=1e-4)


@pytest.mark.slow
def test_on_images_it_learns_from_noisy_labels() -> None:
    images, _, given = dataset(300, 0.25)
    model = CoTeaching(recipe=Recipe(epochs=12, batch_size=32), n_rounds=2, threads=1, device="cpu", random_state=0)
    model.fit(images, given)
    fresh, truth, _ = dataset(90, 0.0, seed=1)
    assert model.score(fresh, truth) > 0.9


def test_images_that_do_not_fit_are_one_sentence() -> None:
    everything = {"selected": np.ones(4, bool), "noise_rate": 0.1}
    for X, sentence in (
        (np.zeros((4, 3, 8, 9), np.uint8), "channels last"),
        (np.full((4, 8, 8), np.nan), "X has values from nan to nan; it takes finite numbers"),
        (np.zeros((4, 8, 8), complex), "X holds complex128; it takes numbers"),
        (np.zeros((3, 8, 8), np.uint8), "y has 4 rows, but X has 3"),
        (["nowhere.png"] * 4, "none of 4 images .* can be read"),
    ):
        with pytest.raises(InputError, match=sentence):
            CoTeaching(threads=1).fit(X, [0, 1, 0, 1], **everything)


# -- inside cleanlab --


@pytest.mark.slow
def test_it_works_inside_cleanlabs_clean_learning() -> None:
    from cleanlab.classification import CleanLearning

    X, true, given = noisy_blobs(400)
    learning = CleanLearning(CoTeaching(threads=1, n_rounds=2, random_state=0), seed=0, cv_n_folds=3)
    learning.fit(X, given)
    assert learning.score(X, true) > 0.9
    assert learning.get_label_issues()["is_label_issue"].mean() > 0.1


@pytest.mark.slow
def test_a_backbone_is_loaded_once_for_folds_and_networks() -> None:
    images, _, given = dataset(60, 0.2)
    before = counted.loads
    recipe = Recipe(model=ModelSpec.parse("backbone:tests.backbones:counted"), epochs=1, batch_size=32)
    CoTeaching(recipe=recipe, n_rounds=1, epochs=1, device="cpu", threads=1, random_state=0).fit(images, given)
    assert counted.loads == before + 1


@pytest.mark.slow
def test_a_classifier_of_images_becomes_a_model_and_one_of_features_does_not() -> None:
    images, true, _ = dataset(60, 0.0)
    everything = {"selected": np.ones(60, bool), "noise_rate": 0.1}
    trained = CoTeaching(recipe=SMALL, device="cpu", threads=1, random_state=0).fit(images, true, **everything)
    model = trained.to_model()
    assert (str(model.spec), model.class_names, model.images.size, model.mirror) == (
        "small",
        ("0", "1", "2"),
        12,
        False,
    )
    probs = model.predict_proba(images[..., None], trained._plan)
    np.testing.assert_allclose(probs, trained.predict_proba(images), atol=1e-6)
    heads = CoTeaching(epochs=1, threads=1).fit(images.reshape(60, -1), true, **everything)
    with pytest.raises(InputError, match="was trained on features; a model takes images"):
        heads.to_model()


@pytest.mark.slow
def test_groups_stay_in_one_fold() -> None:
    X, _, given = noisy_blobs(300)
    groups = np.arange(300) % 30
    with_groups = CoTeaching(random_state=0, threads=1, epochs=2).fit(X, given, groups=groups)
    without = CoTeaching(random_state=0, threads=1, epochs=2).fit(X, given)
    assert with_groups.cross_validation_ is not None
    assert without.cross_validation_ is not None
    assert (with_groups.cross_validation_.pred_probs != without.cross_validation_.pred_probs).any()
    with pytest.raises(InputError, match="groups has 2 rows, but labels has 300"):
        CoTeaching().fit(X, given, groups=[0, 1])
