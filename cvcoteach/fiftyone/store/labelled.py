"""The samples of a FiftyOne dataset or view that can be checked: ids, files, labels, vectors, read in bulk."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FEW_LABELS, BoolArray, InputError, IntArray
from cvcoteach.crossval.groups import as_groups
from cvcoteach.data.sources.source import SPLIT_WORDS
from cvcoteach.data.splits import Names, as_splits
from cvcoteach.fiftyone.store.fields import Ids, check_label_field

FILES_LOOKED_FOR = 500
"""Files that a form looks for at most, as it must answer at once."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """The samples of a collection that can be checked."""

    ids: Ids
    """(n,) sample ids."""
    paths: tuple[str, ...]
    """n files."""
    labels: IntArray
    """(n,) 0..K-1."""
    class_names: tuple[str, ...]
    """K names, lexicographic."""
    without_label: int
    """Samples left out because they have none."""
    without_file: int
    """Samples left out because their file is missing."""
    without_vector: int = 0
    """Samples left out because they have no embedding."""

    @property
    def notes(self) -> list[str]:
        """What was left out, one sentence each."""
        return [
            left_out(n, which)
            for n, which in (
                (self.without_label, "without a label"),
                (self.without_file, "whose file is missing"),
                (self.without_vector, "without an embedding"),
            )
            if n
        ]

    @property
    def names(self) -> npt.NDArray[np.object_]:
        """(n,) the label of each sample by name."""
        return np.array(self.class_names, dtype=object)[self.labels]

    def take(self, rows: npt.NDArray[Any]) -> Labelled:
        """Return some of them, by mask (n,) or index (m,); the classes stay."""
        index = np.arange(len(self.ids))[rows]
        return replace(self, ids=self.ids[index], paths=tuple(self.paths[i] for i in index), labels=self.labels[index])


def read_labels(samples: Any, label_field: str, *, need_files: bool = True) -> Labelled:
    """Read ids, files and labels of a dataset or view in bulk.

    Raises InputError, one sentence, for a field that does not fit, an empty view, and labels of fewer than two classes.
    """
    check_label_field(samples, label_field)
    ids, paths, names = samples.values(["id", "filepath", f"{label_field}.label"])
    if not ids:
        raise InputError("the view is empty; choose one with samples in it.")
    labelled = np.array([name is not None and bool(str(name).strip()) for name in names], np.bool_)
    there = np.array([not need_files or os.path.exists(path) for path in paths], np.bool_)
    used = np.flatnonzero(labelled & there)
    if not labelled.any():
        raise InputError(f"no sample has a label in {label_field}.")
    if not len(used):
        raise InputError(f"none of the files of {len(ids):,} samples exists; the first is {paths[0]}.")
    class_names, labels = np.unique(np.array([names[i] for i in used], dtype=object).astype(str), return_inverse=True)
    _check_classes(label_field, class_names.tolist())
    _refuse_ids(label_field, len(used), len(class_names))
    return Labelled(
        np.array([ids[i] for i in used], dtype="S24"),
        tuple(paths[i] for i in used),
        labels.astype(np.int64),
        tuple(class_names.tolist()),
        int((~labelled).sum()),
        int((labelled & ~there).sum()),
    )


def look_quickly(samples: Any, label_field: str, *, need_files: bool = True) -> list[str]:
    """Return what a form can say before anything is read: what will be left out, one sentence each.

    Raises InputError as `read_labels` does, except for missing files beyond the first FILES_LOOKED_FOR samples.
    """
    check_label_field(samples, label_field)
    n = len(samples)
    if n == 0:
        raise InputError("the view is empty; choose one with samples in it.")
    counts = samples.count_values(f"{label_field}.label")
    without = n - sum(number for name, number in counts.items() if name is not None)
    names = sorted(str(name) for name in counts if name is not None)
    if not names:
        raise InputError(f"no sample has a label in {label_field}.")
    _check_classes(label_field, names)
    notes = [left_out(without, "without a label", "will be")] if without else []
    if need_files:
        paths = samples.limit(FILES_LOOKED_FOR).values("filepath")
        missing = [path for path in paths if not os.path.exists(path)]
        if len(missing) == n:
            raise InputError(f"none of the files of {n:,} samples exists; the first is {missing[0]}.")
        if missing:
            among = f" of the first {len(paths):,}" if len(paths) < n else ""
            notes.append(f"The files of {_samples(len(missing))}{among} are missing; these will be left out.")
    return notes


def read_vectors(samples: Any, data: Labelled, field: str) -> tuple[Labelled, npt.NDArray[np.float32]]:
    """Return the labelled samples that have a vector, and their vectors (n, d).

    Raises InputError for a field of anything else, or of vectors of several lengths.
    """
    check_vector_field(samples, field)
    by_id = dict(zip(*samples.values(["id", field]), strict=True))
    has, stacked = stack_vectors([by_id[sample_id.decode()] for sample_id in data.ids], field)
    numbers, labels = np.unique(data.labels[has], return_inverse=True)
    class_names = tuple(data.class_names[k] for k in numbers)  # a class may have no vector at all
    _check_classes(field, list(class_names))
    used = replace(data.take(has), labels=labels.astype(np.int64), class_names=class_names)
    return replace(used, without_vector=int((~has).sum())), stacked


def read_groups(samples: Any, data: Labelled, field: str) -> IntArray:
    """Return the group (n,) of each labelled sample, 0, 1, ….

    Raises InputError for a field that does not exist or holds several values, and where a sample has none.
    """
    check_group_field(samples, field)
    by_id = dict(zip(*samples.values(["id", field]), strict=True))
    values = [by_id[sample_id.decode()] for sample_id in data.ids]
    missing = sum(value is None for value in values)
    if missing:
        raise InputError(
            f"{_samples(missing)} of {len(values):,} {'has' if missing == 1 else 'have'} no value in {field!r}; give "
            "samples without a group a value of their own."
        )
    return as_groups([str(value) for value in values], len(values), name=field)


def read_splits(samples: Any, data: Labelled, field: str) -> Names:
    """Return the name of the split (n,) of each labelled sample: the value of a field, or the tag that names a split.

    Raises InputError for a field that does not exist or holds several values, and where a sample has none, or two.
    """
    if field != "tags":
        check_group_field(samples, field)
    by_id = dict(zip(*samples.values(["id", field]), strict=True))
    values = [by_id[sample_id.decode()] for sample_id in data.ids]
    if field == "tags":
        named = [[tag for tag in tags or [] if tag.lower() in SPLIT_WORDS] for tags in values]
        values = [tags[0] if len(tags) == 1 else None for tags in named]
    missing = sum(value is None for value in values)
    if missing:
        what = "no tag, or several, such as train or test" if field == "tags" else f"no value in {field!r}"
        raise InputError(
            f"{_samples(missing)} of {len(values):,} {'has' if missing == 1 else 'have'} {what}; say of each sample "
            "which split it is of."
        )
    return as_splits(np.array([str(value) for value in values], dtype=object), len(values), name=field)


def check_group_field(samples: Any, field: str) -> None:
    """Raise InputError unless the field holds a value such as text or a number."""
    kind = samples.get_field(field)
    if kind is None or isinstance(kind, fo.ListField | fo.DictField | fo.EmbeddedDocumentField | fo.VectorField):
        raise InputError(
            f"{field!r} is not a field of groups; choose one of text or numbers, such as a patient or a video."
        )


def check_vector_field(samples: Any, field: str) -> None:
    """Raise InputError unless the field may hold vectors."""
    kind = samples.get_field_schema().get(field)
    if kind is None or not isinstance(kind, fo.VectorField | fo.ArrayField | fo.ListField):
        raise InputError(f"{field!r} is not a field of vectors; compute embeddings first, or leave it out.")


def stack_vectors(vectors: Sequence[Any], field: str) -> tuple[BoolArray, npt.NDArray[np.float32]]:
    """Return which samples have a vector (n,), and the vectors (m, d). Raises InputError for those that do not fit."""
    has = np.array([vector is not None and len(vector) > 0 for vector in vectors], np.bool_)
    if not has.any():
        raise InputError(f"no labelled sample has a vector in {field!r}; compute embeddings first, or leave it out.")
    present = [vector for vector, there in zip(vectors, has, strict=True) if there]
    try:
        rows = [np.ravel(np.asarray(vector, np.float32)) for vector in present]
    except (TypeError, ValueError):
        raise InputError(f"{field!r} holds lists of something other than numbers; choose a field of vectors.") from None
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        raise InputError(f"the vectors of {field!r} differ in length ({min(sizes)} to {max(sizes)}).")
    stacked = np.stack(rows)
    if not np.isfinite(stacked).all():
        raise InputError(f"some vectors of {field!r} hold NaN or infinity; compute them again.")
    return has, stacked


def left_out(n: int, which: str, verb: str | None = None) -> str:
    """Say in one sentence that n samples were left out, and which."""
    return f"{_samples(n)} {which} {verb or ('was' if n == 1 else 'were')} left out."


def _samples(n: int) -> str:
    return f"{n:,} sample{'s' * (n != 1)}"


def _refuse_ids(label_field: str, n: int, n_classes: int) -> None:
    if n == n_classes >= FEW_LABELS:
        raise InputError(
            f"each of the {n:,} labels in {label_field} is a different one, as ids are; a class needs several images."
        )


def _check_classes(label_field: str, names: list[str]) -> None:
    if len(names) < 2:
        raise InputError(f"{label_field} holds one class only ({names[0]}); a wrong label needs a second class.")


def vector_fields(dataset: Any) -> list[str]:
    """Return the names of the fields that may hold embeddings."""
    return [
        name for name, field in dataset.get_field_schema().items() if isinstance(field, fo.VectorField | fo.ArrayField)
    ]


def group_fields(dataset: Any) -> list[str]:
    """Return the names of the fields that may hold groups: text and whole numbers, but those that FiftyOne made."""
    return [
        name
        for name, field in dataset.get_field_schema().items()
        if isinstance(field, fo.StringField | fo.IntField) and name != "filepath"
    ]
