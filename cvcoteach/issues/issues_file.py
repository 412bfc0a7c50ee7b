"""The file of `LabelIssues.save`: arrays, and a header in JSON."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._files import open_regular
from cvcoteach._json import parsed
from cvcoteach._validation import InputError
from cvcoteach.data.unpacking import check_archive

_FORMAT = "cvcoteach.LabelIssues"
_VERSION = 2
_OLDEST = 1


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write arrays and plain values into one file; a reader sees the old file or the new one."""
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    plain = {name: value for name, value in values.items() if name not in arrays}
    header = json.dumps({"format": _FORMAT, "version": _VERSION, **plain}).encode()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with open(partial, "xb") as file:
            np.savez_compressed(file, allow_pickle=False, header=np.frombuffer(header, np.uint8), **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what `write` wrote. Raises InputError for any other file, FileNotFoundError for none."""
    other = InputError(f"{path} is no file written by LabelIssues.save.")
    try:
        # opened here: numpy leaves a file open that it cannot read
        with open_regular(path) as file, np.load(file, allow_pickle=False) as content:
            check_archive(content.zip, str(path), "save it again")
            arrays = dict(content)
        header = dict(parsed(arrays.pop("header").tobytes()))
        known, version = header.pop("format"), int(header.pop("version"))
    except (OSError, InputError):
        raise
    except Exception as error:  # whatever a foreign file makes numpy or zipfile say
        raise other from error
    if known != _FORMAT:
        raise other
    if not _OLDEST <= version <= _VERSION:
        raise InputError(
            f"{path} was written in format {version}; this version of cvcoteach reads {_OLDEST} to {_VERSION}."
        )
    if version == 1:
        header["has_signal"] = header.pop("fits", None)
    with fitting(path):
        return {**arrays, **header, "class_names": tuple(map(str, header["class_names"]))}


@contextmanager
def fitting(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what values that do not fit each other raise into an InputError."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: its values do not fit each other ({error}).") from None
