"""The splits of one source, each read by itself -> one source that knows which image is of which."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._validation import InputError, lookalikes, order_names
from cvcoteach.data.annotations import Annotations
from cvcoteach.data.sources.source import Source, UnlabelledError, count, printable_name, some
from cvcoteach.data.splits import split_order


def in_order(names: Sequence[str]) -> list[str]:
    """Return names of splits: train, val, test, then others."""
    return sorted(names, key=split_order)


def read_splits(names: Sequence[str], read: Callable[[str], Source]) -> Source:
    """Return all splits of a source, those without any label being left out with a note.

    Args:
        names: Of the splits, in order.
        read: Reads one by name.

    Raises:
        InputError: where a split cannot be read, or none has labels.
    """
    parts: dict[str, Source] = {}
    notes = []
    for name in names:
        try:
            parts[name] = read(name)
        except UnlabelledError:
            if name == names[-1] and not parts:
                raise
            notes.append(f"the split {name} has no labels and was left out.")
    source = joined(parts) if len(parts) > 1 else next(iter(parts.values()))
    return source.noted(*notes)


def joined_unlabelled(parts: Mapping[str, Source]) -> Source:
    """Return the images of all splits without their labels; arguments and errors as of `joined`."""
    source = joined(parts)
    sizes = {name: len(each) for name, each in parts.items()}
    said = f"{count(len(source), 'image')} ({_each(sizes)}) without labels, {printable_name(source.location)}"
    return replace(source, description=said)


def joined(parts: Mapping[str, Source]) -> Source:
    """Return the images of all splits, in their order, with the classes of any of them.

    Images in memory are named `data.npz#test/12`; files keep their names.

    Args:
        parts: Name of the split -> its images; of one source, two at least.

    Raises:
        InputError: where images in memory differ in height, width or channels.
    """
    sources = list(parts.values())
    first = sources[0]
    names = order_names(list(dict.fromkeys(name for source in sources for name in source.class_names)))
    number = {name: k for k, name in enumerate(names)}
    labels = [np.array([number[name] for name in each.class_names], np.int64)[each.labels] for each in sources]
    arrays = [source.array for source in sources if source.array is not None]
    if arrays and len({each.shape[1:] for each in arrays}) > 1:
        sizes = ", ".join(
            f"{name} {' × '.join(map(str, each.shape[1:]))}" for name, each in zip(parts, arrays, strict=True)
        )
        raise InputError(
            f"the splits of {first.location.name} hold images of different sizes ({sizes}); --split reads one of them."
        )
    annotations = _annotations(sources, names)
    rest = first.description.split(", ", 2)[-1].removesuffix(f"/{next(iter(parts))}")
    if first.annotations is not None and annotations is not None:
        rest = rest.replace(first.annotations.described(), annotations.described(), 1)
    has_files = any(source.file_names is not None for source in sources)
    notes = dict.fromkeys(note for source in sources for note in source.notes)
    return replace(
        first,
        paths=tuple([_named(path, name) for name, each in parts.items() for path in each.paths]),
        labels=np.concatenate(labels),
        class_names=names,
        array=np.concatenate(arrays) if arrays else None,
        notes=(*notes, *_disjoint(parts), *[note for note in lookalikes(names) if note not in notes]),
        description=describe_splits({name: len(source) for name, source in parts.items()}, len(names), rest),
        file_names=tuple([name for each in sources for name in each.file_names or each.paths]) if has_files else None,
        **_groups(sources),
        annotations=annotations,
        other_columns=None,
        splits=np.repeat(list(parts), [len(source) for source in sources]),
    )


def refuse_shared(source: Source) -> None:
    """Raise InputError where two splits hold the same file, as a file of labels and its corrected copy do."""
    files = pd.Series(source.files, dtype=object)
    again = np.flatnonzero(files.duplicated().to_numpy())
    if len(again) and source.splits is not None:
        first = int(np.argmax((files == files.iloc[again[0]]).to_numpy()))
        raise InputError(
            f"{source.splits[first]} and {source.splits[again[0]]} of {source.location.name} both hold "
            f"{source.paths[first]}; --split reads one of them."
        )


def describe_splits(sizes: Mapping[str, int], n_classes: int, rest: str) -> str:
    """Return what was understood: "70 images (60 in train, 10 in test), 3 classes, …", with the rest at the end."""
    return f"{count(sum(sizes.values()), 'image')} ({_each(sizes)}), {count(n_classes, 'class', 'classes')}, {rest}"


def _each(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{sizes[name]:,} in {name}" for name in in_order(list(sizes)))


def _disjoint(parts: Mapping[str, Source]) -> list[str]:
    """Return a note where a split has no class in common with the first."""
    first, *others = parts
    classes = set(parts[first].class_names)
    other = next((name for name in others if classes.isdisjoint(parts[name].class_names)), None)
    if other is None:
        return []
    of_each = (f"{name} ({some(parts[name].class_names, 3)})" for name in (first, other))
    return [f"{' and '.join(of_each)} have no class in common: all are read as one list of classes."]


def _named(path: str, split: str) -> str:
    """Return the name of an image; a number of a row says of which split."""
    file, mark, row = path.rpartition("#")
    return f"{file}#{split}/{row}" if mark and row.isdigit() else path


def _annotations(sources: Sequence[Source], class_names: Sequence[str]) -> Annotations | None:
    """Return what annotators said of all images; those of one name are the same annotator in each split."""
    if any(source.annotations is None for source in sources):
        return None
    number = {name: k for k, name in enumerate(class_names)}
    parts = [
        source.annotations.relabelled(np.array([number[name] for name in source.class_names], np.int64))
        for source in sources
        if source.annotations is not None
    ]
    return Annotations.of_parts(parts)


def _groups(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the groups of all images; those of one name are the same group in each split."""
    named = [(source.groups, source.group_names) for source in sources]
    if any(codes is None or names is None for codes, names in named):
        return {"groups": None, "group_names": None}
    names = tuple(dict.fromkeys(name for _, own in named for name in own or ()))
    number = {name: k for k, name in enumerate(names)}
    codes = [np.array([number[name] for name in own or ()], np.int64)[codes] for codes, own in named]
    return {"groups": np.concatenate(codes), "group_names": names}
