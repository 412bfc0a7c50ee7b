"""Tables and exports beside folders of images: named where they hold the labels, passed over where they do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, Source, read_source, read_unlabelled
from tests.data.sources.files import touch, write

LABELS = ("cat", "dog", "eel")


def photos(root: Path, *folders: str, each: int = 6, ending: str = ".png") -> list[str]:
    """Make images of one numbering in several folders, and return their paths."""
    paths = [f"{folder}/{k * each + i:03}{ending}" for k, folder in enumerate(folders) for i in range(each)]
    touch(root, *paths)
    return paths


def table_of(file: Path, names: list[str], header: str = "id,label", labels: tuple[str, ...] = LABELS) -> Path:
    rows = [f"{name},{labels[i % len(labels)]}\n" for i, name in enumerate(names)]
    return write(file, f"{header}\n{''.join(rows)}")


def given(source: Source) -> list[str]:
    assert source.files is not None
    assert all(Path(file).is_file() for file in source.files)
    return [source.class_names[label] for label in source.labels]


def in_words(text: Path) -> str:
    """Return a path as it stands in a pattern."""
    return str(text).replace(".", r"\.")


@pytest.mark.parametrize(
    ("folders", "ending"), [(("images_001", "images_002"), ""), (("a", "b"), ""), (("images_001", "x/images"), ".png")]
)
def test_a_table_with_labels_beside_several_folders_is_named_and_can_be_read(
    tmp_path: Path, folders: tuple[str, ...], ending: str
) -> None:
    names = [path.rpartition("/")[2].removesuffix(ending) for path in photos(tmp_path, *folders)]
    table = table_of(tmp_path / "labels.csv", names)
    with pytest.raises(
        InputError, match=rf"labels\.csv, which lists .* the labels cat, dog, eel; .* name it: {in_words(table)} "
    ):
        read_source(tmp_path)
    source = read_source(table)
    assert given(source) == list(LABELS) * 4
    assert source.notes == (
        "images in the folders beside the table were found by the names in the column 'id' of labels.csv.",
    )
    assert read_source(tmp_path, format="folder").class_names == tuple(sorted(name.split("/")[0] for name in folders))


def test_json_lines_beside_several_folders_are_named(tmp_path: Path) -> None:
    paths = photos(tmp_path, "a", "b")
    lines = [json.dumps({"file_name": path, "label": LABELS[i % 3]}) for i, path in enumerate(paths)]
    file = write(tmp_path / "metadata.jsonl", "\n".join(lines))
    with pytest.raises(InputError, match=rf"holds metadata\.jsonl, which lists .* name it: {in_words(file)} "):
        read_source(tmp_path)
    notes = read_source(tmp_path, format="folder").notes
    assert any(note.startswith("metadata.jsonl lies beside the class folders; the labels are the") for note in notes)


def test_a_table_of_named_diagnoses_beside_the_parts_of_its_images_is_named(tmp_path: Path) -> None:
    """As HAM10000 comes: two folders of images, and a table of lesions, ids, diagnoses and more."""
    parts = ("HAM10000_images_part_1", "HAM10000_images_part_2")
    stems = [path.rpartition("/")[2].removesuffix(".jpg") for path in photos(tmp_path, *parts, ending=".jpg")]
    rows = [f"HAM_{i // 2},ISIC_{stem},{('nv', 'mel')[i % 2]},histo,{50 + i % 5}" for i, stem in enumerate(stems)]
    for path in list(tmp_path.glob("*/*.jpg")):
        path.rename(path.with_name(f"ISIC_{path.name}"))
    table = write(tmp_path / "HAM10000_metadata.csv", "lesion_id,image_id,dx,dx_type,age\n" + "\n".join(rows))
    with pytest.raises(InputError, match=rf"HAM10000_metadata\.csv, which lists .* name it: {in_words(table)} "):
        read_source(tmp_path)
    assert given(read_source(table, label_column="dx")) == ["nv", "mel"] * 6
    assert len(read_unlabelled(table, Choices())) == 12


@pytest.mark.parametrize("name", ["train.csv", "labels.csv"])
def test_folders_called_like_parts_beside_their_table_are_no_classes(tmp_path: Path, name: str) -> None:
    paths = photos(tmp_path, "train", "test")
    ids = [path.rpartition("/")[2].removesuffix(".png") for path in paths]
    table = table_of(tmp_path / name, ids[:6])
    table_of(tmp_path / "sample_submission.csv", ids[6:])
    with pytest.raises(InputError, match=rf"test, train, which are parts of a dataset, .* name it: {in_words(table)} "):
        read_source(tmp_path)
    assert given(read_source(table)) == list(LABELS) * 2


def test_lists_beside_folders_called_like_parts_are_named(tmp_path: Path) -> None:
    for part, start in (("train", "obj_train_data"), ("val", "obj_val_data")):
        write(tmp_path / f"{part}.txt", "".join(f"data/{path}\n" for path in photos(tmp_path, start)))
    with pytest.raises(InputError, match=rf"with train\.txt, val\.txt beside .* name it: {tmp_path}/train\.txt "):
        read_source(tmp_path)


def test_tables_called_as_the_folders_of_their_images_are_named(tmp_path: Path) -> None:
    """As MedMNIST's save writes two datasets into one folder."""
    for flag, n_classes in (("breastmnist", 2), ("pathmnist", 3)):
        names = [f"train{i}_{i % n_classes}.png" for i in range(9)]
        touch(tmp_path / flag, *names)
        write(tmp_path / f"{flag}.csv", "".join(f"TRAIN,{name},{name[-5]}\n" for name in names))
    with pytest.raises(InputError, match=rf"holds breastmnist\.csv, which lists .* name it: {tmp_path}/breastmnist\."):
        read_source(tmp_path)


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("path,given_label,label", "{path},{folder},dog"),
        ("path,prediction", "{path},{folder}"),
        ("path", "{path}"),
        ("path,label", "{path},{number}"),
        ("path,label", "{path},animal{coarse}"),
    ],
)
@pytest.mark.parametrize("name", ["issues.csv", "labels-fixed.csv"])
def test_class_folders_beside_a_table_that_agrees_are_read(tmp_path: Path, header: str, row: str, name: str) -> None:
    paths = photos(tmp_path, *LABELS)
    rows = [
        row.format(path=path, folder=path[:3], number=LABELS.index(path[:3]), coarse=int(i < 12))
        for i, path in enumerate(paths)
    ]
    write(tmp_path / name, f"{header}\n" + "\n".join(rows))
    source = read_source(tmp_path)
    assert source.class_names == LABELS
    assert source.notes == ()


def test_class_folders_beside_a_table_of_something_else_are_read_with_a_note(tmp_path: Path) -> None:
    paths = photos(tmp_path, *LABELS)
    table = table_of(tmp_path / "cameras.csv", paths, "path,camera", ("canon", "nikon"))
    source = read_source(tmp_path)
    assert source.class_names == LABELS
    assert source.notes == (
        "cameras.csv lies beside the class folders; the labels are the folders' names. To take those of the table, "
        f"name it: {table}",
    )


def test_class_folders_beside_a_table_of_other_images_are_read(tmp_path: Path) -> None:
    photos(tmp_path, *LABELS)
    table_of(tmp_path / "elsewhere.csv", [f"x/{i}.png" for i in range(20)])
    write(tmp_path / "broken.json", "{")
    assert read_source(tmp_path).notes == ()


def test_features_beside_class_folders_are_not_taken_for_labels(tmp_path: Path) -> None:
    rows = [f"{path},{','.join(['0'] * 299)},1" for path in photos(tmp_path, *LABELS)]
    names = ",".join(f"f{i}" for i in range(300))
    write(tmp_path / "features.csv", f"path,{names}\n" + "\n".join(rows))
    source = read_source(tmp_path)
    assert source.class_names == LABELS
    assert source.notes[0].startswith("features.csv lies beside the class folders; the labels are the folders' names.")


@pytest.mark.parametrize("name", ["a.json", "tags.xml"])
def test_an_export_beside_the_one_folder_of_its_images_is_named(tmp_path: Path, name: str) -> None:
    touch(tmp_path, *[f"images/{i}.png" for i in range(4)])
    write(tmp_path / name, "{}")
    with pytest.raises(InputError, match=rf"in one folder, images, with {name} beside it; .* name it: .*/{name}$"):
        read_source(tmp_path)


def test_an_export_of_label_studio_beside_its_media_is_named_and_can_be_read(tmp_path: Path) -> None:
    touch(tmp_path, *[f"media/upload/1/{i}.png" for i in range(4)], "files/readme")
    write(tmp_path / "a_min.json", "[]")
    tasks = [
        {
            "data": {"image": f"/data/upload/1/{i}.png"},
            "annotations": [{"result": [{"type": "choices", "value": {"choices": [LABELS[i % 2]]}}]}],
        }
        for i in range(4)
    ]
    file = write(tmp_path / "project-1.json", json.dumps(tasks))
    with pytest.raises(
        InputError, match=rf"one folder, media, with project-1\.json beside .* name it: {in_words(file)}$"
    ):
        read_source(tmp_path)
    assert given(read_source(file)) == ["cat", "dog"] * 2


def test_exports_in_folders_called_like_parts_are_named(tmp_path: Path) -> None:
    """As two FiftyOneImageClassificationDataset exports lie side by side."""
    for part in ("train", "test"):
        touch(tmp_path / part, *[f"data/{i}.png" for i in range(4)])
        labels = {"classes": ["cat", "dog"], "labels": {str(i): i % 2 for i in range(4)}}
        write(tmp_path / part / "labels.json", json.dumps(labels))
    file = tmp_path / "train" / "labels.json"
    with pytest.raises(InputError, match=rf"holds test, train, which are parts .* name that .*: {in_words(file)}$"):
        read_source(tmp_path)
    assert given(read_source(file)) == ["cat", "dog"] * 2
