"""Predictions of a saved classifier."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.coteaching.model_files import ImageFormat, Model, save_model
from cvcoteach.data.sources import read_unlabelled
from cvcoteach.pipeline.predict import predict
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling
from tests.images import CLASSES, dataset

MACHINE = Machine("cpu", 1)


@pytest.fixture
def classifier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Model:
    """An untrained classifier of shapes, saved in the folder `model`."""
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    spec = ModelSpec.parse("small")
    images = ImageFormat(12, 1, Scaling((0.2,), (0.3,)))
    model = Model([ModelFactory(spec).build(3, 1)], spec, CLASSES, images, mirror=False)
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model", model)
    return model


def test_predictions_are_those_of_the_classifier_beside_the_given_labels(classifier: Model, tmp_path: Path) -> None:
    images, true, _ = dataset(9, 0.0)
    np.savez(tmp_path / "test.npz", images=images, labels=np.array(CLASSES)[true])
    found = predict(tmp_path / "model", tmp_path / "test.npz", tmp_path / "p.csv", MACHINE)
    probs = classifier.predict_proba(images[..., None], ComputePlan())
    np.testing.assert_allclose(found.table[[f"p:{name}" for name in CLASSES]].to_numpy(), probs, atol=1e-6)
    assert found.table.predicted_label.tolist() == np.array(CLASSES)[probs.argmax(axis=1)].tolist()
    assert found.accuracy == (probs.argmax(axis=1) == true).mean()
    assert found.unreadable == 0
    unnamed = predict(tmp_path / "model", tmp_path / "test.npz", tmp_path / "q.csv", MACHINE, ignore_labels=True)
    assert unnamed.accuracy is None


def test_a_source_of_two_formats_is_predicted_where_one_is_named(classifier: Model, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for name in ("data_batch_1.bin", "test_batch.bin"):
        np.zeros((4, 3073), np.uint8).tofile(tmp_path / "x" / name)
    (tmp_path / "x" / "train-images-idx3-ubyte").touch()
    with pytest.raises(InputError, match="looks like mnist and cifar; --format says"):
        predict(tmp_path / "model", tmp_path / "x", tmp_path / "p.csv", MACHINE, ignore_labels=True)
    named = {"format": "cifar", "split": "test", "ignore_labels": True}
    assert len(predict(tmp_path / "model", tmp_path / "x", tmp_path / "p.csv", MACHINE, **named).table) == 4


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no images"):
        read_unlabelled(tmp_path)
    with pytest.raises(InputError, match="does not exist; it takes a folder of images"):
        read_unlabelled(tmp_path / "nowhere")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_a_pipe_is_no_place_for_predictions(classifier: Model, tmp_path: Path) -> None:
    np.savez(tmp_path / "test.npz", images=dataset(9, 0.0)[0])
    os.mkfifo(tmp_path / "p.csv")
    with pytest.raises(InputError, match=r"p\.csv is not a regular file"):
        predict(tmp_path / "model", tmp_path / "test.npz", tmp_path / "p.csv", MACHINE)


def test_all_splits_are_predicted_with_and_without_their_labels(classifier: Model, tmp_path: Path) -> None:
    images, true, _ = dataset(9, 0.0)
    labels = np.array(CLASSES)[true]
    parts = {
        "train_images": images[:5],
        "train_labels": labels[:5],
        "test_images": images[5:],
        "test_labels": labels[5:],
    }
    np.savez(tmp_path / "d.npz", **parts)
    table = predict(tmp_path / "model", tmp_path / "d.npz", tmp_path / "p.csv", MACHINE).table
    without = predict(tmp_path / "model", tmp_path / "d.npz", tmp_path / "q.csv", MACHINE, ignore_labels=True).table
    assert without.path.tolist() == table.path.tolist()
    assert len(without) == 9
    assert (without.probability == table.probability).all()
    one = {"split": "test", "ignore_labels": True}
    assert len(predict(tmp_path / "model", tmp_path / "d.npz", tmp_path / "r.csv", MACHINE, **one).table) == 4
    source = read_unlabelled(tmp_path / "d.npz")
    assert source.description == "9 images (5 in train, 4 in test) without labels, d.npz"
