"""Networks and weights from elsewhere."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from cvcoteach._validation import InputError
from cvcoteach.data.unpacking import unpack_limit
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.networks import CifarResNet, SmallNet
from cvcoteach.training.pretrained import imported, last_layer, load_pretrained


def built(name: str, n_classes: int, channels: int, weights: str | None = None, seed: int = 0) -> nn.Module:
    """A fresh network."""
    return ModelFactory(ModelSpec.parse(name, weights)).build(n_classes, channels, seed=seed)


def same(a: nn.Module, b: nn.Module, but: str = "-") -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in a.state_dict().items() if not key.startswith(but))


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"module." + k: v for k, v in s.items()}]
)
def test_weights_come_from_a_file_however_they_are_wrapped(wrap: object, tmp_path: Path) -> None:
    saved = SmallNet(4, 3)
    torch.save(wrap(saved.state_dict()), tmp_path / "w.pt")
    assert same(built("small", 4, 3, str(tmp_path / "w.pt")), saved)


def test_a_last_layer_for_other_classes_starts_fresh(tmp_path: Path) -> None:
    saved = SmallNet(10, 3)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    network = built("small", 4, 3, str(tmp_path / "w.pt"))
    assert same(network, saved, but="head")
    assert network.eval()(torch.rand(1, 3, 8, 8)).shape == (1, 4)


def test_weights_of_torchvisions_are_found_for_grey_images_too(tmp_path: Path) -> None:
    saved = resnet18(weights=None)
    torch.save(saved.state_dict(), tmp_path / "w.pt")
    network = built("resnet18", 4, 1, str(tmp_path / "w.pt"))
    torch.testing.assert_close(network.state_dict()["network.conv1.weight"], saved.conv1.weight)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    torch.save(CifarResNet(4, 3).state_dict(), tmp_path / "w.pt")
    with pytest.raises(InputError, match="it takes the weights of the same network"):
        built("small", 4, 3, str(tmp_path / "w.pt"))


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("not weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(SmallNet(4, 3), tmp_path / "pickle.pt")  # would run code when loaded
    for name in ("text.pt", "list.pt", "pickle.pt"):
        with pytest.raises(InputError, match=re.escape(str(tmp_path / name))):
            built("small", 4, 3, str(tmp_path / name))
    with pytest.raises(InputError, match="is not a file; it takes a file, default or none"):
        built("small", 4, 3, str(tmp_path / "missing.pt"))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
def test_a_torchscript_file_is_no_weights_and_no_advice_to_run_it_is_given(tmp_path: Path) -> None:
    torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "w.pt")
    with pytest.raises(InputError, match="nothing is unpickled; save the network's state_dict") as refused:
        load_pretrained(nn.Linear(2, 2), tmp_path / "w.pt")
    assert "weights_only" not in str(refused.value)


def test_a_download_that_fails_names_what_to_bring(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", unreachable)
    with pytest.raises(InputError, match=r"bring https://download\.pytorch\.org/\S+\.pth and give --weights FILE"):
        built("resnet18", 4, 3)


def test_the_last_layer_is_the_classifier_and_a_network_without_one_is_refused() -> None:
    path, layer = last_layer(resnet18(weights=None))
    assert (path, layer.out_features) == ("fc", 1000)
    with pytest.raises(InputError, match="ReLU has no linear or convolutional layer to classify with"):
        last_layer(nn.ReLU())


def test_what_cannot_be_imported_is_named() -> None:
    assert imported("torch.nn:ReLU") is nn.ReLU
    with pytest.raises(InputError, match=r"model is 'torch.nn:Relu', which cannot be imported"):
        imported("torch.nn:Relu")


def test_packed_weights_of_a_few_bytes_that_unpack_to_far_more_are_refused_unless_it_is_allowed(tmp_path: Path) -> None:
    network = SmallNet(3, 1)
    torch.save({**network.state_dict(), "more": torch.zeros(2**20)}, tmp_path / "plain.pt")
    packed = zipfile.ZipFile(tmp_path / "packed.pt", "w", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, packed:
        for part in plain.infolist():
            packed.writestr(part.filename, plain.read(part))
    with unpack_limit(2**20), pytest.raises(InputError, match=r"in packed.pt would unpack from"):
        load_pretrained(network, tmp_path / "packed.pt")
    with unpack_limit(2**20):
        load_pretrained(network, tmp_path / "plain.pt")
