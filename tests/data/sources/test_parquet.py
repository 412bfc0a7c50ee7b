"""Parquet, with labels of every kind."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import write


@pytest.mark.parametrize(
    ("labels", "class_names"),
    [
        (["y", "x"], ("x", "y")),
        ([10, 9], ("9", "10")),
        ([10.0, 9.0], ("9", "10")),
        ([True, False], ("False", "True")),
        (pd.Categorical(["y", "x"], categories=["y", "x", "unused"]), ("x", "y")),
    ],
)
def test_parquet_takes_every_kind_of_label(pets: Path, labels: object, class_names: tuple[str, ...]) -> None:
    table = pd.DataFrame({"path": ["a.png", "b.png"], "label": labels}, index=[7, 3])
    table.to_parquet(pets / "t.parquet")
    source = read_source(pets / "t.parquet")
    assert source.class_names == class_names
    assert source.labels.tolist() == [1, 0]


def test_missing_labels_in_parquet_get_a_sentence(pets: Path) -> None:
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [1.0, np.nan]}).to_parquet(pets / "t.parquet")
    with pytest.raises(InputError, match=r"1 of 2 labels .* row 2"):
        read_source(pets / "t.parquet")
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [None, "x"]}).to_parquet(pets / "t.parquet")
    with pytest.raises(InputError, match=r"1 of 2 labels .* row 1"):
        read_source(pets / "t.parquet")


def test_a_broken_parquet_gets_a_sentence(pets: Path) -> None:
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_source(write(pets / "t.parquet", "PAR1"))


def test_class_names_that_hugging_face_wrote_are_used(pets: Path) -> None:
    table = pa.table({"path": ["a.png", "b.png"], "label": [1, 0]})
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), pets / "t.parquet")
    source = read_source(pets / "t.parquet")
    assert source.class_names == ("cat", "dog")
    assert source.labels.tolist() == [1, 0]


def test_labels_beyond_the_classes_that_a_file_names_get_a_sentence(pets: Path) -> None:
    table = pa.table({"path": ["a.png", "b.png", "c.png"], "label": [1, 2, 0]})
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), pets / "t.parquet")
    sentence = r"labels in the column 'label' of t\.parquet are from 0 to 2, but the file names 2 classes\."
    with pytest.raises(InputError, match=sentence):
        read_source(pets / "t.parquet")


def test_minus_one_of_named_classes_is_not_known(pets: Path) -> None:
    table = pa.table({"path": ["a.png", "b.png", "c.png"], "label": [1, -1, 0]})
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}
    meta = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(meta), pets / "t.parquet")
    source = read_source(pets / "t.parquet")
    assert source.paths == ("a.png", "c.png")
    assert [source.class_names[label] for label in source.labels] == ["dog", "cat"]
    assert source.notes == ("1 row of t.parquet without a label (-1) was left out.",)


def test_what_pandas_noted_in_a_file_is_not_needed_to_read_it(pets: Path) -> None:
    table = pa.table({"path": ["a.png", "b.png"], "label": ["cat", "dog"]})
    pq.write_table(table.replace_schema_metadata({"pandas": b"{\xff"}), pets / "x.parquet")
    assert read_source(pets / "x.parquet").class_names == ("cat", "dog")


@pytest.mark.parametrize("damage", ["path", "a.png"])
def test_text_that_is_no_utf8_is_refused(tmp_path: Path, damage: str) -> None:
    columns = {"path": ["a.png", "b.png"] * 3, "label": ["cat", "dog"] * 3}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", compression="none", store_schema=False)
    content = (tmp_path / "x.parquet").read_bytes()
    assert damage.encode() in content
    (tmp_path / "x.parquet").write_bytes(content.replace(damage.encode(), b"\xe5" + damage.encode()[1:]))
    with pytest.raises(InputError, match=r"x\.parquet"):
        read_source(tmp_path / "x.parquet")


def test_a_damaged_name_beside_the_values_of_a_column_is_a_sentence(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.png", "b.png"], "label": ["cat", "dog"]})
    pq.write_table(table, tmp_path / "t.parquet")
    content = (tmp_path / "t.parquet").read_bytes()
    at = content.rfind(b"label")  # in the description of its values; that in the schema is whole
    (tmp_path / "t.parquet").write_bytes(content[:at] + b"l\xe5bel" + content[at + 5 :])
    with pytest.raises(InputError, match=r"t\.parquet"):
        read_source(tmp_path / "t.parquet")
