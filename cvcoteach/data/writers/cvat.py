"""CVAT's XML, written as it was, to the byte, but for the tags that changed and the images left out."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import quoteattr

from cvcoteach._files import replacing
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, cvat
from cvcoteach.data.writers.annotation_json import check_beside, check_labels
from cvcoteach.data.writers.copy import Copy

_TAG = re.compile(rb"""<tag(?:[^>"']|"[^"]*"|'[^']*')*>""")
_LABEL = re.compile(rb"""(\slabel\s*=\s*)("[^"]*"|'[^']*')""")


def recognises(source: Source) -> bool:
    """Return whether a source is an XML file of CVAT."""
    return source.array is None and source.location.is_file() and cvat.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the copy is to lie beside the source: its images are looked for from there."""
    check_beside(copy, destination)


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write the file as `edited` makes it."""
    content = edited(copy.source.location, copy, copy.choices.split)
    with replacing(destination) as out:
        out.write(content)
    n = int(copy.kept.sum())
    on_image(n, n)


def edited(file: Path, copy: Copy, split: str | None) -> bytes:
    """Return the content of a file without the images left out, with the new labels where they changed.

    split: The subset that was read; None for all, in the order of their splits.

    Raises InputError where the file has changed since it was read, or is not in UTF-8.
    """
    places = _Places()
    cvat.parsed(file, places.start, places.end, places.at)
    content = file.read_bytes()
    chosen = {image.subset for image in cvat.chosen_images(file, cvat.images_in(file), split)}
    images = [image for image in places.images if image.tags and image.subset in chosen]
    if copy.source.splits is not None:
        order = {name: number for number, name in enumerate(dict.fromkeys(copy.source.splits.tolist()))}
        images = sorted([image for image in images if image.subset in order], key=lambda image: order[image.subset])
    labels = [image.tags[0] for image in images]
    check_labels(copy, labels)
    pieces, at = [], 0
    for row, image in sorted(enumerate(images), key=lambda pair: pair[1].start):
        if not copy.kept[row]:
            pieces.append(content[at : image.start].rstrip(b" \t\r\n"))
            at = content.index(b">", image.end) + 1
        elif copy.donors[row] != row:
            tag = _TAG.match(content, image.tag_start)
            label = None if tag is None else _LABEL.search(content, tag.start(), tag.end())
            if label is None:
                raise InputError(f"{file.name} is not in UTF-8; save it so.")
            pieces += [content[at : label.start(2)], quoteattr(labels[copy.donors[row]]).encode()]
            at = label.end(2)
    return b"".join([*pieces, content[at:]])


@dataclass
class _Place:
    """Where an image and its tag stand in the file, bytes."""

    subset: str
    start: int
    end: int = -1
    """Of its end tag, or of itself where it is empty."""
    tag_start: int = -1
    tags: list[str] = field(default_factory=list)


@dataclass
class _Places:
    """Gathers them."""

    images: list[_Place] = field(default_factory=list)
    now: int = 0
    inside: bool = False

    def at(self, place: int) -> None:
        """Hear where the next element begins, or ends."""
        self.now = place

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """See an element."""
        if name == "image":
            self.images.append(_Place(attributes.get("subset", ""), self.now))
            self.inside = True
        elif name == "tag" and self.inside and "label" in attributes:
            self.images[-1].tags.append(attributes["label"])
            self.images[-1].tag_start = self.now

    def end(self, name: str) -> None:
        """See the end of an element."""
        if name == "image":
            self.images[-1].end, self.inside = self.now, False
