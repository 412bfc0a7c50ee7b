"""Co-teaching with scikit-learn's manners."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from cvcoteach._validation import (
    BoolArray,
    FloatArray,
    InputError,
    IntArray,
    as_array,
    check_rows,
    near,
    refuse_missing,
)
from cvcoteach.coteaching.lesson import Lesson, corrected, lesson_after
from cvcoteach.coteaching.training import (
    CoTraining,
    check_noise_rate,
    enough_epochs,
    two_networks,
)
from cvcoteach.crossval.agreement import noise_rate_from_agreement
from cvcoteach.crossval.final_scoring import HEAD_PASSES, FinalScores, FinalScoring
from cvcoteach.crossval.incv import CrossValResult, IterativeCV
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.training import inputs
from cvcoteach.training.batches import room_for
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.devices import Plan, set_threads
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.inputs import Inputs, features_of, images_of, kind_of, standard_of
from cvcoteach.training.loop import OnEpoch, predict
from cvcoteach.training.models import preprocessing
from cvcoteach.training.recipe import PRESETS, Recipe
from cvcoteach.training.torch_trainer import TorchTrainer

MODES = ("incv", "correct", "vanilla")
SELECTIONS = ("posterior", "agreement")

RECIPES = {
    "fast": PRESETS["fast"],
    # Chen et al. 2019, Co-teaching on CIFAR-10: 200 epochs; the rates are those of the Keras example that they built on
    "paper": replace(PRESETS["paper"], epochs=200, milestones=((80, 1e-1), (120, 1e-2), (160, 1e-3), (180, 5e-4))),
}
HEAD_RECIPE = Recipe(
    epochs=12, batch_size=128, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2, shift=0, flip=False, tta=False
)


class CoTeaching(ClassifierMixin, BaseEstimator):
    """A classifier that learns from noisy labels: two networks, each taught what its peer finds easy.

    mode: "incv" (Chen et al., ICML 2019, algorithm 2): the images that Iterative Noisy Cross-Validation selected, then
        with a share of its candidates; "correct": then with a share of all others, each under its most probable class
        and counting as much as that one is probable; "vanilla" (Han et al., NeurIPS 2018): all images, no selection.
    select: what S is. "posterior": the labels that are not flagged, as `cvcoteach find-issues` flags them
        (`FinalScoring`); "agreement": those that the fold networks agree with, and the noise left in S by the paper.
    recipe: how the networks are trained; None: the "fast" of `RECIPES` for images, `HEAD_RECIPE` for features, which
        train a head with one hidden layer. Its epochs are of all images: S, which is smaller, gets more, until as many
        images were shown. A recipe with milestones is left as it is. epochs: so many, of S.
    warmup, ramp: E0 and E_k, in epochs; None scales the published 40 (80 above 60 % noise) and 10 of 200.
    n_rounds, n_folds: of INCV, where it is needed: n_rounds·n_folds trainings, then five of the final scoring; of
        features these are heads, trained in seconds. fold_recipe: how their networks are trained, of images; None: as
        `recipe`, or "fast". The published one is `PRESETS["paper"]`, 50 epochs.
    image_size: pixels a side; None: the model's, or the images' own.
    device, threads: chosen by themselves if None. random_state: same numbers, same result, on a CPU.
    on_epoch: told after each epoch.

    classes_: (K,). networks_: the two. selected_, candidate_: (n,) masks. noise_rate_: ε̂. history_: an `Epoch` each.
    cross_validation_, scores_: what INCV and the final scoring found, None where they were not run.
    """

    def __init__(
        self,
        *,
        mode: Literal["incv", "correct", "vanilla"] = "incv",
        select: Literal["posterior", "agreement"] = "posterior",
        recipe: Recipe | None = None,
        epochs: int | None = None,
        warmup: int | None = None,
        ramp: float | None = None,
        n_rounds: int = 4,
        n_folds: int = 2,
        fold_recipe: Recipe | None = None,
        image_size: int | None = None,
        device: str | None = None,
        threads: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        on_epoch: OnEpoch | None = None,
    ) -> None:
        self.mode = mode
        self.select = select
        self.recipe = recipe
        self.epochs = epochs
        self.warmup = warmup
        self.ramp = ramp
        self.n_rounds = n_rounds
        self.n_folds = n_folds
        self.fold_recipe = fold_recipe
        self.image_size = image_size
        self.device = device
        self.threads = threads
        self.random_state = random_state
        self.on_epoch = on_epoch

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        selected: npt.ArrayLike | None = None,
        candidate: npt.ArrayLike | None = None,
        noise_rate: float | None = None,
    ) -> Self:
        """Train on images or features X with labels y of any kind, (n,).

        X: images (n, H, W) or (n, H, W, C), a list of paths, a torch Dataset (with y=None, of tuples with a label), or
            features (n, d).
        selected, candidate: S and C, masks (n,) or indices; INCV finds them where `selected` is None. With `selected`
            alone nothing joins S.
        noise_rate: ε̂ of all labels, in [0, 1); None: what INCV found, or for a given S what its size says.

        Raises InputError, a ValueError, for anything that does not fit.
        """
        if self.mode not in MODES:
            raise InputError(f"mode is {self.mode!r}; {near(str(self.mode), MODES)}")
        if self.select not in SELECTIONS:
            raise InputError(f"select is {self.select!r}; {near(str(self.select), SELECTIONS)}")
        if noise_rate is not None:
            check_noise_rate(noise_rate)
        if candidate is not None and selected is None:
            raise InputError("candidate is given without selected; candidates join a selected set.")
        if selected is not None and self.mode != "incv":
            does = "finds itself what to correct" if self.mode == "correct" else "selects nothing"
            raise InputError(f"selected is given, but mode {self.mode!r} {does}; take mode 'incv'.")
        if self.mode == "correct" and self.select == "agreement":
            raise InputError("mode is 'correct', which corrects by the posterior; take select 'posterior'.")
        data, labels = self._fit_inputs(X, y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        codes = codes.astype(np.int64)
        n, k = len(codes), len(self.classes_)
        if k < 2:
            raise InputError(f"y holds one class only ({self.classes_[0]!r}); a classifier needs a second class.")
        chosen = None if selected is None else _chosen(selected, candidate, n)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        recipe = self._recipe(data)
        self._plan = self._make_plan(data, recipe, k)

        self.cross_validation_: CrossValResult | None = None
        self.scores_: FinalScores | None = None
        lesson = self._lesson(data, codes, k, seed, chosen, noise_rate)
        self.selected_, self.candidate_, self.noise_rate_ = lesson.selected, lesson.candidate, lesson.noise_rate
        if self.epochs is None and not recipe.milestones:
            recipe = replace(recipe, epochs=lesson.epochs(recipe.epochs * n, warmup=self.warmup))
            if self.recipe is None:
                recipe = enough_epochs(recipe, int(lesson.selected.sum()))
        curriculum = lesson.curriculum(k, recipe.epochs, warmup=self.warmup, ramp=self.ramp)
        rows = curriculum.rows
        scaling = data.scaling(recipe, curriculum.selected)
        networks = two_networks(lambda number: data.build(recipe, k, number), self._plan, seed)
        set_threads(self._plan.threads)
        training = CoTraining(
            networks,
            data.on(self._plan),
            lesson.labels[rows],
            curriculum,
            recipe,
            scaling,
            self._plan,
            weights=None if lesson.weights is None else lesson.weights[rows],
            seed=seed,
        )
        run_to_end(training, on_epoch=self.on_epoch)
        self.networks_ = list(training.networks)
        self.history_ = training.history
        self.recipe_, self.scaling_ = recipe, scaling
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Class probabilities (n, K): the mean of both networks'."""
        check_is_fitted(self, "networks_")
        data = self._inputs(X)
        if data.shape != self.input_shape_:
            raise InputError(
                f"X holds inputs of shape {data.shape}; those that were trained on had {self.input_shape_}."
            )
        set_threads(self._plan.threads)
        plan = replace(self._plan, resident=room_for(data.array, self._plan.torch_device))
        mirror = self.recipe_.tta and bool(self.recipe_.flip)
        rows = np.arange(len(data))
        probs = predict(self.networks_, data.on(plan), rows, self.scaling_, plan, mirror=mirror).astype(np.float64)
        return probs / probs.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """The most probable class of each, (n,)."""
        probs = self.predict_proba(X)
        result: npt.NDArray[Any] = self.classes_[probs.argmax(axis=1)]
        return result

    # -- what fit is made of --

    def _fit_inputs(self, X: Any, y: Any) -> tuple[Inputs, npt.NDArray[Any]]:
        """X ready for training, and y (n,)."""
        kind = kind_of(X)
        if kind == "features":
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
            check_classification_targets(y)
            self.center_, self.scale_ = standard_of(X)
            data = features_of(X, self.center_, self.scale_)
        else:
            if y is None and kind == "dataset":
                y = inputs.labels_of_dataset(X)
            if y is None:
                raise InputError("y is missing; it takes one label for each image.")
            y = as_array(y, "y")
            if y.ndim == 1:
                refuse_missing(y, "y")
            y = column_or_1d(y, warn=True)
            check_classification_targets(y)
            check_rows(len(y), "X", len(X), labels="y")
            own_size = preprocessing((self.recipe or RECIPES["fast"]).model).size
            data = images_of(X, kind, self.image_size, None, own_size=own_size)
        self.input_shape_, self.levels_ = data.shape, data.levels
        self._features = data.are_features
        return data, y

    def _inputs(self, X: Any) -> Inputs:
        kind = kind_of(X)
        if self._features:
            X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
            return features_of(X, self.center_, self.scale_)
        if kind == "features":
            raise InputError("X holds features, but images were trained on.")
        return images_of(X, kind, self.input_shape_[0], self.input_shape_[2], levels=self.levels_)

    def _recipe(self, data: Inputs) -> Recipe:
        recipe = self.recipe or (HEAD_RECIPE if data.are_features else RECIPES["fast"])
        if self.epochs is not None:
            recipe = replace(recipe, epochs=self.epochs)
        return data.recipe(recipe)

    def _make_plan(self, data: Inputs, recipe: Recipe, n_classes: int) -> Plan:
        return data.plan(recipe, n_classes, device=self.device, threads=self.threads)

    def _trainer(self, data: Inputs, n_classes: int) -> FoldTrainer:
        if data.are_features:
            features = data.array.reshape(len(data), -1)
            return HeadTrainer(features, n_classes, device=self.device, threads=self.threads)
        folds = self.fold_recipe or self.recipe or enough_epochs(PRESETS["fast"], len(data) // 2)
        return TorchTrainer(data.array, n_classes, folds, plan=self._plan)

    def _lesson(
        self,
        data: Inputs,
        labels: IntArray,
        n_classes: int,
        seed: int,
        chosen: tuple[BoolArray, BoolArray] | None,
        noise_rate: float | None,
    ) -> Lesson:
        """What is taught, by what INCV and the final scoring find of it, where it is not given."""
        everything = np.ones(len(labels), np.bool_)
        if self.mode == "vanilla" and noise_rate is not None:
            return Lesson(labels, everything, ~everything, noise_rate)
        if chosen is not None and self.mode == "incv":
            return self._given_lesson(labels, n_classes, chosen, noise_rate)

        trainer = self._trainer(data, n_classes)
        n_rounds = 1 if self.mode == "vanilla" else self.n_rounds
        found = IterativeCV(n_rounds, self.n_folds, seed=seed).run(trainer, labels, n_classes=n_classes)
        self.cross_validation_ = found
        if self.mode == "vanilla":
            posterior = fit_posterior(labels, found.rounds[0].pred_probs)
            rate = float(posterior.wrong.mean()) if posterior.believable else found.noise_rate
            return Lesson(labels, everything, ~everything, rate)
        if self.select == "posterior":
            passes = HEAD_PASSES if data.are_features else 1
            self.scores_ = FinalScoring(self.select, passes=passes, seed=seed).after(found, trainer)
        lesson = lesson_after(found, self.scores_, noise_rate=noise_rate)
        # of a class that nothing was selected of: noisy is better than never seen
        missing = (np.bincount(labels[lesson.selected], minlength=n_classes) == 0)[labels]
        lesson = replace(lesson, selected=lesson.selected | missing, candidate=lesson.candidate & ~missing)
        if self.mode == "correct":
            if lesson.wrong is None or self.scores_ is None:
                raise InputError(
                    f"the {len(labels):,} labels do not tell which of them are wrong, so that none can be corrected; "
                    "take mode 'incv'."
                )
            lesson = corrected(lesson, self.scores_.suggested, self.scores_.suggested_prob)
        return lesson

    def _given_lesson(
        self, labels: IntArray, n_classes: int, chosen: tuple[BoolArray, BoolArray], noise_rate: float | None
    ) -> Lesson:
        selected, candidate = chosen
        _check_classes(labels[selected], self.classes_)
        if noise_rate is None:
            # S is what agreed: its share of all, read as INCV reads the agreement of its first round
            noise_rate = noise_rate_from_agreement(float(selected.mean()), n_classes)
        return Lesson(labels, selected, candidate, noise_rate, as_published=self.select == "agreement")


def _chosen(selected: npt.ArrayLike, candidate: npt.ArrayLike | None, n: int) -> tuple[BoolArray, BoolArray]:
    """S and C as masks (n,)."""
    s = _mask("selected", selected, n)
    c = np.zeros(n, np.bool_) if candidate is None else _mask("candidate", candidate, n)
    if not s.any():
        raise InputError("selected is empty; there is nothing to train on.")
    if (s & c).any():
        raise InputError(f"image {int(np.argmax(s & c))} is both selected and candidate; it takes one of them.")
    return s, c


def _mask(name: str, which: npt.ArrayLike, n: int) -> BoolArray:
    array = np.asarray(which)
    if array.dtype == np.bool_:
        if array.shape != (n,):
            raise InputError(f"{name} has shape {array.shape}; a mask of {n} images has ({n},).")
        return array.copy()
    mask = np.zeros(n, np.bool_)
    if array.size == 0:
        return mask
    if array.ndim != 1 or array.dtype.kind not in "iu" or array.min() < 0 or array.max() >= n:
        raise InputError(f"{name} is no mask (n,) and holds no indices 0-{n - 1}; it takes one of them.")
    mask[array] = True
    return mask


def _check_classes(labels: IntArray, classes: npt.NDArray[Any]) -> None:
    missing = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    if len(missing):
        raise InputError(
            f"selected holds no image of class {str(classes[missing[0]])!r}"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + "; the networks could not learn it."
        )
