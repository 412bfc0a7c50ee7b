"""Where decoded and unpacked images are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data import cache_folder as module


def test_a_user_without_a_home_is_asked_for_a_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_home(name: str) -> str:
        raise RuntimeError("could not determine the home directory")

    for answer in (no_home, lambda name: "~/.cache/cvcoteach"):
        monkeypatch.setattr(module.platformdirs, "user_cache_dir", answer)
        monkeypatch.delenv("CVCOTEACH_CACHE_DIR", raising=False)
        with pytest.raises(InputError, match="no home folder; name a cache folder with --cache-dir or in CVCOTEACH"):
            module.cache_folder()
        assert module.cache_folder(tmp_path) == tmp_path
        monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path))
        assert module.cache_folder() == tmp_path
