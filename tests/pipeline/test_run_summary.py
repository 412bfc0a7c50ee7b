"""The closing lines of a run."""

from __future__ import annotations

from typing import Any

import pytest

from cvcoteach.pipeline.run_summary import counted, trained_on


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        ({"recipe": {"model": "small"}}, "images"),
        ({"recipe": {"model": "backbone:torchvision:resnet18"}}, "backbone"),
        ({"backbone": "torchvision:resnet18", "head": "linear"}, "backbone"),
        ({"features_digest": "ab", "head": "linear"}, "features"),
    ],
)
def test_a_run_says_what_its_models_learned_from(identity: dict[str, Any], what: str) -> None:
    assert trained_on(identity) == what


def test_one_is_singular() -> None:
    assert [counted(n, "image") for n in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
