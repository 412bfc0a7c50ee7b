"""The closing lines of a run."""

from __future__ import annotations

from typing import Any

import pytest

from cvcoteach.pipeline.run_summary import trained_on


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
