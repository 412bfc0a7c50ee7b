"""The columns of a table: which one holds paths, labels, splits or annotators, by its name or by what is in it."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cvcoteach._validation import BoolArray, InputError, IntArray, near
from cvcoteach.data.sources.labels import split_names
from cvcoteach.data.sources.paths import names_files, names_images
from cvcoteach.data.sources.source import SPLIT_WORDS, Choices, spread
from cvcoteach.data.splits import Names, is_train, named_split

PATH_COLUMNS = frozenset(
    ["path", "filepath", "file_path", "file", "filename", "file_name", "image", "image_path", "image_file", "img_path"]
)
LABEL_COLUMNS = frozenset(["label", "labels", "given_label", "class", "class_name", "target", "category"])

SPLIT_COLUMNS = frozenset(["split", "splits", "subset", "partition", "fold"])
"""Columns that say to which part of a dataset an image belongs."""

OF_TABLES = frozenset(
    "path_column label_column path_pattern group_column split_column split annotator_column annotator_columns".split()
)
"""The fields of `Choices` that mean something to a table."""

_LOOKED_AT = 1000
"""Rows of a table in which a column is looked for."""
_OF_GROUPS = frozenset("patient video clip burst session".split())
"""First words of columns that name groups, not classes."""
_MOST_NAMED = 20
"""Columns that a sentence names."""


class Listed(NamedTuple):
    """A column of lists, such as the labels of several annotators, value by value."""

    n_rows: int
    """Of the table."""
    row: IntArray
    """(r,) the row of each value, ascending."""
    values: pd.Series[Any]
    """(r,)"""


@dataclass(frozen=True, eq=False)
class Table:
    """A table file, whatever its format."""

    file: Path
    columns: Mapping[str, bool]
    """Each column, and whether it holds text."""
    load: Callable[..., pd.DataFrame]
    """(columns, most=None) -> these columns, of all rows or of the first `most`."""
    words_are_missing: bool = False
    """Whether words such as NA stand for a missing value."""
    notes: tuple[str, ...] = ()
    images: Mapping[str, Callable[[], Iterator[bytes]]] = field(default_factory=dict)
    """Columns that hold encoded images, and what gives them, row by row."""
    stamp: str = ""
    """What tells whether these have changed."""
    part: str = ""
    """Which part of the file it is, where the file holds several tables."""
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes 0, 1, … of a column, where the file holds them."""
    lists: Mapping[str, Callable[[], Listed]] = field(default_factory=dict)
    """Columns of lists of text or whole numbers, and what gives their values."""


def annotators_of(table: Table, choices: Choices) -> list[str]:
    """Return the columns of annotators that were named. Raises InputError for fewer than two, and for others."""
    columns = _named_annotators(choices)
    for column in columns:
        if column not in table.columns:
            raise InputError(
                f"{table.file.name} has no column {column!r} (--annotator-columns); {near(column, table.columns)}"
            )
    if len(set(columns)) < 2:
        raise InputError(f"--annotator-columns is {choices.annotator_columns!r}; it takes two columns or more: a,b,c.")
    if choices.annotator_column is not None:
        raise InputError(
            "--annotator-column and --annotator-columns are both given; the first is for a row per image and "
            "annotator, the second for a column per annotator."
        )
    return columns


def list_of_labels(table: Table, choices: Choices) -> str | None:
    """Return the column of lists of labels, one label per annotator; None where labels are given in another way.

    That is the one column of --annotator-columns, or the labels beside a list of annotators. Raises InputError where it
    is not clear.
    """
    named = [] if choices.annotator_columns is None else _named_annotators(choices)
    if choices.annotator_column is None:
        return named[0] if len(named) == 1 and named[0] in table.lists else None
    if choices.annotator_column not in table.lists or named:
        return None
    others = [column for column in table.lists if column != choices.annotator_column]
    usual = [column for column in others if plain(column) in LABEL_COLUMNS or column in table.class_names]
    column = choices.label_column or next((each[0] for each in (others, usual) if len(each) == 1), None)
    if column not in table.lists:
        raise InputError(
            f"the column {choices.annotator_column!r} of {table.file.name} holds lists of annotators; say with "
            "--label-column which one holds the lists of their labels."
        )
    return column


def _named_annotators(choices: Choices) -> list[str]:
    return [column.strip() for column in str(choices.annotator_columns).split(",")]


def check_columns(table: Table, choices: Choices) -> None:
    for option, column in (
        ("--path-column", choices.path_column),
        ("--label-column", choices.label_column),
        ("--group-column", choices.group_column),
        ("--split-column", choices.split_column),
        ("--annotator-column", choices.annotator_column),
    ):
        if column is not None and column not in table.columns:
            raise InputError(f"{table.file.name} has no column {column!r} ({option}); {near(column, table.columns)}")


def plain(column: str) -> str:
    return column.strip().casefold()


def say_which(table: Table, option: str, what: str) -> str:
    """Return the sentence for a column that is not found: which there are, and the option that names it."""
    return f"{table.file.name} has the columns {listing(table.columns)}; say with {option} which one holds the {what}."


def listing(columns: Iterable[str]) -> str:
    """Return the names of columns as they come, of many the first and how many more there are."""
    names = list(columns)
    more = len(names) - _MOST_NAMED
    return ", ".join(names) if more < 2 else f"{', '.join(names[:_MOST_NAMED])} and {more:,} more"


def _named_columns(choices: Choices) -> tuple[str, ...]:
    """Return the columns that were named as something other than paths and labels."""
    named = (choices.group_column, choices.split_column, choices.annotator_column)
    several = [] if choices.annotator_columns is None else choices.annotator_columns.split(",")
    return (*[name for name in named if name is not None], *[name.strip() for name in several])


def find_path_column(table: Table, choices: Choices) -> str:
    if len(table.images) == 1:
        return next(iter(table.images))
    if table.images:
        raise InputError(say_which(table, "--path-column", "images"))
    taken = (choices.label_column, *_named_columns(choices))
    texts = [column for column, text in table.columns.items() if text and column not in taken]
    usual = [column for column in texts if plain(column) in PATH_COLUMNS]
    # a value for each usual name may be enough; files are looked at all the same, which tell more than a name
    frame = table.load(texts, _LOOKED_AT) if texts else pd.DataFrame()
    rows = spread(len(frame), 20)
    values = {column: [str(path) for path in frame[column].iloc[rows]] for column in texts}
    existing = [column for column in texts if names_files(table.file, values[column])]
    if not existing and len(usual) != 1:
        existing = names_images(table.file, values)
    for choice in ([column for column in usual if column in existing], existing, usual):
        if len(choice) == 1 or (choice and choice is not usual and _same_files(table.file, frame[choice].iloc[rows])):
            return choice[0]
    pixels = [column for column in table.columns if plain(column) in PATH_COLUMNS and not table.columns[column]]
    if pixels and not texts:
        raise InputError(
            f"the column {pixels[0]!r} of {table.file.name} holds neither encoded images nor paths of image files; it "
            "takes one of these (of arrays, an .npz)."
        )
    raise InputError(say_which(table, "--path-column", "image paths"))


def _same_files(table: Path, names: pd.DataFrame) -> bool:
    """Return whether all columns name the same files, as `path` and `file` of a list of images do."""
    rows = names.itertuples(index=False)
    return all(len({os.path.realpath(table.parent / str(name)) for name in row}) == 1 for row in rows)


def others_of(table: Table, path_column: str, choices: Choices) -> list[str]:
    """Return the columns that may hold labels; pandas writes its index into one without a name."""
    taken = (path_column, *_named_columns(choices), *table.images)
    return [column for column in table.columns if column not in taken and plain(column) not in ("", "unnamed: 0")]


def find_label_column(table: Table, path_column: str, choices: Choices) -> str | None:
    """Return the label column; None where there may be one per class. Raises InputError where it is not clear."""
    others = others_of(table, path_column, choices)
    usual = [column for column in others if plain(column) in LABEL_COLUMNS]
    # exports of a reviewed dataset have the label of now beside the one that was given
    of_now = [column for column in usual if plain(column) != "given_label"]
    of_fiftyone = [column for column in others if column.endswith(".label")]
    with_names = [column for column in others if column in table.class_names]
    # a column that is the only one left may say of whom or what an image is
    left = [] if any(re.split(r"[\W_]+", plain(column))[0] in _OF_GROUPS for column in others) else others
    for choice in (usual, of_now, with_names, left, [] if usual else of_fiftyone):
        if len(choice) == 1:
            return choice[0]
    parts = split_columns(table, others) if len(others) > 1 and not usual else []
    if len(parts) == len(others):
        # datasets drop a column that the first record lacks, and the folders' names beside a metadata file
        raise InputError(
            f"{table.file.name} has no column but {listing(table.columns)}; it takes one of labels as well."
        )
    if len(others) > 1 and not usual:
        rest = [column for column in others if column not in parts]
        return rest[0] if len(rest) == 1 else None
    raise InputError(say_which(table, "--label-column", "given labels"))


def split_columns(table: Table, columns: Sequence[str]) -> list[str]:
    """Return the columns that say train or test, by their name or by all of their values."""
    found = [column for column in columns if plain(column) in SPLIT_COLUMNS]
    texts = [column for column in columns if table.columns[column] and column not in found]
    frame = table.load(texts, _LOOKED_AT) if texts else pd.DataFrame()
    return found + [
        column for column in texts if len(frame) and frame[column].astype(str).str.lower().isin(SPLIT_WORDS).all()
    ]


def find_split_column(
    table: Table, path_column: str, label_column: str | None, choices: Choices
) -> tuple[str | None, str | None]:
    """Return the column of splits, and a note where one names parts of another kind, such as numbered folds.

    A column that is not named counts where it says nothing but train, test and the like, and train among them.
    """
    if choices.split_column is not None:
        return choices.split_column, None
    others = [column for column in others_of(table, path_column, choices) if column != label_column]
    found = split_columns(table, others)
    for column in found:
        values = table.load([column])[column].dropna().astype(str).str.strip().str.lower()
        values = values[values != ""]
        if len(values) and values.isin(SPLIT_WORDS).all() and values.map(is_train).any():
            return column, None
    if choices.split is not None:
        raise InputError(
            f"--split is {choices.split!r}, but no column of {table.file.name} says of which split an image is; "
            "--split-column names it."
        )
    if not found or label_column is None:
        return None, None
    says_train = table.load(found[:1])[found[0]].dropna().astype(str).map(is_train).any()
    apart = f" (--split-column {shlex.quote(found[0])} keeps them apart)" if says_train else ""
    return None, (
        f"the column {found[0]!r} of {table.file.name} names parts of a dataset; images of all parts are judged "
        f"together{apart}."
    )


def splits_in(table: Table, column: str, frame: pd.DataFrame) -> Names:
    where = f"splits in the column {column!r} of {table.file.name}"
    return split_names(frame[column], where, words_are_missing=table.words_are_missing)


def of_split(splits: Names, wanted: str, where: str) -> BoolArray:
    """Return which images (n,) are of a split. Raises InputError where none is."""
    names: list[str] = np.unique(splits).tolist()
    found = named_split(names, wanted)
    if found is None:
        raise InputError(f"--split is {wanted!r}, but {where} holds the splits {', '.join(names)}.")
    return np.asarray(np.char.lower(splits) == found.lower())
