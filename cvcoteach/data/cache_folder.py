"""Where decoded and unpacked images are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from cvcoteach._validation import InputError

CACHE_VARIABLE = "CVCOTEACH_CACHE_DIR"
"""Environment variable that names the cache folder."""


def cache_folder(named: str | Path | None = None) -> Path:
    """Return the cache folder: `named`, else that of the environment's CVCOTEACH_CACHE_DIR, else the user's.

    Raises:
        InputError: where none is named, and the user has no home.
    """
    if named or os.environ.get(CACHE_VARIABLE):
        return Path(named or os.environ[CACHE_VARIABLE]).absolute()
    try:
        folder = Path(platformdirs.user_cache_dir("cvcoteach"))
    except RuntimeError:
        folder = Path("~")
    if not folder.is_absolute():
        raise InputError(f"this user has no home folder; name a cache folder with --cache-dir or in {CACHE_VARIABLE}.")
    return folder
