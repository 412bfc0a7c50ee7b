"""From a model's name to networks."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import load_backbone
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.loop import logits_of
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.pretrained import Preprocessing
from cvcoteach.training.recipe import Recipe
from cvcoteach.training.torch_trainer import TorchTrainer
from tests.backbones import counted, images


def built(name: str, n_classes: int, channels: int, weights: str | None = None, seed: int = 0) -> nn.Module:
    """A fresh network."""
    return ModelFactory(ModelSpec.parse(name, weights), trusted=[name]).build(n_classes, channels, seed=seed)


def preprocessing(name: str, weights: str | None = None) -> Preprocessing:
    """How the model's images should be."""
    return ModelFactory(ModelSpec.parse(name, weights), trusted=[name]).preprocessing


def test_the_same_seed_gives_the_same_weights_another_others_and_torchs_random_state_stays() -> None:
    before = torch.get_rng_state()
    first, second, other = (built("small", 4, 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_network_of_torchvisions_gets_a_last_layer_of_our_classes(name: str, channels: int) -> None:
    network = built(name, 7, channels, "none").eval()
    assert network(torch.rand(1, channels, 64, 64)).shape == (1, 7)


def test_grey_images_are_repeated_for_networks_that_want_colour() -> None:
    network = built("resnet18", 3, 1, "none").eval()
    grey = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))


@pytest.mark.slow
def test_auxiliary_classifiers_are_left_out() -> None:
    network = built("googlenet", 7, 3, "none").train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "hint"), [("smal", "did you mean small"), ("resnet-18", "resnet18"), ("resnet_32", "resnet32")]
)
def test_an_unknown_network_is_refused_by_naming_near_ones(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"model is '{name}'.*{hint}"):
        built(name, 3, 3)


# -- functions of the user's own ---------------------------------------------------------------------------------

OWN = """
from torch import nn

def by_position(k): return nn.Sequential(nn.Flatten(), nn.LazyLinear(k))
def by_name(width=4, *, n_classes): return nn.Linear(width, n_classes)
def no_network(n_classes): return n_classes
def fails(n_classes): raise RuntimeError("no such backbone")
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_networks.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_networks", raising=False)


@pytest.mark.usefixtures("own_module")
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_function_beside_the_user_builds_the_network() -> None:
    assert isinstance(built("my_networks:by_position", 6, 3), nn.Sequential)
    linear = built("my_networks:by_name", 6, 3)
    assert isinstance(linear, nn.Linear)
    assert linear.out_features == 6


@pytest.mark.usefixtures("own_module")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_networks:nothing", "cannot be imported: module 'my_networks' has no attribute 'nothing'"),
        ("no_such_module:f", "cannot be imported: No module named 'no_such_module'"),
        ("my_networks:fails", "called with n_classes = 6, raised RuntimeError: no such backbone"),
        ("my_networks:no_network", "returned int; it takes a function that returns a nn.Module"),
    ],
)
def test_a_function_that_builds_none_is_one_sentence(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        built(name, 6, 3)
    assert "\n" not in str(caught.value)


def test_our_own_networks_have_no_published_weights() -> None:
    with pytest.raises(InputError, match="small has no published weights"):
        built("small", 4, 3, "default")


def test_preprocessing_is_the_published_weights_own() -> None:
    wanted = preprocessing("efficientnet_b1")
    assert (wanted.size, wanted.mean, wanted.std) == (240, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert preprocessing("resnet18", "none").mean is None
    assert preprocessing("small").size is None
    assert preprocessing("any.module:function").mean is None
    with pytest.raises(InputError, match="did you mean"):
        preprocessing("resnet19")


# -- backbones ---------------------------------------------------------------------------------------------------


def test_a_backbone_is_loaded_once_for_size_probe_and_every_fold() -> None:
    before = counted.loads
    recipe = Recipe(model=ModelSpec.parse("backbone:tests.backbones:counted"), epochs=1, batch_size=8)
    models = ModelFactory(recipe.model, trusted=[recipe.model.name])
    assert models.preprocessing.size == 8
    trainer = TorchTrainer(images(20), 3, recipe, models=models, device="cpu", threads=1)
    for seed in (0, 1):
        trainer.fit_predict(np.arange(16), np.arange(16) % 3, np.arange(16, 20), seed)
    assert counted.loads == before + 1


def test_a_backbone_that_is_there_is_not_loaded_again() -> None:
    loaded = load_backbone("tests.backbones:counted", trusted=["tests.backbones:counted"])
    before = counted.loads
    models = ModelFactory(ModelSpec.parse("backbone:tests.backbones:counted"), loaded)
    first, second = (models.build(3, 3, seed=seed) for seed in (0, 1))
    assert counted.loads == before
    first.body.weight.data += 1
    assert float(second.body.weight.detach()[0, 0, 0, 0]) == float(loaded.network.weight[0, 0, 0, 0]) == 2


def test_networks_on_a_loaded_backbone_are_those_of_a_fresh_factory() -> None:
    spec = ModelSpec.parse("frozen:torchvision:resnet18@32", "none")
    models = ModelFactory(spec)
    models.build(3, 1, seed=5)
    again, fresh = models.build(3, 1, seed=4), ModelFactory(spec).build(3, 1, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), fresh.parameters(), strict=True))


def test_a_frozen_backbone_gets_heads_that_differ_by_seed() -> None:
    models = ModelFactory(ModelSpec.parse("frozen:tests.backbones:colours"), trusted=["tests.backbones:colours"])
    seen = torch.rand(2, 3, 8, 8)
    first, second = (logits_of(models.build(3, 3, seed=seed)(seen)) for seed in (0, 1))
    assert first.shape == (2, 3)
    assert not torch.equal(first, second)
    assert ComputePlan().placed(models.build(3, 3)).body.weight.requires_grad is False


def test_weights_are_checked_before_anything_is_built() -> None:
    for name in ("small", "resnet18", "backbone:tests.backbones:colours"):
        with pytest.raises(InputError, match=r"weights is 'missing.pt', which is not a file"):
            ModelFactory(ModelSpec.parse(name, "missing.pt"))
