"""From a retraining set to classifiers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cvcoteach.coteaching.curriculum import incv_curriculum
from cvcoteach.coteaching.model_files import ImageFormat, Model, load_model, save_model
from cvcoteach.coteaching.selection import Selection
from cvcoteach.coteaching.training import CoTeachingTask
from cvcoteach.issues.corrections import Corrected
from cvcoteach.pipeline.classifier import ClassifierTraining, plain_recipe
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.retraining_set import Estimates, ImageProperties, RetrainingSet
from cvcoteach.training.backbones import load_backbone, with_heads
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.extraction import extract_features
from cvcoteach.training.inputs import FeatureInputs
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.standardisation import Standardisation
from tests.images import dataset


def test_the_plain_network_gets_as_many_image_passes() -> None:
    curriculum = incv_curriculum(np.arange(600), np.arange(600, 1000), 0.3, 20, n=1200, n_classes=10)
    assert curriculum.warmup == 4
    assert curriculum.passes(20) == 20 * 600 + 16 * 300
    recipe = Recipe(epochs=20, milestones=((10, 0.1),))
    plain = plain_recipe(recipe, curriculum, 1200)
    assert plain.epochs == 14
    assert plain.milestones == ((7, 0.1),)
    assert plain_recipe(recipe, curriculum, 10**6).epochs == 1


def test_a_saved_classifier_gives_images_what_its_heads_gave_their_features(tmp_path: Path) -> None:
    pixels = dataset(24, 0.0)[0][..., None].repeat(3, axis=3)
    backbone = load_backbone("torchvision:resnet18", "none", size=32)
    features = extract_features(backbone, pixels, "shapes", cache_dir=tmp_path, device="cpu", threads=1)
    standard = Standardisation.of(features)
    inputs = FeatureInputs(standard.applied(features))
    heads = [inputs.network(3, seed).eval() for seed in (1, 2)]
    with torch.inference_mode():
        of_features = sum(head(torch.from_numpy(inputs.features)).softmax(dim=1) for head in heads) / 2
    whole = with_heads(backbone, heads, standard, 3)
    spec, names = ModelSpec.parse("frozen:torchvision:resnet18@32"), ("a", "b", "c")
    images = ImageFormat(pixels.shape[1], 3, Scaling(backbone.mean, backbone.std))
    save_model(tmp_path, Model([whole], spec, names, images, False))
    loaded = load_model(tmp_path)
    assert not loaded.networks[0].train().body.training, "a frozen body takes no statistics"
    of_images = loaded.predict_proba(pixels, ComputePlan())
    np.testing.assert_allclose(of_images, of_features.numpy(), atol=0.01)
    assert of_images.std(axis=0).min() > 0.03, "else anything would be close"


def retraining_set() -> RetrainingSet:
    places = np.arange(10)
    nothing = np.zeros(10, bool)
    return RetrainingSet(
        paths=tuple(map(str, places)),
        rows=places,
        inputs=FeatureInputs(np.zeros((10, 2), np.float32)),
        given=places % 2,
        corrected=Corrected(places % 2, places % 2 == 0, places % 2 == 1, nothing, nothing),
        estimates=Estimates(None, places % 2, np.ones(10)),
        class_names=("cat", "dog"),
        images=ImageProperties(8, 1, "key"),
    )


def test_where_everything_of_a_class_is_flagged_no_network_is_compared_that_leaves_the_flagged_out(
    tmp_path: Path,
) -> None:
    data = retraining_set()
    selection = Selection.of_everything(data.given, 0.0)
    task = CoTeachingTask(data.inputs, selection, 2, Recipe(), selection.curriculum(2, 10), 0)
    told: list[str] = []
    progress = RunProgress()
    progress.note = told.append  # type: ignore[method-assign]
    assert ClassifierTraining(tmp_path, data, task, ComputePlan()).left_out(progress) is None
    assert "A class has no image that counts as clean" in told[0]
    assert not list(tmp_path.iterdir())


def test_steps_that_are_not_captured_are_a_note_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = retraining_set()
    selection = Selection.of_everything(data.given, 0.0)
    recipe = Recipe(epochs=1)
    task = CoTeachingTask(data.inputs, selection, 2, recipe, selection.curriculum(1, 10), 0)
    told: list[str] = []
    progress = RunProgress()
    progress.note = told.append  # type: ignore[method-assign]
    training = ClassifierTraining(tmp_path, data, task, ComputePlan(captured=True, resident=False))
    # what follows the training needs images
    monkeypatch.setattr(ClassifierTraining, "_classifier", lambda *args: None)
    monkeypatch.setattr(ClassifierTraining, "_calibration", lambda *args: None)
    training.pair(progress)
    training.plain(progress)
    uncaptured = "steps run one by one, not captured: the inputs are fetched batch by batch."
    assert told.count(uncaptured) == 2
