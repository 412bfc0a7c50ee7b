"""The plugin's README: a section, a picture and a Python call for each operator."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cvcoteach.fiftyone.app.operators import OPERATORS

FOLDER = Path(__file__).parents[2] / "fiftyone_plugin"
README = (FOLDER / "README.md").read_text()
LISTED = [config.name for config in (operator().config for operator in OPERATORS) if not config.unlisted]


@pytest.mark.parametrize("name", LISTED)
def test_each_operator_has_a_section_with_its_picture_and_its_call(name: str) -> None:
    section = README.split(f"\n## {name}\n")[1].split("\n## ")[0]
    assert f"](pictures/{name}.png)" in section
    assert f'f"{{PLUGIN}}/{name}"' in section


def test_every_picture_is_there_small_and_shown() -> None:
    shown = set(re.findall(r"\]\(pictures/([\w-]+\.png)\)", README))
    assert shown == {file.name for file in (FOLDER / "pictures").iterdir()}
    for name in shown:
        assert (FOLDER / "pictures" / name).stat().st_size < 100_000, name


def test_the_examples_are_python() -> None:
    for example in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        ast.parse(example)
