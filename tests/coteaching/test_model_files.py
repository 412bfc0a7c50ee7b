"""A classifier saved, loaded, exported; files that are not what they seem."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import safetensors.torch
import torch
from onnx.reference import ReferenceEvaluator

from cvcoteach._validation import InputError
from cvcoteach.coteaching.model_files import ImageFormat, Model, Whole, export_model, load_model, save_model
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.pretrained import last_layer
from tests.backbones import counted
from tests.images import dataset

SMALL = ModelSpec.parse("small")
GREY = ImageFormat(12, 1, Scaling((0.2,), (0.3,)))


def small_model(n_classes: int = 3, seed: int = 0) -> Model:
    networks = [ModelFactory(SMALL).build(n_classes, 1, seed=seed + i) for i in range(2)]
    names = tuple(f"class {k}" for k in range(n_classes))
    return Model(networks, SMALL, names, GREY, mirror=False)


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model, pixels = small_model(), dataset(6, 0.0)[0][..., None]
    save_model(tmp_path, model)
    again = load_model(tmp_path)
    assert (again.class_names, again.images, again.mirror) == (model.class_names, GREY, False)
    assert (again.images.size, again.images.channels, again.images.scaling) == (12, 1, Scaling((0.2,), (0.3,)))
    assert str(again.spec) == "small"
    np.testing.assert_array_equal(
        again.predict_proba(pixels, ComputePlan()), model.predict_proba(pixels, ComputePlan())
    )
    assert len(safetensors.torch.load_file(tmp_path / "model.safetensors")) == 2 * len(model.networks[0].state_dict())


def test_a_prediction_is_the_average_of_the_two_networks() -> None:
    model, pixels = small_model(), dataset(6, 0.0)[0][..., None]
    each = [
        Model([net], SMALL, model.class_names, GREY, False).predict_proba(pixels, ComputePlan())
        for net in model.networks
    ]
    np.testing.assert_allclose(model.predict_proba(pixels, ComputePlan()), (each[0] + each[1]) / 2, atol=1e-6)


def test_a_temperature_is_saved_and_changes_how_sure_predictions_are_but_not_what_they_are(tmp_path: Path) -> None:
    model, pixels = small_model(), dataset(6, 0.0)[0][..., None]
    plain = model.predict_proba(pixels, ComputePlan())
    save_model(tmp_path, replace(model, temperature=0.5))
    again = load_model(tmp_path)
    sharper = again.predict_proba(pixels, ComputePlan())
    np.testing.assert_allclose(sharper, plain**2 / (plain**2).sum(axis=1, keepdims=True), atol=1e-6)
    with torch.inference_mode():
        exported = Whole(again).eval()(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(exported, sharper, atol=1e-6)

    about = json.loads((tmp_path / "model.json").read_text())
    del about["temperature"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert load_model(tmp_path).temperature == 1, "of an earlier version"
    (tmp_path / "model.json").write_text(json.dumps({**about, "temperature": -1}))
    with pytest.raises(InputError, match="its temperature is -1"):
        load_model(tmp_path)


def test_weights_of_other_classes_are_refused(tmp_path: Path) -> None:
    save_model(tmp_path, small_model(5))
    about = json.loads((tmp_path / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**about, "classes": ["a", "b", "c"]}))
    with pytest.raises(InputError, match="is a model of 5 classes, but 3 are expected"):
        load_model(tmp_path)


def test_a_model_file_may_not_choose_whose_code_is_run(tmp_path: Path) -> None:
    save_model(tmp_path, small_model())
    about = json.loads((tmp_path / "model.json").read_text())
    about["architecture"]["model"] = "os:abort"
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=r"model.json asks for 'os:abort': .* add --trust os:abort"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("part", "change", "sentence"),
    [
        ("preprocessing", {"std": [0.0]}, "deviations above 0"),
        ("preprocessing", {"std": [float("inf")]}, "finite numbers"),
        ("preprocessing", {"mean": [float("nan")]}, "finite numbers"),
        ("preprocessing", {"std": [1.0, 1.0]}, "one for each channel"),
        ("preprocessing", {"std": [-1.0]}, "deviations above 0"),
        ("preprocessing", {"channels": 7}, "1 or 3 channels"),
        ("preprocessing", {"size": 0}, "up to 4,096 pixels"),
        ("preprocessing", {"size": 10**9}, "up to 4,096 pixels"),
        ("preprocessing", {"size": float("inf")}, "OverflowError"),
        ("architecture", {"networks": 0}, "takes 1 to 100"),
        ("architecture", {"networks": 10**9}, "takes 1 to 100"),
        ("", {"classes": []}, "two classes or more"),
        ("", {"classes": "abcde"}, "two classes or more"),
        ("", {"classes": ["a"] * 5}, "each once"),
    ],
)
def test_a_model_file_with_numbers_that_cannot_be_is_refused(
    tmp_path: Path, part: str, change: dict, sentence: str
) -> None:
    save_model(tmp_path, small_model())
    about = json.loads((tmp_path / "model.json").read_text())
    (about[part] if part else about).update(change)
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match=f"model.json is damaged.*{sentence}"):
        load_model(tmp_path)


def rewrite(folder: Path, architecture: dict) -> None:
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**about, "architecture": architecture}))


def test_a_model_file_of_an_earlier_version_is_read_and_its_backbone_loaded_once(tmp_path: Path) -> None:
    spec = ModelSpec.parse("frozen:tests.backbones:counted@8")
    models = ModelFactory(spec, trusted=[spec.name])
    names, colour = ("a", "b"), ImageFormat(8, 3, Scaling((0.0,) * 3, (1.0,) * 3))
    networks = [models.build(2, 3, seed=seed) for seed in (0, 1)]
    save_model(tmp_path, Model(networks, spec, names, colour, False))
    architecture = json.loads((tmp_path / "model.json").read_text())["architecture"]
    assert architecture == {"model": "frozen:tests.backbones:counted@8", "channels": 3, "networks": 2}
    before = counted.loads
    loaded = load_model(tmp_path, trusted=[spec.name])
    assert counted.loads == before + 1
    assert loaded.spec == spec.with_weights("none")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    expected = Model(networks, spec, names, colour, False).predict_proba(pixels, ComputePlan())
    np.testing.assert_array_equal(loaded.predict_proba(pixels, ComputePlan()), expected)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda folder: (folder / "model.json").unlink(), "holds no model of cvcoteach"),
        (lambda folder: (folder / "model.json").write_text("{"), "is damaged"),
        (lambda folder: (folder / "model.json").write_text('{"format": 9}'), "is damaged"),
        (lambda folder: rewrite(folder, {"model": 3, "channels": 1, "networks": 2}), "is damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no weights"), "cannot be read as safetensors"),
        (lambda folder: (folder / "model.safetensors").unlink(), "does not exist"),
    ],
)
def test_damaged_model_files_are_one_sentence(tmp_path: Path, spoil, sentence: str) -> None:
    save_model(tmp_path, small_model())
    spoil(tmp_path)
    with pytest.raises(InputError, match=sentence):
        load_model(tmp_path)


def colour_model() -> tuple[Model, np.ndarray]:
    """Of two networks and mirrored views, and five images."""
    networks = [ModelFactory(SMALL).build(3, 3, seed=seed) for seed in (0, 1)]
    for network in networks:  # as sure as after a training, so that answers differ from image to image
        network.train()(torch.rand(64, 3, 12, 12, generator=torch.Generator().manual_seed(0)))
        last_layer(network)[1].weight.data.mul_(100)
    images = ImageFormat(12, 3, Scaling((0.2, 0.3, 0.4), (0.3, 0.2, 0.1)))
    model = Model(networks, SMALL, ("a", "b", "c"), images, mirror=True)
    return model, np.random.default_rng(0).integers(0, 256, (5, 12, 12, 3), np.uint8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own exporter
def test_an_export_by_torch_takes_pixels_and_answers_as_the_model_does(tmp_path: Path) -> None:
    model, pixels = colour_model()
    expected = model.predict_proba(pixels, ComputePlan())
    assert expected.std(axis=0).max() > 0.01
    program = torch.export.load(export_model(model, tmp_path, "torch.export")).module()
    for n in (1, 5):
        answer = program(torch.from_numpy(pixels[:n])).detach().numpy()
        np.testing.assert_allclose(answer, expected[:n], atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own exporter
def test_an_export_to_onnx_takes_pixels_and_answers_as_the_model_does(tmp_path: Path) -> None:
    model, pixels = colour_model()
    expected = model.predict_proba(pixels, ComputePlan())
    proto = onnx.load(export_model(model, tmp_path, "onnx"))
    onnx.checker.check_model(proto, full_check=True)
    session = ReferenceEvaluator(proto)
    for n in (1, 5):
        (answer,) = session.run(["probabilities"], {"images": pixels[:n]})
        np.testing.assert_allclose(answer, expected[:n], atol=1e-5)


def test_a_missing_package_for_onnx_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(InputError, match=r"needs the package onnx.*; pip install"):
        export_model(small_model(), tmp_path, "onnx")


def test_a_model_file_that_names_more_or_larger_networks_builds_one_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, small_model())
    about = json.loads((tmp_path / "model.json").read_text())
    built: list[int] = []
    build = ModelFactory.build
    monkeypatch.setattr(ModelFactory, "build", lambda *arguments: built.append(1) or build(*arguments))
    for model, networks, most in (("small", 100, 0), ("small", 1, 0), ("resnet32", 2, 1)):
        about["architecture"] |= {"model": model, "networks": networks}
        (tmp_path / "model.json").write_text(json.dumps(about))
        with pytest.raises(InputError, match=r"does not hold the weights of|holds the weights of another network"):
            load_model(tmp_path)
        assert len(built) <= most


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    model = small_model()
    next(iter(model.networks[1].parameters())).data.view(-1)[3] = value
    save_model(tmp_path, model)
    with pytest.raises(InputError, match="holds a number that is not finite"):
        load_model(tmp_path)


def test_predictions_that_are_no_numbers_are_no_class_0() -> None:
    model = small_model()
    for parameter in model.networks[0].parameters():
        parameter.data.mul_(1e30)
    with pytest.raises(InputError, match="computes no probabilities for some images"):
        model.predict_proba(dataset(6, 0.0)[0][..., None], ComputePlan())
