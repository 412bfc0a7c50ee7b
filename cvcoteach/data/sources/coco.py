"""COCO-style JSON whose annotations give each image one category."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.json_file import beside, content_of, json_format, table_of
from cvcoteach.data.sources.source import Choices


def _is_coco(content: Any) -> bool:
    return isinstance(content, dict) and all(isinstance(content.get(k), list) for k in ("images", "annotations"))


def open_coco(file: Path, choices: Choices) -> Table:
    """Return the images of a COCO file whose annotations give each of them one category.

    Raises:
        InputError: where an image has annotations of several categories, and for numbers that name nothing.
    """
    content = content_of(file)
    try:
        names = {each["id"]: str(each["name"]) for each in content.get("categories") or []}
        given: dict[Any, Any] = {}
        for annotation in content["annotations"]:
            image, category = annotation["image_id"], annotation["category_id"]
            if given.setdefault(image, category) != category:
                raise InputError(
                    f"the image {image} of {file.name} has the categories {names.get(given[image], given[image])} and "
                    f"{names.get(category, category)}; it takes one label per image."
                )
        unnamed = sorted({category for category in given.values() if names and category not in names})
        if unnamed:
            raise InputError(f"{file.name} has annotations of the category {unnamed[0]}, which it does not name.")
        rows = [
            (beside(file, image["file_name"]), names.get(given[image["id"]], given[image["id"]]))
            for image in content["images"]
            if image["id"] in given
        ]
        known = {image["id"] for image in content["images"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file.name} is not as COCO writes it ({type(error).__name__}: {error}).") from None
    lost = [image for image in given if image not in known]
    if lost:
        raise InputError(f"{file.name} has annotations of the image {lost[0]}, which it does not list.")
    return table_of(file, rows, len(content["images"]) - len(rows), "without a label")


FORMAT = json_format("coco", _is_coco, open_coco)
