"""Datasets as Hugging Face's library writes them (datasets 5), saved to disk, as Parquet, and in memory."""

from __future__ import annotations

import gc
import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.images import load_images
from cvcoteach.data.parts import place_of
from cvcoteach.data.sources import Source, read_dataset, read_source, unpacked
from cvcoteach.data.sources.registry import read_unlabelled
from cvcoteach.data.sources.source import Choices

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

LABELS = [0, 1, 2, -1, 1, 0]
NAMES = ["zebra", "cat", "dog"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def picture(number: int) -> Image.Image:
    return Image.fromarray(np.full((8, 8, 3), 10 * number, np.uint8))


def made(**columns: Any) -> Any:
    """Six images, one of which has no label."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), "video": datasets.Value("string")}
    )
    content = {"image": [picture(i) for i in range(6)], "label": LABELS, "video": list("aabbcc")}
    return datasets.Dataset.from_dict(content | columns, features=features)


def is_right(source: Source) -> None:
    """The five images that have a label, with their names and pixels."""
    assert [source.class_names[label] for label in source.labels] == ["zebra", "cat", "dog", "cat", "zebra"]
    assert source.class_names == ("cat", "dog", "zebra")
    assert any("1 row of" in note and "without a label (-1) was left out" in note for note in source.notes)
    pixels = load_images(source, 8).pixels
    assert pixels[:, 0, 0, 0].tolist() == [0, 10, 20, 40, 50]


def test_a_dataset_saved_to_disk(tmp_path: Path) -> None:
    made().save_to_disk(tmp_path / "saved", num_shards=2)
    source = read_source(tmp_path / "saved")
    is_right(source)
    assert source.paths == tuple(f"saved#{row}" for row in (0, 1, 2, 4, 5))
    assert read_source(tmp_path / "saved", group_column="video").groups.tolist() == [0, 0, 1, 2, 2]


def test_splits_saved_to_disk(tmp_path: Path) -> None:
    other = made(label=[1, 1, 0, 0, 1, 1])
    datasets.DatasetDict({"test": other, "train": made()}).save_to_disk(tmp_path / "saved")
    source = read_source(tmp_path / "saved")
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 5 + ["test"] * 6
    assert source.paths[5] == "saved#test/0"
    is_right(read_source(tmp_path / "saved", split="train"))
    assert len(read_source(tmp_path / "saved", split="test")) == 6
    with pytest.raises(InputError, match="--split is 'dev', but saved holds the splits test, train"):
        read_source(tmp_path / "saved", split="dev")


def test_splits_without_a_class_in_common_get_a_note(tmp_path: Path) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["0", "1"])})
    test = datasets.Dataset.from_dict({"image": [picture(i) for i in range(4)], "label": [0, 1, 0, 1]}, features)
    saved = datasets.DatasetDict({"train": made(), "test": test})
    saved.save_to_disk(tmp_path / "saved")
    for source in (read_source(tmp_path / "saved"), read_dataset(saved, Choices())):
        assert set(source.class_names) == {*NAMES, "0", "1"}
        said = "train (cat, dog, zebra) and test (0, 1) have no class in common: all are read as one list of classes."
        assert said in source.notes


def test_images_inside_a_parquet(tmp_path: Path) -> None:
    made().to_parquet(tmp_path / "x.parquet")
    is_right(read_source(tmp_path / "x.parquet"))
    assert len(read_unlabelled(tmp_path / "x.parquet")) == 6


@pytest.mark.parametrize("select", [False, True])
def test_a_dataset_in_memory(select: bool) -> None:
    dataset = made()
    if select:  # in another order than it is stored
        dataset = datasets.concatenate_datasets([made(), made()]).shuffle(seed=0)
        back = np.argsort(dataset._indices.column(0).to_numpy())[:6]
        dataset = dataset.select(back)
    is_right(read_dataset(dataset, Choices()))


def test_images_are_unpacked_once_and_again_when_they_change(tmp_path: Path, cache: Path) -> None:
    made().to_parquet(tmp_path / "x.parquet")
    files = read_source(tmp_path / "x.parquet").files
    assert files is not None
    pack = place_of(files[0])[0]
    before = Path(pack).stat().st_mtime_ns
    assert read_source(tmp_path / "x.parquet").files == files
    assert Path(pack).stat().st_mtime_ns == before
    made(image=[picture(20 - i) for i in range(6)]).to_parquet(tmp_path / "x.parquet")
    changed = read_source(tmp_path / "x.parquet")
    assert load_images(changed, 8).pixels[0, 0, 0, 0] == 200
    assert len([each for each in (cache / "unpacked").iterdir() if not each.name.startswith(".")]) == 1


def test_the_images_of_another_split_or_column_stay(tmp_path: Path) -> None:
    datasets.DatasetDict({"test": made(), "train": made()}).save_to_disk(tmp_path / "saved")
    features = datasets.Features(
        {"image": datasets.Image(), "mask": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    pictures = [picture(i) for i in range(6)]
    two = datasets.Dataset.from_dict({"image": pictures, "mask": pictures, "label": LABELS}, features=features)
    two.to_parquet(tmp_path / "two.parquet")
    files = [
        *[read_source(tmp_path / "saved", split=split).files or () for split in ("train", "test")],
        *[read_source(tmp_path / "two.parquet", path_column=column).files or () for column in ("image", "mask")],
    ]
    assert all(each and all(Path(place_of(file)[0]).is_file() for file in each) for each in files)


def test_a_write_that_breaks_off_leaves_nothing_half(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made().to_parquet(tmp_path / "x.parquet")

    def stops(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(unpacked, "save_array", stops)
        with pytest.raises(KeyboardInterrupt):
            read_source(tmp_path / "x.parquet")
    assert not [each for each in (cache / "unpacked").iterdir() if each.suffix != ".lock"]
    is_right(read_source(tmp_path / "x.parquet"))


@pytest.mark.parametrize("name", ["images", "ends.npy"])
def test_unpacked_images_that_are_damaged_are_unpacked_again(tmp_path: Path, cache: Path, name: str) -> None:
    made().to_parquet(tmp_path / "x.parquet")
    read_source(tmp_path / "x.parquet")
    [file] = cache.glob(f"unpacked/*/{name}")
    file.write_bytes(file.read_bytes()[:-5])
    is_right(read_source(tmp_path / "x.parquet"))


def test_paths_in_place_of_pixels_are_followed_or_named(tmp_path: Path) -> None:
    names = []
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.png")
        names.append(str(tmp_path / f"{i}.png"))
    pq.write_table(made(image=names).data.table, tmp_path / "x.parquet")
    is_right(read_source(tmp_path / "x.parquet"))
    (tmp_path / "3.png").unlink()
    pq.write_table(made(image=names).data.table, tmp_path / "y.parquet")
    with pytest.raises(InputError, match=r"row 4 of y\.parquet names the image .*3\.png in place of holding it"):
        read_source(tmp_path / "y.parquet")


def test_what_does_not_fit_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the source is an iterable dataset; load it without streaming=True"):
        read_dataset(made().to_iterable_dataset(), Choices())
    two = made().add_column("thumbnail", [buffer(i) for i in range(6)])
    with pytest.raises(InputError, match="say with --path-column which one holds the images"):
        read_dataset(two, Choices())
    is_right(read_dataset(two, Choices(path_column="image")))
    made().save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").write_bytes(b"ARROW1")
    with pytest.raises(InputError, match="cannot be read as Arrow"):
        read_source(tmp_path / "saved")
    (tmp_path / "saved" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(InputError, match="lacks the file"):
        read_source(tmp_path / "saved")


def buffer(number: int) -> bytes:
    stream = io.BytesIO()
    picture(number).save(stream, "png")
    return stream.getvalue()


def test_datasets_of_one_name_do_not_take_each_others_images() -> None:
    one, other = made(), made(image=[picture(20 - i) for i in range(6)])
    first = read_dataset(one, Choices())
    read_dataset(other, Choices())
    is_right(first)


def test_labels_that_were_cast_are_called_as_the_dataset_calls_them_now(tmp_path: Path) -> None:
    """Casting to classes in another order keeps the numbers, and so changes what each image is called."""
    cast = made().cast_column("label", datasets.ClassLabel(names=NAMES[::-1]))
    cast.save_to_disk(tmp_path / "saved")
    source, said = read_source(tmp_path / "saved"), datasets.load_from_disk(str(tmp_path / "saved"))
    known = [label for label in said["label"] if label >= 0]
    assert [source.class_names[label] for label in source.labels] == [NAMES[::-1][label] for label in known]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves a file open
def test_a_dataset_that_lost_its_labels_or_holds_arrays_gets_a_sentence(tmp_path: Path) -> None:
    for i, name in enumerate(["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        picture(i).save(tmp_path / name)
    rows = "".join(f"{name},p{i}\n" for i, name in enumerate(["cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png"]))
    (tmp_path / "metadata.csv").write_text(f"file_name,patient\n{rows}")
    # the library leaves out the folders' names where there is such a file
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "hub"))["train"]
    gc.collect()
    assert loaded.column_names == ["image", "patient"]
    with pytest.raises(InputError, match=r"has the columns image, patient; say with --label-column which one"):
        read_dataset(loaded, Choices())
    with pytest.raises(InputError, match=r"has no column but image; it takes one of labels as well"):
        read_dataset(loaded.remove_columns("patient"), Choices())
    arrays = datasets.Dataset.from_dict({"image": np.zeros((4, 8, 8)).tolist(), "label": [0, 1, 0, 1]})
    with pytest.raises(InputError, match=r"the column 'image' of dataset holds neither encoded images nor paths"):
        read_dataset(arrays, Choices())
