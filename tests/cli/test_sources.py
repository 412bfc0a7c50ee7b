"""What a user hands over wrongly, on the command line: a result that was announced, or one sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cvcoteach.cli.main import main
from tests.images import CLASSES, class_folders, dataset

QUICK = ("--epochs", "2", "--rounds", "1", "--device", "cpu", "--threads", "1", "--precision", "float32")

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def refused(result: Result, sentence: str) -> None:
    """Exit code 1 and one sentence, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert sentence in result.stderr


def first_note(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stderr.splitlines()[0]


def test_what_was_understood_is_said_before_anything_else(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=30)
    assert first_note(run("find-issues", "shapes", *QUICK)) == "note: 30 images, 3 classes, a folder each in shapes."
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}\n" for path in sorted(tmp_path.glob("shapes/*/*.png"))]
    (tmp_path / "t.csv").write_text("".join(rows))
    result = run("find-issues", "t.csv", *QUICK)
    assert first_note(result) == "note: 30 images, 3 classes, columns 1 and 2 of t.csv."
    assert len(pd.read_csv("t-issues/issues.csv")) == 30


def test_names_that_are_not_utf8_come_through(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=30)
    folder = os.fsencode(tmp_path / "shapes" / CLASSES[0])
    name = sorted(os.listdir(folder))[0]
    try:
        os.rename(folder + b"/" + name, folder + b"/caf\xe9.png")
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    os.rename(folder, os.fsencode(tmp_path / "shapes") + b"/\xff")
    result = run("find-issues", "shapes", *QUICK)
    assert result.exit_code == 0, result.output
    table = pd.read_csv("shapes-issues/issues.csv")
    assert len(table) == 30
    assert r"\xff/caf\xe9.png" in set(table.path)
    assert (
        run("retrain", "shapes-issues", "--epochs", 1, "--mode", "vanilla", "--quiet", "--device", "cpu").exit_code == 0
    )


def test_retrain_learns_from_the_images_of_the_run_wherever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, _, given = dataset(60, 0.0)
    for place, pictures in (("A", images), ("B", 255 - images)):
        for i, (picture, label) in enumerate(zip(pictures, given, strict=True)):
            file = tmp_path / place / "photos" / CLASSES[label] / f"{i:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(file)
    monkeypatch.chdir(tmp_path / "A")
    assert run("find-issues", "photos", *QUICK).exit_code == 0
    monkeypatch.chdir(tmp_path / "B")
    options = ("--epochs", 1, "--mode", "vanilla", *QUICK[4:])
    there = run("retrain", "../A/photos-issues", "-o", "one", *options)
    assert there.exit_code == 0, there.output
    monkeypatch.chdir(tmp_path / "A")
    assert run("retrain", "photos-issues", "-o", "one", *options).exit_code == 0
    one, two = (tmp_path / place / "one" / "model.safetensors" for place in "AB")
    assert one.read_bytes() == two.read_bytes()
    refused(
        run("retrain", "../B/photos", "--run", "photos-issues", "-o", "two", *options),
        "are not those of the run, though they have the same names",
    )


def test_a_learning_rate_that_explodes_is_named_as_such(tmp_path: Path) -> None:
    images, _, given = dataset(60, 0.1)
    np.savez("t.npz", images=images, labels=given)
    refused(run("find-issues", "t.npz", *QUICK, "--learning-rate", "1e9"), "take a smaller one (--learning-rate")


def test_a_model_reads_16_bits_as_those_that_it_was_trained_on(tmp_path: Path) -> None:
    images, true, _ = dataset(150, 0.0)
    deep = images.astype(np.uint16) * 16  # 12 bits
    np.savez("t.npz", images=deep, labels=true)
    result = run("find-issues", "t.npz", "--epochs", 15, *QUICK[2:])
    assert "note: pixels are read as integers from 0 (black) to 4,095 (white)" in result.stderr
    assert run("retrain", "t-issues", "-o", "m", "--epochs", 15, "--quiet", "--device", "cpu").exit_code == 0
    np.savez("dark.npz", images=deep[:30] // 8, labels=true[:30])  # of 9 bits, were it read alone
    np.savez("same.npz", images=deep[:30], labels=true[:30])
    np.savez("bytes.npz", images=images[:30])
    right = run("predict", "m", "same.npz")
    assert right.exit_code == 0
    assert float(right.stdout.split("%")[0]) > 80
    assert run("predict", "m", "dark.npz", "--quiet").exit_code == 0
    probabilities = [pd.read_csv(f"{name}-predictions.csv").filter(like="p:") for name in ("same", "dark")]
    assert not np.allclose(*probabilities, atol=1e-4)
    about = json.loads(Path("m/model.json").read_text())
    assert about["preprocessing"]["levels"] == [["integers", 0, 4095]]
    assert run("predict", "m", "bytes.npz", "--quiet").exit_code == 0
    assert len(pd.read_csv("bytes-predictions.csv")) == 30


def test_rare_classes_are_one_note(tmp_path: Path) -> None:
    images, _, given = dataset(60, 0.0)
    labels = given.copy()
    labels[:20] = np.arange(3, 23)
    np.savez("t.npz", images=images, labels=labels)
    notes = [line for line in run("find-issues", "t.npz", *QUICK).stderr.splitlines() if "never see" in line]
    assert len(notes) == 1
    assert "20 of 23 classes have 1 image: '3', '4', '5', '6', '7' and 15 more" in notes[0]


def test_a_large_image_is_read_where_a_flag_allows_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=30)
    Image.new("L", (2000, 2000), 77).save(tmp_path / "shapes" / CLASSES[0] / "large.png")
    result = run("find-issues", "shapes", *QUICK, "--max-megapixels", 3)
    assert "1 unreadable image," in result.stdout
    assert "--max-megapixels raises that" in Path("shapes-issues/unreadable.csv").read_text()
    assert "unreadable" not in run("find-issues", "shapes", "-o", "again", *QUICK).stdout
