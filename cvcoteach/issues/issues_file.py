"""The file of `LabelIssues.save`: arrays, and a header in JSON."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._validation import InputError

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
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = dict(content)
    except OSError:
        raise
    except Exception as error:  # whatever a foreign file makes numpy or zipfile say
        raise other from error
    header = json.loads(arrays.pop("header", np.frombuffer(b"{}", np.uint8)).tobytes())
    if header.pop("format", None) != _FORMAT:
        raise other
    version = header.pop("version")
    if not _OLDEST <= version <= _VERSION:
        raise InputError(
            f"{path} was written in format {version}; this version of cvcoteach reads {_OLDEST} to {_VERSION}."
        )
    if version == 1:
        header["has_signal"] = header.pop("fits")
    return {**arrays, **header}
