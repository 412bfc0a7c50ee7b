"""Backbones: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import Classifier, load_backbone, pooled, with_heads
from cvcoteach.training.extraction import extract_features
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.networks import feature_head
from cvcoteach.training.standardisation import Standardisation
from tests.backbones import Colours, images

FAKES = "tests.backbones"
TRUSTED = [f"{FAKES}:colours", f"{FAKES}:from_weights"]


# -- loading --


@pytest.mark.parametrize(("name", "d"), [("resnet18", 512), ("squeezenet1_1", 512), ("mobilenet_v3_small", 1024)])
def test_the_classifier_of_a_torchvision_network_is_cut_off(name: str, d: int) -> None:
    backbone = load_backbone(f"torchvision:{name}", "none")
    assert backbone.size == 224
    assert not backbone.network.training
    assert pooled(backbone.network(torch.zeros(2, 3, 64, 64))).shape == (2, d)


def test_preprocessing_is_that_of_the_weights() -> None:
    backbone = load_backbone("torchvision:efficientnet_b1", "none")
    assert (backbone.size, backbone.interpolation) == (240, "bilinear")
    assert_allclose(backbone.mean, (0.485, 0.456, 0.406))
    assert_allclose(backbone.std, (0.229, 0.224, 0.225))


def test_timm_networks_give_features_and_their_own_preprocessing() -> None:
    pytest.importorskip("timm")
    backbone = load_backbone("timm:vit_tiny_patch16_224", "none")
    assert (backbone.size, backbone.interpolation, backbone.mean) == (224, "bicubic", (0.5, 0.5, 0.5))
    assert pooled(backbone.network(torch.zeros(1, 3, 224, 224))).shape == (1, 192)


def test_a_function_builds_a_backbone_that_says_how_its_images_should_be() -> None:
    backbone = load_backbone(f"{FAKES}:colours", trusted=TRUSTED)
    assert (backbone.size, backbone.mean, backbone.std) == (8, (0.0,) * 3, (1.0,) * 3)
    assert load_backbone(f"{FAKES}:colours", size=6, trusted=TRUSTED).size == 6


@pytest.mark.parametrize("function", ["colours", "from_weights"])
def test_weights_of_a_file_are_loaded_by_the_function_or_for_it(function: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weight": torch.full((1, 3, 1, 1), 5.0)}, file)
    network = load_backbone(f"{FAKES}:{function}", str(file), trusted=TRUSTED).network
    assert float(network.state_dict()["weight"][0, 0, 0, 0]) == 5


def test_weights_of_a_torchvision_network_come_from_a_file_whatever_its_classes(tmp_path: Path) -> None:
    network = ModelFactory(ModelSpec.parse("resnet18", "none")).build(7, 3, seed=3)
    file = tmp_path / "resnet18.pth"
    torch.save(network.state_dict(), file)
    backbone = load_backbone("torchvision:resnet18", str(file))
    assert torch.equal(backbone.network.state_dict()["conv1.weight"], network.state_dict()["conv1.weight"])


def test_an_exported_file_is_a_backbone_with_fixed_weights(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    sample = torch.rand(2, 3, 8, 8)
    file = tmp_path / "a.pt2"
    exported = torch.export.export(network, (sample,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    torch.export.save(exported, file)
    backbone = load_backbone(str(file), size=8, trusted=[str(file)])
    features = extract_features(backbone, images(70), "key", cache_dir=tmp_path)
    assert features.shape == (70, 4)
    with pytest.raises(InputError, match="whose weights are fixed"):
        Classifier(backbone, 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_file_is_a_backbone(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    torch.jit.trace(network, torch.rand(1, 3, 8, 8)).save(tmp_path / "a.pt")
    backbone = load_backbone(str(tmp_path / "a.pt"), size=8, trusted=[str(tmp_path / "a.pt")])
    assert pooled(backbone.network(torch.rand(5, 3, 8, 8))).shape == (5, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is not a file; it takes torchvision:<model>"),
        ("torchvision:resnet81", "resnet18"),
        ("timm:resnet81", "did you mean"),
        (f"{FAKES}:no_such", "backbone is .* cannot be imported"),
        (f"{FAKES}:no_network", "returned int"),
        (__file__, "is neither a file of torch.jit.save"),
    ],
)
def test_what_is_not_a_backbone_is_refused(name: str, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(InputError, match=message):
        load_backbone(name, trusted=[name])


def test_weights_that_are_not_a_file_and_pickles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights is 'there.pt', which is not a file"):
        load_backbone(f"{FAKES}:colours", "there.pt", trusted=TRUSTED)
    torch.save(Colours(), tmp_path / "whole.pt")  # a pickled network
    with pytest.raises(
        InputError, match=r"cannot be read as weights: .* nothing is unpickled; save the network's state_dict"
    ):
        load_backbone(f"{FAKES}:colours", str(tmp_path / "whole.pt"), trusted=TRUSTED)


def test_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(InputError, match=r"bring https://\S+resnet18\S+\.pth and give --weights FILE"):
        load_backbone("torchvision:resnet18")


def test_timm_weights_that_cannot_be_fetched_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def offline(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        if pretrained:
            raise OSError("no network")
        return create(name, num_classes=num_classes)

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"bring model.safetensors of huggingface.co/timm/\S+ and give --weights FILE"):
        load_backbone("timm:resnet18")


def test_outputs_are_pooled_to_one_row_per_image() -> None:
    maps = torch.rand(2, 5, 3, 3)
    assert_allclose(pooled(maps), maps.mean(dim=(2, 3)))
    assert_allclose(pooled(maps.flatten(2).transpose(1, 2)), maps.mean(dim=(2, 3)), rtol=1e-6)
    assert pooled((maps[:, :, 0, 0], None)).shape == pooled({"features": maps}).shape == (2, 5)
    with pytest.raises(InputError, match=r"returns a tensor of shape \(2,\)"):
        pooled(torch.zeros(2))


def test_a_fine_tuned_backbone_begins_with_even_odds() -> None:
    models = ModelFactory(ModelSpec.parse(f"backbone:{FAKES}:colours"), trusted=TRUSTED)
    network = models.build(4, 3)
    assert torch.equal(network(torch.rand(2, 3, 8, 8)), torch.zeros(2, 4))
    assert all(p.requires_grad for p in network.parameters())
    assert models.preprocessing.size == 8


def test_a_backbone_used_on_another_device_is_brought_back() -> None:
    backbone = load_backbone("torchvision:resnet18", "none", size=32)
    backbone.network.to(torch.float64)
    moved: list[str] = []
    backbone.network.cpu = lambda: moved.append("cpu") or backbone.network.float()
    with_heads(backbone, [feature_head(512, 3)], Standardisation(np.zeros(512), np.ones(512)), 3)
    assert moved == ["cpu"]


def test_a_copy_is_trained_and_the_backbone_stays_as_it_was() -> None:
    backbone = load_backbone(f"{FAKES}:colours", trusted=TRUSTED)
    network = Classifier(backbone.copied(), 4)
    network.body.weight.data += 1
    assert float(backbone.network.weight[0, 0, 0, 0]) == 2
    assert not backbone.network.weight.requires_grad
    assert network.body.weight.requires_grad
