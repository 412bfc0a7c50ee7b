"""What a saved classifier says about images, with or without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cvcoteach._files import replacing
from cvcoteach._validation import InputError
from cvcoteach.pipeline.retrain_task import numbers_of
from cvcoteach.pipeline.settings import Machine, Silent, Watcher


@dataclass(frozen=True, eq=False)
class Predictions:
    """The answers, and where they were written."""

    file: Path
    table: pd.DataFrame
    """An image a row: path, given_label (where there are labels), predicted_label, probability, a column a class."""
    accuracy: float | None
    """Share whose prediction is the given label, of the readable; None without labels."""
    unreadable: int
    """Images without a prediction."""


def predict(
    model: Path,
    source: Path,
    output: Path | None = None,
    machine: Machine | None = None,
    *,
    trusted: str | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    path_pattern: str | None = None,
    split: str | None = None,
    ignore_labels: bool = False,
    watcher: Watcher | None = None,
) -> Predictions:
    """Predict the classes of the images of `source`, and write them to a CSV.

    model: a folder that retrain wrote. source: as `read_source` takes it, or images without labels: a folder of
    them, at any depth, one image, a table with paths only. trusted: see `load_model`.
    output: a new file, or earlier predictions, which it replaces; None: `<name>-predictions.csv`, in this folder.

    Raises InputError, one sentence, for anything that does not fit, such as labels that the model does not know.
    """
    from cvcoteach.coteaching.model_files import load_model
    from cvcoteach.data.images import load_images
    from cvcoteach.data.sources import has_labels, read_source, read_unlabelled
    from cvcoteach.training.devices import Plan, choose_device, choose_threads, set_threads

    machine, watcher = machine or Machine(), watcher or Silent()
    output = output or Path(f"{source.resolve().stem}-predictions.csv")
    _check_output(output, source)
    loaded = load_model(model, trusted=trusted)
    labelled = not ignore_labels and has_labels(source, label_column=label_column, split=split)
    reading = {"path_column": path_column, "path_pattern": path_pattern, "split": split}
    data = read_source(source, label_column=label_column, least_classes=1, **reading) if labelled else None
    labels = (
        None if data is None else numbers_of(data, loaded.class_names, f"{source} (--ignore-labels passes over it)")
    )
    data = data or read_unlabelled(source, **reading)
    for sentence in (f"{data.description}.", *data.notes):
        watcher.note(sentence)
    images = load_images(
        data,
        loaded.size,
        channels=loaded.channels,
        cache_dir=machine.cache_dir,
        levels=loaded.levels,
        max_pixels=machine.max_pixels,
        progress=watcher.reading,
    )
    plan = Plan(str(choose_device(machine.device)), threads=choose_threads(machine.threads))
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
    told = [name for name in table.columns if name not in ("path", "given_label")]
    table.loc[~images.readable, told] = np.nan
    with replacing(output) as file:
        table.to_csv(file, index=False, float_format="%.6f")
    right = None if labels is None else (predicted == labels)[images.readable]
    return Predictions(
        output, table, None if right is None or not len(right) else float(right.mean()), len(images.errors)
    )


def _check_output(output: Path, source: Path) -> None:
    """Raises InputError for a place where no file can be, and for a file of another kind: it would be lost."""
    if output.is_dir():
        raise InputError(f"{output} is a folder; --output takes a file.")
    if not output.absolute().parent.is_dir():
        raise InputError(f"{output.parent}, where the predictions are to be, is no folder; make it first.")
    if not output.exists():
        return
    try:
        with open(output, encoding="utf-8") as file:
            header = file.readline().rstrip("\n").split(",")
    except (OSError, UnicodeDecodeError):
        header = []
    ours = header[:1] == ["path"] and {"predicted_label", "probability"} <= {*header[1:4]}
    if not ours or output.resolve() == source.resolve():
        raise InputError(f"{output} is there and holds no earlier predictions; name another --output.")
