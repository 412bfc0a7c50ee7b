"""The documentation is true: its examples run, its help is the program's, its files exist.

Run as a script, this writes the README's help anew.
"""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import cvcoteach
from cvcoteach.cli.main import main

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
HELP = re.compile(r"(<!-- help: ([\w -]+) -->\n```text\n)(.*?)(```)", re.DOTALL)


def help_of(command: str) -> str:
    """What `cvcoteach COMMAND --help` prints at 100 columns."""
    result = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="cvcoteach", terminal_width=100)
    return result.output


def commands(group: click.Group = main, prefix: str = "") -> list[str]:
    """All commands, groups' own included, as one types them."""
    found = []
    for name, command in group.commands.items():
        found += commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else [prefix + name]
    return found


def test_the_readme_shows_the_help_of_every_command_as_it_is() -> None:
    shown = {command: text for _, command, text, _ in HELP.findall(README.read_text())}
    assert set(shown) == set(commands())
    for command, text in shown.items():
        assert text == help_of(command), f"run: python {Path(__file__).relative_to(ROOT)}"


def test_the_python_examples_of_the_readme_run(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    runnable = [block for block in blocks if "import" in block]
    assert runnable
    for block in runnable:
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    found = re.search(r"(\d+) suspect, (\d+) of them wrong", capsys.readouterr().out)
    assert found
    assert int(found[2]) > 95


@pytest.mark.parametrize(
    "page", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("examples/**/*.md")), ids=lambda p: p.name
)
def test_every_link_to_a_file_of_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def modules() -> list[str]:
    """All modules but those of FiftyOne, which may not be installed."""
    found = pkgutil.walk_packages(cvcoteach.__path__, "cvcoteach.")
    return [m.name for m in found if not m.name.startswith("cvcoteach.fiftyone") and not m.name.endswith("__main__")]


@pytest.mark.parametrize("name", modules())
def test_the_examples_in_docstrings_run(name: str) -> None:
    failures, _ = doctest.testmod(importlib.import_module(name))
    assert failures == 0


def test_importing_the_package_is_light() -> None:
    code = "import sys, time; t = time.perf_counter(); import cvcoteach; print(time.perf_counter() - t, *sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "fiftyone", "cleanlab", "pandas"} & set(out[1:])
    assert float(out[0]) < 0.5


def test_every_public_name_is_there() -> None:
    for name in cvcoteach.__all__:
        assert getattr(cvcoteach, name).__doc__
    name = "nothing"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(cvcoteach, name)
    assert set(cvcoteach.__all__) <= set(dir(cvcoteach))


if __name__ == "__main__":
    README.write_text(HELP.sub(lambda m: m[1] + help_of(m[2]) + m[4], README.read_text()))
