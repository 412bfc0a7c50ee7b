"""A table of labels by several annotators, a row or a column each -> what each image was labelled, and by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.annotations import Annotations
from cvcoteach.data.sources.columns import Listed
from cvcoteach.data.sources.labels import Encoded, encode, missing_values, named_values, refuse_missing, unknown_values
from cvcoteach.data.sources.source import count, some


class Annotated(NamedTuple):
    """The images of a table with the labels of their annotators."""

    annotations: Annotations
    encoded: Encoded
    """The label that most gave each image."""
    rows: IntArray
    """(n,) the row of the table in which each image comes first."""
    notes: tuple[str, ...]


def by_rows(paths: Sequence[Any], values: pd.Series[Any], who: pd.Series[Any], name: str, *, words: bool) -> Annotated:
    """Return the labels of a table with a row per image and annotator.

    Args:
        paths: (r,) what tells images apart.
        values: (r,) labels.
        who: (r,) annotators.
        name: of the table, for messages.
        words: whether words such as NA stand for a missing value.

    Raises:
        InputError: where a label or an annotator is missing, an annotator gave an image two labels, or no image has
            two annotators.
    """
    refuse_missing(who, f"annotators in the column {who.name!r} of {name}", words_are_missing=words)
    encoded = encode(values, f"labels in the column {values.name!r} of {name}", words_are_missing=words)
    image, first = _numbered(pd.Series(paths))
    annotator, names = pd.factorize(who)
    pairs = pd.DataFrame({"image": image, "annotator": annotator, "label": encoded.labels})
    once = ~pairs.duplicated(["image", "annotator"]).to_numpy()
    if not once.all():
        before = pairs[once].set_index(["image", "annotator"])["label"]
        again = pairs[~once]
        earlier = before.loc[pd.MultiIndex.from_frame(again[["image", "annotator"]])].to_numpy()
        other = np.flatnonzero(earlier != again["label"].to_numpy())
        if len(other):
            row = int(again.index[other[0]])
            raise InputError(
                f"row {row + 1} of {name} gives {paths[row]} another label by {who.iloc[row]!r} than an earlier row; "
                "it takes one label per image and annotator."
            )
    kept = pairs[once]
    annotations = Annotations(
        tuple([str(each) for each in names]),
        len(first),
        kept["image"].to_numpy(),
        kept["annotator"].to_numpy(),
        kept["label"].to_numpy(),
    )
    return _checked(annotations, encoded, first, name)


def by_lists(labels: Listed, who: Listed | None, names: Sequence[str], where: str, *, words: bool) -> Annotated:
    """Return the labels of a table with a list of labels per image.

    Args:
        labels: what each image was labelled; missing ones, and -1 of named classes, are left out.
        who: who gave each of them; None: the first of each list is by annotator 1, the second by annotator 2, ….
        names: of the classes 0, 1, …, where labels are their numbers.
        where: the table, for messages.
        words: whether words such as NA stand for a missing value.

    Raises:
        InputError: where labels and annotators are not as many, an annotator gave an image two labels, or no image has
            two annotators.
    """
    if who is not None and not np.array_equal(labels.row, who.row):
        counts = [np.bincount(each.row, minlength=labels.n_rows) for each in (labels, who)]
        row = int(np.argmax(counts[0] != counts[1]))
        raise InputError(
            f"row {row + 1} of {where} has {count(int(counts[0][row]), 'label')}, but "
            f"{count(int(counts[1][row]), 'annotator')}; it takes one annotator for each label."
        )
    place = np.arange(len(labels.row)) - np.searchsorted(labels.row, labels.row)
    annotators = pd.Series((place + 1).astype(str), name="annotator") if who is None else who.values
    there = np.flatnonzero(~missing_values(labels.values, words_are_missing=words))
    values = labels.values.iloc[there].infer_objects()
    told = np.flatnonzero(~unknown_values(values, names))
    known, values = there[told], values.iloc[told].reset_index(drop=True)
    rows = labels.row[known]
    given = named_values(values, names, f"labels of {where}").rename(str(labels.values.name))
    found = by_rows(rows.tolist(), given, annotators.iloc[known].reset_index(drop=True), where, words=words)
    notes = found.notes
    if absent := labels.n_rows - len(found.rows):
        verb = "was" if absent == 1 else "were"
        notes = (f"{count(absent, 'row')} of {where} without any label {verb} left out.", *notes)
    return found._replace(rows=rows[found.rows], notes=notes)


def by_columns(frame: pd.DataFrame, columns: Sequence[str], name: str, *, words: bool) -> Annotated:
    """Return the labels of a table with a row per image and a column of labels per annotator; some may be missing.

    Args:
        frame: with the columns, n rows.
        columns: of the annotators, two at least.
        name: of the table, for messages.
        words: whether words such as NA stand for a missing value.

    Raises:
        InputError: where an annotator gave no label, or no image has two.
    """
    there = np.stack([~missing_values(frame[column], words_are_missing=words) for column in columns], axis=1)
    empty = np.flatnonzero(~there.any(axis=0))
    if len(empty):
        raise InputError(
            f"the column {columns[empty[0]]!r} of {name} holds no label; leave it out of --annotator-columns."
        )
    rows = np.flatnonzero(there.any(axis=1))
    image, annotator = np.nonzero(there[rows])
    values = pd.concat([frame[column].astype(object) for column in columns], axis=1).to_numpy()[rows]
    what = f"labels in the columns {', '.join(columns)} of {name}"
    encoded = encode(pd.Series(values[image, annotator]), what, words_are_missing=words)
    annotations = Annotations(tuple(columns), len(rows), image, annotator, encoded.labels)
    found = _checked(annotations, encoded, rows, name)
    absent = len(frame) - len(rows)
    if not absent:
        return found
    left_out = f"{count(absent, 'row')} of {name} without any label {'was' if absent == 1 else 'were'} left out."
    return found._replace(notes=(left_out, *found.notes))


def all_named(frame: pd.DataFrame, class_names: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Return columns of labels with the names of classes that a file holds in place of numbers; -1 is missing."""
    result = {}
    for column in frame.columns:
        values, names = frame[column], class_names.get(column, ())
        known = np.flatnonzero(~unknown_values(values, names))
        named = pd.Series(np.full(len(frame), None, dtype=object))
        named.iloc[known] = named_values(values.iloc[known], names, f"labels in {column!r}").to_numpy()
        result[column] = named if names else values
    return pd.DataFrame(result)


def _numbered(keys: pd.Series[Any]) -> tuple[IntArray, IntArray]:
    """Return the number (r,) of each key, in the order in which they come, and the row of each that comes first."""
    numbers, _ = pd.factorize(keys)
    return numbers.astype(np.int64), np.flatnonzero(~keys.duplicated().to_numpy())


def _checked(annotations: Annotations, encoded: Encoded, rows: IntArray, name: str) -> Annotated:
    often = annotations.per_image()
    if often.max() < 2:
        raise InputError(
            f"no image of {name} has labels of two annotators, so nothing tells them apart; read it without "
            "--annotator-column, with one label per image."
        )
    each = np.bincount(annotations.annotator, minlength=len(annotations.annotators))
    lone = [annotations.annotators[a] for a in np.flatnonzero(each == 1)]
    labels = annotations.majority(len(encoded.class_names))
    notes = list(encoded.notes)
    if lone:
        notes.append(
            f"{count(len(lone), 'annotator')} of {name} labelled one image only ({some(lone)}), which tells next to "
            "nothing: taken to be about as good as the others."
        )
    return Annotated(annotations, Encoded(labels, encoded.class_names), rows, tuple(notes))
