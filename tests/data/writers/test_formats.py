"""Sources of every other format under other labels, written in their own format and read back."""

from __future__ import annotations

import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.data.writers import Copy, check_destination, fingerprint, names_in_copy, replace_copy, write_copy
from tests.data.sources.test_annotation_tools import cvat, datumaro, image, item
from tests.data.sources.test_annotations import task
from tests.data.sources.test_mnist import idx
from tests.data.writers.test_writers import copy_of, expected, labels_of, written

N = 12
NAMES = ["cat", "dog", "eel"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def pictures(folder: Path) -> list[str]:
    """Write twelve images in `folder`; their names."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:02}.png" for i in range(N)]
    for i, name in enumerate(names):
        Image.fromarray(np.full((6, 6), 20 * i, np.uint8)).save(folder / name)
    return names


def dumped(file: Path, content: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=2), "utf-8")
    return file


def coco(root: Path) -> Path:
    names = pictures(root / "images")
    images = [{"id": 7 * i, "file_name": name} for i, name in enumerate([*names, "none.png"])]
    given = [{"id": i, "image_id": 7 * i, "category_id": 10 + i % 3, "area": 36} for i in range(N)]
    boxes = [{"id": 99, "image_id": 0, "category_id": 10, "area": 2}]
    categories = [{"id": 10 + k, "name": name} for k, name in enumerate(NAMES)]
    return dumped(
        root / "x.json", {"images": images, "annotations": [*given, *boxes], "categories": categories, "info": {}}
    )


def label_studio(root: Path) -> Path:
    names = pictures(root)
    tasks = [task(name, [NAMES[i % 3]], [NAMES[i % 3]], [NAMES[(i + 1) % 3]]) for i, name in enumerate(names)]
    return dumped(root / "x.json", [*tasks[:5], task("00.png", ["cat"], cancelled=1), *tasks[5:]])


def fiftyone(root: Path) -> Path:
    names = pictures(root / "data")
    labels = {name.removesuffix(".png"): i % 3 for i, name in enumerate(names)}
    return dumped(root / "labels.json", {"classes": NAMES, "labels": {"nobody": None, **labels}})


def of_datumaro(root: Path) -> Path:
    names = pictures(root / "images" / "train")
    content = datumaro(item("nobody"), *[item(name.removesuffix(".png"), i % 3) for i, name in enumerate(names)])
    content["categories"]["label"]["labels"].append({"name": "eel", "parent": "", "attributes": []})
    return dumped(root / "annotations" / "train.json", content)


def of_cvat(root: Path) -> Path:
    names = pictures(root / "images")
    odd = '<image id="9" name="odd > .png" width="1" height="1"/>'
    text = cvat(
        odd,
        *[image(name, ["a>b", "c & d", "eel"][i % 3]).replace("c & d", "c &amp; d") for i, name in enumerate(names)],
    )
    (root / "annotations.xml").write_text(text.replace("</tag>", "\n</tag>"), "utf-8")
    return root / "annotations.xml"


def json_lines(root: Path) -> Path:
    names = pictures(root)
    lines = [
        json.dumps({"file_name": name, "label": NAMES[i % 3], "more": [i, {"a": "ü"}]}) for i, name in enumerate(names)
    ]
    (root / "metadata.jsonl").write_text("\r\n".join([*lines[:3], "", *lines[3:]]), "utf-8")
    return root / "metadata.jsonl"


def path_list(root: Path) -> Path:
    names = pictures(root / "a b")
    lines = ["# a comment", *[f"a b/{name} {i % 3}" for i, name in enumerate(names)]]
    (root / "x.txt").write_text("\n".join(lines) + "\n", "utf-8")
    return root / "x.txt"


def mxnet_list(root: Path) -> Path:
    names = pictures(root)
    (root / "x.lst").write_text("".join(f"{i % 3}\t{i % 3}\t{name}\n" for i, name in enumerate(names)), "utf-8")
    return root / "x.lst"


@pytest.mark.parametrize(
    "make",
    [coco, label_studio, fiftyone, of_datumaro, of_cvat, json_lines, path_list, mxnet_list],
    ids=lambda f: f.__name__,
)
def test_a_file_is_written_in_its_own_format(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    location = make(tmp_path / "data")
    source = read_source(location)
    assert len(source) == N
    copy = copy_of(source)
    destination = location.with_name(f"fixed{location.suffix}")
    read = written(copy, destination)
    assert labels_of(read) == expected(copy)
    files = [Path(file).name for file, kept in zip(source.files or (), copy.kept, strict=True) if kept]
    assert [Path(file).name for file in read.files or ()] == files
    assert all(Path(file).is_file() for file in read.files or ())
    assert names_in_copy(copy) is None
    same = Copy(source, Choices(), source.labels, np.ones(N, bool))
    replace_copy(same, destination)
    assert labels_of(read_source(destination)) == labels_of(source)
    if make in (of_cvat, json_lines, path_list, mxnet_list):
        assert destination.read_bytes() == location.read_bytes()
    else:
        assert json.loads(destination.read_text("utf-8")) == json.loads(location.read_text("utf-8"))
        assert destination.read_text("utf-8").splitlines()[1].startswith("  ")


def test_subsets_of_one_file_of_cvat_are_all_written(tmp_path: Path) -> None:
    names = pictures(tmp_path / "images")
    rows = [(name, NAMES[i % 3], ("val", "train", "")[i % 3 if i > 2 else 1]) for i, name in enumerate(names)]
    text = cvat(*[image(name, label, subset=subset) for name, label, subset in rows])
    (tmp_path / "x.xml").write_text(text, "utf-8")
    source = read_source(tmp_path / "x.xml")
    assert source.splits is not None
    assert [Path(name).name for name in source.paths] == [
        name for wanted in ("train", "val") for name, _, subset in rows if subset == wanted
    ]
    nowhere = sum(not subset for _, _, subset in rows)
    assert f"{nowhere} images of x.xml in no subset were left out." in source.notes
    labels, kept = (source.labels + 1) % 3, np.arange(len(source)) % 4 != 3
    copy = Copy(source, Choices(), labels, kept)
    read = written(copy, tmp_path / "fixed.xml")
    assert labels_of(read) == expected(copy)
    assert read.splits is not None
    assert read.splits.tolist() == source.splits[copy.kept].tolist()
    assert all(name in (tmp_path / "fixed.xml").read_text("utf-8") for name, _, subset in rows if not subset)


@pytest.mark.parametrize(
    "make", [coco, label_studio, fiftyone, of_datumaro, of_cvat, path_list], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("drops", [False, True])
def test_a_file_that_changed_meanwhile_is_not_written(
    tmp_path: Path, make: Callable[[Path], Path], drops: bool
) -> None:
    location = make(tmp_path)
    copy = copy_of(read_source(location))
    if not drops:
        copy = Copy(copy.source, copy.choices, copy.labels, np.ones(N, bool))
    fixed, again = (location.with_name(f"{name}{location.suffix}") for name in ("fixed", "again"))
    written(copy, fixed)
    location.write_bytes(fixed.read_bytes())
    with pytest.raises(InputError, match="it has changed since"):
        write_copy(copy, again, lambda done, to_do: None)
    assert not again.exists()


def test_images_of_an_annotation_tool_are_found_from_the_folder_of_the_source_only(tmp_path: Path) -> None:
    copy = copy_of(read_source(coco(tmp_path / "data")))
    with pytest.raises(InputError, match=r"whose images are found from its folder; name a place in .*data"):
        check_destination(copy, tmp_path / "x.json")
    with pytest.raises(InputError, match=r"is to be a copy of a \.json; let its name end so"):
        check_destination(copy, tmp_path / "data" / "x.csv")


def test_a_task_with_a_new_label_has_one_annotation_and_the_others_stay(tmp_path: Path) -> None:
    location = label_studio(tmp_path)
    copy = copy_of(read_source(location))
    written(copy, tmp_path / "fixed.json")
    before, after = json.loads(location.read_text()), json.loads((tmp_path / "fixed.json").read_text())
    assert len(after) == len(before) - 2
    [vote] = after[0]["annotations"]
    assert vote["result"][0]["value"] == {"choices": ["eel"]}
    assert after[1] == before[1]
    assert before[5] in after


# -- folders --


def shards(root: Path, kind: str = "cls", n_shards: int = 3) -> Path:
    wds = pytest.importorskip("webdataset")
    root.mkdir(parents=True)
    with wds.ShardWriter(f"{root}/s-%02d.tar", maxcount=N // n_shards, verbose=0) as sink:
        for i in range(N):
            beside = {"cls": i % 3} if kind == "cls" else {"json": {"label": NAMES[i % 3], "more": i}}
            sink.write(
                {"__key__": f"{i:03}", "png": np.full((6, 6, 3), 20 * i, np.uint8), **beside, "txt": f"text {i}"}
            )
    (root / "sizes.json").write_text("{}")
    return root


def shards_of_splits(root: Path) -> Path:
    """The first shard is of test, the others of train."""
    folder = shards(root)
    for old, new in (("s-00", "test-00"), ("s-01", "train-00"), ("s-02", "train-01")):
        (folder / f"{old}.tar").rename(folder / f"{new}.tar")
    for rest in folder.glob("s-*.tar"):
        rest.rename(folder / f"train-{rest.name}")
    return folder


def saved(root: Path, splits: bool = True) -> Path:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), "more": datasets.Value("int64")}
    )
    images = [Image.fromarray(np.full((6, 6), 20 * i, np.uint8)) for i in range(N)]
    made = datasets.Dataset.from_dict(
        {"image": images, "label": [i % 3 for i in range(N)], "more": range(N)}, features=features
    )
    (datasets.DatasetDict({"test": made, "train": made}) if splits else made).save_to_disk(str(root))
    return root


def parquet_files(root: Path, splits: bool = False) -> Path:
    """Three files as datasets writes them, each with an order of the classes of its own."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    (root / "data").mkdir(parents=True)
    (root / "README.md").write_text("pets", "utf-8")
    for number, rows in enumerate(np.split(np.arange(N), [5, 6])):
        names = NAMES[number:] + NAMES[:number]
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "more": datasets.Value("int64")}
        )
        images = [Image.fromarray(np.full((6, 6), 20 * i, np.uint8)) for i in rows]
        given = [names.index(NAMES[i % 3]) for i in rows]
        made = datasets.Dataset.from_dict({"image": images, "label": given, "more": rows}, features=features)
        shard = "test-00000-of-00001" if splits and not number else f"train-{number:05}-of-00003"
        made.to_parquet(root / "data" / f"{shard}.parquet")
    return root


def of_idx(root: Path) -> Path:
    root.mkdir(parents=True)
    images = np.repeat(20 * np.arange(N, dtype=np.uint8), 36).reshape(N, 6, 6)
    for part in ("train", "t10k"):
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx((np.arange(N) % 3).astype(np.uint8)))
    return root


def cifar_images() -> np.ndarray:
    return np.repeat(20 * np.arange(N, dtype=np.uint8), 3072).reshape(N, 3072)


def of_cifar(root: Path) -> Path:
    from tests.data.sources.test_cifar import as_python_2

    root.mkdir(parents=True)
    for number in (1, 2):
        rows = slice(6 * (number - 1), 6 * number)
        batch = {
            "data": cifar_images()[rows],
            "labels": [i % 3 for i in range(N)][rows],
            "filenames": [f"{i}.png" for i in range(N)][rows],
            "batch_label": f"batch {number}",
        }
        as_python_2(batch, root / f"data_batch_{number}")
    as_python_2({"label_names": NAMES, "num_vis": 3072}, root / "batches.meta")
    return root


def of_cifar_binary(root: Path) -> Path:
    root.mkdir(parents=True)
    records = np.concatenate([(np.arange(N) % 3)[:, None].astype(np.uint8), cifar_images()], axis=1)
    records[:5].tofile(root / "data_batch_1.bin")
    records[5:].tofile(root / "data_batch_2.bin")
    return root


@pytest.mark.parametrize(
    "make",
    [
        shards,
        lambda root: shards(root, "json"),
        shards_of_splits,
        saved,
        lambda root: saved(root, False),
        parquet_files,
        lambda root: parquet_files(root, True),
        of_idx,
        of_cifar,
        of_cifar_binary,
    ],
    ids=[
        "webdataset",
        "webdataset-json",
        "webdataset-splits",
        "splits",
        "dataset",
        "parquet-files",
        "parquet-splits",
        "idx",
        "cifar",
        "cifar-binary",
    ],
)
def test_a_folder_is_written_in_its_own_format(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    location = make(tmp_path / "data")
    before = fingerprint(location)
    source = read_source(location)
    copy = copy_of(source)
    read = written(copy, tmp_path / "new" / "fixed")
    assert labels_of(read) == expected(copy)
    assert gray(read) == [value for value, kept in zip(gray(source), copy.kept, strict=True) if kept]
    assert {file.relative_to(read.location) for file in read.location.rglob("*")} == {
        file.relative_to(location) for file in location.rglob("*")
    }
    assert fingerprint(location) == before
    assert names_in_copy(copy) is None
    replace_copy(Copy(source, Choices(), source.labels, np.ones(len(source), bool)), tmp_path / "new" / "fixed")
    again = read_source(tmp_path / "new" / "fixed")
    assert labels_of(again) == labels_of(source)
    assert gray(again) == gray(source)
    assert [each.name for each in (tmp_path / "new").iterdir()] == ["fixed"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("make", [saved, of_idx, of_cifar, parquet_files], ids=["splits", "idx", "cifar", "parquet"])
@pytest.mark.parametrize("odd", ["loop", "pipe", "device"])
def test_a_folder_with_links_to_folders_pipes_or_devices_is_not_copied(
    tmp_path: Path, make: Callable[[Path], Path], odd: str
) -> None:
    location = make(tmp_path / "data")
    copy = copy_of(read_source(location))
    (tmp_path / "new").mkdir()
    if odd == "pipe":
        os.mkfifo(location / "notes.txt")
    else:
        (location / "notes.txt").symlink_to(location if odd == "loop" else "/dev/zero")
    with pytest.raises(InputError, match=r"notes\.txt is (a link to a folder|not a regular file)"):
        write_copy(copy, tmp_path / "new" / "fixed", lambda done, to_do: None)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="the system has no links")
@pytest.mark.parametrize(
    "make",
    [saved, of_idx, of_cifar, parquet_files, shards_of_splits],
    ids=["splits", "idx", "cifar", "parquet", "shards"],
)
def test_a_link_out_of_a_folder_is_copied_only_to_data(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    location = make(tmp_path / "hub" / "snapshots" / "data")
    copy = copy_of(read_source(location))
    (tmp_path / "hub" / "blobs").mkdir()
    (tmp_path / "hub" / "blobs" / "1234").write_text("as the hub of Hugging Face lays it out")
    (location / "notes.txt").symlink_to("../../blobs/1234")
    write_copy(copy, tmp_path / "fixed", lambda done, to_do: None)
    assert (tmp_path / "fixed" / "notes.txt").read_text() == "as the hub of Hugging Face lays it out"
    (tmp_path / "secret").write_text("for the owner's eyes")
    (location / "notes.txt").unlink()
    (location / "notes.txt").symlink_to("../../../secret")
    with pytest.raises(InputError, match=r"notes\.txt is a link to .*secret, which lies outside of"):
        write_copy(copy, tmp_path / "other", lambda done, to_do: None)
    assert not (tmp_path / "other").exists()


def test_each_parquet_file_keeps_its_own_names_of_the_classes(tmp_path: Path) -> None:
    location = parquet_files(tmp_path / "data")
    written(copy_of(read_source(location)), tmp_path / "fixed")
    for file in sorted((location / "data").iterdir()):
        old, new = (pq.ParquetFile(root / file.relative_to(location)) for root in (location, tmp_path / "fixed"))
        assert new.schema_arrow.equals(old.schema_arrow, check_metadata=True)
        assert new.metadata.row_group(0).column(0).compression == old.metadata.row_group(0).column(0).compression
    datasets = pytest.importorskip("datasets")
    first = datasets.Dataset.from_parquet(str(tmp_path / "fixed/data/train-00000-of-00003.parquet"))
    assert [NAMES[label] for label in first["label"]] == ["eel", "dog", "eel", "dog"]
    assert first["more"][:] == [0, 1, 2, 4]


def test_a_parquet_file_that_lacks_a_class_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    location = parquet_files(tmp_path / "data")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    features["more"] = datasets.Value("int64")
    images = [Image.fromarray(np.full((6, 6), 20 * i, np.uint8)) for i in range(5)]
    made = datasets.Dataset.from_dict({"image": images, "label": [0, 1, 0, 0, 1], "more": range(5)}, features=features)
    made.to_parquet(location / "data/train-00000-of-00003.parquet")
    with pytest.raises(InputError, match=r"train-00000-of-00003\.parquet does not name the class 'eel' in its column"):
        written(copy_of(read_source(location)), tmp_path / "fixed")  # the first becomes an eel
    assert [each.name for each in tmp_path.iterdir() if each.name != "cache"] == ["data"]


@pytest.mark.parametrize("absolute", [False, True])
def test_parquet_files_of_paths_find_their_images_from_the_copy(tmp_path: Path, absolute: bool) -> None:
    names = pictures(tmp_path / "images")
    folder = tmp_path / "images" if absolute else Path("../images")
    (tmp_path / "tables").mkdir()
    for number, rows in enumerate(np.split(np.arange(N), [5, 9])):
        table = {"path": [str(folder / names[i]) for i in rows], "label": [NAMES[i % 3] for i in rows]}
        pq.write_table(pa.table(table), tmp_path / "tables" / f"{number}.parquet", compression="zstd")
    source = read_source(tmp_path / "tables")
    copy = copy_of(source)
    read = written(copy, tmp_path / "new" / "deep" / "fixed")
    assert labels_of(read) == expected(copy)
    assert gray(read) == [value for value, kept in zip(gray(source), copy.kept, strict=True) if kept]


def test_parquet_files_that_changed_meanwhile_are_not_written(tmp_path: Path) -> None:
    location = parquet_files(tmp_path / "data", splits=True)
    copy = copy_of(read_source(location))
    (location / "data/train-00001-of-00003.parquet").unlink()
    with pytest.raises(InputError, match="data does not hold the images as they were read; it has changed since"):
        written(copy, tmp_path / "fixed")
    assert not (tmp_path / "fixed").exists()


def gray(source: Source) -> list[int]:
    return load_images(source, 6).pixels[:, 0, 0, 0].tolist()


def test_the_library_reads_the_copy_of_its_dataset(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    copy = copy_of(read_source(saved(tmp_path / "data")))
    written(copy, tmp_path / "fixed")
    there, was = (datasets.load_from_disk(str(tmp_path / name)) for name in ("fixed", "data"))
    assert there["train"]["more"][:] == [i for i in range(N) if copy.kept[i]]
    assert [there["train"].features["label"].int2str(label) for label in there["train"]["label"]] == expected(copy)[
        : len(there["train"])
    ]
    assert there["test"]["label"][:] == was["test"]["label"][:]
    assert there["train"]._fingerprint != was["train"]._fingerprint
    assert there["train"][0]["image"].getpixel((0, 0)) == 0


def test_batches_of_cifar_are_read_as_python_2_wrote_them(tmp_path: Path) -> None:
    """As torchvision reads them, in latin1, and as others do, in bytes."""
    copy = copy_of(read_source(of_cifar(tmp_path / "data")))
    written(copy, tmp_path / "fixed")
    file = tmp_path / "fixed" / "data_batch_1"
    text = pickle.loads(file.read_bytes(), encoding="latin1")
    raw = pickle.loads(file.read_bytes(), encoding="bytes")
    assert text["filenames"] == [f"{i}.png" for i in range(6) if copy.kept[i]]
    assert text["labels"] == raw[b"labels"]
    assert text["batch_label"] == "batch 1"
    assert (text["data"] == cifar_images()[:6][copy.kept[:6]]).all()
    assert (raw[b"data"] == text["data"]).all()


def test_one_shard_keeps_its_packing_and_its_other_files(tmp_path: Path) -> None:
    import gzip

    folder = shards(tmp_path / "data", n_shards=1)
    packed = tmp_path / "x.tar.gz"
    packed.write_bytes(gzip.compress((folder / "s-00.tar").read_bytes()))
    copy = copy_of(read_source(packed))
    with pytest.raises(InputError, match=r"is to be a copy of x\.tar\.gz; let its name end as that one does"):
        check_destination(copy, tmp_path / "y.tar")
    read = written(copy, tmp_path / "y.tar.gz")
    assert labels_of(read) == expected(copy)
    with tarfile.open(tmp_path / "y.tar.gz", "r:gz") as archive:
        names = archive.getnames()
        opened = archive.extractfile("000.txt")
        assert opened is not None
        assert opened.read() == b"text 0"
    assert names == [f"{i:03}.{kind}" for i in range(N) if copy.kept[i] for kind in ("cls", "png", "txt")]


def test_what_cannot_be_written_says_what_fits(tmp_path: Path) -> None:
    folder = of_idx(tmp_path / "data")
    with pytest.raises(
        InputError, match=r"has its labels in another file; find the issues of the folder .*data, which"
    ):
        check_destination(copy_of(read_source(folder / "train-images-idx3-ubyte")), tmp_path / "x")
    record = Source(tmp_path / "x.tfrecord", tmp_path, ("x.tfrecord#0",) * N, np.arange(N) % 3, ("a", "b", "c"))
    with pytest.raises(InputError, match="cannot be written; --action list gives the changes as a CSV, which retrain"):
        check_destination(copy_of(record), tmp_path / "y.tfrecord")
