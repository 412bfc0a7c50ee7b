"""Co-teaching as a scikit-learn classifier."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, NamedTuple, Self

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
from cvcoteach.coteaching.curriculum import Pace, check_noise_rate
from cvcoteach.coteaching.learned_part import learned_part
from cvcoteach.coteaching.model_files import ImageFormat, Model
from cvcoteach.coteaching.presets import COTEACHING_PRESETS, HEAD_RECIPE
from cvcoteach.coteaching.selection import Selection, corrected, selection_after
from cvcoteach.coteaching.training import CoTeachingTask, enough_epochs, with_epochs
from cvcoteach.crossval.agreement import noise_rate_from_agreement
from cvcoteach.crossval.groups import as_groups
from cvcoteach.crossval.incv import SELECT, IterativeCV
from cvcoteach.crossval.result import CrossValResult
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.data.items import kind_of, labels_of_dataset, load_any
from cvcoteach.data.levels import ORDINARY
from cvcoteach.training.batches import BatchSource, DeviceImages, FeatureBatches, ImageBatches, room_for
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import set_threads
from cvcoteach.training.head_trainer import HeadTrainer
from cvcoteach.training.inputs import FeatureInputs, ImageInputs, Inputs
from cvcoteach.training.loop import OnEpoch, predict
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.presets import PRESETS
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.standardisation import Standardisation
from cvcoteach.training.torch_trainer import TorchTrainer

MODES = ("incv", "correct", "vanilla")


class CoTeaching(ClassifierMixin, BaseEstimator):
    """A classifier that learns from noisy labels: two networks, each trained on what its peer finds easy.

    Args:
        mode: "incv" (Chen et al., algorithm 2): train on the images that Iterative Noisy Cross-Validation takes for
            right, later with a share of its candidates. "correct": later with a share of all others, each under its
            most probable class, weighted by the probability of that class. "vanilla" (Han et al.): train on all images.
        select: What S is. "posterior": the labels that are not flagged, as `cvcoteach find-issues` flags them; the
            flagged are the candidates. "agreement": those that the fold networks agree with, as published; the noise
            left in S is the paper's. See `IterativeCV`.
        recipe: How the networks are trained. None: "fast" of `COTEACHING_PRESETS` for images; `HEAD_RECIPE` for
            features, for heads with one hidden layer. Its epochs count all images: S, which is smaller, gets more
            epochs, until as many images were shown. A recipe with milestones is left as it is.
        epochs: Epochs of S, in place of the recipe's.
        warmup: E0, epochs of S alone; None: a fifth of the epochs (40 of 200), two fifths above 60 % noise.
        ramp: E_k, epochs until the keep rate is lowest; None: a twentieth of the epochs (10 of 200).
        n_rounds: Number of rounds of `IterativeCV`, if it is needed; for features these train heads, in seconds. None:
            3 for "posterior", 4 for "agreement".
        n_folds: Folds of every round. None: see `IterativeCV.folds`.
        fold_recipe: How the networks of the folds are trained, for images. None: as `recipe`, or "fast". The published
            one is `PRESETS["paper"]`, 50 epochs.
        image_size: Height and width, pixels; None: the model's, or that of the images.
        device: Such as "cuda" or "cpu"; None: the best available.
        threads: CPU threads; None: as many as are fastest.
        random_state: The same number gives the same result, on a CPU.
        on_epoch: Called after each epoch.

    Attributes:
        classes_: (K,) labels.
        networks_: The two networks.
        selected_: (n,) mask, S.
        candidate_: (n,) mask, C.
        noise_rate_: ε̂.
        history_: An `Epoch` per epoch.
        cross_validation_: What `IterativeCV` found; None if it was not needed.

    References:
        Chen et al., "Understanding and Utilizing Deep Neural Networks Trained with Noisy Labels", ICML 2019.
        Han et al., "Co-teaching: Robust Training of Deep Neural Networks with Extremely Noisy Labels", NeurIPS 2018.
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
        n_rounds: int | None = None,
        n_folds: int | None = None,
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
        groups: npt.ArrayLike | None = None,
        splits: npt.ArrayLike | None = None,
    ) -> Self:
        """Train on images or features X with labels y of any kind.

        Args:
            X: Images (n, H, W) or (n, H, W, C), a list of paths, a torch Dataset (with y=None: of tuples with a
                label), or features (n, d).
            y: (n,) labels.
            selected: S, a mask (n,) or indices; None: INCV finds S and C.
            candidate: C, likewise; None: nothing joins a given S.
            noise_rate: ε̂ of all labels, in [0, 1); None: INCV's estimate, or what the size of a given S implies.
            groups: (n,) group of each image, of any kind, such as its patient or video: no model of INCV judges an
                image of a group that it trained on. None: each image stands alone.
            splits: (n,) name of the split of each image, such as train and test: nothing but train is learned from, by
                INCV neither, and `cross_validation_` knows of train alone. None: everything is learned from.

        Raises:
            InputError: Anything does not fit; it is a ValueError.
        """
        if self.mode not in MODES:
            raise InputError(f"mode is {self.mode!r}; {near(str(self.mode), MODES)}")
        if self.select not in SELECT:
            raise InputError(f"select is {self.select!r}; {near(str(self.select), SELECT)}")
        if noise_rate is not None:
            check_noise_rate(noise_rate)
        if candidate is not None and selected is None:
            raise InputError("candidate is given without selected; candidates join a selected set.")
        if selected is not None and self.mode != "incv":
            does = "finds by itself what to correct" if self.mode == "correct" else "selects nothing"
            raise InputError(f"selected is given, but mode {self.mode!r} {does}; take mode 'incv'.")
        if self.mode == "correct" and self.select == "agreement":
            raise InputError("mode is 'correct', which corrects by the posterior; take select 'posterior'.")
        self.standard_: Standardisation | None = None
        self.scaling_: Scaling | None = None
        self.levels_ = ORDINARY
        part = None if splits is None else learned_part(X, y, splits)
        data, labels = self._fit_inputs(X, y) if part is None else self._fit_inputs(part.X, part.y)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        codes = codes.astype(np.int64)
        k = len(self.classes_)
        if k < 2:
            raise InputError(f"y holds only one class ({self.classes_[0]!r}); a classifier needs a second one.")
        n = len(codes) if part is None else part.n
        sets = None if selected is None else _chosen(selected, candidate, n)
        named = None if groups is None else as_groups(groups, n)
        if part is not None:
            sets = None if sets is None else (part.of(sets[0]), part.of(sets[1]))
            named = None if named is None else named[part.rows]
        given = _Given(sets, noise_rate, named)
        pace = Pace(self.warmup, self.ramp)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        recipe = self._recipe(data)
        self._plan = self._make_plan(data, recipe, k)

        self.cross_validation_: CrossValResult | None = None
        selection = self._select(data, codes, seed, given)
        self.selected_, self.candidate_, self.noise_rate_ = (
            selection.selected,
            selection.candidate,
            selection.noise_rate,
        )
        if part is not None:
            self.selected_, self.candidate_ = part.whole(self.selected_), part.whole(self.candidate_)
        if self.epochs is None:
            recipe = with_epochs(recipe, selection, pace=pace, settle=self.recipe is None)
        curriculum = selection.curriculum(k, recipe.epochs, pace=pace)
        set_threads(self._plan.threads)
        training = CoTeachingTask(data, selection, k, recipe, curriculum, seed).start(self._plan)
        run_to_end(training, on_epoch=self.on_epoch)
        self.networks_ = list(training.networks)
        self.history_ = training.history
        self.recipe_ = recipe
        if isinstance(training.source, ImageBatches):
            self.scaling_ = training.source.scaling
        return self

    def predict_proba(self, X: Any) -> FloatArray:
        """Return class probabilities (n, K), averaged over both networks."""
        check_is_fitted(self, "networks_")
        batches = self._batches(X)
        set_threads(self._plan.threads)
        rows = np.arange(len(batches))
        probs = predict(self.networks_, batches, rows, mirror=self.recipe_.mirrors_predictions).astype(np.float64)
        return probs / probs.sum(axis=1, keepdims=True)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the most probable class (n,) of each input."""
        probs = self.predict_proba(X)
        result: npt.NDArray[Any] = self.classes_[probs.argmax(axis=1)]
        return result

    def to_model(self) -> Model:
        """Return the fitted classifier as a `Model`, which can be saved and exported.

        Raises:
            InputError: It was trained on features, which no image classifier takes.
        """
        check_is_fitted(self, "networks_")
        if self.scaling_ is None:
            raise InputError("the classifier was trained on features; a model takes images.")
        size, _, channels = self.input_shape_
        names, recipe = tuple(map(str, self.classes_)), self.recipe_
        images = ImageFormat(size, channels, self.scaling_, self.levels_)
        return Model(self.networks_, recipe.model, names, images, recipe.mirrors_predictions)

    # -- the parts of fit --

    def _fit_inputs(self, X: Any, y: Any) -> tuple[Inputs, npt.NDArray[Any]]:
        """Return X ready for training, and y (n,)."""
        kind = kind_of(X)
        if kind == "features":
            X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
            check_classification_targets(y)
            self.standard_ = Standardisation.of(X)
            self.input_shape_ = X.shape[1:]
            return FeatureInputs(self.standard_.applied(X)), y
        if y is None and kind == "dataset":
            y = labels_of_dataset(X)
        if y is None:
            raise InputError("y is missing; it takes one label per image.")
        y = as_array(y, "y")
        if y.ndim == 1:
            refuse_missing(y, "y")
        y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        check_rows(len(y), "X", len(X), labels="y")
        spec = (self.recipe or COTEACHING_PRESETS["fast"]).model
        models = ModelFactory(spec, trusted=(spec.name,))  # named by the caller
        images = load_any(X, kind, size=self.image_size, own_size=models.preprocessing.size)
        self.input_shape_, self.levels_ = images.pixels.shape[1:], images.levels
        return ImageInputs(images.pixels, models), y

    def _batches(self, X: Any) -> BatchSource:
        """Return X as batches to predict."""
        kind, standard, scaling = kind_of(X), self.standard_, self.scaling_
        device = self._plan.torch_device
        if standard is not None:
            X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
            features = standard.applied(X)
            return FeatureBatches(features, replace(self._plan, resident=room_for(features, device)))
        if kind == "features":
            raise InputError("X holds features, but the classifier was trained on images.")
        size, _, channels = self.input_shape_
        pixels = load_any(X, kind, size=size, channels=channels, levels=self.levels_).pixels
        if pixels.shape[1:] != self.input_shape_:
            raise InputError(
                f"X holds images of shape {pixels.shape[1:]}, but those trained on have shape {self.input_shape_}."
            )
        assert scaling is not None
        return ImageBatches(DeviceImages(pixels, replace(self._plan, resident=room_for(pixels, device))), scaling)

    def _recipe(self, data: Inputs) -> Recipe:
        default = HEAD_RECIPE if isinstance(data, FeatureInputs) else COTEACHING_PRESETS["fast"]
        recipe = self.recipe or default
        if self.epochs is not None:
            recipe = replace(recipe, epochs=self.epochs)
        return data.adapted(recipe)

    def _make_plan(self, data: Inputs, recipe: Recipe, n_classes: int) -> ComputePlan:
        return data.plan(recipe, n_classes, device=self.device, threads=self.threads)

    def _trainer(self, data: Inputs, n_classes: int) -> FoldTrainer:
        if isinstance(data, FeatureInputs):
            return HeadTrainer(data.features, n_classes, device=self.device, threads=self.threads)
        assert isinstance(data, ImageInputs)
        folds = self.fold_recipe or self.recipe or enough_epochs(PRESETS["fast"], len(data) // 2)
        models = data.models if folds.model == data.models.spec else None
        return TorchTrainer(data.pixels, n_classes, folds, plan=self._plan, models=models)

    def _select(self, data: Inputs, labels: IntArray, seed: int, given: _Given) -> Selection:
        """Return S and C, by `IterativeCV` unless they are given."""
        n_classes = len(self.classes_)
        if self.mode == "vanilla" and given.noise_rate is not None:
            return Selection.of_everything(labels, given.noise_rate)
        if given.sets is not None and self.mode == "incv":
            return self._given_selection(labels, given.sets, given.noise_rate)

        rounds = IterativeCV(self.select, self.n_rounds, self.n_folds, seed=seed)
        if self.mode == "vanilla":  # for the noise rate alone
            rounds = replace(rounds, select="posterior", n_rounds=1)
        found = rounds.run(self._trainer(data, n_classes), labels, n_classes=n_classes, groups=given.groups)
        self.cross_validation_ = found
        if self.mode == "vanilla":
            return Selection.of_everything(labels, found.rounds[-1].noise_rate)
        selection = selection_after(found, noise_rate=given.noise_rate)
        # if nothing of a class was selected: noisy is better than never seen
        missing = (np.bincount(labels[selection.selected], minlength=n_classes) == 0)[labels]
        selection = replace(selection, selected=selection.selected | missing, candidate=selection.candidate & ~missing)
        if self.mode == "correct":
            if selection.wrong is None:
                raise InputError(
                    f"the {len(labels):,} labels do not tell which of them are wrong, so none can be corrected; "
                    "take mode 'incv'."
                )
            selection = corrected(selection, found.posterior.suggested, found.posterior.suggested_prob)
        return selection

    def _given_selection(
        self, labels: IntArray, sets: tuple[BoolArray, BoolArray], noise_rate: float | None
    ) -> Selection:
        selected, candidate = sets
        _check_classes(labels[selected], self.classes_)
        if noise_rate is None:
            # S is what agreed: its share of all, read as INCV reads the agreement of its first round
            noise_rate = noise_rate_from_agreement(float(selected.mean()), len(self.classes_))
        return Selection(labels, selected, candidate, noise_rate, as_published=self.select == "agreement")


class _Given(NamedTuple):
    """Sets, a noise rate and groups that the caller of `fit` knows already."""

    sets: tuple[BoolArray, BoolArray] | None
    """S and C as masks (n,)."""
    noise_rate: float | None
    """ε̂, in [0, 1)."""
    groups: IntArray | None
    """(n,) groups that stay in one fold."""


def _chosen(selected: npt.ArrayLike, candidate: npt.ArrayLike | None, n: int) -> tuple[BoolArray, BoolArray]:
    """Return S and C as masks (n,)."""
    s = _mask("selected", selected, n)
    c = np.zeros(n, np.bool_) if candidate is None else _mask("candidate", candidate, n)
    if not s.any():
        raise InputError("selected is empty; there is nothing to train on.")
    if (s & c).any():
        raise InputError(
            f"image {int(np.argmax(s & c))} is both selected and candidate; an image can only be one of them."
        )
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
        raise InputError(f"{name} is neither a mask ({n},) nor indices in 0-{n - 1}; it takes one of them.")
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
