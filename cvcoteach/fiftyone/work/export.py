"""The corrected labels -> a folder of class folders, a CSV, or a FiftyOne dataset. Excluded samples stay behind."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import fiftyone as fo
import pandas as pd

from cvcoteach._csv import write_csv
from cvcoteach._files import folder_written_whole
from cvcoteach._progress import OnProgress, Progress
from cvcoteach._validation import InputError, counted, near, verb
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.audit import COLUMNS
from cvcoteach.fiftyone.store.fields import EXCLUDED, Fields
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.edits import catch_up

KINDS = ("imagefolder", "csv", "dataset")


def export_corrected(
    samples: Any, kind: str, to: str, brain_key: str | None = None, *, on_progress: OnProgress | None = None
) -> int:
    """Export the labels as they are now, corrections included, and return how many samples that is.

    samples: a dataset or view. kind: "imagefolder" copies the files into TO/<class>/, "csv" writes path, label, review,
    given label and quality (beside it the record of all corrections of the dataset, TO.corrections.csv), "dataset"
    makes the persistent FiftyOne dataset TO.

    Raises InputError where `to` already exists, is a table not called .csv, or nothing is left to export.
    """
    check_target(kind, to)
    results = runs.load(samples._dataset, brain_key)
    catch_up(samples._dataset, results)
    view = _kept(samples, results)
    if len(view) == 0:
        raise InputError("there is no sample with a label to export.")
    if kind == "imagefolder":
        return _to_folder(view, results, Path(to).expanduser(), on_progress or (lambda update: None))
    if kind == "csv":
        return _to_csv(view, results, Path(to).expanduser())
    return _to_dataset(view, results, to)


def check_target(kind: str, to: str) -> None:
    """Raise InputError where there is no such kind, or the destination exists or is no name of that kind."""
    if kind not in KINDS:
        raise InputError(f"the kind is {kind!r}; {near(kind, KINDS)}")
    if not to:
        raise InputError("there is no destination; name a folder, a .csv or a dataset.")
    place = Path(to).expanduser()
    if kind == "imagefolder" and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{place} is not empty; name another folder.")
    if kind == "csv":
        if place.suffix.lower() != ".csv":  # whoever uses the App writes no file of another kind on the server
            raise InputError(f"{place.name} is not the name of a table; it takes a file that ends in .csv.")
        beside = _record_beside(place)
        taken = place if place.exists() else beside if beside.exists() and not _is_record(beside) else None
        if taken is not None:
            raise InputError(f"{taken} already exists; name another file.")
    if kind == "dataset" and fo.dataset_exists(to):
        raise InputError(f"there is already a dataset {to!r}; choose another name.")


def _record_beside(file: Path) -> Path:
    return file.with_suffix(".corrections.csv")


def _is_record(file: Path) -> bool:
    """Return whether an export wrote it; without its CSV it is what a killed export left."""
    if not file.is_file():
        return False
    with open(file, "rb") as lines:
        return lines.readline().rstrip(b"\r\n") == ",".join(COLUMNS).encode()


def _kept(samples: Any, results: runs.FindLabelIssuesResults) -> Any:
    here = fo.ViewField
    labelled = here(f"{results.config.label_field}.label").exists()
    return samples.match(labelled & (here(results.fields.review) != EXCLUDED))


def _to_folder(view: Any, results: runs.FindLabelIssuesResults, folder: Path, on_progress: OnProgress) -> int:
    from cvcoteach.data.writers.copy import is_image  # imports more than the App needs at every request

    ids, paths, labels = view.values(["id", "filepath", f"{results.config.label_field}.label"])
    missing = [path for path in paths if not os.path.exists(path)]
    if missing:
        raise InputError(
            f"{counted(len(missing), 'file')} "
            f"{verb(len(missing), 'is', 'are')} missing, such as {missing[0]}; the folder "
            "was not written."
        )
    if (other := next((path for path in paths if not is_image(path)), None)) is not None:
        raise InputError(f"{other}, the file of a sample, is no image; the folder was not written.")
    odd = next((label for label in labels if not _is_folder_name(label)), None)
    if odd is not None:
        raise InputError(f"the class {odd!r} cannot be the name of a folder; export a CSV instead.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder_written_whole(folder) as partial:
            for number, (sample_id, path, label) in enumerate(zip(ids, paths, labels, strict=True)):
                on_progress(Progress("copying images", number, len(ids)))
                _copy(path, partial / label, sample_id)
    except OSError as error:
        raise InputError(f"{folder} could not be written: {error.strerror}.") from error
    return len(ids)


def _copy(path: str, folder: Path, sample_id: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / Path(path).name
    if target.exists():  # two files of one name from two folders
        target = target.with_stem(f"{target.stem}-{sample_id}")
    shutil.copy2(path, target)


def _to_csv(view: Any, results: runs.FindLabelIssuesResults, file: Path) -> int:
    fields, label_field = results.fields, results.config.label_field
    names = ["filepath", f"{label_field}.label", fields.review, fields.quality, "id"]
    table = pd.DataFrame(dict(zip(["path", "label", "review", "label_quality", "id"], view.values(names), strict=True)))
    table.insert(2, "given_label", results.given(table.pop("id").tolist()))
    file.parent.mkdir(parents=True, exist_ok=True)
    # all corrections, those by runs that were replaced as well
    write_csv(_record_beside(file), corrections.history(view._dataset))
    write_csv(file, table)
    return len(table)


def _to_dataset(view: Any, results: runs.FindLabelIssuesResults, name: str) -> int:
    schema = view._dataset.get_field_schema()
    ours = [field for key in runs.keys(view._dataset) for field in Fields(key).all if field in schema]
    made = view.exclude_fields(ours).clone()  # named last: a whole export, or one that FiftyOne clears away
    made.persistent = True
    made.name = name
    return len(made)


def _is_folder_name(label: str) -> bool:
    # a hidden folder would not be read back
    return bool(label) and not label.startswith(".") and not re.search(r"[/\\\0]", label)
