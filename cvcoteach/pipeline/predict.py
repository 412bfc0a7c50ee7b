"""Predictions of a saved classifier, for images with or without labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cvcoteach._files import replacing
from cvcoteach._progress import Watcher
from cvcoteach._validation import InputError
from cvcoteach.coteaching.model_files import load_model
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import IMAGE_SUFFIXES, Source, read_source
from cvcoteach.data.tables import PATH_COLUMNS, TABLE_SUFFIXES, columns_of, read_columns
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.retraining_set import numbers_of
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import choose_device, choose_threads, set_threads
from cvcoteach.training.estimator_inputs import unlabelled


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions, and where they were written."""

    file: Path
    """The CSV."""
    table: pd.DataFrame
    """One row per image: path, given_label (if any), predicted_label, probability, and p:NAME per class."""
    accuracy: float | None
    """Share of readable images whose prediction is the given label, in [0, 1]; None without labels."""
    unreadable: int
    """Images without a prediction."""


def predict(
    model: str | Path,
    source: str | Path,
    output: str | Path | None = None,
    machine: Machine | None = None,
    *,
    trusted: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    ignore_labels: bool = False,
    watcher: Watcher | None = None,
) -> Predictions:
    """Predict the classes of images, and write them to a CSV.

    Args:
        model: A folder that retrain wrote.
        source: As `read_source` takes it, or images without labels: a folder of them at any depth, one image, or a
            table with paths only.
        output: A new file, or earlier predictions, which are replaced; None: `<name>-predictions.csv` in the current
            folder.
        machine: Where to compute; None: chosen.
        trusted: See `load_model`.
        path_column: Column of image paths in a table; None: auto-detected.
        label_column: Column of labels in a table; None: auto-detected.
        ignore_labels: Whether to treat the source as images without labels.
        watcher: Follows the reading.

    Raises:
        InputError: Anything does not fit, such as labels that the model does not know.
    """
    machine, progress = machine or Machine(), RunProgress(watcher)
    model, source = Path(model), Path(source)
    output = Path(output) if output else Path(f"{source.resolve().stem}-predictions.csv")
    _check_output(output, source)
    loaded = load_model(model, trusted=trusted)
    data = None if ignore_labels else _labelled(source, path_column, label_column)
    labels = None if data is None else numbers_of(data, loaded.class_names, f"{source} (--ignore-labels ignores it)")
    data = data or unlabelled_source(source, path_column)
    for sentence in data.notes:
        progress.note(sentence)
    images = load_images(
        data,
        loaded.images.size,
        channels=loaded.images.channels,
        cache_dir=machine.cache_dir,
        progress=progress.reading,
    )
    plan = ComputePlan(str(choose_device(machine.device)), threads=choose_threads(machine.threads))
    set_threads(plan.threads)
    probs = loaded.predict_proba(images.pixels, plan)
    predicted, names = probs.argmax(axis=1), np.array(loaded.class_names, dtype=object)
    columns: dict[str, object] = {"path": list(data.paths)}
    if labels is not None:
        columns["given_label"] = names[labels]
    columns["predicted_label"] = names[predicted]
    columns["probability"] = probs.max(axis=1)
    columns |= {f"p:{name}": probs[:, k] for k, name in enumerate(loaded.class_names)}
    table = pd.DataFrame(columns)
    predictions = [name for name in table.columns if name not in ("path", "given_label")]
    table.loc[~images.readable, predictions] = np.nan
    with replacing(output) as file:
        table.to_csv(file, index=False, float_format="%.6f")
    right = None if labels is None else (predicted == labels)[images.readable]
    return Predictions(
        output, table, None if right is None or not len(right) else float(right.mean()), len(images.errors)
    )


def _check_output(output: Path, source: Path) -> None:
    """Raise InputError if no file can be written there, or if a file of another kind would be lost."""
    if output.is_dir():
        raise InputError(f"{output} is a folder; --output takes a file.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.parent}, the folder for the predictions, does not exist; create it first.")
    if not output.exists():
        return
    try:
        with open(output, encoding="utf-8") as file:
            header = file.readline().rstrip("\n").split(",")
    except (OSError, UnicodeDecodeError):
        header = []
    ours = header[:1] == ["path"] and {"predicted_label", "probability"} <= {*header[1:4]}
    if not ours or output.resolve() == source.resolve():
        raise InputError(f"{output} exists and holds no earlier predictions; name another --output.")


def _labelled(source: Path, path_column: str | None, label_column: str | None) -> Source | None:
    """Return the source with its labels, None if it has none."""
    if source.is_dir():
        folders = [entry for entry in os.scandir(source) if entry.is_dir() and not entry.name.startswith(".")]
        if not folders:
            return None
    elif source.suffix.lower() in TABLE_SUFFIXES:
        if label_column is None and len(columns_of(source)) == 1:
            return None
    elif source.suffix.lower() != ".npz":
        return None
    return read_source(source, path_column=path_column, label_column=label_column, least_classes=1)


def unlabelled_source(source: Path, path_column: str | None = None) -> Source:
    """Return images without labels: a folder of them at any depth, one image, or a table with a column of paths.

    Raises:
        InputError: There are none.
    """
    location = source.absolute()
    suffix = location.suffix.lower()
    if not location.exists():
        raise InputError(f"{location} does not exist; it takes a folder of images, one image, a table or an .npz.")
    if location.is_dir():
        found = (Path(folder, name) for folder, _, names in os.walk(location) for name in names)
        images = [file for file in found if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]
        if not images:
            raise InputError(f"{location} holds no images.")
        return unlabelled(location, location, sorted([file.relative_to(location).as_posix() for file in images]))
    if suffix in IMAGE_SUFFIXES:
        return unlabelled(location, location.parent, [location.name])
    if suffix in TABLE_SUFFIXES:
        columns = list(columns_of(location))
        usual = [name for name in columns if name.casefold() in PATH_COLUMNS]
        path_column = path_column or (usual or columns)[0]
        paths = read_columns(location, path_column, path_column).paths
        return unlabelled(location, location.parent, paths.astype(str).tolist())
    return read_source(location)
