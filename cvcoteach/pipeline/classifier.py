"""From a retraining set to classifiers: the pair by Co-teaching, and a plain network to compare it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from cvcoteach.coteaching.curriculum import Curriculum
from cvcoteach.coteaching.model_files import ImageFormat, Model, load_weights, save_weights
from cvcoteach.coteaching.training import CoTeachingTask, Epoch
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.retraining_set import RetrainingSet
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.backbones import with_heads
from cvcoteach.training.batches import BatchSource, ImageBatches
from cvcoteach.training.checkpoints import run_to_end
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import set_threads
from cvcoteach.training.loop import Training
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.recipe import Recipe

CHECKPOINT, PLAIN_CHECKPOINT, PLAIN_WEIGHTS = "checkpoint.pt", "plain.checkpoint.pt", "plain.safetensors"


@dataclass(frozen=True, eq=False)
class ClassifierTraining:
    """Trains classifiers in a folder, where a killed training resumes from its last epoch."""

    folder: Path
    """Holds checkpoints and the plain network's weights."""
    data: RetrainingSet
    """n images or features, with their labels."""
    task: CoTeachingTask
    """What the pair is trained on, and how; of the same images."""
    plan: ComputePlan
    """How both trainings are computed."""

    def pair(self, progress: RunProgress) -> tuple[Model, list[Epoch]]:
        """Train two networks by Co-teaching.

        Raises:
            InputError: A loss is not finite.
        """
        training = self.task.start(self.plan)
        run_to_end(training, self.folder / CHECKPOINT, progress.epoch)
        return self._classifier(training.networks, training.source), training.history

    def plain(self, progress: RunProgress) -> Model:
        """Train one network on all given labels, with as many image passes; once trained, it is kept in the folder.

        Raises:
            InputError: A loss is not finite, or the weights in the folder do not fit.
        """
        task, data, file = self.task, self.data, self.folder / PLAIN_WEIGHTS
        rows = np.arange(len(data))
        source = task.inputs.batches(self.plan, rows)
        network = task.inputs.network(task.n_classes, task.seed)
        if file.exists():
            load_weights(file, [network], task.n_classes)
            (self.folder / PLAIN_CHECKPOINT).unlink(missing_ok=True)  # of a call that was killed before it could
            return self._classifier([network], source)
        recipe = plain_recipe(task.recipe, task.curriculum, len(data))
        progress.note(f"For comparison: one plain network on all {len(data):,} given labels, {epochs_of(recipe)}.")
        network = self.plan.placed(network)
        training = Training([network], source, rows, data.given, recipe, seed=task.seed)
        run_to_end(training, self.folder / PLAIN_CHECKPOINT, progress.epoch)
        save_weights(file, [network])
        (self.folder / PLAIN_CHECKPOINT).unlink(missing_ok=True)
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
    """Return the plan that the folder records, or make one and record it."""
    plan = ComputePlan.recorded(folder.record, machine.device)
    if plan is None:
        plan = task.inputs.plan(
            task.recipe, task.n_classes, device=machine.device, threads=machine.threads, precision=machine.precision
        )
        if not folder.done:
            folder.save(plan=asdict(plan))
    set_threads(plan.threads)
    return plan
