"""Code from outside runs where the user named it, and nowhere else."""

from __future__ import annotations

import os
import pickle
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import load_backbone
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.trust import check_trusted, is_trusted, runs_code, weights_only


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return os.mkdir, (str(self.file),)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("torchvision:resnet18", False),
        ("timm:vit_tiny_patch16_224.augreg_in21k", False),
        ("timm:hf-hub:somebody/model", True),
        ("timm:local-dir:/somewhere", True),
        ("helper:net", True),
        ("net.pt", True),
    ],
)
def test_only_models_of_torchvision_and_timm_are_known_code(name: str, runs: bool) -> None:
    assert runs_code(name) is runs
    assert ModelSpec.parse(f"frozen:{name}@32").is_foreign is runs


def test_a_file_is_trusted_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.pt").touch()
    (tmp_path / "other.pt").touch()
    monkeypatch.chdir(tmp_path)
    assert is_trusted(str(tmp_path / "net.pt"), ["net.pt"])
    assert not is_trusted("other.pt", ["net.pt"])
    assert not is_trusted("helper:net", ["helper:other"])


def test_a_function_is_no_file_that_is_called_like_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "helper:net").touch()
    (tmp_path / "other.pt").symlink_to("helper:net")
    monkeypatch.chdir(tmp_path)
    for file in ("./helper:net", "other.pt"):
        assert not is_trusted(file, ["helper:net"])
        assert is_trusted(file, ["./helper:net"])
    with pytest.raises(InputError, match="cannot be imported"):
        load_backbone("helper:net", trusted=["helper:net"])


def test_the_sentence_says_what_to_add(tmp_path: Path) -> None:
    file = tmp_path / "my net.pt"
    file.touch()
    with pytest.raises(InputError, match=r"runs code that it holds; if you trust it, add --trust '.*my net.pt'\."):
        check_trusted(str(file), [])
    with pytest.raises(InputError, match=r"run.json asks for 'helper:net': .* add --trust helper:net\."):
        check_trusted("helper:net", [], "run.json")


@pytest.mark.parametrize("kind", ["function", "backbone", "frozen"])
def test_a_module_that_is_not_trusted_is_not_imported(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "marking.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "marking", raising=False)
    text = "marking:net" if kind == "function" else f"{kind}:marking:net"
    with pytest.raises(InputError, match="add --trust marking:net"):
        ModelFactory(ModelSpec.parse(text)).build(2, 3)
    assert not (tmp_path / "ran").exists()
    with pytest.raises(InputError, match="cannot be imported"):
        ModelFactory(ModelSpec.parse(text), trusted=["marking:net"]).build(2, 3)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["net.pt2", "net.pt"])
def test_an_exported_file_that_is_not_trusted_is_not_opened(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("serialized_state_dict.pt", pickle.dumps(Touch(tmp_path / "ran")))
    with pytest.raises(InputError, match="loading this file runs code that it holds; if you trust it, add --trust"):
        load_backbone(str(file))
    assert not (tmp_path / "ran").exists()


def test_a_library_that_asks_to_unpickle_gets_weights_only(tmp_path: Path) -> None:
    torch.save({"hook": Touch(tmp_path / "ran")}, tmp_path / "net.pth")
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "weights.pth")
    with weights_only():
        assert len(torch.load(tmp_path / "weights.pth", weights_only=False)) == 2
        with pytest.raises(pickle.UnpicklingError):
            torch.load(tmp_path / "net.pth", weights_only=False)
    assert not (tmp_path / "ran").exists()
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
