"""Sources that somebody made to break the reader: each ends in a sentence, none hangs or fills the memory."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.parts import Reader
from cvcoteach.data.sources import parquet, read_source
from cvcoteach.data.sources.npz import open_npz
from cvcoteach.data.sources.source import Source
from cvcoteach.data.unpacking import unpack_limit

CHOICE = {"result": [{"value": {"choices": ["c"]}}]}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two images, and a cache of its own."""
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "content",
    [
        [{"data": {"image": "a.png"}, "annotations": []}, "x"],
        [{"data": {"image": "a.png"}, "annotations": [None]}],
        [{"data": {"image": "a.png"}, "annotations": [{"result": 3}]}],
        [{"data": {"image": "a.png"}, "annotations": []}, {"data": [], "annotations": {}}],
        [{"data": {"image": "http://[::1/a.png"}, "annotations": [CHOICE]}],
        {"classes": None, "labels": {"a": {"label": {"x": 1}}, "b": "c"}},
        {"classes": [["x"], {}], "labels": {"a": 0, "b": 1}},
    ],
)
def test_odd_json_of_an_annotation_tool_ends_in_a_sentence(folder: Path, content: Any) -> None:
    (folder / "x.json").write_text(json.dumps(content))
    with pytest.raises(InputError):
        read_source(folder / "x.json")


def test_a_name_that_no_file_can_have_is_a_name_like_any_other(folder: Path) -> None:
    images = [{"id": 1, "file_name": "a" * 5000 + ".png"}, {"id": 2, "file_name": "b.png"}]
    given = [{"image_id": 1, "category_id": 1}, {"image_id": 2, "category_id": 2}]
    (folder / "x.json").write_text(json.dumps({"images": images, "annotations": given}))
    assert read_source(folder / "x.json").labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "line", ['{"path": "a.png", "label": [1]}', '{"path": "a.png", "label": {"x": 1}}', "[" * 100_000]
)
def test_odd_json_lines_end_in_a_sentence(folder: Path, line: str) -> None:
    (folder / "x.jsonl").write_text(f'{{"path": "b.png", "label": "x"}}\n{line}\n')
    with pytest.raises(InputError):
        read_source(folder / "x.jsonl")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("pipe", ["train/state.json", "train/data.arrow", "shard.tar", "a.parquet"])
def test_a_pipe_inside_a_folder_is_not_waited_for(folder: Path, pipe: str) -> None:
    (folder / "set" / "train").mkdir(parents=True)
    if pipe.startswith("train"):
        (folder / "set" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    if pipe == "train/data.arrow":
        (folder / "set" / "train" / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    if not pipe.startswith("train"):
        (folder / "set" / "train").rmdir()
    os.mkfifo(folder / "set" / pipe)
    with pytest.raises(InputError, match="is not a regular file"):
        read_source(folder / "set")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("path", ["pipe.png", "/dev/zero"])
def test_a_table_that_names_a_pipe_or_a_device_as_an_image_gets_a_sentence(folder: Path, path: str) -> None:
    os.mkfifo(folder / "pipe.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": None, "path": path}] * 2, kind)
    pq.write_table(pa.table({"image": images, "label": ["cat", "dog"]}), folder / "x.parquet")
    with pytest.raises(InputError, match=r"names the image .*, which cannot be read \(not a regular file\)"):
        read_source(folder / "x.parquet")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_arrays_that_are_a_pipe_are_not_waited_for(folder: Path) -> None:
    os.mkfifo(folder / "x.npz")
    with pytest.raises(InputError, match="is not a regular file"), open_npz(folder / "x.npz"):
        pass


@pytest.mark.parametrize("encoding", ["utf-7", "koi8-nowhere"])
def test_xml_in_an_encoding_that_nobody_reads_gets_a_sentence(folder: Path, encoding: str) -> None:
    (folder / "x.xml").write_text(f'<?xml version="1.0" encoding="{encoding}"?><annotations></annotations>')
    with pytest.raises(InputError, match=r"x\.xml is no XML"):
        read_source(folder / "x.xml")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"_data_files": [{"filename": "a\\u0000"}]}'])
def test_a_broken_record_of_a_saved_dataset_ends_in_a_sentence(folder: Path, text: str) -> None:
    (folder / "set").mkdir()
    (folder / "set" / "state.json").write_text(text)
    (folder / "set" / "dataset_info.json").write_text("{}")
    with pytest.raises(InputError, match=r"state\.json"):
        read_source(folder / "set")


def test_packed_idx_files_that_claim_gigabytes_are_refused_before_they_are_unpacked(folder: Path) -> None:
    (folder / "set").mkdir()
    for name, head in (
        ("train-images-idx3-ubyte.gz", struct.pack(">4B3I", 0, 0, 8, 3, 3_000_000, 28, 28)),
        ("train-labels-idx1-ubyte.gz", struct.pack(">4BI", 0, 0, 8, 1, 3_000_000)),
    ):
        (folder / "set" / name).write_bytes(gzip.compress(head))
    with pytest.raises(InputError, match=r"would unpack from 0\.0 kB to 2\.35 GB"):
        read_source(folder / "set")


def shard(file: Path, **members: bytes) -> Path:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name.replace("_", "."))
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return file


def test_a_shard_that_claims_gigabytes_or_nests_without_end_is_refused(folder: Path) -> None:
    image = (folder / "a.png").read_bytes()
    deep = shard(folder / "deep.tar", a_png=image, a_json=b"[" * 100_000, b_png=image, b_json=b'{"label": 1}')
    with pytest.raises(InputError, match=r"the \.json of .* cannot be read"):
        read_source(deep)
    entry = tarfile.TarInfo("a.png")
    entry.size = 2**31
    (folder / "large.tar").write_bytes(entry.tobuf() + bytes(1024))
    with pytest.raises(InputError, match=r"takes 2\.15 GB, too much for an image"):
        read_source(folder / "large.tar")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("name", ["x.tar", "x.tar.gz"])
def test_a_shard_whose_head_claims_gigabytes_is_refused_before_it_is_read(folder: Path, kind: bytes, name: str) -> None:
    head = tarfile.TarInfo("a")
    head.type, head.size = kind, 2**31
    content = head.tobuf() + bytes(1024)
    (folder / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(InputError, match=r"cannot be read as tar \(a head claims to take 2\.15 GB\)"):
        read_source(folder / name)


def unpacked(source: Source) -> list[bytes]:
    assert source.files is not None
    with Reader() as reader:
        return [reader.read(file, 10**6)[0] for file in source.files]


@pytest.mark.parametrize("damage", ["record", "image", "gone", "ends"])
def test_damaged_unpacked_images_are_unpacked_again_and_what_a_killed_call_left_goes(folder: Path, damage: str) -> None:
    image = (folder / "a.png").read_bytes()
    plain = shard(folder / "x.tar", a_png=image, a_cls=b"1", b_png=image + b"more", b_cls=b"0")
    source = folder / "x.tar.gz"
    source.write_bytes(gzip.compress(plain.read_bytes()))
    assert unpacked(read_source(source)) == [image, image + b"more"]
    done = next((folder / "cache" / "unpacked").glob("*/unpacked.json"))
    left = done.parent.with_name(f".{done.parent.name}.abcd_123.partial")
    left.mkdir()
    if damage == "record":
        done.unlink()
    elif damage == "image":
        (done.parent / "images").write_bytes(image)
    elif damage == "gone":
        (done.parent / "images").unlink()
    else:
        (done.parent / "ends.npy").write_bytes((done.parent / "ends.npy").read_bytes()[:-9])
    assert unpacked(read_source(source)) == [image, image + b"more"]
    assert not left.exists()


def saved_dataset(folder: Path, image: bytes) -> bytes:
    """Save a dataset of four such images as Hugging Face does; return what its one file x.arrow holds."""
    table = pa.table({"image": pa.array([image] * 4, pa.binary()), "label": ["a", "b"] * 2})
    folder.mkdir()
    for name, content in (("state.json", '{"_data_files": [{"filename": "x.arrow"}]}'), ("dataset_info.json", "{}")):
        (folder / name).write_text(content)
    with pa.OSFile(str(folder / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return (folder / "x.arrow").read_bytes()


def test_a_saved_dataset_whose_images_lie_outside_of_the_file_is_refused(folder: Path) -> None:
    whole = saved_dataset(folder / "set", b"x" * 100)
    ends = struct.pack("<5i", 0, 100, 200, 300, 400)
    assert ends in whole
    for odd in ((0, 100, 200, 300, 2**30), (0, 2**30, -(2**30), 300, 400)):
        (folder / "set" / "x.arrow").write_bytes(whole.replace(ends, struct.pack("<5i", *odd)))
        with pytest.raises(InputError, match="cannot be read as Arrow"):
            read_source(folder / "set")


def test_names_of_columns_that_are_no_text_get_a_sentence(folder: Path) -> None:
    whole = saved_dataset(folder / "set", b"x")
    (folder / "set" / "x.arrow").write_bytes(whole.replace(b"label", b"l\xffbel"))
    with pytest.raises(InputError, match="cannot be read as Arrow"):
        read_source(folder / "set")


def test_a_table_of_a_few_bytes_with_millions_of_rows_is_refused_unless_the_user_allows_it(folder: Path) -> None:
    zeros = pa.array([0] * 20_000, pa.int32())
    columns = {"path": pa.DictionaryArray.from_arrays(zeros, ["a.png"]), "label": zeros}
    pq.write_table(pa.table(columns), folder / "x.parquet")
    with unpack_limit(2**20), pytest.raises(InputError, match=r"x.parquet would unpack from .* --max-unpacked"):
        read_source(folder / "x.parquet")
    with pytest.raises(InputError, match=r"of 20,000 rows in the column 'path'|one class|single class"):
        read_source(folder / "x.parquet")


def test_images_of_a_few_bytes_that_unpack_to_far_more_are_refused_before_they_are_unpacked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [bytes([number]) * 2**18 for number in range(16)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b"] * 8}), folder / "x.parquet", compression="zstd")
    read: list[str] = []
    monkeypatch.setattr(
        parquet, "checked", lambda batches, file: (read.extend(batch.schema.names) or batch for batch in batches)
    )
    with unpack_limit(2**20), pytest.raises(InputError, match=r"x.parquet would unpack from .* --max-unpacked"):
        read_source(folder / "x.parquet", label_column="label", path_column="image")
    assert set(read) == {"label"}


def test_an_image_that_many_rows_share_is_not_in_memory_once_for_each(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"image": [bytes(2**16)] * 64, "label": ["a", "b"] * 32}), folder / "x.parquet")
    sizes: list[int] = []
    monkeypatch.setattr(parquet, "_AT_ONCE", 2**18)
    monkeypatch.setattr(
        parquet, "checked", lambda batches, file: (sizes.append(len(batch)) or batch for batch in batches)
    )
    source = read_source(folder / "x.parquet")
    assert len(source) == 64
    assert min(sizes) <= 4


@pytest.mark.parametrize("name", ["labels", "class_names"])
@pytest.mark.parametrize("kind", ["<U0", "|S0", "|V0"])
def test_arrays_of_values_without_length_are_refused_before_anything_counts_them(
    folder: Path, name: str, kind: str
) -> None:
    arrays = {"images": npy("|u1", (4, 2, 2), bytes(16)), "labels": npy("|u1", (4,), bytes([0, 1, 0, 1]))}
    arrays[name] = npy(kind, (10**12,))
    with zipfile.ZipFile(folder / "x.npz", "w") as archive:
        for each, content in arrays.items():
            archive.writestr(f"{each}.npy", content)
    with pytest.raises(InputError, match=f"{name} in x.npz holds .*: values of no length"):
        read_source(folder / "x.npz")


def npy(kind: str, shape: tuple[int, ...], content: bytes = b"") -> bytes:
    """A .npy whose head says what it likes."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def test_a_table_whose_first_line_is_one_endless_value_gets_a_sentence(folder: Path) -> None:
    (folder / "x.csv").write_text("x" * 200_000 + ",label\na.png,a\n")
    with pytest.raises(InputError, match="its first line is no header"):
        read_source(folder / "x.csv")


@pytest.mark.parametrize(("digits", "names"), [("1e999", {"1.0", "inf"}), ("9" * 400, {"1", "9" * 400})])
def test_labels_that_are_numbers_beyond_any_type_are_names(folder: Path, digits: str, names: set[str]) -> None:
    lines = [f'{{"path": "{name}.png", "label": {label}}}' for name, label in (("a", digits), ("b", "1"))]
    (folder / "x.jsonl").write_text("\n".join(lines))
    assert set(read_source(folder / "x.jsonl").class_names) == names


@pytest.mark.parametrize("name", ["x.jsonl", "x.json"])
def test_half_a_letter_in_json_gets_a_sentence(folder: Path, name: str) -> None:
    line = '{"path": "a.png", "label": "\\ud800"}'
    labels = '{"classes": ["a", "\\ud800"], "labels": {"a": 0, "b": 1}}'
    (folder / name).write_text(line if name.endswith("l") else labels)
    with pytest.raises(InputError, match="half of a letter"):
        read_source(folder / name, format=None if name.endswith("l") else "fiftyone")


def test_a_rare_letter_in_json_is_text(folder: Path) -> None:
    (folder / "x.jsonl").write_text('{"path": "a.png", "label": "\\ud83d\\ude00"}\n{"path": "b.png", "label": "b"}')
    assert "\N{GRINNING FACE}" in read_source(folder / "x.jsonl").class_names


def test_features_of_a_parquet_that_nest_without_end_are_none(folder: Path) -> None:
    image = (folder / "a.png").read_bytes()
    table = pa.table({"image": [image] * 4, "label": ["a", "b"] * 2})
    pq.write_table(table.replace_schema_metadata({b"huggingface": b"[" * 100_000}), folder / "x.parquet")
    assert read_source(folder / "x.parquet").class_names == ("a", "b")


@pytest.mark.parametrize("split", ["..", ".", "/tmp", "train/../..", ""])
def test_a_split_that_leads_out_of_a_saved_dataset_is_refused(folder: Path, split: str) -> None:
    inner = folder / "outer" / "inner"
    inner.mkdir(parents=True)
    (folder / "outer" / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    (inner / "dataset_dict.json").write_text(json.dumps({"splits": [split]}))
    with pytest.raises(InputError, match=r"names a split .*, which is no folder in it"):
        read_source(inner)


class Called(pa.ExtensionScalar):
    """A value that runs code when it is read, as Ray's pickled objects do."""

    def as_py(self, **_: Any) -> Any:
        raise AssertionError("this is run")


class CalledType(pa.ExtensionType):
    """A type that a program has registered."""

    def __init__(self) -> None:
        super().__init__(pa.large_binary(), "cvcoteach.tests.called")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: Any, serialized: bytes) -> CalledType:
        return cls()

    def __arrow_ext_scalar_class__(self) -> type:
        return Called


@pytest.mark.parametrize("column", ["path", "label", "image"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_values_of_types_that_a_program_has_registered_are_not_read(folder: Path, column: str, nested: bool) -> None:
    odd: Any = pa.ExtensionArray.from_storage(CalledType(), pa.array([b"x"] * 4, pa.large_binary()))
    if nested:
        odd = pa.StructArray.from_arrays([pa.array([b"x"] * 4), odd], ["bytes", "path"])
    plain = {"path": pa.array([f"{i}.png" for i in range(4)]), "label": pa.array(["x", "y"] * 2)}
    pq.write_table(pa.table({**plain, column: odd}), folder / "t.parquet")
    pa.register_extension_type(CalledType())
    try:
        if column == "image":
            with pytest.raises(InputError, match=r"0\.png"):  # the paths point nowhere: the other column is not read
                read_source(folder / "t.parquet")
        with pytest.raises(InputError, match=r"a type of some other package|no column of image paths"):
            read_source(folder / "t.parquet", path_column=column if column != "label" else "path", label_column="label")
    finally:
        pa.unregister_extension_type("cvcoteach.tests.called")
