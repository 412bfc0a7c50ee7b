"""Files that Datumaro 1.13.12 and Label Studio 1.23.2 wrote themselves; `tests/data/files` says how."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, read_source
from cvcoteach.data.sources.registry import read_unlabelled
from cvcoteach.data.writers import Copy, check_destination, write_copy
from cvcoteach.data.writers.registry import fingerprint
from tests.data.sources.test_annotations import given

FILES = Path(__file__).parents[1] / "files"
TRAIN, VAL = {"a.png": "cat", "b.png": "dog", "c.png": "cat"}, {"e.png": "dog", "f.png": "cat"}


def exported(folder: Path, kind: str, *images: str) -> Path:
    """Return a copy of what Datumaro exported as `kind`, with its images."""
    shutil.copytree(FILES / "datumaro-1.13.12" / kind, folder / kind)
    draw(folder / kind, *images)
    return folder / kind


def draw(folder: Path, *images: str) -> None:
    for i, name in enumerate(images):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 20 * i, np.uint8)).save(folder / name)


KINDS = {
    "cvat": ["images/a.png", "images/b.png", "images/sub/c.png", "images/d.png", "images/e.png", "images/f.png"],
    "coco": [f"images/train/{name}.png" for name in ("a", "b", "sub/c", "d")]
    + ["images/val/e.png", "images/val/f.png"],
    "datumaro": [f"images/train/{name}.png" for name in ("a", "b", "sub_c", "d")]
    + ["images/val/e.png", "images/val/f.png"],
}
PARTS = {"cvat": "{}.xml", "coco": "annotations/labels_{}.json", "datumaro": "annotations/{}.json"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_datumaro_exports_is_read_by_split_without_those_that_have_no_label(tmp_path: Path, kind: str) -> None:
    folder = exported(tmp_path, kind, *KINDS[kind])
    file = folder / PARTS[kind].format("train")
    source = read_source(folder)
    assert {name.removeprefix("sub_"): label for name, label in given(source).items()} == TRAIN | VAL
    assert source.splits is not None
    assert source.splits.tolist() == ["train"] * 3 + ["val"] * 2
    assert source.description == f"5 images (3 in train, 2 in val), 2 classes, columns path and label of {kind}"
    assert source.notes == (f"1 image of {file.name} without a {'tag' if kind == 'cvat' else 'label'} was left out.",)
    assert all(Path(name).is_file() for name in source.files or ())
    for place, split in ((folder, "val"), (folder, "validation"), (folder / PARTS[kind].format("val"), None)):
        other = read_source(place, split=split)
        assert given(other) == VAL
        assert (other.notes, other.splits) == ((), None)
    assert len(read_unlabelled(folder)) == 5


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_of_datumaro_without_labels_is_left_out(tmp_path: Path, kind: str) -> None:
    folder = exported(tmp_path, kind, *KINDS[kind])
    file = folder / PARTS[kind].format("val")
    if kind == "cvat":
        file.write_text(re.sub(r"<tag\b.*?(/>|</tag>)", "", file.read_text(), flags=re.DOTALL))
    else:
        content = json.loads(file.read_text())
        if kind == "coco":
            content["annotations"] = []
        for item in content.get("items", []):
            item["annotations"] = []
        file.write_text(json.dumps(content))
    source = read_source(folder)
    assert {name.removeprefix("sub_"): label for name, label in given(source).items()} == TRAIN
    assert "the split val has no labels and was left out." in source.notes


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", [None, "train", "val"])
def test_what_datumaro_exports_is_written_back(tmp_path: Path, kind: str, split: str | None) -> None:
    folder = exported(tmp_path, kind, *KINDS[kind])
    source = read_source(folder, split=split, least_classes=1)
    assert source.location == folder  # where a split is named, the run finds it again
    kept = np.arange(len(source)) != len(source) - 1
    labels = source.labels.copy()
    labels[0] = 1 - labels[0]
    copy = Copy(source, Choices(split=split), labels, kept)
    check_destination(copy, tmp_path / "fixed")
    before = fingerprint(folder)
    write_copy(copy, tmp_path / "fixed", lambda done, to_do: None)
    assert fingerprint(folder) == before
    read = read_source(tmp_path / "fixed", split=split, least_classes=1)
    assert read.paths == source.paths[:-1]
    assert [read.class_names[label] for label in read.labels] == [source.class_names[k] for k in labels[kept]]
    other = {"train": "val", "val": "train"}.get(split or "")
    if other:
        assert given(read_source(tmp_path / "fixed", split=other)) == given(read_source(folder, split=other))


def test_one_file_of_a_folder_that_datumaro_exports_is_written_beside_it(tmp_path: Path) -> None:
    for kind, part in PARTS.items():
        file = exported(tmp_path, kind, *KINDS[kind]) / part.format("train")
        source = read_source(file)
        fixed = file.with_name(f"fixed{file.suffix}")
        copy = Copy(source, Choices(), 1 - source.labels, np.array([True, True, False]))
        check_destination(copy, fixed)
        write_copy(copy, fixed, lambda done, to_do: None)
        assert given(read_source(fixed)) == {"a.png": "dog", "b.png": "cat"}


def test_a_list_of_imagenet_by_datumaro_has_numbers_and_its_images_in_a_folder(tmp_path: Path) -> None:
    names = ["a.png", "b.png", "sub/c.png", "d.png", "e.png", "f.png"]
    folder = exported(tmp_path, "imagenet_txt", *[f"images/{name}" for name in names])
    source = read_source(folder / "val.txt")
    assert given(source) == {"e.png": "1", "f.png": "0"}
    assert source.notes == ("the folder images was added to the paths in the column 'path' of val.txt.",)
    with pytest.raises(InputError, match=r"line 4 of train\.txt is 'd\.png '; it takes a path and a label"):
        read_source(folder / "train.txt")


def test_annotations_of_boxes_name_no_class_of_an_image(tmp_path: Path) -> None:
    folder = exported(tmp_path, "coco", *KINDS["coco"])
    (folder / "annotations" / "labels_train.json").unlink()
    with pytest.raises(InputError, match=r"none of the 4 images of image_info_train\.json has a label"):
        read_source(folder / "annotations" / "image_info_train.json")
    (folder / "annotations" / "labels_val.json").write_text("{}")
    with pytest.raises(InputError, match=r"labels_val\.json does not hold what coco writes"):
        read_source(folder)


@pytest.mark.parametrize("uploads", ["upload/1", "media/upload/1", "images", "."])
def test_an_export_of_label_studio_counts_no_skipped_annotation(tmp_path: Path, uploads: str) -> None:
    file = tmp_path / "export.json"
    shutil.copy(FILES / "label_studio-1.23.2.json", file)
    draw(tmp_path / uploads, "fb86bde6-a.png", "c808d43b-b_photo.png", "ed8c7b11-c.png", "2a7523c4-d.png")
    draw(tmp_path, "pets/sub/f.png")
    source = read_source(file)
    assert given(source) == {
        "fb86bde6-a.png": "cat", "c808d43b-b_photo.png": "dog", "ed8c7b11-c.png": "dog", "f.png": "cat"
    }  # fmt: skip
    assert source.notes == ("2 images of export.json without a label were left out.",)
