"""From a retraining set to classifiers: the pair that is kept, and plain networks to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from cvcoteach._validation import IntArray
from cvcoteach.coteaching.calibration import Calibration, calibrate
from cvcoteach.coteaching.curriculum import Curriculum
from cvcoteach.coteaching.model_files import ImageFormat, Model, load_weights, save_weights
from cvcoteach.coteaching.training import CoTeachingTask, CoTraining, Epoch
from cvcoteach.pipeline.on_engine import here
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.retraining_set import RetrainingSet
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.backbones import with_heads
from cvcoteach.training.batches import BatchSource, ImageBatches
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import set_threads
from cvcoteach.training.loop import Training, predict
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"


@dataclass(frozen=True, eq=False)
class ClassifierTraining:
    """Trains classifiers in a folder, where a killed training resumes from its last epoch."""

    folder: Path
    """Holds checkpoints and the plain networks' weights."""
    data: RetrainingSet
    """n images or features, with their labels."""
    task: CoTeachingTask
    """What the pair is trained on, and how; of the same images."""
    plan: ComputePlan
    """How all trainings are computed."""

    def pair(self, progress: RunProgress) -> tuple[Model, list[Epoch], Calibration | None]:
        """Train the two networks of the task, and calibrate them on the images that were held out, if there are any.

        Raises:
            InputError: A loss is not finite.
        """
        training = self.task.start(self.plan, progress.note)
        run_to_end(training, self.folder / CHECKPOINT, progress.epoch)
        classifier, calibration = self._classifier(training.networks, training.source), self._calibration(training)
        if calibration is not None:
            classifier = replace(classifier, temperature=calibration.temperature)
        return classifier, training.history, calibration

    def _calibration(self, training: CoTraining) -> Calibration | None:
        """Return what the held-out images say about trained networks; None without any."""
        selection, posterior, rows = self.task.selection, self.data.estimates.posterior, self.data.held_out
        if posterior is None or not len(rows) or (selection.selected | selection.candidate)[rows].any():
            return None
        mirror = self.task.recipe.mirrors_predictions
        return calibrate(predict(training.networks, training.source, rows, mirror=mirror), posterior[rows])

    def plain(self, progress: RunProgress) -> Model:
        """Train one network on all given labels, with as many image passes; once trained, it is kept in the folder.

        Raises:
            InputError: A loss is not finite, or the weights in the folder do not fit.
        """
        rows = np.arange(len(self.data))
        return self._single("plain", rows, self.data.given, f"all {len(rows):,} given labels", progress)

    def left_out(self, progress: RunProgress) -> Model | None:
        """Train one network on what counts as clean alone, likewise; return None if a class has no such image.

        Raises:
            InputError: As `plain`.
        """
        data, corrected = self.data, self.data.corrected
        rows = np.flatnonzero(corrected.selected)
        if (np.bincount(corrected.labels[rows], minlength=len(data.class_names)) == 0).any():
            progress.note(
                "A class has no image that counts as clean; no network is compared that learns from those alone."
            )
            return None
        return self._single("left-out", rows, corrected.labels[rows], f"the {len(rows):,} not flagged", progress)

    def _single(self, name: str, rows: IntArray, labels: IntArray, what: str, progress: RunProgress) -> Model:
        task, file, checkpoint = self.task, self.folder / f"{name}.safetensors", self.folder / f"{name}.checkpoint.pt"
        source = task.inputs.batches(self.plan, rows)
        network = task.inputs.network(task.n_classes, task.seed)
        if file.exists():
            load_weights(file, [network], task.n_classes)
            checkpoint.unlink(missing_ok=True)  # of a call that was killed before it could
            return self._classifier([network], source)
        recipe = plain_recipe(task.recipe, task.curriculum, len(rows))
        progress.note(f"For comparison: one plain network on {what}, {epochs_of(recipe)}.")
        network = self.plan.placed(network)
        training = Training([network], source, rows, labels, recipe, seed=task.seed, note=progress.note)
        run_to_end(training, checkpoint, progress.epoch)
        save_weights(file, [network])
        checkpoint.unlink(missing_ok=True)
        return self._classifier([network], source)

    def _classifier(self, networks: Sequence[nn.Module], source: BatchSource) -> Model:
        """Return networks as a classifier of images; heads get their backbone back."""
        data, frozen = self.data, self.data.frozen
        if frozen is not None:
            networks = [with_heads(frozen.backbone, networks, frozen.standard, self.task.n_classes)]
            scaling = Scaling(frozen.backbone.mean, frozen.backbone.std)
        else:
            assert isinstance(source, ImageBatches)
            scaling = source.scaling
        images = ImageFormat(data.images.size, data.images.channels, scaling, data.images.levels)
        spec, recipe = architecture(data, self.task.recipe), self.task.recipe
        return Model(networks, spec, data.class_names, images, recipe.mirrors_predictions)


def architecture(data: RetrainingSet, recipe: Recipe) -> ModelSpec:
    """Return what each network of the classifier is."""
    if data.frozen is None:
        return recipe.model
    backbone = data.frozen.backbone
    return ModelSpec("frozen", backbone.name, backbone.size)


def plain_recipe(recipe: Recipe, curriculum: Curriculum, n: int) -> Recipe:
    """Return the recipe with as many image passes over n images as the curriculum has, at least one epoch."""
    epochs = max(1, round(curriculum.passes(recipe.epochs) / n))
    factor = epochs / recipe.epochs
    milestones = tuple([(round(epoch * factor), rate) for epoch, rate in recipe.milestones])
    return replace(recipe, epochs=epochs, milestones=milestones)


def epochs_of(recipe: Recipe) -> str:
    """Return how many epochs the recipe has, in words."""
    return "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"


def plan_of(folder: RunFolder, task: CoTeachingTask, machine: Machine) -> ComputePlan:
    """Return the plan that the folder records, or make one and record it; of this process, which trains.

    Raises:
        InputError: The recorded plan is damaged, or neither this machine nor its cluster has the device.
    """
    machine = here(machine)
    plan = ComputePlan.recorded(folder.record, machine.device)
    if plan is None:
        plan = task.inputs.plan(
            task.recipe,
            task.n_classes,
            device=machine.device,
            threads=machine.threads,
            precision=machine.precision,
            deterministic=machine.deterministic,
        )
        if not folder.done:
            folder.save(plan=asdict(plan))
    set_threads(plan.threads)
    return plan
