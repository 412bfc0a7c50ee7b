"""The fields that a run keeps on every sample: their names, and reading and writing them in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import fiftyone as fo
import numpy as np
import numpy.typing as npt
from bson import ObjectId
from bson.errors import InvalidId
from pymongo import UpdateOne

from cvcoteach._validation import InputError, near
from cvcoteach.issues.label_issues import LabelIssues

UNREVIEWED, ACCEPTED, KEPT, SET, EXCLUDED = STATUSES = ("unreviewed", "accepted", "kept", "set", "excluded")

_CHUNK = 10_000
"""Samples per bulk write: memory stays flat, and there are few round trips."""

Ids = npt.NDArray[np.bytes_]
"""(n,) sample ids as 24 hex digits."""


@dataclass(frozen=True)
class Fields:
    """The names of the fields of the run `key`."""

    key: str

    @property
    def is_issue(self) -> str:
        """Whether the label is flagged."""
        return f"{self.key}_is_issue"

    @property
    def quality(self) -> str:
        """Probability that the given label is right, in [0, 1]."""
        return f"{self.key}_quality"

    @property
    def wrong(self) -> str:
        """Probability that it is wrong."""
        return f"{self.key}_wrong"

    @property
    def suggested(self) -> str:
        """The most probable true label, a Classification with its probability as confidence."""
        return f"{self.key}_suggested"

    @property
    def review(self) -> str:
        """What a person decided: one of STATUSES."""
        return f"{self.key}_review"

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the five fields that every run has."""
        return iter((self.is_issue, self.quality, self.wrong, self.suggested, self.review))

    def of(self, what: str) -> str:
        """The field of one of FURTHER."""
        return f"{self.key}_{what}"

    @property
    def all(self) -> tuple[str, ...]:
        """All names, FURTHER included."""
        return (*self, *map(self.of, FURTHER))


def check_label_field(samples: Any, label_field: str) -> None:
    """Raise InputError unless `label_field` holds one Classification per sample, of images."""
    if samples._is_generated:
        raise InputError("the view shows parts of images (patches, frames or clips); go back to whole images.")
    if samples.media_type not in (fo.core.media.IMAGE, None):
        raise InputError(f"{samples._dataset.name} holds {samples.media_type}s; labels of whole images are checked.")
    schema = samples.get_field_schema()
    field = schema.get(label_field)
    if field is None:
        known = label_fields(samples)
        raise InputError(
            f"there is no field {label_field!r}; "
            + (near(label_field, known) if known else "the dataset has no Classification field.")
        )
    kind = getattr(field, "document_type", None)
    if kind is fo.Classification:
        return
    if kind in (fo.Detections, fo.Detection, fo.Polylines, fo.Polyline, fo.Keypoints, fo.Keypoint, fo.Segmentation):
        raise InputError(
            f"{label_field} holds {kind.__name__}; only labels of whole images (Classification) are checked. "
            "To check boxes, cut them out with `to_patches` and export them as images first."
        )
    held = kind.__name__ if kind is not None else type(field).__name__.removesuffix("Field")
    raise InputError(f"{label_field} holds {held}; it takes a Classification field, one label per image.")


def label_fields(samples: Any) -> list[str]:
    """Return the fields that could be checked: Classifications that are not a run's suggestions."""
    schema = samples.get_field_schema(ftype=fo.EmbeddedDocumentField, embedded_doc_type=fo.Classification)
    ours = {Fields(key).suggested for key in samples._dataset.list_brain_runs()}
    return [name for name in schema if name not in ours]


_DECLARED: tuple[tuple[Any, dict[str, Any], str], ...] = (
    (fo.BooleanField, {}, "The given label is probably wrong"),
    (fo.FloatField, {}, "Probability that the given label is right"),
    (fo.FloatField, {}, "Probability that the given label is wrong"),
    (fo.EmbeddedDocumentField, {"embedded_doc_type": fo.Classification}, "Most probable label"),
    (fo.StringField, {}, "What a person decided: " + ", ".join(STATUSES)),
)
"""Type, options and description of each of the five fields; by its description a run recognizes its own."""

FURTHER: Mapping[str, tuple[Any, str]] = {
    "contradiction": (fo.BooleanField, "An exact or a near copy of the image has another label"),
    "duplicate_of": (fo.StringField, "Id of the first sample with the same content"),
    "near_copy_of": (fo.StringField, "Id of the first sample that shows the same picture, but for small changes"),
    "none_of_these": (fo.BooleanField, "The image probably belongs to none of the classes"),
    "stranger": (fo.FloatField, "Probability that the image belongs to none of the classes"),
    "overlap": (fo.StringField, "A class that the models cannot tell from the given one"),
    "at_risk": (fo.BooleanField, "Few labels of the given class are right: look before accepting"),
    "n_annotators": (fo.IntField, "How many annotators labelled the image"),
    "agreement": (fo.FloatField, "Share of the annotators that gave the label"),
}
"""Type and description of the fields that a run has where there is something to show."""


def _declared(fields: Fields) -> dict[str, tuple[Any, dict[str, Any], str]]:
    """Return type, options and description of every field, by name."""
    declared = dict(zip(fields, _DECLARED, strict=True))
    for what, (kind, description) in FURTHER.items():
        declared[fields.of(what)] = (kind, {}, description)
    return declared


def declare(dataset: Any, fields: Fields, further: Sequence[str] = ()) -> None:
    """Add the five fields, and those of FURTHER that are named, to the schema, and group them in the App's sidebar."""
    names, declared = [*fields, *map(fields.of, further)], _declared(fields)
    for name in names:
        kind, options, description = declared[name]
        dataset.add_sample_field(name, kind, description=description, **options)
    for name in (fields.quality, fields.review):
        dataset.create_index(name)
    _group(dataset, fields.key, names)


def further(ids: Ids, issues: LabelIssues) -> dict[str, list[Any]]:
    """Return what a run knows beyond the five fields, n values for each of FURTHER that has something to show."""
    found: dict[str, list[Any]] = {}
    if (contradiction := issues.contradiction).any():
        found["contradiction"] = contradiction.tolist()
    for what, copy_of in (("duplicate_of", issues.duplicate_of), ("near_copy_of", issues.near_copy_of)):
        if copy_of is not None and (copies := copy_of >= 0).any():
            firsts = np.where(copies, ids[copy_of].astype("U24"), "")
            found[what] = [first or None for first in firsts.tolist()]
    if issues.stranger is not None and issues.is_stranger.any():
        found["none_of_these"] = issues.is_stranger.tolist()
        found["stranger"] = issues.stranger.tolist()
    if len(issues.overlaps):
        names = np.array([*issues.class_names, None], dtype=object)
        found["overlap"] = names[issues.overlaps_with[issues.labels]].tolist()
    if len(issues.at_risk):
        found["at_risk"] = np.isin(issues.labels, issues.at_risk).tolist()
    if issues.n_annotators is not None and issues.agreement is not None:
        found["n_annotators"], found["agreement"] = issues.n_annotators.tolist(), issues.agreement.tolist()
    return found


def write(dataset: Any, fields: Fields, ids: Ids, issues: LabelIssues, more: Mapping[str, list[Any]]) -> None:
    """Write a run's outcome on its samples, all of them unreviewed. more: as `further` returns it."""
    time, names = now(), issues.class_names
    more_names = [fields.of(what) for what in more]
    a_label = fo.Classification().to_dict()  # one template: making them one by one takes as long as writing them

    def update(
        sample_id: bytes, is_issue: bool, quality: float, wrong: float, suggested: int, confidence: float, *rest: Any
    ) -> UpdateOne:
        values = {
            fields.is_issue: is_issue,
            fields.quality: quality,
            fields.wrong: wrong,
            fields.suggested: {**a_label, "_id": ObjectId(), "label": names[suggested], "confidence": confidence},
            fields.review: UNREVIEWED,
            "last_modified_at": time,
            **dict(zip(more_names, rest, strict=True)),
        }
        return UpdateOne({"_id": ObjectId(sample_id.decode())}, {"$set": values})

    arrays = (ids, issues.is_label_issue, issues.label_quality, issues.wrong, issues.suggested, issues.suggested_prob)
    parts = (slice(i, i + _CHUNK) for i in range(0, len(ids), _CHUNK))
    rows = (zip(*(a[s].tolist() for a in arrays), *(m[s] for m in more.values()), strict=True) for s in parts)
    bulk_write(dataset, (update(*row) for chunk in rows for row in chunk))


def bulk_write(dataset: Any, updates: Iterator[UpdateOne]) -> int:
    """Carry out the updates, chunk by chunk, and return how many samples matched."""
    matched = 0
    while chunk := list(islice(updates, _CHUNK)):
        matched += dataset._sample_collection.bulk_write(chunk, ordered=False).matched_count
    if matched:
        fo.core.sample.Sample._reload_docs(dataset._sample_collection_name)  # samples that this process holds
    return matched


def rename(dataset: Any, old: Fields, new: Fields) -> None:
    """Give the fields that exist another key.

    Raises InputError, before anything is changed, where one of the new names is taken.
    """
    if taken := foreign(dataset, new, of_a_run=False):
        raise InputError(
            f"the dataset already has a field {taken[0]!r}, so the fields of {old.key!r} keep their names; "
            f"rename the run back to {old.key!r}, and choose another brain key."
        )
    there = _there(dataset, old)
    for name in there:
        _drop_index(dataset, name)
    dataset.rename_sample_fields({a: b for a, b in zip(old.all, new.all, strict=True) if a in there})
    for name in (new.quality, new.review):
        if name in dataset.get_field_schema():
            dataset.create_index(name)
    _group(dataset, old.key, None)
    _group(dataset, new.key, _there(dataset, new))


def foreign(dataset: Any, fields: Fields, *, of_a_run: bool) -> list[str]:
    """Return the names taken by fields that are not the run's or, where there is no run of the key, by any field."""
    schema = dataset.get_field_schema()
    return [
        name for name, (_, _, description) in _declared(fields).items()
        if name in schema and not (of_a_run and schema[name].description == description)
    ]  # fmt: skip


def delete(dataset: Any, fields: Fields) -> None:
    """Delete the fields that exist, with their indexes and their group in the sidebar."""
    there = _there(dataset, fields)
    for name in there:
        _drop_index(dataset, name)
    if there:
        dataset.delete_sample_fields(there)
    _group(dataset, fields.key, None)


def object_ids(ids: Sequence[str]) -> list[ObjectId]:
    """Return ids as the database has them. Raises InputError for what is not a sample id."""
    try:
        return [ObjectId(sample_id) for sample_id in ids]
    except (InvalidId, TypeError):
        odd = next(sample_id for sample_id in ids if not ObjectId.is_valid(sample_id))
        raise InputError(f"{odd!r} is not a sample id; sample ids are 24 hex digits.") from None


def _there(dataset: Any, fields: Fields) -> list[str]:
    others = foreign(dataset, fields, of_a_run=True)
    schema = dataset.get_field_schema()
    return [name for name in fields.all if name in schema and name not in others]


def _drop_index(dataset: Any, name: str) -> None:
    if name in dataset.list_indexes():
        dataset.drop_index(name)


def _group(dataset: Any, key: str, paths: list[str] | None) -> None:
    """Set the sidebar group of a run, or with None remove it."""
    config = dataset.app_config
    groups = config.sidebar_groups
    if groups is None:
        if not paths:
            return
        groups = fo.DatasetAppConfig.default_sidebar_groups(dataset)
    names = set(paths or ()) | set(Fields(key).all)
    for group in groups:
        group.paths = [path for path in group.paths if path not in names]
    groups = [group for group in groups if group.name != key]
    if paths:
        groups.insert(next((i for i, group in enumerate(groups) if group.name == "labels"), 0), _new_group(key, paths))
    config.sidebar_groups = groups
    dataset.save()


def _new_group(name: str, paths: list[str]) -> Any:
    return fo.SidebarGroupDocument(name=name, paths=paths)


def now() -> datetime:
    """Return the time as FiftyOne stores it."""
    return datetime.now(UTC).replace(tzinfo=None)
