"""The arrays of probabilities.npz: written in one form, read whole and in that form, or refused in a sentence.

Of more than 2,000 classes, probabilities are written as records of the largest of each image and the mean of the others
(`TopProbs`), and the transition as its parts (`SparseTransition`). Nothing else knows how they lie in files.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._files import check_regular, open_regular, write_arrays
from cvcoteach._validation import InputError
from cvcoteach.data.unpacking import check_archive
from cvcoteach.noise_model.sparse_transition import SparseTransition
from cvcoteach.noise_model.top_probs import Answer, TopProbs

_FORMS = {
    "paths": ("U", "n"),
    "pred_probs": ("f", "nK"),
    "pred_probs_round_1": ("f", "nK"),
    "selected": ("b", "n"),
    "candidate": ("b", "n"),
    "round": ("i", "n"),
    "alternative": ("class", "n"),
    "alternative_prob": ("f", "n"),
    "duplicate_of": ("row", "n"),
    "near_copy_of": ("row", "n"),
    "reviewed": ("b", "n"),
    "groups": ("i", "n"),
    "splits": ("U", "n"),
    "n_annotators": ("i", "n"),
    "agreement": ("f", "n"),
    "labels": ("class", "n"),
    "predicted": ("class", "n"),
    "label_quality": ("f", "n"),
    "is_label_issue": ("b", "n"),
    "suggested": ("class", "n"),
    "suggested_prob": ("f", "n"),
    "transition": ("f", "KK"),
    "prior": ("f", "K"),
    "class_names": ("U", "K"),
    "filter_by": ("U", ""),
    "has_signal": ("b", ""),
    "note": ("U", ""),
    "flag_for": ("U", ""),
    "overlaps": ("class", "*2"),
    "stranger": ("f", "n"),
}
"""Kind of value ("class": numbers of classes, "row": of images, or -1) and axes, n images and K classes, * any."""


_PROBS = ("pred_probs", "pred_probs_round_1")
_TRANSITION = "transition"

_ADDED: Mapping[str, Any] = {
    "duplicate_of": -1,
    "near_copy_of": -1,
    "reviewed": False,
    "groups": -1,
    "splits": "",
    "n_annotators": 0,
    "agreement": 1.0,
    "stranger": -1.0,
}
"""Arrays (n,) that runs of an earlier build lack, and what stands for them."""


def to_save(probs: Answer) -> npt.NDArray[Any]:
    """Return probabilities as one array to save: (n, K), or of many classes records (n,)."""
    return probs.records() if isinstance(probs, TopProbs) else np.asarray(probs)


def from_saved(array: npt.NDArray[Any]) -> Answer:
    """Return what `to_save` made an array of. Raises ValueError for records of anything else."""
    return TopProbs.of_records(array) if array.dtype.names else array


def write_result_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write the arrays of a finished run, atomically. Errors as of `write_arrays`."""
    saved: dict[str, npt.NDArray[Any]] = {}
    for name, value in arrays.items():
        if isinstance(value, SparseTransition):
            saved |= {f"{name}_{part}": array for part, array in value.arrays().items()}
        else:
            saved[name] = to_save(value)
    write_arrays(file, **saved)


def read_result_arrays(file: Path, wanted: Collection[str]) -> Mapping[str, Any]:
    """Return the arrays of a finished run as `write_result_arrays` got them.

    Nothing is unpickled, and the archive's checksums tell flipped bits.

    Raises:
        InputError: The file is damaged, of another version, or its arrays do not fit each other.
    """
    check_regular(file)
    try:
        # opened here: numpy leaves a file open that it cannot read
        with open_regular(file) as stream, np.load(stream, allow_pickle=False) as content:
            check_archive(content.zip, str(file), "find the issues again, in another folder")
            parts = [name for name in content.files if name.startswith(f"{_TRANSITION}_")]
            there = {*content.files, "overlaps", *_ADDED, *([_TRANSITION] if parts else [])}
            absent = sorted({*wanted} - there)
            if absent:
                raise InputError(
                    f"{file} has no {absent[0]}: another version of cvcoteach wrote it; find the issues again, in "
                    "another folder."
                )
            arrays = {name: content[name] for name in sorted({*wanted} & {*content.files})}
            sparse = {name.removeprefix(f"{_TRANSITION}_"): content[name] for name in parts}
            if sparse:
                arrays[_TRANSITION] = SparseTransition.of_arrays(sparse, arrays["class_names"].size)
            for name in {*_PROBS} & arrays.keys():
                arrays[name] = from_saved(arrays[name])
    except InputError:
        raise
    except Exception as error:  # a broken archive makes zipfile, zlib and numpy raise anything
        raise _damaged(file, str(error) or type(error).__name__) from error
    if "overlaps" in wanted:
        arrays.setdefault("overlaps", np.empty((0, 2), np.int64))
    for name in {*wanted} - arrays.keys():
        arrays[name] = np.full(arrays["labels"].size, _ADDED[name])
    odd = _odd(arrays)
    if odd is not None:
        raise _damaged(file, odd)
    return arrays


def _damaged(file: Path, why: str) -> InputError:
    return InputError(f"{file} is damaged ({why}); find the issues again, in another folder.")


def _odd(arrays: Mapping[str, Any]) -> str | None:
    """Return what does not fit among the arrays of a run, None where all do."""
    sizes = {"n": arrays["labels"].size, "K": arrays["class_names"].size, "2": 2}
    if "overlaps" in arrays:
        sizes["*"] = len(np.atleast_1d(arrays["overlaps"]))
    for name, array in arrays.items():
        kind, axes = _FORMS[name]
        shape = tuple([sizes[axis] for axis in axes])
        numbers = np.float32 if isinstance(array, TopProbs | SparseTransition) else array.dtype
        if array.shape != shape or np.dtype(numbers).kind not in ("iu" if kind in ("i", "class", "row") else kind):
            return f"{name} has shape {array.shape} of {numbers}, where {shape} is expected"
        if kind == "class" and array.size and not 0 <= array.min() <= array.max() < sizes["K"]:
            return f"{name} names classes {array.min()} to {array.max()} of {sizes['K']:,}"
        if kind == "row" and array.size and not -1 <= array.min() <= array.max() < sizes["n"]:
            return f"{name} names images {array.min()} to {array.max()} of {sizes['n']:,}"
        if isinstance(array, TopProbs | SparseTransition):
            continue  # checked as they were read
        if kind == "f" and not np.isfinite(array).all():
            return f"{name} holds a number that is not finite"
    return None if sizes["n"] and sizes["K"] > 1 else "it holds no images, or fewer than two classes"
