"""Files that stand in for others: Git LFS pointers, and web pages saved under the name of an image."""

from __future__ import annotations

from pathlib import Path

from cvcoteach._validation import InputError

_LFS = b"version https://git-lfs"
_HEAD = 64
"""Bytes that tell."""


def stand_in(data: bytes) -> str | None:
    """Return what a file holds in place of its content, as the end of a sentence; None where it holds its content."""
    if data.startswith(_LFS):
        return "a Git LFS pointer, not the file itself; `git lfs pull` fetches it"
    if data[:_HEAD].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page saved under this name; download the file itself"
    return None


def check_content(file: Path) -> None:
    """Raise InputError where a file holds a pointer or a web page in place of its content, or cannot be opened."""
    try:
        with open(file, "rb") as opened:
            found = stand_in(opened.read(_HEAD))
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from error
    if found is not None:
        raise InputError(f"{file} is {found}.")
