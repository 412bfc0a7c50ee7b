"""The report of a finished run: its content, its pictures, and where they are written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cvcoteach._files import replacing
from cvcoteach._progress import Silent, Watcher
from cvcoteach._validation import InputError, IntArray, check_at_least, counted, near, verb
from cvcoteach.data.sources import Source, read_source
from cvcoteach.data.thumbnails import thumbnails
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.page.content import Listed, blind_sample, content_of, image_records, listed
from cvcoteach.pipeline.page.html import page
from cvcoteach.pipeline.page.markdown import markdown
from cvcoteach.pipeline.page.reviews import Reviews, codes_of
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_source import as_in_run, root_of

PAGE = "issues.html"
Format = Literal["html", "markdown", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)

PICTURES = 400
"""Pictures in a page, unless more are asked for."""
MOST_BYTES = 6_500_000
"""Of all pictures of a page; as text a third more."""
PICTURE_SIZE = 128
"""Pixels a side."""


@dataclass(frozen=True)
class ReportSettings:
    """What a report shows.

    Raises InputError for a format that does not exist, a share outside [0, 1), and a negative number.
    """

    format: Format = "html"
    """What is written."""
    pictures: int = PICTURES
    """How many pictures a page holds at most."""
    blind: float = 0.0
    """Share of the images that are drawn at random and shown without our suggestion, in [0, 1)."""
    corrections: Path | None = None
    """What people decided since, see `correct`."""

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise InputError(f"format is {self.format!r}; {near(str(self.format), FORMATS)}")
        check_at_least("pictures", self.pictures, 0)
        if not 0 <= self.blind < 1:
            raise InputError(f"blind is {self.blind}; it is a share of the images, from 0 up to but not including 1.")


def report(run: str | Path, settings: ReportSettings | None = None, watcher: Watcher | None = None) -> str:
    """Return the report of a finished run as text in the format of the settings.

    Pictures are left out, with a note, where the images are no longer where the run found them.

    Args:
        run: The folder of a finished find-issues.
        settings: What to show; None: the defaults.
        watcher: Is told what is left out.

    Raises:
        InputError: The run is not finished or damaged, or the corrections do not fit it.
    """
    settings, watcher = settings or ReportSettings(), watcher or Silent()
    finished = FinishedRun.read(Path(run))
    results = finished.results
    reviews = None
    if settings.corrections is not None:
        sample = blind_sample(results)
        reviews = Reviews.read(settings.corrections, results, root_of(results.source), sample)
    shown = listed(results, settings.blind, None if reviews is None else reviews.decided)
    source = _source(finished, watcher) if settings.format == "html" else None
    with _record_of(results.folder):
        content = content_of(results, finished.record, reviews)
        if settings.format == "html":
            return _page(results, content, shown, source, settings.pictures, reviews)
        records = image_records(results, shown.images)
        if settings.format == "markdown":
            return markdown(content, records)
        return json.dumps({**content, "images": records}, ensure_ascii=False, indent=2) + "\n"


@contextmanager
def _record_of(folder: Path) -> Iterator[None]:
    """Raise InputError for what a damaged run.json makes Python raise: anybody may have edited it."""
    try:
        yield
    except InputError:
        raise
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{folder / 'run.json'} is damaged ({type(error).__name__}: {error}); find the issues again, in another "
            "folder."
        ) from error


def is_page(file: Path) -> bool:
    """Return whether a file that exists is a web page, which a report may replace."""
    with open(file, "rb") as opened:
        return opened.read(15).lower() in (b"", b"<!doctype html>")


def write_page(
    file: Path, results: RunResults, record: Mapping[str, Any], source: Source, reviews: Reviews | None = None
) -> None:
    """Write the page of a run that has just finished.

    record: the content of its run.json; source: the images that the run judged, in its order; reviews: what people
    decided since.

    Raises InputError where the disk is full.
    """
    shown = listed(results, reviewed=None if reviews is None else reviews.decided)
    text = _page(results, content_of(results, record, reviews), shown, source, PICTURES, reviews)
    with replacing(file) as out:
        out.write(text.encode("utf-8", "replace"))


def _page(
    results: RunResults,
    content: dict[str, Any],
    shown: Listed,
    source: Source | None,
    most: int,
    reviews: Reviews | None,
) -> str:
    blind, decisions = np.isin(shown.images, shown.blind), codes_of(reviews, shown.images, results)
    records = [
        {**record, "blind": bool(unseen), "decision": decision}
        for record, unseen, decision in zip(image_records(results, shown.images), blind, decisions, strict=True)
    ]
    pictures: list[bytes | None] = [None] * len(shown.images)
    if source is not None:
        places = pictured(results, shown, most)
        room = MOST_BYTES
        for place, picture in zip(places, thumbnails(source, shown.images[places], PICTURE_SIZE, "JPEG"), strict=True):
            room -= len(picture or b"")
            if room < 0:
                break
            pictures[place] = picture
    return page(content, records, pictures)


def pictured(results: RunResults, shown: Listed, most: int) -> IntArray:
    """Return the places in `shown.images` of the images with a picture: all blind ones, the most doubtful, and of each
    pair of classes the most doubtful, so that each cell of the matrix has some.
    """
    found = results.found
    pair = found.labels[shown.images] * found.n_classes + found.suggested[shown.images]
    order = np.argsort(pair, kind="stable")
    first = np.r_[True, pair[order][1:] != pair[order][:-1]]
    start = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order)) - start
    place = np.arange(len(order))
    # half by doubt alone; a pair's third image is as urgent as the image two thirds down the first half
    urgency = np.minimum(place, most // 2 + rank * max(most // 8, 1) + place / max(len(place), 1))
    urgency = np.where(np.isin(shown.images, shown.blind), -1, urgency)
    return np.sort(np.argsort(urgency, kind="stable")[:most])


def _source(run: FinishedRun, watcher: Watcher) -> Source | None:
    """Return the run's images, in its order; None, with a note, where they are not there any more."""
    location = Path(run.results.source)
    choices = as_in_run(run.results.folder, run.record, location)
    try:
        data = read_source(location, **asdict(choices))
    except InputError as error:
        watcher.note(f"The page has no pictures: {error}")
        return None
    if data.paths == run.results.paths:
        return data
    place = {path: row for row, path in enumerate(data.paths)}
    rows = [place.get(path, -1) for path in run.results.paths]
    if (n := rows.count(-1)) > 0:
        watcher.note(
            f"The page has no pictures: {counted(n, 'image')} of the run "
            f"{verb(n, 'is', 'are')} not in {location} any more."
        )
        return None
    return data.subset(np.array(rows, np.int64))
