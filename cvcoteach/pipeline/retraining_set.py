"""Read what a classifier is retrained on: the images of a finished run, their corrected labels, the test images."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, InputError, IntArray, PredProbs, counted, near, verb
from cvcoteach.coteaching.calibration import calibration_rows
from cvcoteach.data.images import Images, natural_size, size_for
from cvcoteach.data.levels import ORDINARY, Levels
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.data.splits import held_out
from cvcoteach.issues.corrections import Corrected, Judged, correct
from cvcoteach.noise_model.posterior import label_posterior
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.prepare import extracted, load
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.settings import Machine, RetrainSettings
from cvcoteach.training.backbones import Backbone
from cvcoteach.training.inputs import FeatureInputs, ImageInputs, Inputs
from cvcoteach.training.model_spec import OWN, ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.standardisation import Standardisation


@dataclass(frozen=True)
class NamedSource:
    """Images that the user named, and how to read them."""

    location: Path
    """As `read_source` takes it."""
    choices: Choices = field(default_factory=Choices)
    """How to read it."""
    paths: frozenset[str] | None = None
    """The images of it that are meant, by name; None: all."""

    def read(self, **options: Any) -> Source:
        """Read paths and labels; the options are those of `read_source`."""
        found = read_source(self.location, **asdict(self.choices), **options)
        return found if self.paths is None else found.subset(np.array([path in self.paths for path in found.paths]))


@dataclass(frozen=True, eq=False)
class RetrainRequest:
    """The user's request to retrain."""

    run: FinishedRun
    """What was found about the labels."""
    source: NamedSource
    """The images of the run."""
    corrections: Path | None
    """What people decided since, see `correct`."""
    settings: RetrainSettings
    """How to retrain."""
    model: ModelSpec
    """What to train, with the settings and the run's network taken into account."""


@dataclass(frozen=True)
class ImageProperties:
    """The decoded images of a dataset."""

    size: int
    """Height and width, pixels."""
    channels: int
    """1 or 3."""
    content_key: str
    """Fingerprint of all pixels."""
    levels: Levels = ORDINARY
    """Black and white of values that are not ordinary bytes."""


@dataclass(frozen=True, eq=False)
class Estimates:
    """The run's estimates of n labels."""

    wrong: FloatArray | None
    """(n,) probability that each corrected label is wrong, in [0, 1], 0 if reviewed; None: not known."""
    suggested: IntArray
    """(n,) most probable class."""
    suggested_prob: FloatArray
    """(n,) its probability, in [0, 1]."""
    posterior: PredProbs | None = None
    """(n, K) probability of each true class, rows sum to 1, a reviewed label being certain; None: not known."""


@dataclass(frozen=True, eq=False)
class FrozenBackbone:
    """A backbone that stays as it is; heads are trained on its features."""

    backbone: Backbone
    """Computes the features."""
    standard: Standardisation
    """Of its features."""


@dataclass(frozen=True, eq=False)
class RetrainingSet:
    """The n images of a run that can be read and are not excluded."""

    paths: tuple[str, ...]
    """n, as in the run."""
    rows: IntArray
    """(n,) which of the run's images they are, ascending."""
    inputs: Inputs
    """n images, or their features."""
    given: IntArray
    """(n,) labels as the run had them."""
    corrected: Corrected
    """Of the n: labels and sets after the corrections."""
    estimates: Estimates
    """Of the n."""
    class_names: tuple[str, ...]
    """(K,) names."""
    images: ImageProperties
    """Of the images that the classifier takes."""
    frozen: FrozenBackbone | None = None
    """What computed the features, if `inputs` holds features."""
    held_out: IntArray = field(default_factory=lambda: np.arange(0))
    """Which of the n to calibrate on and not to train on, but for modes "vanilla" and "paper"; ascending."""

    def __len__(self) -> int:
        return len(self.paths)


def read_retraining_set(request: RetrainRequest, machine: Machine, progress: RunProgress) -> RetrainingSet:
    """Read images and corrections, and compute features if heads are to be trained.

    Raises:
        InputError: Anything does not fit.
    """
    results, flags_decide = request.run.results, request.settings.selection == "flags"
    data = request.source.read()
    rows = _rows_in(data, request, progress)
    if not flags_decide and results.select == "posterior":
        raise InputError(
            f"{results.folder} selected by the posterior, not by agreement; take --select flags, or find the issues "
            "with --select agreement."
        )
    flagged = results.issues().is_label_issue
    selected = ~flagged if flags_decide else results.selected | results.reviewed
    candidate = flagged if results.select == "posterior" else results.candidate & ~results.reviewed
    nothing = np.zeros(len(results.labels), np.bool_)
    reviewed = _corrected(request, data.root, Corrected(results.labels, selected, candidate, nothing, nothing))
    models = _models(request, machine.trusted)
    frozen = models.backbone if models.spec.kind == "frozen" else None
    # as in find-issues: smaller images are scaled up on the device
    size = (
        min(natural_size(data), frozen.size) if frozen else request.settings.image_size or _size(request, models, data)
    )
    images = load(data, size, machine, progress)
    _check_same_images(request, data, images)
    unreadable = int((~images.readable[rows]).sum())
    if unreadable:
        progress.note(f"{counted(unreadable, 'image')} of the run can no longer be read, and left out.")
    kept = np.flatnonzero(images.readable[rows] & ~reviewed.excluded & ~results.held_out)
    if results.held_out.any():
        n_held_out = int(results.held_out.sum())
        progress.note(
            f"{counted(n_held_out, 'image')} of {_names_of(results)} "
            f"{verb(n_held_out, 'is', 'are')} held out, and not trained on."
        )
    wrong = request.run.wrong if flags_decide else None
    if wrong is not None:
        wrong = np.where(reviewed.reviewed, 0.0, wrong)[kept]
    posterior = None if wrong is None else _posterior(request.run, reviewed)[kept]
    inputs, frozen_backbone = _inputs(models, images, rows[kept], machine, progress)
    # a copy, or another image of its group, that is trained on would give the answer away
    alone = ~results.has_copy[kept] & ("groups" not in request.run.record) & (posterior is not None)
    return RetrainingSet(
        paths=tuple([results.paths[i] for i in kept]),
        rows=kept,
        inputs=inputs,
        given=results.labels[kept],
        corrected=_subset(reviewed, kept),
        estimates=Estimates(wrong, results.likely[kept], results.likely_prob[kept], posterior),
        class_names=results.class_names,
        images=ImageProperties(size, int(images.pixels.shape[3]), images.content_key, images.levels),
        frozen=frozen_backbone,
        held_out=calibration_rows(reviewed.labels[kept], np.flatnonzero(alone), request.settings.seed),
    )


def _names_of(results: RunResults) -> str:
    """Return the names of the splits that are held out, "test and val"."""
    return " and ".join(np.unique(np.asarray(results.found.splits)[results.held_out]).tolist())


def _rows_in(data: Source, request: RetrainRequest, progress: RunProgress) -> IntArray:
    """Return the rows (n,) of the run's images in the source."""
    run, location = request.run.results, request.source.location
    place = {path: row for row, path in enumerate(data.paths)}
    absent = [path for path in run.paths if path not in place]
    if absent:
        raise InputError(
            f"{len(absent):,} of {len(run.paths):,} images of the run "
            f"{verb(len(absent), 'is', 'are')} not in {location}, such as "
            f"{absent[0]}; it takes the source that the run was made from."
        )
    rows = np.array([place[path] for path in run.paths], np.int64)
    changed = sum(
        data.class_names[now] != run.class_names[then]
        for now, then in zip(data.labels[rows].tolist(), run.labels.tolist(), strict=True)
    )
    if changed:
        progress.note(
            f"{counted(changed, 'label')} in {location} {verb(changed, 'has', 'have')} changed since the run, which "
            "keeps the older ones; give new labels with --corrections, or run find-issues again."
        )
    return rows


def _check_same_images(request: RetrainRequest, data: Source, images: Images) -> None:
    """Raise InputError if the images are not those of the run, though they have the same names."""
    then = request.run.record.get("images", {})
    if then.get("count") == len(data) and then.get("digest") not in (None, images.content):
        again = f"cvcoteach retrain SOURCE --run {shlex.quote(str(request.run.results.folder))}"
        raise InputError(
            f"the images in {data.location} are not those of the run, though they have the same names; name the right "
            f"ones ({again}), or run find-issues on these."
        )


def _corrected(request: RetrainRequest, root: Path, before: Corrected) -> Corrected:
    """Return labels and sets after the corrections, if there are any."""
    run = request.run.results
    if request.corrections is None:
        return before
    judged = Judged(run.paths, root.absolute(), run.labels, run.issues().suggested, run.class_names)
    return correct(request.corrections, judged, before.selected, before.candidate)


def _posterior(run: FinishedRun, reviewed: Corrected) -> PredProbs:
    """Return the probability of each true class (n, K); of a label that a person reviewed it is 1."""
    results = run.results
    rows, found = np.flatnonzero(~results.held_out), results.found
    posterior = np.zeros(results.pred_probs.shape, np.float32)
    posterior[rows] = label_posterior(results.labels[rows], results.pred_probs[rows])
    # the run knows more of the given label: what annotators said, of overlaps and strangers
    each = np.arange(len(posterior))
    own, quality = posterior[each, results.labels], found.label_quality.astype(np.float32)
    posterior *= ((1 - quality) / np.maximum(1 - own, np.finfo(np.float32).tiny))[:, None]
    posterior[each, results.labels] = quality
    sure = np.flatnonzero(reviewed.reviewed | (results.reviewed & (reviewed.labels == results.labels)))
    posterior[sure] = 0
    posterior[sure, reviewed.labels[sure]] = 1
    return posterior


def _subset(whole: Corrected, rows: IntArray) -> Corrected:
    return Corrected(
        whole.labels[rows],
        whole.selected[rows],
        whole.candidate[rows],
        whole.excluded[rows],
        whole.reviewed[rows],
    )


def _size(request: RetrainRequest, models: ModelFactory, data: Source) -> int:
    """Return the image size, pixels: the run's, if it trained such a network too, else what `size_for` says."""
    identity, model = request.run.identity, str(models.spec)
    trained = identity.get("recipe", {}).get("model")
    if trained is not None and (trained == model or {trained, model} <= {*OWN}):
        return int(identity["image_size"])
    return size_for(data, models.preprocessing.size)


def _models(request: RetrainRequest, trusted: Collection[str]) -> ModelFactory:
    """Return what builds the networks; a backbone that stays as it is must be the run's own, if it has its name.

    Raises:
        InputError: The weights of the run's backbone have changed, or a classifier cannot hold it.
    """
    model, identity = request.model, request.run.identity
    if model.kind != "frozen":
        return ModelFactory(model, trusted=trusted)
    is_the_runs = identity.get("backbone") == model.name
    used = int(identity["image_size"]) if is_the_runs else None
    size = request.settings.image_size or model.image_size or used
    models = ModelFactory(replace(model, image_size=size), trusted=trusted)
    if not models.backbone.trainable:
        raise InputError(
            f"the features come from the file {model.name}, whose network a classifier cannot hold; name another "
            "network with --model."
        )
    if is_the_runs and models.backbone.digest != identity["weights_digest"]:
        raise InputError(f"{model.name} has other weights than in the run; bring the earlier ones with --weights.")
    return models


def _inputs(
    models: ModelFactory, images: Images, rows: IntArray, machine: Machine, progress: RunProgress
) -> tuple[Inputs, FrozenBackbone | None]:
    """Return the images in these rows, or their features, which find-issues may have left in the cache."""
    if models.spec.kind != "frozen":
        return ImageInputs(images.pixels, models, rows), None
    features = extracted(models.backbone, images, machine, progress)[rows]
    standard = Standardisation.of(features)
    return FeatureInputs(standard.applied(features)), FrozenBackbone(models.backbone, standard)


def load_test_images(
    source: NamedSource, data: RetrainingSet, machine: Machine, progress: RunProgress
) -> tuple[npt.NDArray[np.uint8], IntArray]:
    """Return the readable test images (m, size, size, C), and their classes (m,) in the numbers of the run.

    Raises:
        InputError: They cannot be read, or have a class that the run lacks.
    """
    found = source.read(least_classes=1)
    out = held_out(found.splits)
    if out is not None:
        progress.note(f"{source.location.name} has several splits; what is called train is no test.")
        found = found.subset(out)
    labels = numbers_of(found, data.class_names, str(source.location))
    wanted = data.images
    images = load(found, wanted.size, machine, progress, channels=wanted.channels, levels=wanted.levels)
    if images.errors:
        progress.note(f"{counted(len(images.errors), 'test image')} cannot be read, and left out.")
    rows = np.flatnonzero(images.readable)
    return (images.pixels if len(rows) == len(found) else images.pixels[rows]), labels[rows]


def numbers_of(data: Source, class_names: Sequence[str], where: str) -> IntArray:
    """Return the labels (n,) of a source in the numbers of a model's classes; see `numbers_of_classes`."""
    return numbers_of_classes(data.class_names, class_names, where)[data.labels]


def numbers_of_classes(given: Sequence[str], class_names: Sequence[str], where: str) -> IntArray:
    """Return the number (k,) that each of the given classes has among others.

    Raises:
        InputError: One of them is not among these.
    """
    number = {name: k for k, name in enumerate(class_names)}
    unknown = [name for name in given if name not in number]
    if unknown:
        raise InputError(
            f"{where} has the class {unknown[0]!r}, which the model lacks; {near(unknown[0], class_names)}"
        )
    return np.array([number[name] for name in given], np.int64)
