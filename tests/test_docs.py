"""The documentation is true: its examples run, its help is the program's, its files exist.

Run as a script, this rewrites docs/cli.md.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import json
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
SCRIPT = Path(__file__).relative_to(ROOT)
CLI = ROOT / "docs" / "cli.md"


def help_of(command: str) -> str:
    """What `cvcoteach COMMAND --help` prints at 100 columns."""
    result = CliRunner().invoke(main, [*command.split(), "--help"], prog_name="cvcoteach", terminal_width=100)
    return result.output


def commands(group: click.Group = main, prefix: str = "") -> list[str]:
    """All groups and commands, as one types them; "" is the program itself."""
    found = [prefix.strip()]
    for name, command in group.commands.items():
        found += commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else [prefix + name]
    return found


def cli_page() -> str:
    """docs/cli.md as it should be."""
    sections = [f"## {f'cvcoteach {name}'.strip()}\n\n```text\n{help_of(name)}```\n" for name in commands()]
    return "\n".join(
        ["# The command line\n", f"What `--help` prints; `python {SCRIPT}` rewrites this page.\n", *sections]
    )


def test_the_page_of_the_command_line_shows_the_help_of_every_command_as_it_is() -> None:
    for name in ("find-issues", "retrain", "predict", "fiftyone install", "fiftyone doctor"):
        assert name in commands()
    assert CLI.read_text() == cli_page(), f"run: python {SCRIPT}"


@pytest.mark.parametrize(
    "page", [README, ROOT / "docs" / "python.md", ROOT / "docs" / "cleanlab.md"], ids=lambda page: page.name
)
def test_the_python_examples_run(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    runnable = [block for block in blocks if "import" in block]
    assert runnable
    for block in runnable:
        exec(compile(block, page.name, "exec"), {"__name__": "example"})
    said = {
        "python.md": (r"(\d+) suspect, (\d+) of them wrong", 95),
        "cleanlab.md": (r"(\d+) flagged, (\d+) of the hundred", 75),
    }
    if page.name in said:
        sentence, least = said[page.name]
        found = re.search(sentence, capsys.readouterr().out)
        assert found
        assert int(found[2]) > least


def test_the_notebook_runs_and_shows_what_it_ends_its_cells_with() -> None:
    cells = json.loads((ROOT / "examples" / "quickstart.ipynb").read_text())["cells"]
    space: dict[str, object] = {"__name__": "notebook"}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            assert not cell["outputs"]
            *body, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(body, []), "quickstart.ipynb", "exec"), space)
            if isinstance(last, ast.Expr):
                shown.append(eval(compile(ast.Expression(last.value), "quickstart.ipynb", "eval"), space))
    pictures = [value for value in shown if hasattr(value, "_repr_png_")]
    assert len(pictures) == 4
    assert all(picture._repr_png_() for picture in pictures)
    assert "labels flagged" in shown[0]._repr_html_()  # type: ignore[attr-defined]


def test_the_readme_is_read_in_a_minute() -> None:
    assert len(README.read_text().splitlines()) < 130


def test_the_page_on_the_house_names_every_room_and_module_of_the_root() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    for entry in sorted((ROOT / "cvcoteach").iterdir()):
        name = entry.stem
        if name.startswith("__") or entry.suffix not in ("", ".py"):
            continue
        assert f"`{name}/`" in page if entry.is_dir() else f"`{name}`" in page, name


@pytest.mark.parametrize(
    "page",
    [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/**/*.md"))],
    ids=lambda p: p.name,
)
def test_every_link_to_a_file_of_the_project_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_public_name_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "api.md").read_text()
    assert sorted(re.findall(r"^::: cvcoteach\.(\w+)$", page, re.MULTILINE)) == cvcoteach.__all__


def test_every_page_is_in_the_menu_and_every_menu_entry_is_a_page() -> None:
    menu = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = {file.name for file in (ROOT / "docs").glob("*.md")}
    assert {page for page in menu if not page.startswith("project/")} == pages | {"index.md"}
    for page in menu:
        if page.startswith("project/"):
            assert (ROOT / page.removeprefix("project/")).is_file(), page


def test_pictures_are_small_and_each_is_shown() -> None:
    shown = {
        (page.parent / target).resolve()
        for page in (ROOT / "docs").glob("*.md")
        for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    }
    there = set((ROOT / "docs" / "pictures").iterdir())
    assert {picture for picture in shown if picture.parent.name == "pictures"} == there
    for picture in there:
        assert picture.stat().st_size < 100_000, picture.name


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_fetches_nothing(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    home = (tmp_path / "index.html").read_text()
    assert 'href="find-issues.html"' in home
    assert 'src="project/fiftyone_plugin/pictures/panel.png"' in home
    assert (tmp_path / "project" / "fiftyone_plugin" / "pictures" / "panel.png").is_file()
    for page in tmp_path.rglob("*.html"):
        for fetched in re.findall(
            r"<(?:script|img|link rel=.stylesheet.)[^>]+(?:src|href)=\"(https?:[^\"]+)", page.read_text()
        ):
            raise AssertionError(f"{page.name} fetches {fetched}")


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


def test_the_drop_in_needs_no_torch_to_judge_probabilities() -> None:
    code = (
        "import sys, numpy as np; from cvcoteach import find_label_issues; y = np.arange(60) % 3; "
        "find_label_issues(y, np.eye(3)[y] * 0.7 + 0.1, filter_by='posterior'); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False"]


def test_every_public_name_is_there() -> None:
    for name in cvcoteach.__all__:
        assert getattr(cvcoteach, name).__doc__
    name = "nothing"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(cvcoteach, name)
    assert set(cvcoteach.__all__) <= set(dir(cvcoteach))


if __name__ == "__main__":
    CLI.write_text(cli_page())
