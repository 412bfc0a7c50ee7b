"""Where decoded and unpacked images are kept."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "CVCOTEACH_CACHE_DIR"
"""Environment variable that names the cache folder."""


def cache_folder(named: str | Path | None = None) -> Path:
    """Return the cache folder: the one that is named, else the environment's, else the user's."""
    return Path(named or os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_dir("cvcoteach")).absolute()
