"""Any table, one row per image -> a source: its columns found, its paths resolved, its labels checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.sources.annotated import Annotated, all_named, by_columns, by_lists, by_rows
from cvcoteach.data.sources.columns import (
    PATH_COLUMNS,
    Table,
    annotators_of,
    check_columns,
    find_label_column,
    find_path_column,
    find_split_column,
    list_of_labels,
    of_split,
    others_of,
    plain,
    say_which,
    split_columns,
    splits_in,
)
from cvcoteach.data.sources.joined import describe_splits
from cvcoteach.data.sources.labels import (
    describe,
    encode,
    group_codes,
    named_values,
    one_hot,
    refuse_several_labels,
    unknown_values,
)
from cvcoteach.data.sources.paths import Found, find_files, note_on_repeats
from cvcoteach.data.sources.source import (
    Choices,
    Source,
    UnlabelledError,
    count,
    printable_name,
    unlabelled,
)
from cvcoteach.data.sources.unpacked import unpack
from cvcoteach.data.splits import rows_by_split


def read_table(table: Table, choices: Choices) -> Source:
    """Return the images and labels of a table; its columns are found by name, or by what they hold, unless given.

    Raises:
        InputError: for columns that are not there or not obvious, for values that are missing, and for paths that
            point nowhere.
    """
    name = table.file.name
    check_columns(table, choices)
    listed = list_of_labels(table, choices)
    path_column = choices.path_column or find_path_column(table, choices)
    label_column = choices.label_column if listed is None else listed
    if label_column is None and choices.annotator_columns is None:
        label_column = find_label_column(table, path_column, choices)
    split_column, together = find_split_column(table, path_column, label_column, choices)
    by_row = choices.annotator_column if listed is None else None
    also = [column for column in (choices.group_column, split_column, by_row) if column is not None]
    by_annotator: Annotated | None = None
    if listed is not None:
        who = None if choices.annotator_column is None else table.lists[choices.annotator_column]()
        labels, class_names = table.lists[listed](), table.class_names.get(listed, ())
        by_annotator = by_lists(labels, who, class_names, name, words=table.words_are_missing)
        frame = table.load([*_unless_images(table, path_column), *also])
        frame = frame if len(frame.columns) else pd.DataFrame(index=range(labels.n_rows))
        values = _labels_of(by_annotator, labels.n_rows)
        where, said = f"labels of {name}", f"columns {path_column} and, a list per image, {listed} of {name}"
    elif choices.annotator_columns is not None:
        columns = annotators_of(table, choices)
        frame = table.load([*_unless_images(table, path_column), *columns, *also])
        by_annotator = by_columns(
            all_named(frame[columns], table.class_names), columns, name, words=table.words_are_missing
        )
        values = _labels_of(by_annotator, len(frame))
        where, said = f"labels of {name}", f"columns {path_column} and, by annotator, {', '.join(columns)} of {name}"
    elif label_column is None:
        others = others_of(table, path_column, choices)
        parts = split_columns(table, others)
        columns = [column for column in others if column not in parts]
        frame = table.load([*_unless_images(table, path_column), *columns, *also])
        hot = frame[columns].to_numpy()
        encoded_as = one_hot(columns, hot)
        if encoded_as is None:
            refuse_several_labels(hot, f"the columns {columns[0]} to {columns[-1]} of {name}")
            raise InputError(say_which(table, "--label-column", "given labels"))
        values = pd.Series(np.array(columns, dtype=object)[encoded_as])
        where, said = f"labels of {name}", f"columns {path_column} and, one-hot, {', '.join(columns)} of {name}"
    else:
        frame = table.load([*_unless_images(table, path_column), label_column, *also])
        values = frame[label_column]
        where, said = (
            f"labels in the column {label_column!r} of {name}",
            f"columns {path_column} and {label_column} of {printable_name(table.file)}",
        )
    if not len(frame):
        raise InputError(f"{name} has columns, but no rows; it takes one row per image.")
    names = () if listed is not None else table.class_names.get(label_column or "", ())
    unknown, wanted = unknown_values(values, names), np.ones(len(frame), np.bool_)
    if by_annotator is not None:
        wanted = np.isin(np.arange(len(frame)), by_annotator.rows)
    splits = None if split_column is None else splits_in(table, split_column, frame)
    if choices.split is not None and splits is not None:
        wanted &= of_split(splits, choices.split, f"{name}, column {split_column!r},")
        unknown, splits = unknown & wanted, None
    unlabelled_rows: tuple[str, ...] = ()
    known = np.flatnonzero(wanted & ~unknown)
    if len(known) < len(frame):
        frame, values = frame.iloc[known].reset_index(drop=True), values.iloc[known].reset_index(drop=True)
        splits = None if splits is None else splits[known]
    if unknown.any():
        verb = "was" if unknown.sum() == 1 else "were"
        unlabelled_rows = (f"{count(int(unknown.sum()), 'row')} of {name} without a label (-1) {verb} left out.",)
        if not len(frame):
            raise UnlabelledError(
                f"none of {len(unknown):,} {where} is known: all are -1; it takes one label per image."
            )
    paths, files, notes = _images_of(table, path_column, frame, choices, known)
    encoded = encode(named_values(values, names, where), where, words_are_missing=table.words_are_missing)
    source = Source(
        table.file,
        table.file.parent,
        paths,
        encoded.labels,
        encoded.class_names,
        notes=(*table.notes, *unlabelled_rows, *notes, *encoded.notes),
        file_names=files,
    )
    if choices.group_column is not None:
        where = f"groups in the column {choices.group_column!r} of {name}"
        groups = group_codes(frame[choices.group_column], where, words_are_missing=table.words_are_missing)
        source = replace(source, groups=groups.codes, group_names=groups.names)
    elif others := [name for name in others_of(table, path_column, choices) if name != label_column and label_column]:
        source = replace(source, other_columns=partial(_rest, table, others, known))
    if splits is not None and len(np.unique(splits)) > 1:
        source, said = replace(source, splits=splits), f"{said}, splits in the column {split_column}"
    if together is not None:
        source = replace(source, notes=(*source.notes, together))
    if by_row is not None:
        by_whom, named = frame[by_row], named_values(values, names, where).rename(label_column)
        by_annotator = by_rows(source.paths, named, by_whom, name, words=table.words_are_missing)
        source = source.subset(by_annotator.rows)
    if by_annotator is not None:
        source = _with_annotations(source, by_annotator, known)
    else:
        source = replace(source, notes=(*source.notes, *note_on_repeats(source)))
    return replace(source, description=_described(source, said))


def _labels_of(found: Annotated, n: int) -> pd.Series[Any]:
    """Return the label (n,) that most annotators gave the image of each row, by name; None for a row without one."""
    values = pd.Series(np.full(n, None, dtype=object))
    values.iloc[found.rows] = np.array(found.encoded.class_names, dtype=object)[found.encoded.labels]
    return values


def _described(source: Source, said: str) -> str:
    """Return what was understood of a source, in one line. said: its columns."""
    if source.annotations is not None:
        said = f"{source.annotations.described()}, {said}"
    if source.splits is None:
        return describe(len(source), len(source.class_names), said)
    sizes = {name: len(rows) for name, rows in rows_by_split(source.splits).items()}
    return describe_splits(sizes, len(source.class_names), said)


def _with_annotations(source: Source, found: Annotated, rows: IntArray) -> Source:
    """Return the images with the label that most annotators gave. rows: (n,) of the table, where some were left out."""
    annotations, labels = found.annotations, found.encoded.labels
    if len(source) < annotations.n_images:  # of one split
        kept = np.flatnonzero(np.isin(found.rows, rows))
        annotations, labels = annotations.subset(kept), labels[kept]
    return replace(
        source,
        labels=labels,
        class_names=found.encoded.class_names,
        annotations=annotations,
        notes=tuple(dict.fromkeys((*source.notes, *found.notes))),
    )


def _rest(table: Table, columns: Sequence[str], rows: IntArray) -> pd.DataFrame:
    """Return columns that hold neither paths nor labels, without those of several values per row."""
    plain = []
    for column in columns:
        try:
            plain.append(table.load([column]).iloc[rows])
        except InputError:  # nested values
            continue
    return pd.concat(plain, axis=1) if plain else pd.DataFrame(index=range(len(rows)))


def _unless_images(table: Table, column: str) -> list[str]:
    """Return the column as a list to load, without those that hold images."""
    return [] if column in table.images else [column]


def _images_of(table: Table, column: str, frame: pd.DataFrame, choices: Choices, rows: IntArray) -> Found:
    """Return the files that a column names, or holds; rows: those of the table that are left in `frame`."""
    if column not in table.images:
        return find_files(table.file, column, frame[column], choices.path_pattern)
    if choices.path_pattern is not None:
        raise InputError(f"--path-pattern is given, but the column {column!r} of {table.file.name} holds the images.")
    files = unpack(table.file, table.stamp, table.images[column], choices, f"{table.part} {column}")
    name = printable_name(table.file)
    return Found(tuple([f"{name}#{row}" for row in rows.tolist()]), tuple([files[row] for row in rows.tolist()]))


def read_table_unlabelled(table: Table, choices: Choices) -> Source:
    """Return the images of a table: the column that is named, else one of a usual name, else the first."""
    check_columns(table, choices)
    usual = [column for column in table.columns if plain(column) in PATH_COLUMNS and column not in table.images]
    path_column = choices.path_column or next(iter((*table.images, *usual)), "") or _first_path_column(table, choices)
    if path_column in table.images:
        inside = unpack(table.file, table.stamp, table.images[path_column], choices, f"{table.part} {path_column}")
        names = [f"{printable_name(table.file)}#{row}" for row in range(len(inside))]
        return replace(unlabelled(table.file, table.file.parent, names), file_names=tuple(inside), notes=table.notes)
    frame = table.load([path_column])
    if not len(frame):
        raise InputError(f"{table.file.name} has columns, but no rows; it takes one row per image.")
    paths, files, notes = find_files(table.file, path_column, frame[path_column], choices.path_pattern)
    source = unlabelled(table.file, table.file.parent, paths)
    return replace(source, notes=(*table.notes, *notes), file_names=files or source.file_names)


def _first_path_column(table: Table, choices: Choices) -> str:
    """Return the column whose values name images, or the first where that is not clear."""
    try:
        return find_path_column(table, choices)
    except InputError:
        return next(iter(table.columns))


def table_has_labels(table: Table, choices: Choices) -> bool:
    """Return whether a column beside that of the paths may hold labels."""
    return choices.label_column is not None or len(table.columns) > 1
