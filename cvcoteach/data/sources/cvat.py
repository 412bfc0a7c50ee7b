"""CVAT for images 1.1: an XML file with the tags of each image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple
from xml.parsers import expat

from cvcoteach._validation import InputError
from cvcoteach.data.sources.columns import Table
from cvcoteach.data.sources.json_file import beside, of_folder, table_of
from cvcoteach.data.sources.source import Choices, Format, Source, chosen_split, count
from cvcoteach.data.sources.table import read_table, read_table_unlabelled

_ROOT = "annotations"
_HEAD = 4096
_BLOCK = 2**20


class Image(NamedTuple):
    """An image of a CVAT file."""

    name: str
    subset: str
    """Empty where there is none."""
    tags: list[str]


def recognises(location: Path) -> bool:
    """Return whether a path is an XML file of CVAT, or a folder that holds some."""
    return bool(_files(location))


def _files(location: Path) -> dict[str, Path]:
    """Return the XML files of CVAT of a path, by what stands before their ending."""
    if not location.is_dir():
        return {location.stem: location} if _is_cvat(location) else {}
    return {file.stem: file for file in sorted(location.glob("*.xml")) if _is_cvat(file)}


def _is_cvat(file: Path) -> bool:
    if file.suffix.lower() != ".xml" or not file.is_file():
        return False
    try:
        with open(file, "rb") as opened:
            return b"<annotations" in opened.read(_HEAD)
    except OSError:
        return False


def splits_of(location: Path, choices: Choices) -> list[str]:
    """Return the splits of a path: its files, or of one file the subsets of its images; none where there is but one."""
    files = _files(location)
    if len(files) > 1:
        return list(files)
    subsets = _subsets(images_in(file)) if (file := next(iter(files.values()), None)) else []
    return subsets if len(subsets) > 1 else []


def _subsets(images: list[Image]) -> list[str]:
    return list(dict.fromkeys(image.subset for image in images if image.subset))


def file_of(location: Path, choices: Choices) -> Path:
    """Return the file to read: of several in a folder that of the split that was named, or else of train."""
    files = _files(location) or {location.stem: location}
    return files[chosen_split(list(files), choices, location.name)[0]] if len(files) > 1 else next(iter(files.values()))


def subset_of(location: Path, choices: Choices) -> str | None:
    """Return the subset to read of the file: the split that was named, unless that names the file."""
    return None if len(_files(location)) > 1 else choices.split


def chosen_images(file: Path, images: list[Image], split: str | None) -> list[Image]:
    """Return those of the images of a file that are of the subset that was named; None: all.

    Raises:
        InputError: for files that are something else, and for a subset that is not there.
    """
    if not images:
        raise InputError(f"{file.name} lists no images; it takes CVAT for images 1.1, not CVAT for video.")
    if split is None:
        return images
    subsets = _subsets(images)
    chosen, _ = chosen_split(subsets or ["all"], Choices(split=split), file.name)
    return [image for image in images if image.subset == chosen or not subsets]


def open_cvat(location: Path, choices: Choices) -> Table:
    """Return the images of a CVAT file that have a tag, of one part where there are several.

    Raises:
        InputError: where an image has several tags, and for files that are something else.
    """
    file = file_of(location, choices)
    split, everything = subset_of(location, choices), images_in(file)
    images = chosen_images(file, everything, split)
    several = next((image for image in images if len(image.tags) > 1), None)
    if several is not None:
        raise InputError(
            f"{several.name} in {file.name} has the tags {', '.join(several.tags[:5])}; it takes one label per image."
        )
    rows: list[tuple[str, Any]] = [
        (beside(file, image.name, image.subset), image.tags[0]) for image in images if image.tags
    ]
    table = table_of(file, rows, len(images) - len(rows), "without a tag")
    nowhere = sum(not image.subset for image in everything)
    if split is None or not nowhere or nowhere == len(everything):
        return table
    verb = "was" if nowhere == 1 else "were"
    left_out = f"{count(nowhere, 'image')} of {file.name} in no subset {verb} left out."
    return replace(table, notes=(*table.notes, left_out))


def images_in(file: Path) -> list[Image]:
    """Return the images of a file with their tags. Raises InputError for what is no such file."""
    found = _Images()
    parsed(file, found.start, found.end)
    return found.images


def parsed(
    file: Path,
    start: Callable[[str, dict[str, str]], None],
    end: Callable[[str], None],
    at: Callable[[int], None] = lambda place: None,
) -> None:
    """Call `start` and `end` for the elements of an XML file whose root is that of CVAT, and `at` before with the byte.

    A document type, which could define entities that name files or grow without end, is refused.

    Raises:
        InputError: for anything that is no such file.
    """
    parser = expat.ParserCreate()
    depth = 0

    def opened(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        if not depth and name != _ROOT:
            raise InputError(f"{file.name} is no XML of CVAT: it begins with <{name}>, not with <{_ROOT}>.")
        depth += 1
        at(parser.CurrentByteIndex)
        start(name, attributes)

    def closed(name: str) -> None:
        nonlocal depth
        depth -= 1
        at(parser.CurrentByteIndex)
        end(name)

    def refused(*_: object) -> None:
        raise InputError(f"{file.name} defines a document type, which CVAT does not write; it is not read.")

    parser.StartElementHandler, parser.EndElementHandler = opened, closed
    parser.StartDoctypeDeclHandler = refused
    try:
        with open(file, "rb") as content:
            while block := content.read(_BLOCK):
                parser.Parse(block, False)
            parser.Parse(b"", True)
    except InputError:
        raise
    except (expat.ExpatError, ValueError, LookupError) as error:  # the last two for encodings that it does not know
        raise InputError(f"{file.name} is no XML ({error}).") from None
    except OSError as error:
        raise InputError(f"{file} cannot be read ({error.strerror or error}).") from None


@dataclass
class _Images:
    """Gathers the images and their tags."""

    images: list[Image] = field(default_factory=list)
    inside: bool = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """See an element."""
        if name == "image":
            self.images.append(Image(attributes.get("name", ""), attributes.get("subset", ""), []))
            self.inside = True
        elif name == "tag" and self.inside and "label" in attributes:
            self.images[-1].tags.append(attributes["label"])

    def end(self, name: str) -> None:
        """See the end of an element."""
        self.inside = self.inside and name != "image"


def read(location: Path, choices: Choices) -> Source:
    """Return the images and labels of a CVAT file, or of one split's of a folder."""
    source = read_table(open_cvat(location, choices), Choices(path_pattern=choices.path_pattern))
    return of_folder(location, source, choices.split)


def read_unlabelled(location: Path, choices: Choices) -> Source:
    """Return the images of a CVAT file that have a tag."""
    return read_table_unlabelled(open_cvat(location, choices), Choices(path_pattern=choices.path_pattern))


_TAKES = frozenset(["path_pattern", "split"])
FORMAT = Format(recognises, read, read_unlabelled, lambda *_: True, _TAKES, "cvat", splits_of)
