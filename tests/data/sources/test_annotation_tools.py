"""CVAT's XML and Datumaro's JSON, with the content that Datumaro 1.13.12 exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from tests.data.sources.files import touch, write
from tests.data.sources.test_annotations import given, saved

META = """<meta><task><name>train</name><size>4</size><labels>
<label><name>cat</name><attributes></attributes></label><label><name>dog</name></label></labels></task></meta>"""
BOX = '<box label="dog" occluded="0" xtl="0.00" ytl="0.00" xbr="2.00" ybr="2.00" z_order="0"></box>'


def image(name: str, *tags: str, more: str = "", subset: str = "") -> str:
    inside = "".join(
        f'<tag label="{tag}" source="manual"><attribute name="blurred">no</attribute></tag>' for tag in tags
    )
    part = f' subset="{subset}"' if subset else ""
    return f'<image id="0" name="{name}"{part} width="6" height="6">{inside}{more}</image>'


def cvat(*images: str, head: str = "") -> str:
    body = "\n".join(images)
    return f'<?xml version="1.0" encoding="utf-8"?>{head}<annotations><version>1.1</version>{META}{body}</annotations>'


# -- CVAT --


def test_tags_of_cvat_are_labels_and_boxes_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/sub/b.png", "images/c.png", "images/d.png")
    text = cvat(
        image("a.png", "cat"), image("sub/b.png", "dog", more=BOX), image("c.png", more=BOX), image("d.png", "cat")
    )
    file = write(tmp_path / "annotations.xml", text)
    for place in (file, tmp_path):
        source = read_source(place)
        assert given(source) == {"a.png": "cat", "b.png": "dog", "d.png": "cat"}
        assert source.notes == ("1 image of annotations.xml without a tag was left out.",)


def test_parts_of_cvat_are_files_or_subsets(tmp_path: Path) -> None:
    touch(tmp_path, "images/a.png", "images/train/b.png", "images/val/c.png", "images/d.png")
    for name, text in (
        ("train", cvat(image("a.png", "cat"), image("d.png", "dog"))),
        ("val", cvat(image("b.png", "cat", subset="train"), image("c.png", "dog", subset="val"))),
    ):
        write(tmp_path / f"{name}.xml", text)
    source = read_source(tmp_path)
    assert given(source) == {"a.png": "cat", "d.png": "dog", "b.png": "cat", "c.png": "dog"}
    assert source.splits is not None
    assert source.splits.tolist() == ["train", "train", "val", "val"]
    subsets = read_source(tmp_path / "val.xml")
    assert (given(subsets), subsets.location) == ({"b.png": "cat", "c.png": "dog"}, tmp_path / "val.xml")
    assert subsets.splits is not None
    assert subsets.splits.tolist() == ["train", "val"]
    assert given(read_source(tmp_path / "val.xml", split="val", least_classes=1)) == {"c.png": "dog"}
    with pytest.raises(InputError, match="--split is 'test', but"):
        read_source(tmp_path, split="test")


def test_xml_that_is_not_cvats_or_is_dangerous_gets_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    bomb = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>'
    for text, said in (
        (cvat(image("a.png", "&b;"), head=bomb), "defines a document type, which CVAT does not write; it is not read"),
        (cvat(image("a.png", "cat"))[:-20], r"x\.xml is no XML"),
        (cvat(), "lists no images; it takes CVAT for images"),
        (cvat(image("a.png", "cat", "dog")), r"a\.png in x\.xml has the tags cat, dog; it takes one label per image"),
        (cvat(image("a.png"), image("b.png")), r"none of the 2 images of x\.xml has a label"),
    ):
        with pytest.raises(InputError, match=said):
            read_source(write(tmp_path / "x.xml", text))
    with pytest.raises(InputError, match=r"x\.xml is no XML of CVAT: it begins with <folder>"):
        read_source(write(tmp_path / "x.xml", "<folder><annotations/></folder>"))


# -- Datumaro --


def item(name: str, *labels: int, path: str | None = None) -> dict[str, Any]:
    made = [{"id": 0, "type": "label", "attributes": {}, "group": 0, "label_id": label} for label in labels]
    box = {"id": 0, "type": "bbox", "attributes": {}, "group": 0, "label_id": 1, "z_order": 0, "bbox": [0, 0, 2, 2]}
    return {"id": name, "annotations": [*made, box], "image": {"path": path or f"{name}.png", "size": [6, 6]}}


def datumaro(*items: dict[str, Any]) -> dict[str, Any]:
    labels = [{"name": name, "parent": "", "attributes": []} for name in ("cat", "dog")]
    return {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": labels, "label_groups": [], "attributes": []}},
        "items": list(items),
    }


def test_labels_of_datumaro_and_its_subsets(tmp_path: Path) -> None:
    touch(tmp_path, "images/train/a.png", "images/train/sub_b.png", "images/c.png", "images/val/d.png")
    (tmp_path / "annotations").mkdir()
    train = [item("a", 0), item("sub/b", 1, path="sub_b.png"), item("c", 1), item("e")]
    saved(tmp_path / "annotations" / "train.json", datumaro(*train))
    saved(tmp_path / "annotations" / "val.json", datumaro(item("d", 0)))
    source = read_source(tmp_path)
    train_alone = {"a.png": "cat", "sub_b.png": "dog", "c.png": "dog"}
    assert given(source) == train_alone | {"d.png": "cat"}
    assert source.notes == ("1 image of train.json without a label was left out.",)
    assert given(read_source(tmp_path, split="val", least_classes=1)) == {"d.png": "cat"}
    assert given(read_source(tmp_path / "annotations" / "train.json")) == train_alone
    saved(tmp_path / "annotations" / "train-fixed.json", datumaro(item("a", 1), item("c", 0)))
    with pytest.raises(InputError, match=r"train and train-fixed of .* both hold .*a\.png; --split reads one of them"):
        read_source(tmp_path)
    assert given(read_source(tmp_path, split="train")) == train_alone


def test_datumaro_that_contradicts_itself_gets_a_sentence(tmp_path: Path) -> None:
    touch(tmp_path, "images/x/a.png", "annotations/y")
    file = tmp_path / "annotations" / "x.json"
    for content, said in (
        (datumaro(item("a", 0, 1)), r"the item a of x\.json has the labels cat, dog; it takes one label per image"),
        (datumaro(item("a", 7)), r"the item a of x\.json has the label 7, but it names 2 classes"),
        (datumaro({"id": "a"}), r"x\.json is not as Datumaro writes it \(KeyError: 'annotations'\)"),
        (datumaro(item("a")), r"none of the 1 images of x\.json has a label"),
    ):
        with pytest.raises(InputError, match=said):
            read_source(saved(file, content))
    with pytest.raises(InputError, match=r"but x\.json is one part; name the folder of them"):
        read_source(saved(file, datumaro(item("a", 0))), split="val")
    with pytest.raises(InputError, match="does not hold what datumaro writes"):
        read_source(saved(file, json.loads("[]")), format="datumaro")


def test_two_items_of_one_file_with_different_labels_get_a_sentence(tmp_path: Path) -> None:
    """Datumaro writes `a/b` and `a_b` into one file, the latter over the former."""
    touch(tmp_path, "images/x/a_b.png", "annotations/y")
    file = saved(
        tmp_path / "annotations" / "x.json",
        datumaro(item("a/b", 0, path="a_b.png"), item("a_b", 1, path="a_b.png")),
    )
    with pytest.raises(InputError, match=r"a_b\.png is cat and dog; it takes one label per image"):
        read_source(file)
