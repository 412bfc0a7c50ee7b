"""Files that stand in for others are named as what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images, natural_size
from tests.image_files import source_of

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:01\nsize 12\n"


def test_pointers_of_git_lfs_and_web_pages_are_named(tmp_path: Path) -> None:
    root = tmp_path / "in"
    root.mkdir()
    for name, content in (("0.png", LFS), ("1.png", "\n<!DOCTYPE html><p>404")):
        (root / name).write_text(content)
    for name in ("2.png", "3.png"):
        Image.new("L", (9, 9)).save(root / name)
    errors = load_images(source_of(root), 8, cache_dir=tmp_path / "cache").errors
    assert errors[0] == "it is a Git LFS pointer, not the file itself; `git lfs pull` fetches it"
    assert errors[1] == "it is a web page saved under this name; download the file itself"


def test_where_all_are_pointers_the_first_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_text(LFS)
    with pytest.raises(InputError, match=r"none of 1 images looked at in .*, the first is 0\.png: it is a Git LFS"):
        natural_size(source_of(tmp_path))


def test_a_png_with_much_text_is_read(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("prompt", "x" * 3_000_000, zip=True)
    root = tmp_path / "in"
    root.mkdir()
    Image.new("L", (9, 9), 77).save(root / "0.png", pnginfo=info)
    assert load_images(source_of(root), 8, cache_dir=tmp_path / "cache").errors == {}
