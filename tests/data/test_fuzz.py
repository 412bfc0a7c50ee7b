"""Tables, folders and arrays of every make end in a result of the right number of images, or in one sentence."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cvcoteach._validation import InputError, encode_labels
from cvcoteach.data.images import load_images
from cvcoteach.data.items import pixels_of
from cvcoteach.data.sources import has_labels, read_source, read_unlabelled
from cvcoteach.pipeline.in_memory import label_issues

Random = np.random.Generator

WORDS = (
    *(
        "cat",
        "dog",
        "Cat",
        "dog ",
        " dog",
        "caf\u00e9",
        "cafe\u0301",
        "7",
        "007",
        "7.0",
        "-1",
        "0",
        "1",
        "2",
        "NA",
        "nan",
    ),
    *("", " ", "none", "a,b", "a;b", 'say "x"', "two\nlines", "\u732b", "1e3", "=1", "true", "None", "\x00", "x" * 300),
)
"""What people write for labels."""


def pick(rng: Random, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 small images for tables to name."""
    root = tmp_path_factory.mktemp("photos")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    for i, picture in enumerate(pixels):
        folder = root / ("sub" if i % 2 else ".")
        folder.mkdir(exist_ok=True)
        Image.fromarray(picture).save(folder / f"{i:02}.png")
    return root


def a_table(rng: Random, photos: Path, number: int) -> tuple[Path, int]:
    """Write a CSV or TSV of some make; its path, and the rows in it."""
    n = int(rng.integers(0, 12))
    separator = pick(rng, [",", ",", ";", "\t", "|"])
    names = pick(rng, [("path", "label"), ("file", "class"), ("x", "y"), ("id", "what"), ("filename", " label")])
    extra = pick(rng, [0, 0, 0, 1, 2])
    words = [pick(rng, WORDS) for _ in range(pick(rng, [1, 2, 2, 3, 5]))]
    rows = []
    for _ in range(n):
        i = int(rng.integers(40))
        path = f"sub/{i:02}.png" if i % 2 else f"{i:02}.png"
        path = pick(rng, [path] * 12 + [path.replace("/", "\\"), path[:-4], "nowhere.png", "", " " + path])
        rows.append([path, pick(rng, words), *(pick(rng, ("note", "1", "0", "")) for _ in range(extra))])
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=pick(rng, ["\n", "\r\n"]))
    if pick(rng, [True, True, True, False]):
        writer.writerow([*names, *(f"c{i}" for i in range(extra))])
    elif not rows or not rows[0][0]:
        n = -1  # nothing tells that the first row is not a header
    writer.writerows(rows)
    text = pick(rng, ["", "", "", "\ufeff", f"sep={separator}\n"]) + out.getvalue() + pick(rng, ["", "", "\n", "\n\n"])
    for _ in range(pick(rng, [0, 0, 0, 1, 2])):  # stray quotation marks: no row may vanish
        # in the first lines it may be part of a header that nothing tells from a row
        place = int(rng.integers(len("".join(text.splitlines(keepends=True)[:3])), len(text) + 1))
        text = text[:place] + '"' + text[place:]
    if rng.random() < 0.2:  # a lost or doubled character
        place = int(rng.integers(len(text) + 1))
        text = text[:place] + pick(rng, [separator, "\n", "", "\x00"]) + text[place + pick(rng, [0, 1]) :]
        n = -1  # no longer known
    data = text.encode(pick(rng, ["utf-8"] * 9 + ["utf-16"]), "replace")
    file = photos / f"t{number}{'.tsv' if separator == chr(9) else '.csv'}"
    file.write_bytes(data[: int(rng.integers(len(data) + 1))] if pick(rng, [False] * 9 + [True]) else data)
    if file.stat().st_size < len(data):
        n = -1
    return file, n


def a_parquet(rng: Random, photos: Path, number: int) -> tuple[Path, int]:
    """Write a Parquet file of some make."""
    n = int(rng.integers(0, 12))
    paths = [f"{2 * int(rng.integers(20)):02}.png" for _ in range(n)]
    labels: Any = pick(
        rng,
        [
            [pick(rng, WORDS) for _ in range(n)],
            rng.integers(0, 3, n),
            rng.normal(size=n),
            [None if rng.random() < 0.2 else "x" for _ in range(n)],
            [b"x"] * n,
            [[1]] * n,
            pd.to_datetime(["2020-01-01"] * n),
            rng.random(n) < 0.5,
        ],
    )
    file = photos / f"t{number}.parquet"
    pd.DataFrame({"path": paths, "label": labels}).to_parquet(file)
    return file, n


def a_folder(rng: Random, root: Path) -> tuple[Path, int]:
    """Make a folder of some layout; its path, and the images in its folders."""
    n = 0
    for _ in range(int(rng.integers(0, 5))):
        name = pick(
            rng,
            ["cat", "dog", "Dog ", "train", "test", "label=x", "label=y", ".git", "caf\u00e9", "cafe\u0301", "data"],
        )
        inside = pick(rng, ["", "", "a/", "b/", "a/b/"])
        (root / name / inside).mkdir(parents=True, exist_ok=True)
        for _ in range(int(rng.integers(0, 4))):
            file = (
                root / name / f"{inside}{int(rng.integers(10**9))}{pick(rng, ['.png', '.JPG', '.txt', '.parquet', ''])}"
            )
            file.touch()
            n += file.suffix.lower() in (".png", ".jpg") and not name.startswith(".")
    for name in ("1.png", "labels.json", "metadata.jsonl", "x.parquet"):
        if rng.random() < 0.1:
            (root / name).touch()
    if rng.random() < 0.1:
        os.makedirs(os.fsencode(root) + b"/\xff\xe9", exist_ok=True)
        os.close(os.open(os.fsencode(root) + b"/\xff\xe9/\xfe.png", os.O_CREAT))
        n += 1
    return root, n


def an_array(rng: Random) -> np.ndarray:
    """Images, or something like them."""
    n = int(rng.integers(0, 6))
    shape = pick(rng, [(n, 8, 8), (n, 8, 6, 3), (n, 4, 4, 1), (n, 5, 5, 4), (n, 3, 8, 8), (n,), (n, 7)])
    values = rng.normal(size=shape) * 10.0 ** int(rng.integers(-2, 6))
    kind = pick(rng, [np.uint8, np.uint16, np.int16, np.int64, np.float16, np.float32, np.float64, np.bool_])
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = (np.abs(values) if rng.random() < 0.7 else values).astype(kind)
    if array.dtype.kind == "f" and array.size and rng.random() < 0.2:
        array.flat[0] = pick(rng, [np.nan, np.inf])
    return array


def labels_for(rng: Random, n: int) -> Any:
    """Labels, or something like them."""
    n = max(0, n + pick(rng, [0] * 8 + [1, -1]))
    return pick(
        rng,
        [
            rng.integers(0, 3, n),
            rng.integers(-1, 3, n),
            rng.integers(0, 10**6, n),
            rng.normal(size=n),
            [pick(rng, WORDS) for _ in range(n)],
            [pick(rng, [None, "a", 1, np.nan]) for _ in range(n)],
            [[0]] * n,
            [[0], [1, 2]],
            pd.Series(rng.integers(0, 2, n), index=rng.permutation(n)),
            np.eye(3)[rng.integers(0, 3, n)],
        ],
    )


def result_of(function: Callable[[Any], Any], given: Any) -> tuple[Any, str]:
    """What comes of it, or None and the sentence of an InputError."""
    try:
        return function(given), ""
    except InputError as error:
        return None, str(error)


def read_somehow(location: Path, n: int, folder: Path) -> None:
    """Read it with and without labels; where there is a result, it has n images (-1: not known)."""
    for read in (read_source, read_unlabelled):
        source, said = result_of(read, location)
        assert "\n" not in said
        if source is None:
            assert said
            continue
        if n >= 0 and (read is read_source or not location.is_dir()):
            assert len(source) == n, (location, source)
        assert len(source.paths) == len(source.labels) == len(source.files or source.paths)
        assert source.labels.max(initial=0) < len(source.class_names)
        assert source.description.startswith(f"{len(source):,} image")
        for text in (*source.paths, *source.class_names, *source.notes, source.description):
            text.encode()
    result_of(has_labels, location)


def one_case(number: int, photos: Path, folder: Path) -> None:
    rng = np.random.default_rng([20, number])
    kind = number % 5
    if kind == 0:
        read_somehow(*a_table(rng, photos, number), folder)
    elif kind == 1 and number % 3 == 0:
        read_somehow(*a_parquet(rng, photos, number), folder)
    elif kind == 1:
        read_somehow(*a_table(rng, photos, number), folder)
    elif kind == 2:
        root = folder / str(number)
        root.mkdir()
        read_somehow(*a_folder(rng, root), folder)
    elif kind == 3:
        array = an_array(rng)
        labels = labels_for(rng, len(array))
        file = folder / f"{number}.npz"
        try:
            np.savez(file, **{pick(rng, ["images", "images", "x", "train_images"]): array, "labels": labels})
        except ValueError:  # ragged: numpy does not write it either
            return
        read_somehow(file, len(array), folder)
        try:
            source = read_source(file)
        except InputError:
            return
        pixels = load_images(source, 8).pixels
        assert pixels.shape[:3] == (len(array), 8, 8)
        assert pixels.dtype == np.uint8
    else:
        in_memory(rng)


def in_memory(rng: Random) -> None:
    """Python's doors."""
    array = an_array(rng)
    labels = labels_for(rng, len(array))
    pixels, _ = result_of(pixels_of, array if rng.random() < 0.7 else list(array))
    assert pixels is None or len(pixels) == len(array)
    encoded, _ = result_of(encode_labels, labels)
    if encoded is None:
        return
    codes, names = encoded
    assert len(codes) == len(labels)
    assert names is None or codes.max() < len(names)
    k = int(codes.max()) + 1 + pick(rng, [0, 0, 1])
    probs = rng.dirichlet(np.ones(k), max(0, len(codes) + pick(rng, [0, 0, 0, 1, -1])))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that look alike
            issues = label_issues(labels, probs)
    except InputError:
        return
    assert len(issues.to_frame()) == len(labels) == len(probs)


@pytest.mark.parametrize("first", range(0, 300, 100))
def test_300_cases_end_in_a_result_or_a_sentence(photos: Path, tmp_path: Path, first: int) -> None:
    for number in range(first, first + 100):
        one_case(number, photos, tmp_path)


@pytest.mark.slow
def test_2000_cases_end_in_a_result_or_a_sentence(photos: Path, tmp_path: Path) -> None:
    for number in range(1000, 3000):
        one_case(number, photos, tmp_path)
