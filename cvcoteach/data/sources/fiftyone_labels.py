"""FiftyOne's `labels.json` beside a folder `data`, as it exports image classifications."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.json_file import content_of, json_format, table_of
from cvcoteach.data.sources.source import Choices


def _is_fiftyone(content: Any) -> bool:
    return isinstance(content, dict) and "classes" in content and isinstance(content.get("labels"), dict)


def open_fiftyone(file: Path, choices: Choices) -> Table:
    """Return the images of FiftyOne's `labels.json`, which lie in `data` beside it; null and -1 are no label.

    Raises:
        InputError: for numbers beyond the classes, and for names without a file in `data`.
    """
    content = content_of(file)
    classes = content["classes"]
    named = classes is None or (isinstance(classes, list) and not any(isinstance(c, list | dict) for c in classes))
    if not named:
        raise InputError(f"{file.name} is not as FiftyOne writes it: classes is {str(classes)[:40]}.")
    folder = file.parent / "data"
    by_name = {os.path.splitext(path)[0]: path for path in _below(folder)}
    rows: list[tuple[str, Any]] = []
    for name, value in content["labels"].items():
        label = value.get("label") if isinstance(value, dict) else value
        if label is None or label == -1:
            continue
        if isinstance(label, list):
            raise InputError(f"{name} of {file.name} has {len(label)} labels; it takes one label per image.")
        if isinstance(label, dict):
            raise InputError(f"{name} of {file.name} has the label {str(label)[:40]}; it takes a name or a number.")
        if isinstance(label, int) and classes:
            if not 0 <= label < len(classes):
                raise InputError(f"{name} of {file.name} has the label {label}, but it names {len(classes)} classes.")
            label = classes[label]
        rows.append((os.path.join("data", by_name[name]) if name in by_name else name, label))
    return table_of(file, rows, len(content["labels"]) - len(rows), "without a label")


def _below(folder: Path) -> list[str]:
    """Return the files of a folder at any depth, relative to it."""
    found: list[str] = []
    for place, _, names in os.walk(folder):
        inside = os.path.relpath(place, folder)
        found.extend(name if inside == "." else os.path.join(inside, name) for name in names)
    return found


FORMAT = json_format("fiftyone", _is_fiftyone, open_fiftyone, of_folders=True)
