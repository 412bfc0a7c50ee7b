"""A finished run -> everything that its report says, ready for JSON. Nothing here is drawn or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cvcoteach._files import digest
from cvcoteach._validation import BoolArray, InputError, IntArray
from cvcoteach.issues.precision_recall import Interval
from cvcoteach.issues.reviews import ReviewSample, review_sample
from cvcoteach.issues.summary import sentences
from cvcoteach.pipeline.annotators import sentence as annotator_sentence
from cvcoteach.pipeline.page.reviews import Reviews
from cvcoteach.pipeline.results import RunResults

MOST_LISTED = 20_000
"""Images in a report, the most doubtful ones."""
UNFLAGGED_LISTED = 100
"""Images that are not flagged at the end of the list, the most doubtful of them."""
MOST_PAIRS = 500
"""Pairs of classes in a report."""
BLIND_SEED = 0
"""Of the images that are shown without the suggestion."""


@dataclass(frozen=True, eq=False)
class Listed:
    """The images that a report shows, worst first, those to be judged blind in between."""

    images: IntArray
    """(m,) indices of the run's images."""
    blind: IntArray
    """(b,) those of them that are shown without our suggestion, in the order in which they were drawn."""


def listed(results: RunResults, blind: float = 0.0, reviewed: BoolArray | None = None) -> Listed:
    """Return the images to show: copies with different labels, the flagged, and some that are not.

    Args:
        results: The run.
        blind: Share of the images shown that are drawn at random, flagged or not, and shown without our suggestion.
        reviewed: (n,) images that are shown in any case, since their reviews are saved with the others; None: none.

    Raises:
        InputError: For a share outside [0, 1), and where nothing is flagged that could be judged blind.
    """
    if not 0 <= blind < 1:
        raise InputError(f"blind is {blind}; it is a share of the images, from 0 up to but not including 1.")
    order, flags = results.worst_first(), results.found.is_label_issue | results.contradiction
    images = np.concatenate([order[flags[order]], order[~flags[order]][:UNFLAGGED_LISTED]])[:MOST_LISTED]
    if reviewed is not None:
        images = np.concatenate([images, np.setdiff1d(np.flatnonzero(reviewed), images)])
    if not blind:
        return Listed(images, np.empty(0, np.int64))
    most = min(max(round(blind * len(images) / (1 - blind)), 1), len(order))
    drawn = review_sample(results.found, most, seed=BLIND_SEED).indices
    n_shown = len(images) + np.cumsum(~np.isin(drawn, images))  # some of those drawn are shown anyway
    drawn = drawn[: int(np.argmin(np.abs(np.arange(1, most + 1) / n_shown - blind))) + 1]
    rest = images[~np.isin(images, drawn)]
    places = np.linspace(0, len(rest), len(drawn), endpoint=False).astype(np.int64)
    return Listed(np.insert(rest, places, drawn), drawn)


def content_of(results: RunResults, record: Mapping[str, Any], reviews: Reviews | None = None) -> dict[str, Any]:
    """Return what a report says, all but its images.

    Args:
        results: The run.
        record: The content of its run.json.
        reviews: What people decided since.
    """
    earlier = [] if reviews is None else [reviews.key]
    return {
        "title": f"Label issues in {_name(results)}",
        "key": digest("\0".join(results.paths), results.labels, *results.class_names, *earlier),
        "folder": str(results.folder),
        "source": results.source,
        "summary": dict(results.summary),
        "sentences": [
            *sentences(results.summary),
            *([annotator_sentence(results.summary)] if "annotators" in results.summary else []),
        ],
        "note": "" if results.found.has_signal else results.found.note,
        "confusions": results.found.confusions().head(MOST_PAIRS).round(4).to_dict("records"),
        "classes": classes(results).to_dict("records"),
        "rounds": [dict(record) for record in results.rounds],
        "reviews": None if reviews is None else reviews.figures(results),
        "settings": _flat(record.get("identity", {})),
        "machine": _flat({**record.get("machine", {}), **record.get("plan", {})}),
        "versions": dict(record.get("versions", {})),
        "seconds": round(sum(part["seconds"] for part in record.get("timings", [])), 1),
        "n_unreadable": len(results.unreadable),
        "n_duplicates": int((results.duplicate_of >= 0).sum()),
        "n_near_copies": int(((results.near_copy_of >= 0) & (results.duplicate_of < 0)).sum()),
        "n_contradictions": int(results.contradiction.sum()),
        "n_near_contradictions": int((results.contradiction & ~results.found.exact_contradiction).sum()),
    }


def classes(results: RunResults) -> pd.DataFrame:
    """Return a row per class: name, n_images, n_flagged, noise_rate (None without a signal), n_suggested (flagged
    images of other classes that look like it).
    """
    found, k = results.found, len(results.class_names)
    flags = found.is_label_issue
    rate = found.noise_ratio_per_class
    return pd.DataFrame(
        {
            "name": list(results.class_names),
            "n_images": np.bincount(found.labels, minlength=k),
            "n_flagged": np.bincount(found.labels[flags], minlength=k),
            "noise_rate": pd.Series([None if np.isnan(r) else round(float(r), 4) for r in rate], dtype=object),
            "n_suggested": np.bincount(found.suggested[flags & (found.suggested != found.labels)], minlength=k),
        }
    )


def image_records(results: RunResults, images: IntArray) -> list[dict[str, Any]]:
    """Return a record per image: path, given, suggested (names), wrong, suggested_prob, flagged, copies and stranger.

    `copies` names the other classes that copies of the image were given, `near` says that no exact one was; a
    `stranger` belongs to no class.
    """
    found, names, copies = results.found, results.class_names, _labels_of_copies(results)
    stranger, near = found.is_stranger, found.contradiction & ~found.exact_contradiction
    return [
        {
            "path": results.paths[i],
            "given": names[found.labels[i]],
            "suggested": names[found.suggested[i]],
            "wrong": round(float(found.wrong[i]), 4),
            "suggested_prob": round(float(found.suggested_prob[i]), 4),
            "flagged": bool(found.is_label_issue[i]),
            "copies": copies.get(i, []),
            "near": bool(near[i]),
            "stranger": bool(stranger[i]),
        }
        for i in images.tolist()
    ]


def _labels_of_copies(results: RunResults) -> dict[int, list[str]]:
    """Return, by image, the other classes that its exact or near copies were given, where there are any."""
    images = np.flatnonzero(results.contradiction)
    first = results.found.first_copy[images]
    given: dict[int, set[int]] = {}
    for group, label in zip(first.tolist(), results.labels[images].tolist(), strict=True):
        given.setdefault(group, set()).add(label)
    names = results.class_names
    return {
        i: [names[label] for label in sorted(given[group] - {int(results.labels[i])})]
        for i, group in zip(images.tolist(), first.tolist(), strict=True)
    }


def copies_sentence(content: Mapping[str, Any]) -> str:
    """Return what there is to say about copies, in one or two sentences; empty for none."""
    n, near = content["n_duplicates"], content["n_near_copies"]
    differ = content["n_near_contradictions"]
    against, said = content["n_contradictions"] - differ, []
    if n:
        copies = f"{n:,} {'image is an exact copy' if n == 1 else 'images are exact copies'} of another one"
        contradict = "image contradicts a copy by its" if against == 1 else "images contradict a copy by their"
        said.append(f"{copies}; {against:,} {contradict} label." if against else f"{copies}.")
    if near:
        copies = f"{near:,} {'image is a near copy' if near == 1 else 'images are near copies'} of another one"
        said.append(f"{copies}; {differ:,} near copies have different labels." if differ else f"{copies}.")
    return " ".join(said)


_SINCE = (
    ("fixed", "flagged then, changed since, not flagged now"),
    ("still_flagged", "flagged then and now"),
    ("new", "flagged now only"),
    ("cleared", "flagged then, unchanged, no longer flagged"),
    ("labels_changed", "of all labels"),
    ("images_added", ""),
    ("images_removed", ""),
)
"""Figures of `earlier_runs.difference`, and what they count."""


def since_rows(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what has changed since the run before, as rows of name, number and meaning; empty where there is none."""
    since = content["summary"].get("since")
    if since is None:
        return []
    return [(name.replace("_", " "), f"{since[name]:,}", meaning) for name, meaning in _SINCE]


def since_title(content: Mapping[str, Any]) -> str:
    """Return the heading over `since_rows`."""
    return f"Since the run in {Path(content['summary']['since']['run']).name}"


def blind_sample(results: RunResults, most: int = 2_000) -> ReviewSample | None:
    """Return the images that reports show blind, in the order drawn; None where nothing is flagged."""
    if not results.found.n_issues:
        return None
    return review_sample(results.found, min(most, len(results.paths)), seed=BLIND_SEED)


def interval_text(interval: Interval | Mapping[str, float] | None) -> str:
    """Return "84% (78% to 90%)", or "not known"."""
    if interval is None:
        return "not known"
    values = asdict(interval) if isinstance(interval, Interval) else interval
    return f"{values['estimate']:.0%} ({values['low']:.0%} to {values['high']:.0%})"


def _name(results: RunResults) -> str:
    return results.source.rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1] or results.source


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested records as one, with dotted names; digests, which nobody reads, are left out."""
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": found for inner, found in _flat(value).items()}
        elif not name.endswith("_digest"):
            flat[name] = value
    return flat
