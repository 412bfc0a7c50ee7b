"""Predictions of a saved classifier, for images with or without labels."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cvcoteach._csv import check_output, write_csv
from cvcoteach._files import sweep_partials
from cvcoteach._progress import Watcher
from cvcoteach.coteaching.model_files import load_model
from cvcoteach.data.sources import Choices, at_hand, has_labels, read_source, read_unlabelled
from cvcoteach.noise_model.top_probs import MANY_CLASSES
from cvcoteach.pipeline.prepare import load
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.retraining_set import numbers_of
from cvcoteach.pipeline.settings import Machine
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import choose_device, choose_threads, set_threads


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predictions, and where they were written."""

    file: Path
    """The CSV."""
    table: pd.DataFrame
    """One row per image: path, given_label (if any), predicted_label, probability, and p:NAME per class.

    Of more than 2,000 classes there are no columns p:NAME.
    """
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
    path_column: str | None = None,
    label_column: str | None = None,
    path_pattern: str | None = None,
    split: str | None = None,
    format: str | None = None,
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
        path_column: Column of image paths in a table; None: auto-detected.
        label_column: Column of labels in a table; None: auto-detected.
        path_pattern: File of a value {} in the path column, such as `images/{}.png`; None: the value itself.
        split: Part of a source with several.
        format: Name of the source's format, where it may be of several; None: recognised.
        ignore_labels: Whether to treat the source as images without labels.
        watcher: Follows the reading.

    Raises:
        InputError: Anything does not fit, such as labels that the model does not know.
    """
    machine, progress = machine or Machine(), RunProgress(watcher)
    model, source = Path(model), at_hand(source, machine.cache_dir)
    output = Path(output) if output else Path(f"{source.resolve().stem}-predictions.csv")
    check_output(
        output,
        source,
        lambda header: header[:1] == ["path"] and {"predicted_label", "probability"} <= {*header[1:4]},
        "predictions",
    )
    loaded = load_model(model, trusted=machine.trusted)
    choices = Choices(path_column, None, path_pattern, split, format=format, cache_dir=machine.cache_dir)
    named = replace(choices, label_column=label_column)
    labelled = not ignore_labels and has_labels(source, named)
    data = read_source(source, **asdict(named), least_classes=1) if labelled else None
    labels = None if data is None else numbers_of(data, loaded.class_names, f"{source} (--ignore-labels ignores it)")
    data = data or read_unlabelled(source, choices)
    for sentence in (f"{data.description}.", *data.notes):
        progress.note(sentence)
    wanted = loaded.images
    images = load(data, wanted.size, machine, progress, channels=wanted.channels, levels=wanted.levels)
    plan = ComputePlan(str(choose_device(machine.device)), threads=choose_threads(machine.threads))
    set_threads(plan.threads)
    probs = loaded.predict_proba(images.pixels, plan)
    predicted, names = probs.argmax(axis=1), np.array(loaded.class_names, dtype=object)
    columns: dict[str, object] = {"path": list(data.paths)}
    if labels is not None:
        columns["given_label"] = names[labels]
    columns["predicted_label"] = names[predicted]
    columns["probability"] = probs.max(axis=1)
    if len(names) <= MANY_CLASSES:
        columns |= {f"p:{name}": probs[:, k] for k, name in enumerate(loaded.class_names)}
    table = pd.DataFrame(columns)
    predictions = [name for name in table.columns if name not in ("path", "given_label")]
    table.loc[~images.readable, predictions] = np.nan
    sweep_partials(output.absolute().parent, output.name, older_than=3600)  # of calls that were killed
    write_csv(output, table, float_format="%.6f")
    right = None if labels is None else (predicted == labels)[images.readable]
    return Predictions(
        output, table, None if right is None or not len(right) else float(right.mean()), len(images.errors)
    )
