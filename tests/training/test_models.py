"""Behaviours of the networks and of how they are found."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.models import build_model, preprocessing
from cvcoteach.training.networks import CifarResNet, SmallNet, edges_and_colours


@pytest.mark.parametrize("name", ["small", "resnet32"])
@pytest.mark.parametrize(("channels", "size"), [(1, 8), (3, 8), (3, 32), (1, 28), (3, 45)])
def test_our_networks_take_grey_and_colour_of_any_size_from_8_pixels_up(name: str, channels: int, size: int) -> None:
    network = build_model(name, 5, channels)
    assert network(torch.rand(2, channels, size, size + 3)).shape == (2, 5)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_network_starts_with_edges_and_colours_at_right_angles(channels: int) -> None:
    basis = edges_and_colours(channels).flatten(1)
    half = 4 * channels
    torch.testing.assert_close(basis[:half] @ basis[:half].T, torch.eye(half))
    torch.testing.assert_close(basis[half:], -basis[:half])
    network = build_model("small", 5, channels)
    assert torch.equal(network.state_dict()["layers.0.0.weight"].flatten(1), basis)


def test_resnet32_is_that_of_the_paper() -> None:
    network = CifarResNet(10, 3)
    weighted = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    assert len(weighted) == 32
    assert sum(p.numel() for p in network.parameters()) == 464_154  # 0.46 million, He et al., table 6
    assert [layer.out_channels for layer in weighted if isinstance(layer, nn.Conv2d)] == [16] * 11 + [32] * 10 + [
        64
    ] * 10


def test_the_same_seed_gives_the_same_weights_another_others_and_torchs_random_state_stays() -> None:
    before = torch.get_rng_state()
    first, second, other = (build_model("small", 4, 3, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_a_network_of_torchvisions_gets_a_last_layer_of_our_classes(name: str, channels: int) -> None:
    network = build_model(name, 7, channels, "none").eval()
    assert network(torch.rand(1, channels, 64, 64)).shape == (1, 7)


def test_grey_images_are_repeated_for_networks_that_want_colour() -> None:
    network = build_model("resnet18", 3, 1, "none").eval()
    grey = torch.rand(1, 1, 32, 32)
    torch.testing.assert_close(network(grey), network(grey.repeat(1, 3, 1, 1)))


@pytest.mark.slow
def test_auxiliary_classifiers_are_left_out() -> None:
    network = build_model("googlenet", 7, 3, "none").train()
    assert network(torch.rand(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "hint"), [("smal", "did you mean small"), ("resnet-18", "resnet18"), ("resnet_32", "resnet32")]
)
def test_an_unknown_network_is_refused_by_naming_near_ones(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=f"model is '{name}'.*{hint}"):
        build_model(name, 3, 3)


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
    monkeypatch.delitem(__import__("sys").modules, "my_networks", raising=False)


@pytest.mark.usefixtures("own_module")
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_a_function_beside_the_user_builds_the_network() -> None:
    assert isinstance(build_model("my_networks:by_position", 6, 3), nn.Sequential)
    linear = build_model("my_networks:by_name", 6, 3)
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
        build_model(name, 6, 3)
    assert "\n" not in str(caught.value)


# -- weights -----------------------------------------------------------------------------------------------------


def same(a: nn.Module, b: nn.Module, but: str = "-") -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items() if not key.startswith(but))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"module." + k: v for k, v in s.items()}]
)
def test_weights_come_from_a_file_however_they_are_wrapped(wrap: object, tmp_path: Path) -> None:
    saved = SmallNet(4, 3)
    torch.save(wrap(saved.state_dict()), tmp_path / "w.pt")
    assert same(build_model("small", 4, 3, str(tmp_path / "w.pt")), saved)


def test_a_last_layer_for_other_classes_starts_fresh(tmp_path: Path) -> None:
    saved = SmallNet(10, 3)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    network = build_model("small", 4, 3, str(tmp_path / "w.pt"))
    assert same(network, saved, but="head")
    assert network.eval()(torch.rand(1, 3, 8, 8)).shape == (1, 4)


def test_weights_of_torchvisions_are_found_for_grey_images_too(tmp_path: Path) -> None:
    from torchvision.models import resnet18

    saved = resnet18(weights=None)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    network = build_model("resnet18", 4, 1, str(tmp_path / "w.pt"))
    torch.testing.assert_close(network.state_dict()["network.conv1.weight"], saved.conv1.weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(CifarResNet(4, 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="it takes the weights of the same network"):
        build_model("small", 4, 3, str(tmp_path / "w.pt"))


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(SmallNet(4, 3), tmp_path / "pickle.pt")  # would run code when loaded
    for name in ("text.pt", "list.pt", "pickle.pt"):
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
            build_model("small", 4, 3, str(tmp_path / name))
    with pytest.raises(InputError, match="is no file; it takes a file, default or none"):
        build_model("small", 4, 3, str(tmp_path / "missing.pt"))


def test_a_download_that_fails_names_what_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(InputError, match=r"bring https://download\.pytorch\.org/\S+\.pth and give --weights FILE"):
        build_model("resnet18", 4, 3)


def test_our_own_networks_have_no_published_weights() -> None:
    with pytest.raises(InputError, match="small has no published weights"):
        build_model("small", 4, 3, "default")


def test_preprocessing_is_the_published_weights_own() -> None:
    wanted = preprocessing("efficientnet_b1")
    assert (wanted.size, wanted.mean, wanted.std) == (240, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert preprocessing("resnet18", "none").mean is None
    assert preprocessing("small").size is None
    assert preprocessing("any.module:function").mean is None
    with pytest.raises(InputError, match="did you mean"):
        preprocessing("resnet19")
