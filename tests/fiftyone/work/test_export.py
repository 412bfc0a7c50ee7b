"""Exports of corrected labels, as a folder, a CSV or a dataset."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path
from typing import Any

import fiftyone as fo
import pandas as pd
import pytest

from cvcoteach._progress import Progress
from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import corrections, export
from tests.fiftyone.calls import execute
from tests.fiftyone.store.test_runs import imported

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


def test_export_into_class_folders_is_exactly_the_corrected_labels(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    execute("exclude_samples", noisy.dataset, selected=noisy.wrong_ids[:1])
    execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids[1:])
    execute("export_corrected", noisy.dataset, params={"kind": "imagefolder", "to": str(tmp_path / "out")})
    gone = noisy.ids.index(noisy.wrong_ids[0])
    expected = {f"{CLASSES[k]}/{i:05d}.png" for i, k in enumerate(noisy.true) if i != gone}
    assert {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.png")} == expected


def test_export_as_csv_has_given_and_corrected_labels_and_the_record(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids)
    execute("export_corrected", noisy.dataset, params={"kind": "csv", "to": str(tmp_path / "out.csv")})
    with open(tmp_path / "out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == [CLASSES[k] for k in noisy.true]
    assert [row["given_label"] for row in rows] == [CLASSES[k] for k in noisy.given]
    with open(tmp_path / "out.corrections.csv", newline="") as file:
        assert {row["sample_id"] for row in csv.DictReader(file)} == set(noisy.wrong_ids)


def test_the_exported_record_has_what_was_corrected_by_a_run_that_was_replaced(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[:2])
    imported(noisy, overwrite=True)
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[2:3])
    execute("export_corrected", noisy.dataset, params={"kind": "csv", "to": str(tmp_path / "out.csv")})
    with open(tmp_path / "out.corrections.csv", newline="") as file:
        assert [row["sample_id"] for row in csv.DictReader(file)] == noisy.wrong_ids[:3]


@pytest.mark.parametrize("n_written", [0, 1])
def test_an_export_as_csv_that_was_killed_is_done_by_the_same_call(
    noisy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_written: int
) -> None:
    imported(noisy)
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids)
    to, write, written = tmp_path / "out.csv", pd.DataFrame.to_csv, itertools.count()

    def killed(*arguments: Any, **options: Any) -> Any:
        if next(written) == n_written:
            raise KeyboardInterrupt
        return write(*arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(pd.DataFrame, "to_csv", killed)
        with pytest.raises(KeyboardInterrupt):
            export.export_corrected(noisy.dataset, "csv", str(to))
    assert len(list(tmp_path.glob("out*"))) == n_written
    assert export.export_corrected(noisy.dataset, "csv", str(to)) == 60
    with pytest.raises(InputError, match=r"out.csv already exists"):
        export.export_corrected(noisy.dataset, "csv", str(to))


def test_an_export_as_a_dataset_that_was_killed_leaves_none_of_that_name(
    noisy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(noisy)

    clone = fo.DatasetView.clone

    def killed(*arguments: Any, **options: Any) -> None:
        clone(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fo.DatasetView, "clone", killed)
        with pytest.raises(KeyboardInterrupt):
            export.export_corrected(noisy.dataset, "dataset", "corrected")
    assert not fo.dataset_exists("corrected")
    assert export.export_corrected(noisy.dataset, "dataset", "corrected") == 60
    made = fo.load_dataset("corrected")
    assert made.persistent
    assert made.list_brain_runs() == []
    made.delete()


def test_export_as_a_dataset_carries_labels_and_leaves_the_runs_fields(noisy: Any) -> None:
    imported(noisy)
    execute("accept_suggestions", noisy.dataset, selected=noisy.wrong_ids)
    execute("export_corrected", noisy.dataset, params={"kind": "dataset", "to": "corrected"})
    made = fo.load_dataset("corrected")
    assert made.values("ground_truth.label") == [CLASSES[k] for k in noisy.true]
    assert not set(FIELDS) & set(made.get_field_schema())
    made.delete()


def test_an_export_reports_the_images_it_copies(noisy: Any, tmp_path: Path) -> None:
    imported(noisy)
    heard: list[Progress] = []
    n = export.export_corrected(noisy.dataset, "imagefolder", str(tmp_path / "out"), on_progress=heard.append)
    assert heard == [Progress("copying images", number, n) for number in range(n)]


@pytest.mark.parametrize("label", [".hidden", "..", "a/b", "a\\b", ""])
def test_a_class_whose_folder_would_not_be_read_back_is_refused(label: str) -> None:
    assert not export._is_folder_name(label)
    assert export._is_folder_name("a.hidden")


@pytest.mark.parametrize("name", [".bash_profile", "labels", "labels.py", "csv"])
def test_a_table_is_written_into_no_file_of_another_kind(noisy: Any, tmp_path: Path, name: str) -> None:
    """Whoever uses the App is not to write what a shell or another program of the server would read."""
    imported(noisy)
    with pytest.raises(InputError, match=r"ends in \.csv"):
        export.export_corrected(noisy.dataset, "csv", str(tmp_path / name))
    assert not (tmp_path / name).exists()


def test_no_file_that_is_no_image_is_copied(noisy: Any, tmp_path: Path) -> None:
    """A dataset that somebody shares names files wherever it likes."""
    imported(noisy)
    (tmp_path / "secret").write_text("for the owner's eyes")
    (tmp_path / "secret.png").symlink_to(tmp_path / "secret")
    sample = noisy.dataset.first()
    sample.filepath = str(tmp_path / "secret.png")
    sample.save()
    with pytest.raises(InputError, match=r"secret\.png, the file of a sample, is no image"):
        export.export_corrected(noisy.dataset, "imagefolder", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
