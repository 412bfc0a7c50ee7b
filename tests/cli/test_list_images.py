"""`cvcoteach list`, and what find-issues says at its end."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from cvcoteach.cli.main import main
from tests.images import class_folders, dataset


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


def test_the_list_is_a_csv_on_standard_output_or_in_a_file(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=12, wrong=0)
    (tmp_path / "shapes" / "bar" / "broken.png").write_text("no image")
    shown = call("list", tmp_path / "shapes")
    assert shown.exit_code == 0, shown.output
    table = pd.read_csv(io.StringIO(shown.stdout))
    assert list(table) == ["path", "label", "file"]
    assert len(table) == 12
    assert "note: left out: bar/broken.png: " in shown.stderr
    written = call("list", tmp_path / "shapes", "-o", tmp_path / "order.csv", "-q")
    assert written.stdout == f"12 images listed in {tmp_path / 'order.csv'}\n"
    assert "left out: " in written.stderr
    assert (tmp_path / "order.csv").read_text() == shown.stdout


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    refused = call("list", tmp_path / "absent", "-o", tmp_path)
    assert refused.exit_code == 1
    assert "is a folder; the output is a file" in refused.stderr
    assert "does not exist; create it first" in call("list", tmp_path, "-o", tmp_path / "no" / "x.csv").stderr


def test_no_file_but_an_earlier_list_is_replaced(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=12, wrong=0)
    (tmp_path / "notes.csv").write_text("path,label,mine\n")
    refused = call("list", tmp_path / "shapes", "-o", tmp_path / "notes.csv")
    assert refused.exit_code == 1
    assert "notes.csv exists and holds no earlier list; name another output" in refused.stderr
    assert (tmp_path / "notes.csv").read_text() == "path,label,mine\n"
    for _ in range(2):
        assert call("list", tmp_path / "shapes", "-o", tmp_path / "order.csv").exit_code == 0
    table = pd.read_csv(tmp_path / "order.csv")
    table["path"] = "shapes/" + table["path"]
    table.to_csv(tmp_path / "source.csv", index=False)
    refused = call("list", tmp_path / "source.csv", "-o", tmp_path / "source.csv")
    assert "holds no earlier list" in refused.stderr
    assert len(pd.read_csv(tmp_path / "source.csv")) == 12


def test_a_list_is_read_as_a_source_with_the_names_of_its_classes_as_they_are(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=12, wrong=0)
    (tmp_path / "shapes" / "bar").rename(tmp_path / "shapes" / "=1+1")
    assert call("list", tmp_path / "shapes", "-o", tmp_path / "order.csv").exit_code == 0
    assert "'=1+1" in (tmp_path / "order.csv").read_text()
    for place in (tmp_path, tmp_path / "shapes"):  # beside the images both `path` and `file` name them
        (tmp_path / "order.csv").rename(place / "order.csv")
        again = call("list", place / "order.csv")
        assert again.exit_code == 0, again.output
        assert pd.read_csv(io.StringIO(again.stdout))["label"].value_counts()["'=1+1"] == 4
        (place / "order.csv").rename(tmp_path / "order.csv")


@pytest.mark.slow
def test_the_closing_lines_fit_the_run(tmp_path: Path) -> None:
    images, true, _ = dataset(150, 0)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", np.eye(3)[true] * 9 + rng.normal(size=(150, 3)))
    for name, labels in (("clean", true), ("random", rng.integers(0, 3, 150))):
        np.savez(tmp_path / f"{name}.npz", images=images, labels=labels)
        run = tmp_path / name
        result = call("find-issues", tmp_path / f"{name}.npz", "--features", tmp_path / "x.npy", "-o", run, "-q")
        assert result.exit_code == 0, result.output
        assert "training" not in result.stderr
        assert "apply" not in result.stdout, "nothing is flagged"
        if name == "clean":
            assert result.stdout.startswith("None of 150 labels looks doubtful; no sign of noise.\n")
            assert f"Next: cvcoteach retrain {run}" in result.stdout
        else:
            assert "features of another network would help" in result.stdout
            assert "backbone" not in result.stdout
            assert "\nWhy: the given labels are preferred to chance by" in result.stdout
            assert "Next:" not in result.stdout


def test_what_an_array_may_unpack_to_is_said_for_the_one_command(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", images=np.zeros((100, 64, 64), np.uint8), labels=np.arange(100) % 2)
    refused = call("list", tmp_path / "x.npz", "--max-unpacked", 1e-4)
    assert refused.exit_code == 1
    assert "images in x.npz would unpack from 0.5 kB to 0.4 MB" in refused.stderr
    assert "--max-unpacked" in refused.stderr
    assert call("list", tmp_path / "x.npz", "--max-unpacked", 1e-3).exit_code == 0
    assert call("list", tmp_path / "x.npz").exit_code == 0
    assert "is not a number" in call("list", tmp_path / "x.npz", "--max-unpacked", "inf").stderr
