"""`cvcoteach apply` as its user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cvcoteach.cli.main import main
from cvcoteach.data.sources import read_source
from tests.finished_runs import finished_run
from tests.images import class_folders
from tests.pipeline.test_apply import true_of


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on a folder with twelve wrong labels."""
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, true_of(source)).folder


def apply(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["apply", *map(str, arguments)])


def test_nothing_is_written_until_it_is_asked_for(run: Path, tmp_path: Path) -> None:
    fixed = tmp_path / "fixed"
    result = apply(run, "--action", "relabel", "-o", fixed)
    assert result.exit_code == 0, result.output
    assert "Would relabel 12 and exclude 0 of 120 images." in result.stdout
    assert f"--write writes the copy to {fixed}" in result.stdout
    assert not fixed.exists()
    result = apply(run, "--action", "relabel", "-o", fixed, "--write", "--json", "-q")
    assert json.loads(result.stdout)["n_relabelled"] == 12
    assert (read_source(fixed).labels == true_of(read_source(fixed))).all()
    record = Path(json.loads(result.stdout)["record"])
    assert "12 changes in" in apply("--undo", record).stdout
    assert (read_source(fixed).labels == true_of(read_source(fixed))).all()
    assert apply("--undo", record, "--write").exit_code == 0
    assert read_source(fixed).paths == read_source(tmp_path / "shapes").paths
    again = apply(run, "--action", "relabel", "-o", fixed, "--write")
    assert again.exit_code == 1
    assert again.stderr == f"Error: {fixed} already exists; name another place.\n"


def test_a_list_goes_to_standard_output_or_to_a_file(run: Path, tmp_path: Path) -> None:
    result = apply(run, "--action", "list")
    assert result.stdout.splitlines()[0] == "path,action,label,given_label,probability"
    assert len(result.stdout.splitlines()) == 13
    assert "12 changes listed" in apply(run, "--action", "list", "-o", tmp_path / "list.csv").stdout
    assert "writes no copy" in apply(run, "--action", "list", "--write").stderr
    assert (tmp_path / "list.csv").read_text() == result.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "name the run and an --action"),
        (("RUN", "--action", "relabel"), "--output DEST"),
        (("RUN", "--undo", "x.json"), "goes without RUN"),
    ],
)
def test_wrong_usage_is_told(run: Path, arguments: tuple[str, ...], sentence: str) -> None:
    result = apply(*[run if argument == "RUN" else argument for argument in arguments])
    assert result.exit_code == 2
    assert sentence in result.stderr
