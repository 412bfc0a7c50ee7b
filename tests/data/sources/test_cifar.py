"""CIFAR-10 and CIFAR-100 as published, in both of their formats; pickles that would run code are refused."""

from __future__ import annotations

import os
import pickle
import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source
from cvcoteach.data.sources.plain_pickle import unpickled

N = 12
PIXELS = np.random.default_rng(0).integers(256, size=(6 * N, 3072), dtype=np.uint8)
TEN = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def dumped(content: Any, file: Path, protocol: int = 2) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(pickle.dumps(content, protocol))


def as_python_2(content: dict[str, Any], file: Path) -> None:
    """Write a batch as Python 2 and numpy 1 did: text is bytes, numpy.core is where arrays are made."""
    written = pickle.dumps({key.encode(): value for key, value in content.items()}, 2)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(written.replace(b"numpy._core", b"numpy.core"))


def ten(folder: Path, write: Any = as_python_2) -> Path:
    for i in range(6):
        rows = slice(i * N, (i + 1) * N)
        name = f"data_batch_{i + 1}" if i < 5 else "test_batch"
        labels = [(i + k) % 10 for k in range(N)]
        write({"data": PIXELS[rows], "labels": labels, "filenames": [f"{k}.png" for k in range(N)]}, folder / name)
    write({"label_names": TEN, "num_cases_per_batch": N}, folder / "batches.meta")
    return folder


def names(source: Source) -> list[str]:
    return [source.class_names[label] for label in source.labels]


def picture(rows: slice) -> np.ndarray:
    return PIXELS[rows].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("write", [as_python_2, dumped])
def test_batches_for_python_with_their_names(tmp_path: Path, write: Any) -> None:
    everything = read_source(ten(tmp_path / "cifar-10-batches-py", write))
    assert everything.splits is not None
    assert everything.splits.tolist() == ["train"] * 5 * N + ["test"] * N
    source = read_source(tmp_path / "cifar-10-batches-py", split="train")
    assert source.array is not None
    assert (source.array == picture(slice(0, 5 * N))).all()
    assert names(source) == [TEN[(i + k) % 10] for i in range(5) for k in range(N)]
    test = read_source(tmp_path / "cifar-10-batches-py", split="test")
    assert (test.array == picture(slice(5 * N, 6 * N))).all()


def test_cifar_100_has_fine_and_coarse_labels(tmp_path: Path) -> None:
    labels = {"fine_labels": [k % 4 for k in range(N)], "coarse_labels": [k % 2 for k in range(N)]}
    as_python_2({"data": PIXELS[:N], **labels}, tmp_path / "train")
    about = {"fine_label_names": ["apple", "bear", "bee", "bed"], "coarse_label_names": ["fruit", "animal"]}
    as_python_2(about, tmp_path / "meta")
    assert names(read_source(tmp_path))[:4] == ["apple", "bear", "bee", "bed"]
    assert names(read_source(tmp_path, label_column="coarse_labels"))[:2] == ["fruit", "animal"]
    with pytest.raises(InputError, match=r"has no labels 'color' \(--label-column\)"):
        read_source(tmp_path, label_column="color")


def test_binary_batches(tmp_path: Path) -> None:
    labels = (np.arange(N) % 10).astype(np.uint8)
    (tmp_path / "data_batch_1.bin").write_bytes(np.hstack([labels[:, None], PIXELS[:N]]).tobytes())
    (tmp_path / "batches.meta.txt").write_text("\n".join(TEN) + "\n\n")
    source = read_source(tmp_path)
    assert (source.array == picture(slice(0, N))).all()
    assert names(source)[:3] == TEN[:3]
    (tmp_path / "data_batch_1.bin").write_bytes(b"x" * 3000)
    with pytest.raises(InputError, match=r"holds 3,000 bytes, which are no records of 3,073 bytes"):
        read_source(tmp_path)


def test_binary_batches_of_cifar_100(tmp_path: Path) -> None:
    coarse, fine = (np.arange(N) % 2).astype(np.uint8), (np.arange(N) % 4).astype(np.uint8)
    (tmp_path / "train.bin").write_bytes(np.hstack([coarse[:, None], fine[:, None], PIXELS[:N]]).tobytes())
    (tmp_path / "fine_label_names.txt").write_text("apple\nbear\nbee\nbed\n")
    (tmp_path / "coarse_label_names.txt").write_text("fruit\nanimal\n")
    assert names(read_source(tmp_path))[:4] == ["apple", "bear", "bee", "bed"]
    assert names(read_source(tmp_path, label_column="coarse_labels"))[:2] == ["fruit", "animal"]


class Harm:
    """Runs a command where an ordinary unpickler meets it."""

    def __init__(self, command: Any, *arguments: Any) -> None:
        self.command, self.arguments = command, arguments

    def __reduce__(self) -> Any:
        return self.command, self.arguments


@pytest.mark.parametrize(
    ("harm", "names_it"),
    [
        (Harm(os.system, "touch harmed"), "posix.system"),
        (Harm(eval, "1"), "builtins.eval|__builtin__.eval"),
        (Harm(np.load, "x"), "numpy.load"),
        (Harm(np.ndarray, (2**60,)), "not callable"),
        (Harm(np.dtype, "f4"), "holds no data"),
    ],
)
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Harm, names_it: str
) -> None:
    monkeypatch.chdir(tmp_path)
    dumped({"data": harm, "labels": [0]}, tmp_path / "cifar" / "data_batch_1")
    with pytest.raises(InputError, match=names_it):
        read_source(tmp_path / "cifar")
    assert not (tmp_path / "harmed").exists()


def test_batches_that_do_not_fit_get_a_sentence(tmp_path: Path) -> None:
    folder = ten(tmp_path / "cifar")
    as_python_2({"data": PIXELS[:N], "labels": [10] * N}, folder / "data_batch_1")
    with pytest.raises(InputError, match="the labels of cifar are from 0 to 10, but it names 10 classes"):
        read_source(folder)
    as_python_2({"data": PIXELS[:N], "labels": [1]}, folder / "data_batch_1")
    with pytest.raises(InputError, match="data_batch_1 holds 12 images, but 1 labels"):
        read_source(folder)
    (folder / "data_batch_1").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match="data_batch_1 holds no data of"):
        read_source(folder)


def batch(content: dict[str, Any], folder: Path) -> Path:
    """Write a batch of six images of two classes, and more."""
    dumped({"data": PIXELS[:6], "labels": [0, 1] * 3, **content}, folder / "data_batch_1")
    return folder


NESTED_KEY = b"\x80\x02}(" + b")" + b"\x85" * 300_000 + b"K\x01u."
MANY_VALUES = b"\x80\x02}r\xff\xff\xff\x0f."
"""A dict that is put aside as value 2^28 of as many, for which the unpickler in C would take gigabytes."""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (NESTED_KEY, "something other than dicts"),
        (b"\x80\x02}(U\x04data\x96" + (2**33).to_bytes(8, "little") + b"u.", "something other than dicts"),
        (b"\x80\x02c_codecs\nencode\n}U\x0c__defaults__K\x01sb.", "something other than dicts"),
        (pickle.dumps({"data": np.array([1, "a"], dtype=object)}, 2), "something other than numbers"),
        (pickle.dumps({"data": PIXELS[:1], "labels": [10**30]}, 2), "holds a label beyond 64 bits"),
        (pickle.dumps([1], 2), "holds a list, not the dict of a batch of CIFAR"),
    ],
    ids=["nested key", "claimed length", "changed function", "objects", "huge label", "list"],
)
def test_a_pickle_of_odd_values_gets_a_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "data_batch_1").write_bytes(content)
    with pytest.raises(InputError, match=says):
        read_source(tmp_path)


def test_a_pickle_takes_no_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(MANY_VALUES)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="holds no data"):
        read_source(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes


@pytest.mark.parametrize("names_", [[10**12, 1], [None, "b"], [-1, 2]])
def test_names_of_classes_that_are_no_text_get_a_sentence(tmp_path: Path, names_: list[Any]) -> None:
    dumped({"label_names": names_}, batch({}, tmp_path) / "batches.meta")
    with pytest.raises(InputError, match="holds a list label_names of something other than text"):
        read_source(tmp_path)


def test_names_of_classes_that_are_no_utf_8_get_a_sentence(tmp_path: Path) -> None:
    (batch({}, tmp_path) / "batches.meta.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match=r"batches.meta.txt cannot be read"):
        read_source(tmp_path)


@pytest.mark.parametrize("kind", ["<f4", ">i8", "u1", "S5"])
def test_arrays_beside_the_pixels_come_back_as_they_were(tmp_path: Path, kind: str) -> None:
    more = np.arange(6).astype(kind)
    for protocol in (2, 4):
        dumped({"data": PIXELS[:6], "labels": [0, 1] * 3, "more": more}, tmp_path / "data_batch_1", protocol)
        found = unpickled(tmp_path / "data_batch_1", "a batch")["more"]
        assert found.dtype == pickle.loads(pickle.dumps(more, protocol)).dtype  # in the machine's own order of bytes
        assert (found == more).all()
