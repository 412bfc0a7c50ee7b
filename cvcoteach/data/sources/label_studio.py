"""Label Studio's JSON: tasks with the choices of one or more annotators."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

import pandas as pd

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.json_file import beside, content_of, json_format, table_of
from cvcoteach.data.sources.records import frame_table
from cvcoteach.data.sources.source import IMAGE_SUFFIXES, Choices, count

_ANNOTATOR = "completed_by"
"""The field of an annotation that says who gave it: a number, or the person with an email."""


class _Vote(NamedTuple):
    """What an annotation says of a task."""

    chosen: list[str]
    """Empty where it was skipped."""
    annotator: str | None
    """None where it is not said."""


def _is_label_studio(content: Any) -> bool:
    return (
        isinstance(content, list)
        and bool(content)
        and isinstance(content[0], dict)
        and isinstance(content[0].get("data"), dict)
        and isinstance(content[0].get("annotations", content[0].get("completions")), list)
    )


def is_min(content: Any) -> bool:
    """Return whether what a JSON file holds is Label Studio's JSON-MIN, which drops what was skipped."""
    first = content[0] if isinstance(content, list) and content else None
    return isinstance(first, dict) and {"id", "annotator", "annotation_id"} <= first.keys()


def open_label_studio(file: Path, choices: Choices) -> Table:
    """Return the tasks of a JSON export as `_table` does. Raises InputError for one of another form too."""
    try:
        return _table(file, choices)
    except InputError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{file.name} is not as Label Studio writes it ({type(error).__name__}: {error}).") from None


def _table(file: Path, choices: Choices) -> Table:
    """Return the tasks of a JSON export: the choice that most annotators made; skipped annotations do not count.

    Where annotators are asked for, there is a row for the choice of each.

    Raises:
        InputError: where an annotator chose several classes of one image, and where several questions were asked and
            none is named.
    """
    if choices.annotator_column not in (None, _ANNOTATOR):
        raise InputError(f"--annotator-column is {choices.annotator_column!r}; of Label Studio it takes {_ANNOTATOR}.")
    by_annotator = choices.annotator_column is not None
    rows: list[tuple[str, Any]] = []
    annotators: list[str | None] = []
    without = ties = 0
    known = True
    questions = Counter(_questions(content_of(file)))
    question = choices.label_column
    if question is None and len(questions) > 1:
        raise InputError(
            f"{file.name} holds choices of {', '.join(sorted(questions))}; --label-column says which are the labels."
        )
    for number, task in enumerate(content_of(file), start=1):
        votes = _votes(task, question)
        several = next((vote.chosen for vote in votes if len(vote.chosen) > 1), None)
        if several is not None:
            raise InputError(
                f"task {number} of {file.name} has the labels {', '.join(several[:5])}; it takes one label per image."
            )
        path, label = _image_of(task["data"], number, file), _majority(votes)
        given = [vote for vote in votes if vote.chosen]
        if not given:
            without += 1
        elif by_annotator:
            rows.extend((path, vote.chosen[0]) for vote in given)
            annotators.extend(vote.annotator for vote in given)
        elif label is None:
            ties += 1
            known = known and all(vote.annotator is not None for vote in given)
        else:
            rows.append((path, label))
    way = f" (--annotator-column {_ANNOTATOR} reads the label of each)" if known else ""
    if ties and not rows:
        which = "the 1 image" if ties == 1 else f"all {ties:,} images"
        raise InputError(f"annotators are divided on {which} of {file.name} that have labels{way}.")
    table = table_of(file, rows, without, "without a label")
    if by_annotator:
        frame = pd.DataFrame(rows, columns=["path", "label"])
        frame[_ANNOTATOR] = pd.Series(annotators, dtype=object)
        return frame_table(file, frame, table.notes)
    if ties:
        verb = "was" if ties == 1 else "were"
        note = f"{count(ties, 'image')} of {file.name} on which annotators are divided {verb} left out{way}."
        table = frame_table(file, pd.DataFrame(rows, columns=["path", "label"]), (*table.notes, note))
    return table


def answer(task: Any, question: str | None) -> str | None:
    """Return the choice that most annotators of a task made; None where there is none."""
    return _majority(_votes(task, question))


def chosen_in(annotation: Any, question: str | None) -> list[str]:
    """Return the choices of an annotation; none where it was skipped."""
    if annotation.get("was_cancelled") or annotation.get("skipped"):
        return []
    return [
        str(choice)
        for result in annotation.get("result") or []
        if is_choice(result) and question in (None, result.get("from_name"))
        for choice in result["value"]["choices"]
    ]


def is_choice(result: Any) -> bool:
    """Return whether a result of an annotation is a choice."""
    value = result.get("value") if isinstance(result, dict) else None
    return isinstance(value, dict) and isinstance(value.get("choices"), list)


def _votes(task: Any, question: str | None) -> list[_Vote]:
    """Return what each annotation of a task says."""
    annotations = task.get("annotations", task.get("completions")) or []
    return [_Vote(chosen_in(annotation, question), _annotator(annotation)) for annotation in annotations]


def _annotator(annotation: Any) -> str | None:
    who = annotation.get(_ANNOTATOR)
    if isinstance(who, dict):
        who = who.get("email") or who.get("id")
    return None if who is None else str(who)


def _majority(votes: list[_Vote]) -> str | None:
    most = Counter(choice for vote in votes for choice in vote.chosen).most_common(2)
    return most[0][0] if len(most) == 1 or (most and most[0][1] > most[1][1]) else None


def _questions(content: Any) -> list[str]:
    return [
        str(result.get("from_name"))
        for task in content
        for annotation in task.get("annotations", task.get("completions")) or []
        for result in annotation.get("result") or []
        if is_choice(result)
    ]


def _image_of(data: dict[str, Any], number: int, file: Path) -> str:
    """Return the path of a task's image: of a local file what follows `?d=`, of an upload its name."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    found = [
        value
        for value in texts.values()
        if os.path.splitext(urlsplit(value).path)[1].lower() in IMAGE_SUFFIXES or "?d=" in value
    ]
    if not found:
        raise InputError(f"task {number} of {file.name} names no image; it holds {', '.join(data) or 'nothing'}.")
    address = found[0]
    if "/local-files/" in address:
        inside = parse_qs(urlsplit(address).query).get("d", [""])[0]
        return beside(file, inside)
    if address.startswith("/data/upload/"):
        return beside(file, "media" + unquote(address.removeprefix("/data")))  # as in its data folder
    return address


FORMAT = json_format(
    "labelstudio",
    _is_label_studio,
    open_label_studio,
    takes=frozenset(["path_pattern", "label_column", "annotator_column"]),
)
