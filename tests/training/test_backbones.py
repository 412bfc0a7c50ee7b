"""Backbones: where they come from, what is refused, and features that are computed once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import Backbone, Classifier, load_backbone, pooled, weights_digest
from cvcoteach.training.batches import Pixels, Scaling
from cvcoteach.training.devices import Plan
from cvcoteach.training.extraction import extract_features
from cvcoteach.training.loop import Training
from cvcoteach.training.models import build_model, preprocessing
from cvcoteach.training.pretrained import Preprocessing
from cvcoteach.training.recipe import FINETUNE


class Colours(nn.Module):
    """A map of the three colours, each at half the size, times a weight."""

    preprocessing = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, 3, 1, 1), 2.0))
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            self.seen += len(images)
        return nn.functional.avg_pool2d(images, 2) * self.weight


class Stopping(Colours):
    """Is killed after some images."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def forward(self, images: Tensor) -> Tensor:
        if self.seen >= self.after:
            raise KeyboardInterrupt
        return super().forward(images)


def colours() -> nn.Module:
    return Colours()


def from_weights(weights: str | None = None) -> nn.Module:
    network = Colours()
    if weights:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return network


def no_network() -> int:
    return 3


def backbone_of(network: nn.Module, size: int = 8) -> Backbone:
    zero, one = (0.0,) * 3, (1.0,) * 3
    return Backbone("fake", network.eval(), weights_digest(network), size, zero, one, "bilinear", True)


def images(n: int = 300, size: int = 8, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, size, size, channels), dtype=np.uint8)


HERE = "tests.training.test_backbones"


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
    backbone = load_backbone(f"{HERE}:colours")
    assert (backbone.size, backbone.mean, backbone.std) == (8, (0.0,) * 3, (1.0,) * 3)
    assert load_backbone(f"{HERE}:colours", size=6).size == 6


@pytest.mark.parametrize("function", ["colours", "from_weights"])
def test_weights_of_a_file_are_loaded_by_the_function_or_for_it(function: str, tmp_path: Path) -> None:
    file = tmp_path / "weights.pt"
    torch.save({"weight": torch.full((1, 3, 1, 1), 5.0)}, file)
    network = load_backbone(f"{HERE}:{function}", str(file)).network
    assert float(network.state_dict()["weight"][0, 0, 0, 0]) == 5


def test_weights_of_a_torchvision_network_come_from_a_file_whatever_its_classes(tmp_path: Path) -> None:
    network = build_model("resnet18", 7, 3, "none", seed=3)
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
    backbone = load_backbone(str(file), size=8)
    features = extract_features(backbone, images(70), "key", cache_dir=tmp_path)
    assert features.shape == (70, 4)
    with pytest.raises(InputError, match="whose weights are fixed"):
        Classifier(backbone, 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_torchscript_file_is_a_backbone(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    torch.jit.trace(network, torch.rand(1, 3, 8, 8)).save(tmp_path / "a.pt")
    backbone = load_backbone(str(tmp_path / "a.pt"), size=8)
    assert pooled(backbone.network(torch.rand(5, 3, 8, 8))).shape == (5, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18", "is no file; it takes torchvision:<model>"),
        ("torchvision:resnet81", "resnet18"),
        ("timm:resnet81", "did you mean"),
        (f"{HERE}:no_such", "backbone is .* cannot be imported"),
        (f"{HERE}:no_network", "returned int"),
        (__file__, "is no file of torch.jit.save"),
    ],
)
def test_what_is_no_backbone_is_refused(name: str, message: str) -> None:
    if name.startswith("timm"):
        pytest.importorskip("timm")
    with pytest.raises(InputError, match=message):
        load_backbone(name)


def test_weights_that_are_no_file_and_pickles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"weights is 'there.pt', which is no file"):
        load_backbone(f"{HERE}:colours", "there.pt")
    torch.save(Colours(), tmp_path / "whole.pt")  # a pickled network
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_backbone(f"{HERE}:colours", str(tmp_path / "whole.pt"))


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


def test_answers_are_pooled_to_one_row_an_image() -> None:
    maps = torch.rand(2, 5, 3, 3)
    assert_allclose(pooled(maps), maps.mean(dim=(2, 3)))
    assert_allclose(pooled(maps.flatten(2).transpose(1, 2)), maps.mean(dim=(2, 3)), rtol=1e-6)
    assert pooled((maps[:, :, 0, 0], None)).shape == pooled({"features": maps}).shape == (2, 5)
    with pytest.raises(InputError, match=r"answers a tensor of shape \(2,\)"):
        pooled(torch.zeros(2))


def test_a_fine_tuned_backbone_begins_with_even_odds() -> None:
    network = build_model(f"backbone:{HERE}:colours", 4, 3)
    assert torch.equal(network(torch.rand(2, 3, 8, 8)), torch.zeros(2, 4))
    assert all(p.requires_grad for p in network.parameters())
    assert preprocessing(f"backbone:{HERE}:colours").size == 8


def test_in_fine_tuning_the_body_moves_as_much_less_as_the_recipe_says() -> None:
    pixels, labels = images(32), np.arange(32) % 4

    def moved(body_rate: float) -> tuple[Tensor, Tensor]:
        recipe = replace(FINETUNE, epochs=1, optimizer="sgd", schedule="constant", body_rate=body_rate, flip=False)
        network = build_model("small", 4, 3)
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        scaling, plan = Scaling((0.5,) * 3, (0.25,) * 3), Plan()
        Training([network], Pixels(pixels, plan), np.arange(32), labels, recipe, scaling, plan, seed=0).run_epoch()
        after = dict(network.named_parameters())
        first, last = next(iter(before)), list(before)[-1]
        return after[first].detach() - before[first], after[last].detach() - before[last]

    (body, head), (slow_body, same_head) = moved(1.0), moved(0.1)
    assert body.abs().max() > 0
    assert_allclose(slow_body, 0.1 * body, atol=1e-6)
    assert_allclose(same_head, head)


# -- features --


def test_features_are_those_of_the_bare_network(tmp_path: Path) -> None:
    pixels = images()
    network = Colours()
    features = extract_features(backbone_of(network), pixels, "key", cache_dir=tmp_path)
    expected = 2 * pixels.astype(np.float32).mean(axis=(1, 2)) / 255
    assert features.dtype == np.float16
    assert_allclose(features, expected, atol=2e-3)
    assert not network.training


def test_small_and_grey_images_are_scaled_up_and_repeated(tmp_path: Path) -> None:
    pixels = images(5, size=4, channels=1)
    features = extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path)
    assert_allclose(features, np.repeat(features[:, :1], 3, axis=1))
    assert_allclose(features[:, 0], 2 * pixels.mean(axis=(1, 2, 3)) / 255, atol=0.05)


def test_the_same_images_and_weights_are_computed_once(tmp_path: Path) -> None:
    pixels, network = images(), Colours()
    backbone = backbone_of(network)
    first = extract_features(backbone, pixels, "key", cache_dir=tmp_path)
    seen = network.seen
    assert_array_equal(extract_features(backbone, pixels, "key", cache_dir=tmp_path), first)
    assert network.seen == seen


@pytest.mark.parametrize("change", ["content", "weights", "size"])
def test_other_images_weights_or_sizes_are_computed_anew(change: str, tmp_path: Path) -> None:
    pixels = images()
    extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path)
    network = Colours()
    if change == "weights":
        network.weight.data += 1
    backbone = backbone_of(network, size=6 if change == "size" else 8)
    extract_features(backbone, pixels, "other" if change == "content" else "key", cache_dir=tmp_path)
    assert network.seen >= len(pixels)


def test_a_stopped_extraction_goes_on(tmp_path: Path) -> None:
    pixels = images()
    whole = extract_features(backbone_of(Colours()), pixels, "key", cache_dir=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone_of(Stopping(after=120)), pixels, "key", cache_dir=tmp_path)
    network = Colours()
    told: list[int] = []
    features = extract_features(
        backbone_of(network), pixels, "key", cache_dir=tmp_path, progress=lambda done, n, speed: told.append(done)
    )
    assert 0 < network.seen <= len(pixels) - 64
    assert told[-1] == len(pixels)
    assert_array_equal(features, whole)


def test_images_that_the_backbone_does_not_take_and_odd_answers_are_refused(tmp_path: Path) -> None:
    small = backbone_of(nn.Conv2d(3, 4, 16), size=8)
    with pytest.raises(InputError, match=r"does not take .* images of 8×8 pixels .*--image-size"):
        extract_features(small, images(4), "key", cache_dir=tmp_path)
    network = Colours()
    network.weight.data[:] = float("nan")
    with pytest.raises(InputError, match="answers no finite number for image 0"):
        extract_features(backbone_of(network), images(4), "key", cache_dir=tmp_path)


def test_a_cache_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="CVCOTEACH_CACHE_DIR names another one"):
        extract_features(backbone_of(Colours()), images(4), "key", cache_dir=tmp_path / "file")
