"""JSON of annotation tools (COCO-style, Label Studio, FiftyOne, Datumaro), written as it was but for what changed."""

from __future__ import annotations

import copy as copying
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cvcoteach._files import replacing
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, coco, datumaro, fiftyone_labels, label_studio
from cvcoteach.data.sources.json_file import content_of
from cvcoteach.data.sources.source import Format
from cvcoteach.data.writers.copy import Copy


class _Kind(NamedTuple):
    """One layout of JSON."""

    format: Format
    edit: Callable[[Any, Copy], Any]
    """Returns the content of the copy; the content that it gets is its own."""


def recognises(source: Source) -> bool:
    """Return whether a source is such a file."""
    return source.array is None and _kind_of(source.location) is not None


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the copy is to lie beside the source: its images are looked for from there."""
    check_beside(copy, destination)


def check_beside(copy: Copy, destination: Path) -> None:
    """Raise InputError unless a destination has the folder and the suffix of the source."""
    location = copy.source.location
    if destination.suffix.lower() != location.suffix.lower():
        raise InputError(f"{destination} is to be a copy of a {location.suffix}; let its name end so.")
    if destination.parent.resolve() != location.parent.resolve():
        raise InputError(
            f"{destination} is to be a copy of {location.name}, whose images are found from its folder; name a "
            f"place in {location.parent}."
        )


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the file without the images left out, with the new labels where they changed.

    Raises InputError where the file has changed since it was read.
    """
    content = edited(copy.source.location, copy)
    with replacing(destination) as file:
        file.write(content)
    n = int(copy.kept.sum())
    on_image(n, n)


def edited(file: Path, copy: Copy) -> bytes:
    """Return the content of a file of the source without the images left out, with the new labels.

    Raises InputError where the file has changed since it was read.
    """
    kind = _kind_of(file)
    if kind is None:
        raise _changed(copy)
    content = kind.edit(copying.deepcopy(content_of(file)), copy)
    return json.dumps(content, ensure_ascii=False, indent=_indent(file)).encode()


def _kind_of(file: Path) -> _Kind | None:
    if file.suffix.lower() != ".json" or not file.is_file():
        return None
    return next((kind for kind in _KINDS if kind.format.recognises(file)), None)


def _indent(file: Path) -> int | None:
    """Return the spaces by which a file indents, None where all is on one line."""
    lines = file.read_text(encoding="utf-8-sig")[:1000].splitlines()[1:2]
    return len(lines[0]) - len(lines[0].lstrip()) if lines else None


def _changed(copy: Copy) -> InputError:
    return InputError(f"{copy.source.location.name} does not hold the labels as they were read; it has changed since.")


def check_labels(copy: Copy, labels: list[Any]) -> None:
    """Raise InputError unless the labels (n,), as they are written, are those of the source."""
    given: dict[int, Any] = {}
    same = len(labels) == len(copy.source)
    for label, number in zip(labels, copy.source.labels.tolist(), strict=False):
        same = same and given.setdefault(number, label) == label
    if not same:
        raise _changed(copy)


def _edit_coco(content: Any, copy: Copy) -> Any:
    given = {each["image_id"]: each["category_id"] for each in content["annotations"]}
    ids = [image["id"] for image in content["images"] if image["id"] in given]
    check_labels(copy, [given[image] for image in ids])
    new = {image: given[ids[donor]] for image, donor in zip(ids, copy.donors.tolist(), strict=True)}
    gone = {image for image, kept in zip(ids, copy.kept.tolist(), strict=True) if not kept}
    content["images"] = [image for image in content["images"] if image["id"] not in gone]
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in gone]
    for each in content["annotations"]:
        each["category_id"] = new[each["image_id"]]
    return content


def _edit_fiftyone(content: Any, copy: Copy) -> Any:
    def label_of(value: Any) -> Any:
        return value.get("label") if isinstance(value, dict) else value

    labels = content["labels"]
    names = [name for name, value in labels.items() if label_of(value) not in (None, -1)]
    given = [label_of(labels[name]) for name in names]
    check_labels(copy, given)
    for row, name in enumerate(names):
        if not copy.kept[row]:
            del labels[name]
        elif isinstance(labels[name], dict):
            labels[name]["label"] = given[copy.donors[row]]
        else:
            labels[name] = given[copy.donors[row]]
    return content


def _edit_datumaro(content: Any, copy: Copy) -> Any:
    def label_in(item: Any) -> Any:
        return next((each["label_id"] for each in item["annotations"] if each.get("type") == "label"), None)

    given = [label for item in content["items"] if (label := label_in(item)) is not None]
    check_labels(copy, given)
    items, row = [], 0
    for item in content["items"]:
        if label_in(item) is None:
            items.append(item)
            continue
        if copy.kept[row]:
            for each in item["annotations"]:
                if each.get("type") == "label":
                    each["label_id"] = given[copy.donors[row]]
            items.append(item)
        row += 1
    content["items"] = items
    return content


def _edit_label_studio(content: Any, copy: Copy) -> Any:
    """Give a task with a new label one annotation that says so, in place of those that said something else."""
    question = copy.choices.label_column
    answers = [label_studio.answer(task, question) for task in content]
    given = [answer for answer in answers if answer is not None]
    check_labels(copy, given)
    tasks, row = [], 0
    for task, answer in zip(content, answers, strict=True):
        if answer is None:
            tasks.append(task)
            continue
        if copy.kept[row]:
            tasks.append(_answered(task, question, given[copy.donors[row]]) if copy.donors[row] != row else task)
        row += 1
    return tasks


def _answered(task: Any, question: str | None, label: str) -> Any:
    key = "annotations" if "annotations" in task else "completions"
    kept = [each for each in task[key] if label_studio.chosen_in(each, question)][:1]
    for result in kept[0]["result"]:
        if label_studio.is_choice(result) and question in (None, result.get("from_name")):
            result["value"]["choices"] = [label]
    return {**task, key: kept}


_KINDS = (
    _Kind(coco.FORMAT, _edit_coco),
    _Kind(label_studio.FORMAT, _edit_label_studio),
    _Kind(fiftyone_labels.FORMAT, _edit_fiftyone),
    _Kind(datumaro.FORMAT, _edit_datumaro),
)
