"""The format of a path is found, or one sentence says what fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch


def test_what_does_not_exist_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        read_source(tmp_path / "nowhere")


def test_a_file_of_another_kind_gets_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "x.zip")
    with pytest.raises(InputError, match=r"x\.zip is of a kind that cannot be read"):
        read_source(tmp_path / "x.zip")


def test_columns_belong_to_tables(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--label-column is 'label', but .* is not a table"):
        read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg"), label_column="label")
