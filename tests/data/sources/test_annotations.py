"""JSON of annotation tools, lists of paths, JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, Source, read_source, read_unlabelled
from tests.data.sources.files import pets as pets
from tests.data.sources.files import touch


def saved(file: Path, content: Any) -> Path:
    file.write_text(json.dumps(content), "utf-8")
    return file


def given(source: Source) -> dict[str, str]:
    assert source.files is not None
    assert all(Path(file).is_file() for file in source.files)
    names = [source.class_names[label] for label in source.labels]
    return {Path(file).name: name for file, name in zip(source.files, names, strict=True)}


# -- Label Studio --


def task(image: str, *annotations: list[str], cancelled: int = 0, name: str = "choice") -> dict[str, Any]:
    """A task as Label Studio 1.x exports it: each annotation has a list of choices, the last ones are skipped."""
    made = [
        {
            "id": i,
            "was_cancelled": i >= len(annotations) - cancelled,
            "result": [{"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": choices}}],
        }
        for i, choices in enumerate(annotations)
    ]
    return {"id": 1, "data": {"image": image}, "annotations": made, "predictions": []}


def test_label_studio_takes_what_most_annotators_chose_and_not_what_they_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "upload/1/b-b.png", "c.png", "d.png", "e.png")
    file = saved(
        tmp_path / "x.json",
        [
            task("/data/local-files/?d=photos/2024/images/a.png", ["cat"], ["cat"], ["dog"]),
            task("/data/upload/1/b-b.png", ["dog"], ["cat"], cancelled=1),
            task("c.png", ["dog"]),
            task("d.png", ["cat"], cancelled=1),
            task("e.png", ["cat"], ["dog"]),
        ],
    )
    source = read_source(file)
    assert given(source) == {"a.png": "cat", "b-b.png": "dog", "c.png": "dog"}
    assert source.notes[:2] == (
        "1 image of x.json without a label was left out.",
        "1 image of x.json on which annotators are divided was left out.",
    )


def test_label_studio_with_several_labels_or_questions_gets_a_sentence(pets: Path) -> None:
    file = saved(pets / "x.json", [task("a.png", ["cat"]), task("b.png", ["cat", "dog"])])
    with pytest.raises(InputError, match=r"task 2 of x\.json has the labels cat, dog; it takes one label per image"):
        read_source(file)
    both = [task("a.png", ["cat"]), task("b.png", ["dog"]), task("c.png", ["sharp"], name="quality")]
    with pytest.raises(InputError, match="holds choices of choice, quality; --label-column says which are the labels"):
        read_source(saved(pets / "y.json", both))
    assert given(read_source(pets / "y.json", label_column="choice")) == {"a.png": "cat", "b.png": "dog"}


def of(annotators: list[Any], made: dict[str, Any]) -> dict[str, Any]:
    """Say who made each annotation of a task: a number, or a person as a snapshot of Label Studio names them."""
    for annotation, who in zip(made["annotations"], annotators, strict=True):
        annotation["completed_by"] = who
    return made


def test_annotators_of_label_studio_are_told_apart_where_they_are_asked_for(pets: Path) -> None:
    ann = {"id": 7, "email": "ann@example.org"}
    tasks = [
        of([ann, 2], task("a.png", ["cat"], ["dog"])),
        of([ann, 2], task("b.png", ["dog"], ["dog"])),
        of([2, ann], task("c.png", ["cat"], ["dog"], cancelled=1)),
    ]
    file = saved(pets / "x.json", tasks)
    divided = read_source(file)
    assert given(divided) == {"b.png": "dog", "c.png": "cat"}
    assert divided.notes == (
        "1 image of x.json on which annotators are divided was left out "
        "(--annotator-column completed_by reads the label of each).",
    )
    source = read_source(file, annotator_column="completed_by")
    assert given(source) == {"a.png": "cat", "b.png": "dog", "c.png": "cat"}
    assert source.annotations is not None
    assert source.annotations.annotators == ("ann@example.org", "2")
    assert source.annotations.image.tolist() == [0, 0, 1, 1, 2]
    assert source.annotations.annotator.tolist() == [0, 1, 0, 1, 1]
    assert [source.class_names[label] for label in source.annotations.label] == ["cat", "dog", "dog", "dog", "cat"]
    assert read_unlabelled(file, Choices(annotator_column="completed_by")).paths == ("b.png", "c.png")
    with pytest.raises(
        InputError, match=r"divided on all 2 images of y\.json that have labels \(--annotator-column com"
    ):
        read_source(saved(pets / "y.json", [tasks[0], tasks[0]]))


def test_annotators_of_label_studio_that_are_not_said_get_a_sentence(pets: Path) -> None:
    tasks = [of([1, None], task("a.png", ["cat"], ["dog"])), of([1, 2], task("b.png", ["dog"], ["dog"]))]
    with pytest.raises(InputError, match=r"1 of 4 annotators in the column 'completed_by' of x\.json is missing"):
        read_source(saved(pets / "x.json", tasks), annotator_column="completed_by")
    with pytest.raises(InputError, match=r"--annotator-column is 'who'; of Label Studio it takes completed_by"):
        read_source(pets / "x.json", annotator_column="who")
    with pytest.raises(InputError, match=r"--annotator-column is 'completed_by', but .*y\.json is not a table"):
        read_source(saved(pets / "y.json", coco()), annotator_column="completed_by")


# -- COCO --


def coco(**changes: Any) -> dict[str, Any]:
    return {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(("a.png", "b.png", "c.png"))],
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [{"id": 0, "image_id": 0, "category_id": 7}, {"id": 1, "image_id": 1, "category_id": 1}],
    } | changes


def test_coco_takes_one_category_per_image(pets: Path) -> None:
    source = read_source(saved(pets / "x.json", coco()))
    assert given(source) == {"a.png": "dog", "b.png": "cat"}
    assert source.notes == ("1 image of x.json without a label was left out.",)


def test_coco_finds_images_in_a_folder_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/b.png", "images/c.png")
    assert given(read_source(saved(tmp_path / "x.json", coco()))) == {"a.png": "dog", "b.png": "cat"}


def test_coco_in_the_folder_of_a_fiftyone_export_is_read_from_the_folder(tmp_path: Path) -> None:
    """As COCODetectionDataset of FiftyOne 1.22 writes it."""
    touch(tmp_path, "data/a.png", "data/b.png", "data/c.png")
    saved(tmp_path / "labels.json", coco())
    assert given(read_source(tmp_path)) == {"a.png": "dog", "b.png": "cat"}
    assert read_source(tmp_path).location == tmp_path / "labels.json"
    with pytest.raises(InputError, match=r"--split is 'test', but labels\.json is one part"):
        read_source(tmp_path, split="test")


def test_categories_of_one_name_are_one_class_with_a_note(pets: Path) -> None:
    categories = [
        {"id": 1, "name": "cat"},
        {"id": 5, "name": "cat"},
        {"id": 7, "name": "dog"},
        {"id": 9, "name": "dog"},
    ]
    made = [{"image_id": image, "category_id": category} for image, category in enumerate((1, 5, 7))]
    source = read_source(saved(pets / "x.json", coco(categories=categories, annotations=made)))
    assert given(source) == {"a.png": "cat", "b.png": "cat", "c.png": "dog"}
    assert source.notes == ("the categories 1 and 5 of x.json are called cat: they are read as one class.",)


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ([(0, 7), (0, 1)], r"the image 0 of x\.json has the categories dog and cat; it takes one label per image"),
        ([(0, 7), (1, 5)], r"annotations of the category 5, which it does not name"),
        ([(0, 7), (9, 1)], r"annotations of the image 9, which it does not list"),
    ],
)
def test_coco_that_contradicts_itself_gets_a_sentence(pets: Path, annotations: Any, message: str) -> None:
    made = [{"image_id": image, "category_id": category} for image, category in annotations]
    with pytest.raises(InputError, match=message):
        read_source(saved(pets / "x.json", coco(annotations=made)))


def test_coco_of_another_shape_gets_a_sentence(pets: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json is not as COCO writes it \(KeyError: 'category_id'\)"):
        read_source(saved(pets / "x.json", coco(annotations=[{"image_id": 0}])))


# -- FiftyOne --


def test_labels_json_of_fiftyone_does_not_take_minus_one_for_the_last_class(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "data/deep/b.jpg", "data/c.png", "data/d.png")
    labels = {"a": 1, "deep/b": {"label": 0, "confidence": 0.5}, "c": -1, "d": None}
    saved(tmp_path / "labels.json", {"classes": ["cat", "dog"], "labels": labels})
    for place in (tmp_path, tmp_path / "labels.json"):
        source = read_source(place)
        assert given(source) == {"a.png": "dog", "b.jpg": "cat"}
        assert source.notes == ("2 images of labels.json without a label were left out.",)
    saved(tmp_path / "labels.json", {"classes": ["cat", "dog"], "labels": labels | {"a": 2}})
    with pytest.raises(InputError, match=r"a of labels\.json has the label 2, but it names 2 classes"):
        read_source(tmp_path)


def test_another_json_gets_a_sentence(pets: Path) -> None:
    with pytest.raises(InputError, match=r"x\.json is of a kind that cannot be read"):
        read_source(saved(pets / "x.json", {"a.png": "cat"}))
    with pytest.raises(InputError, match=r"x\.json does not hold what coco writes"):
        read_source(pets / "x.json", format="coco")
    minimal = [{"id": 1, "image": "a.png", "choice": "cat", "annotator": 1, "annotation_id": 1}]
    with pytest.raises(InputError, match=r"It looks like JSON-MIN of Label Studio: export it as JSON"):
        read_source(saved(pets / "min.json", minimal))


def test_a_label_column_that_means_nothing_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.png", "data/b.png")
    saved(tmp_path / "labels.json", {"classes": ["cat", "dog"], "labels": {"a": 1, "b": 0}})
    for place in (tmp_path, saved(tmp_path / "x.json", coco())):
        with pytest.raises(InputError, match=r"--label-column is 'label', but .* is not a table"):
            read_source(place, label_column="label")


# -- lists --


def test_lines_of_a_path_and_a_number(tmp_path: Path) -> None:
    touch(tmp_path, "a b.png", "c.png", "d.png")
    (tmp_path / "list.txt").write_text("# made by hand\na b.png 3\nc.png 0\n\nd.png 3\n")
    assert given(read_source(tmp_path / "list.txt")) == {"a b.png": "3", "c.png": "0", "d.png": "3"}
    (tmp_path / "x.lst").write_text("0\t3.000000\ta b.png\n1\t0.000000\tc.png\n")
    assert given(read_source(tmp_path / "x.lst")) == {"a b.png": "3", "c.png": "0"}
    (tmp_path / "list.txt").write_text("a b.png 3\nc.png\n")
    with pytest.raises(InputError, match=r"line 2 of list\.txt is 'c\.png'; it takes a path and a label"):
        read_source(tmp_path / "list.txt")


def test_json_lines_as_hugging_face_has_them_beside_images(pets: Path) -> None:
    lines = [{"file_name": "a.png", "label": "cat", "width": 3}, {"file_name": "b.png", "label": "dog", "width": 4}]
    (pets / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    assert given(read_source(pets / "metadata.jsonl")) == {"a.png": "cat", "b.png": "dog"}
    (pets / "metadata.jsonl").write_text('{"file_name": "a.png"\n')
    with pytest.raises(InputError, match=r"line 1 of metadata\.jsonl is no JSON"):
        read_source(pets / "metadata.jsonl")


def test_a_label_that_the_first_record_lacks_is_not_lost(pets: Path) -> None:
    """`datasets.Dataset.from_list` drops a column that the first record has not."""
    lines = [{"path": "a.png"}, {"path": "b.png", "label": "dog"}, {"path": "c.png", "label": "cat"}]
    file = pets / "x.jsonl"
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    with pytest.raises(
        InputError, match=r"1 of 3 labels in the column 'label' of x\.jsonl is missing, the first in row 1"
    ):
        read_source(file)
