"""How commands end, and what they load."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from cvcoteach._validation import InputError
from cvcoteach.cli import options
from cvcoteach.cli.main import main
from cvcoteach.crossval.selection_rules import keep_and_drop
from cvcoteach.pipeline import find_issues as module
from tests.images import class_folders


def test_a_file_name_that_wrong_usage_repeats_cannot_steer_a_terminal() -> None:
    result = CliRunner().invoke(main, ["find-issues", "photos", "\x1b]0;title\x07.png"], color=True)  # photos and *
    assert result.exit_code == 2
    assert "unexpected extra argument (\\u001b]0;title\\u0007.png)" in result.output


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (InputError("the labels do not fit."), 1, "Error: the labels do not fit."),
        (OSError(2, "No such file or directory", "run/run.json"), 1, "Error: run/run.json: No such file or directory."),
        (MemoryError("Unable to allocate 9 GiB"), 1, "Error: there is not enough memory (Unable to allocate 9 GiB)."),
        (EOFError(), 1, "Error: a file ends too early"),
        (KeyboardInterrupt(), 130, "the same command resumes from there"),
    ],
)
def test_an_error_and_an_interruption_have_exit_codes_of_their_own(
    monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, sentence: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(module, "find_issues", fail)
    result = CliRunner().invoke(main, ["find-issues", "photos"])
    assert result.exit_code == code
    assert sentence in result.stderr


def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def written(*args: Any, **options: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(module, "find_issues", written)
    result = CliRunner().invoke(main, ["find-issues", str(tmp_path)])
    assert "Broken pipe" not in result.output


def test_wrong_usage_is_exit_code_2() -> None:
    for arguments in (["find-issues"], ["find-issues", "photos", "--folds", "1"], ["nothing"]):
        assert CliRunner().invoke(main, arguments).exit_code == 2
    result = CliRunner().invoke(main, ["find-issues", "photos", "--remove-ratio", "much"])
    assert result.exit_code == 2
    assert "'much' is not a number" in result.stderr
    assert options.pixels(1e308) == 2**62
    for number in ("nan", "inf"):
        result = CliRunner().invoke(main, ["find-issues", "photos", "--max-megapixels", number])
        assert result.exit_code == 2, number


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--threads", "100000"], "threads is 100,000; it takes up to 1,024"),
        (["--image-size", "100000"], "the image size is 100,000 pixels a side; it takes up to 4,096"),
        (["--remove-ratio", "inf"], "remove_ratio is inf; it takes 0 or more"),
        (["--epochs", "10000000000", "--model", "small"], "epochs is 10,000,000,000; it takes up to 1,000,000"),
        (["--rounds", "100000000"], "n_rounds is 100,000,000; it takes up to 1,000"),
    ],
)
def test_absurd_numbers_are_refused_in_a_sentence(tmp_path: Path, options: list[str], sentence: str) -> None:
    class_folders(tmp_path / "shapes", n=12, wrong=0)
    cache = ["--cache-dir", str(tmp_path / "cache"), "-o", str(tmp_path / "run"), "--device", "cpu"]
    result = CliRunner().invoke(main, ["find-issues", str(tmp_path / "shapes"), *cache, *options])
    assert result.exit_code == 1, result.output
    assert f"Error: {sentence}" in result.stderr


def test_a_ratio_beyond_all_images_drops_what_there_is() -> None:
    labels, probs = np.array([0, 0, 1, 1]), np.eye(2, dtype=np.float32)[[0, 1, 1, 1]]
    keep, drop = keep_and_drop(labels, probs, 1e308)
    assert (len(keep), len(drop)) == (3, 1)


def test_a_missing_source_is_one_sentence(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["find-issues", str(tmp_path / "absent"), "--device", "cpu"])
    assert result.exit_code == 1
    assert "does not exist" in result.stderr


def test_an_address_arrives_as_it_was_typed(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    cache = ("--cache-dir", str(tmp_path))
    result = CliRunner().invoke(main, ["find-issues", "memory://bucket/nowhere.csv", *cache])
    assert result.exit_code == 1
    assert "memory://bucket/nowhere.csv does not exist." in result.stderr


def test_options_that_several_commands_share_are_the_same_everywhere() -> None:
    shown: dict[str, set[tuple[Any, ...]]] = {}
    for command in main.commands.values():
        for option in command.params:
            if isinstance(option, click.Option) and option.name in (
                *("device", "threads", "precision", "cache_dir", "seed", "flip", "learning_rate"),
                *("path_column", "label_column", "quiet", "as_json"),
            ):
                shown.setdefault(option.name, set()).add((tuple(option.opts), option.help, str(option.metavar)))
    assert len(shown) == 11
    assert all(len(ways) == 1 for ways in shown.values())


def test_the_help_loads_neither_torch_nor_fiftyone() -> None:
    code = (
        "import sys; from click.testing import CliRunner; from cvcoteach.cli.main import main; "
        "assert CliRunner().invoke(main, ['find-issues', '--help']).exit_code == 0; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "fiftyone", "cleanlab", "sklearn"} & set(loaded)


def test_alone_it_shows_the_usual_way_with_commands_that_exist() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 0
    shown = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("  cvcoteach ")]
    assert shown == ["find-issues", "report", "apply", "retrain", "check"]
    assert set(shown) <= set(main.commands)
    for line in result.stdout.splitlines():
        for option in re.findall(r"--[a-z-]+", line):
            known = {name for command in main.commands.values() for param in command.params for name in param.opts}
            assert option in known | {"--help"}, option


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["find-isues", "photos"], "did you mean find-issues"),
        (["fiftyon"], "did you mean fiftyone"),
        (["find-issues", "photos", "--backbon", "x"], "--backbone"),
        (["apply", "run", "--action", "relable"], "relabel"),
    ],
)
def test_what_is_mistyped_is_told_what_it_looks_like(typed: list[str], meant: str) -> None:
    result = CliRunner().invoke(main, typed)
    assert result.exit_code == 2
    assert meant in result.stderr


def test_an_underscore_is_as_good_as_a_hyphen_in_a_command() -> None:
    assert CliRunner().invoke(main, ["find_issues", "--help"]).exit_code == 0


@pytest.mark.slow
def test_the_shell_completes_commands_and_options() -> None:
    for words, number, wanted in (
        ("cvcoteach re", 1, {"report", "retrain"}),
        ("cvcoteach apply --und", 2, {"--undo"}),
        ("cvcoteach find-issues --preset ", 3, {"auto", "fast", "paper"}),
        ("cvcoteach retrain --export o", 3, {"onnx"}),
    ):
        environment = {
            **os.environ, "_CVCOTEACH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(number),
        }  # fmt: skip
        out = subprocess.run(
            [sys.executable, "-m", "cvcoteach"], env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert {line.split(",")[1] for line in out.splitlines()} == wanted
