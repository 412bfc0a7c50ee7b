"""Whatever is handed to a function or an option, a result or one sentence comes of it; `make fuzz` tries thousands."""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import cleanlab.filter
import click
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cvcoteach import find_label_issues, label_issues
from cvcoteach._validation import InputError
from cvcoteach.cli.main import main

CASES = int(os.environ.get("CVCOTEACH_FUZZ", "500" if os.environ.get("CI") else "100"))
N, K = 40, 3
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=CASES < 1000)

LABELS = np.arange(N) % K
PROBS = np.full((N, K), 0.05) + 0.85 * np.eye(K)[(LABELS + (np.arange(N) % 9 == 0)) % K]

# what people have in place of an array of class numbers, and of probabilities
ODD = st.just(("an array", np.asarray)) | st.sampled_from(
    [
        ("a list", np.ndarray.tolist),
        ("a Series", lambda values: pd.Series(list(values), index=np.arange(len(values)) + 7)),
        ("a tensor", torch.as_tensor),
        ("float16", lambda values: values.astype(np.float16)),
        ("float64", lambda values: values.astype(np.float64)),
        ("integers", lambda values: values.astype(np.int8)),
        ("booleans", lambda values: values.astype(bool)),
        ("text", lambda values: values.astype(str)),
        ("objects", lambda values: values.astype(object)),
        ("complex numbers", lambda values: values.astype(complex)),
        ("a masked array", lambda values: np.ma.masked_array(values, values == 0)),
        ("one row less", lambda values: values[1:]),
        ("no row", lambda values: values[:0]),
        ("a row alone", lambda values: values[:1]),
        ("one more dimension", lambda values: values[..., None]),
        ("turned over", lambda values: values.T),
        ("a number", lambda _: 5),
        ("a word", lambda _: "labels"),
        ("a dict", lambda values: dict(enumerate(values.tolist()))),
        ("nothing", lambda _: None),
    ]
)
NUMBERS = st.one_of(
    st.floats(), st.integers(-3, 3), st.sampled_from([2**31, 2**63 - 1, 2**64 - 1, -(2**63), 1e-320, 1e308])
)
SPOTS = st.just([]) | st.lists(st.tuples(st.floats(0, 1, exclude_max=True), NUMBERS), max_size=3)


def spoiled(values: np.ndarray, spots: list[tuple[float, float]], change: Any) -> Any:
    """Return an array in which some values are others, as something else."""
    kind = float if values.dtype.kind == "f" or any(isinstance(value, float) for _, value in spots) else object
    changed = values.astype(kind) if spots else values
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for where, value in spots:
            changed.flat[int(where * changed.size)] = value
        try:
            return change[1](changed)
        except (TypeError, ValueError, OverflowError):  # numpy or torch know no such array
            return changed


def outcome(call: Any, *arguments: Any, **options: Any) -> Any:
    """Return what a call returns, or the type of what it raises."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return call(*arguments, **options)
        except Exception as error:
            return type(error)


@settings(FUZZ, max_examples=CASES)
@given(
    SPOTS, ODD, SPOTS, ODD, st.sampled_from(["posterior", "incv"]), st.sampled_from([find_label_issues, label_issues])
)
def test_our_filters_take_any_labels_and_probabilities_or_say_why_not(
    spots: Any, change: Any, others: Any, other: Any, filter_by: str, call: Any
) -> None:
    labels, probs = spoiled(LABELS, spots, change), spoiled(PROBS, others, other)
    found = outcome(call, labels, probs, filter_by=filter_by, progress=False)
    assert not isinstance(found, type) or issubclass(found, InputError), found


@settings(FUZZ, max_examples=CASES)
@given(SPOTS, ODD, SPOTS, ODD, st.sampled_from([None, "both", "confident_learning", "low_self_confidence"]))
def test_cleanlabs_filters_answer_and_fail_as_cleanlab(
    spots: Any, change: Any, others: Any, other: Any, filter_by: str | None
) -> None:
    labels, probs = spoiled(LABELS, spots, change), spoiled(PROBS, others, other)
    if isinstance(labels, torch.Tensor) or isinstance(probs, torch.Tensor):
        return  # which cleanlab does not know
    options = {} if filter_by is None else {"filter_by": filter_by}
    found = outcome(find_label_issues, labels, probs, **options)
    expected = outcome(cleanlab.filter.find_label_issues, labels, probs, n_jobs=1, **options)
    if isinstance(found, type) and issubclass(found, InputError):
        assert isinstance(expected, type), (found, expected)  # a sentence in place of what it raises
    elif isinstance(expected, type) or isinstance(found, type):
        assert found is expected
    else:
        assert np.array_equal(found, expected)


# -- options --

WORDS = st.one_of(
    st.sampled_from(
        ["-1", "0", "1", "0.5", "2", "nan", "inf", "1e308", "-1e308", "100000", "9" * 30, "", " ", "é", "…"]
    ),
    st.sampled_from(
        ["auto", "none", "default", "linear", "posterior", "paper", "cpu", "cuda:99", "float16", "train", "=1"]
    ),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),  # as a command line may be
)
LONG = ("--epochs", "--rounds", "--folds")  # a run that these make long is no fault
NEVER = (
    "--help",
    "--version",
    "--fresh",
    "--replace",
    "--engine",
    "--ray-address",
    "--backbone",
    "--cache-dir",
    "--weights",
)


def takes(command: str) -> list[click.Option]:
    """The options of a command with a value, but those that fetch something or would take long."""
    found = main.get_command(click.Context(main), command)
    assert found is not None
    return [
        option
        for option in found.params
        if isinstance(option, click.Option) and not option.is_flag and not {*LONG, *NEVER} & {*option.opts}
    ]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, their features, and a finished run."""
    folder = tmp_path_factory.mktemp("options")
    rng = np.random.default_rng(0)
    true = np.arange(30) % K
    images = (true[:, None, None] * 80 + rng.integers(0, 20, (30, 8, 8))).astype(np.uint8)
    np.savez(folder / "d.npz", images=images, labels=true)
    np.save(folder / "f.npy", np.eye(K, dtype=np.float32)[true] + rng.normal(0, 0.1, (30, K)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVCOTEACH_CACHE_DIR", str(folder / "cache"))
        words = ["find-issues", "d.npz", "--features", "f.npy", "-o", "run", "--rounds", "1", "-q"]
        patch.chdir(folder)
        assert CliRunner().invoke(main, words).exit_code == 0
        words = ["retrain", "run", "-o", "model", "--epochs", "1", "--device", "cpu", "-q"]
        assert (ended := CliRunner().invoke(main, words)).exit_code == 0, ended.output
    return folder


CALLS = {
    "find-issues": ("d.npz", "--features", "f.npy", "-o", "out", "--rounds", "1", "--device", "cpu", "-q"),
    "list": ("d.npz",),
    "report": ("run", "-o", "out"),
    "check": ("run",),
    "apply": ("run", "--action", "relabel", "-o", "out"),
    "retrain": ("run", "-o", "out", "--epochs", "1", "--device", "cpu", "-q"),
    "predict": ("model", "d.npz", "-o", "out.csv", "--device", "cpu", "-q"),
}


@settings(FUZZ, max_examples=max(20, CASES // 5))
@given(st.sampled_from(sorted(CALLS)), st.lists(st.tuples(st.integers(0, 999), WORDS), min_size=1, max_size=2))
def test_any_value_of_an_option_ends_in_a_result_or_a_sentence(made: Path, command: str, given: Any) -> None:
    options = takes(command)
    words = [command, *CALLS[command]]
    for number, value in given:
        words += [options[number % len(options)].opts[0], value]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CVCOTEACH_CACHE_DIR", str(made / "cache"))
        patch.chdir(made)
        before = {path.name for path in made.iterdir()}
        ended = CliRunner().invoke(main, words)
        for name in {path.name for path in made.iterdir()} - before:
            shutil.rmtree(made / name) if (made / name).is_dir() else (made / name).unlink()
    assert ended.exit_code in ((0, 1, 2, 3, 4) if command == "check" else (0, 1, 2)), (words, ended.output)
    assert ended.exception is None or isinstance(ended.exception, SystemExit), (words, ended.exception)
    assert "Traceback" not in ended.output, words
