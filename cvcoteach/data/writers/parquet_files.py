"""A folder of Parquet files: each with its own schema and class names, other labels and fewer rows; others stay."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cvcoteach._files import folder_written_whole, replacing
from cvcoteach._validation import InputError, IntArray
from cvcoteach.data.sources import Choices, Source, parquet_files
from cvcoteach.data.sources.parquet import open_parquet
from cvcoteach.data.sources.source import UnlabelledError
from cvcoteach.data.writers.columns import Columns, find_columns, relocated, rows_held
from cvcoteach.data.writers.copy import Copy, check_content
from cvcoteach.data.writers.folder import check as check_folder
from cvcoteach.data.writers.parquet import Place, column_of, plain_columns, write_rows


@dataclass(frozen=True, eq=False)
class _Part:
    """One split of the folder, or all of it."""

    images: IntArray
    """(m,) which images of the copy it holds."""
    files: list[Path]
    """In the order of their rows."""
    columns: Columns
    """Where its labels and paths are; rows are those of all its files, one after the other."""
    holds_images: bool


def recognises(source: Source) -> bool:
    """Return whether a source is a folder of Parquet files."""
    return source.array is None and parquet_files.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError where the folder would lie in the source, or the source in it."""
    check_folder(copy, destination)


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write every file without the rows of images left out, with the new labels where they changed.

    A file that names its classes has the number of the new one in its own names.

    Raises:
        InputError: where a file has changed since it was read, or does not name the class of a new label.
    """
    location = copy.source.location
    parts = list(_parts(copy))
    files = [file for part in parts for file in part.files]
    n_rows = [pq.read_metadata(file).num_rows for file in files]
    starts = np.cumsum([0, *n_rows])
    row_of = np.empty(len(copy.source), np.int64)  # among the rows of all files
    for part, first in zip(parts, np.cumsum([0, *[len(part.files) for part in parts]]).tolist(), strict=False):
        row_of[part.images] = starts[first] + part.columns.rows
    donors, kept = np.arange(starts[-1]), np.ones(starts[-1], np.bool_)
    donors[row_of], kept[row_of] = row_of[copy.donors], copy.kept
    folders = {file.parent for file in parts[0].files}
    root = folders.pop() if len(folders) == 1 else location  # from where the copy's paths are read
    paths = relocated(copy, destination / root.relative_to(location) / "table")
    labels = _Labels(files, starts, donors)
    done, to_do = 0, int(kept.sum())
    check_content(location)
    with folder_written_whole(destination) as partial:
        written = set(files)
        shutil.copytree(
            location,
            partial,
            dirs_exist_ok=True,
            ignore=lambda where, names: [name for name in names if Path(where, name) in written],
        )
        for part in parts:
            path_at = dict(zip(row_of[part.images].tolist(), part.images.tolist(), strict=True))
            for file in part.files:
                number = files.index(file)
                rows = range(int(starts[number]), int(starts[number + 1]))
                target = partial / file.relative_to(location)
                with pq.ParquetFile(file) as opened, replacing(target) as out:
                    changed = {name: labels.of_file(number, name, opened) for name in part.columns.labels}
                    if part.columns.path and paths is not None:
                        own = column_of(opened, part.columns.path).to_pylist()
                        moved = [paths[path_at[row]] if row in path_at else own[i] for i, row in enumerate(rows)]
                        changed[part.columns.path] = pa.array(moved, pa.string())
                    place = Place(file, destination / file.relative_to(location), part.holds_images)
                    for n in write_rows(opened, out, changed, kept[rows.start : rows.stop], place):
                        done += n
                        on_image(done, to_do)


class _Labels:
    """The labels of the copy: of each row those of a row of any file, in the numbers of its own file."""

    def __init__(self, files: Sequence[Path], starts: IntArray, donors: IntArray) -> None:
        self.files, self.starts, self.donors = files, starts, donors
        self.names = [open_parquet(file).class_names for file in files]
        self._columns: dict[tuple[int, str], pa.Array] = {}

    def of_file(self, number: int, column: str, opened: pq.ParquetFile) -> pa.Array:
        """Return a column (n,) of a file with what the copy has in it. Raises InputError for a class it lacks."""
        own = column_of(opened, column)
        start = int(self.starts[number])
        donors = self.donors[start : start + len(own)]
        changed = np.flatnonzero(donors != np.arange(start, start + len(own)))
        values = [self._value(int(donor), number, column) for donor in donors[changed].tolist()]
        taken = np.arange(len(own))
        taken[changed] = len(own) + np.arange(len(changed))
        return pa.concat_arrays([own, pa.array(values, own.type)]).take(pa.array(taken))

    def _value(self, row: int, number: int, column: str) -> Any:
        """Return what is written in a row of any file, as the file of this number has to say it."""
        there = int(np.searchsorted(self.starts, row, "right")) - 1
        if (there, column) not in self._columns:
            with pq.ParquetFile(self.files[there]) as opened:
                self._columns[there, column] = column_of(opened, column)
        value = self._columns[there, column][row - int(self.starts[there])].as_py()
        names, own = self.names[there].get(column), self.names[number].get(column)
        if names is None or own is None or there == number or not isinstance(value, int):
            return value
        if names[value] not in own:
            raise InputError(
                f"{self.files[number].name} does not name the class {names[value]!r} in its column {column!r}; save "
                "the files again with the same classes, or leave that label as it is."
            )
        return own.index(names[value])


def _parts(copy: Copy) -> Iterator[_Part]:
    """Yield the splits that were read. Raises InputError where the files have changed since."""
    source, location = copy.source, copy.source.location
    splits = parquet_files.splits_of(location, copy.choices)
    names = [copy.choices.split] if copy.choices.split is not None or not splits else list(splits)
    if source.splits is not None:
        names = list(dict.fromkeys(source.splits.tolist()))
    labels = np.asarray(source.class_names, dtype=object)[source.labels]
    found = False
    for name in names:
        choices = replace(copy.choices, split=name)
        images = np.arange(len(source)) if source.splits is None else np.flatnonzero(source.splits == name)
        try:
            data = parquet_files.read(location, choices)
        except UnlabelledError:
            continue
        same = np.array_equal(np.asarray(data.class_names, dtype=object)[data.labels], labels[images])
        if source.splits is None and not (same and data.paths == source.paths):
            continue  # another split than the one that had labels
        if not same:
            raise _changed(location)
        found = True
        yield _part(data, choices, images)
    if not found:
        raise _changed(location)


def _part(data: Source, choices: Choices, images: IntArray) -> _Part:
    files, table = parquet_files.files_and_table(data.location, choices)
    held = rows_held(data) if table.images else None
    plain = plain_columns(pq.read_schema(files[0]), holds=held is not None)
    columns = find_columns(plain, lambda name: table.load([name])[name], data, choices, table.class_names, held)
    return _Part(images, files, columns, held is not None)


def _changed(location: Path) -> InputError:
    return InputError(f"{location.name} does not hold the images as they were read; it has changed since.")
