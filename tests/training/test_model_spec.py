"""Which network to train, as text and as an object."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cvcoteach._validation import InputError
from cvcoteach.training.model_spec import ModelSpec


@pytest.mark.parametrize(
    ("text", "kind", "name", "size"),
    [
        ("small", "own", "small", None),
        ("resnet32", "own", "resnet32", None),
        ("wide", "own", "wide", None),
        ("resnet18", "torchvision", "resnet18", None),
        ("my_networks:net", "function", "my_networks:net", None),
        ("backbone:torchvision:resnet18", "backbone", "torchvision:resnet18", None),
        ("backbone:timm:vit_tiny_patch16_224@96", "backbone", "timm:vit_tiny_patch16_224", 96),
        ("frozen:torchvision:resnet18@32", "frozen", "torchvision:resnet18", 32),
        ("frozen:me@home.pt2", "frozen", "me@home.pt2", None),
        ("backbone:@96", "backbone", "@96", None),
        ("my@96:net", "function", "my@96:net", None),
    ],
)
def test_text_and_spec_are_the_same(text: str, kind: str, name: str, size: int | None) -> None:
    spec = ModelSpec.parse(text, "none")
    assert (spec.kind, spec.name, spec.image_size, spec.weights) == (kind, name, size, "none")
    assert str(spec) == text


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("small", False),
        ("resnet18", False),
        ("os:abort", True),
        ("backbone:torchvision:resnet18", False),
        ("frozen:timm:vit_tiny_patch16_224@96", False),
        ("frozen:os:abort", True),
        ("backbone:network.pt2", True),
    ],
)
def test_code_from_elsewhere_is_foreign(text: str, foreign: bool) -> None:
    assert ModelSpec.parse(text).is_foreign is foreign


def test_only_a_path_is_a_file_of_weights() -> None:
    spec = ModelSpec.parse("resnet18")
    assert [spec.with_weights(each).weights_file for each in (None, "default", "none", "w.pt")] == [None] * 3 + ["w.pt"]


def test_only_backbones_have_a_size_of_their_own() -> None:
    with pytest.raises(InputError, match="image_size is 96 for small"):
        ModelSpec("own", "small", 96)


@pytest.mark.slow
def test_it_needs_no_torch() -> None:
    script = "import sys, cvcoteach.training.recipe, cvcoteach.pipeline.settings; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
