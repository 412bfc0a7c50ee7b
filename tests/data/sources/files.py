"""Files that sources are read from, made on the spot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


def touch(root: Path, *names: str) -> Path:
    """Make empty files, folders and all: sources never open an image."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def write(file: Path, text: str) -> Path:
    """Write text in UTF-8."""
    file.write_text(text, "utf-8")
    return file


def save(folder: Path, **arrays: object) -> Path:
    """Write x.npz."""
    np.savez(folder / "x.npz", **arrays)
    return folder / "x.npz"


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """A folder with four files that a table can name."""
    return touch(tmp_path, "a.png", "b.png", "c.png", "sub/d.png")
