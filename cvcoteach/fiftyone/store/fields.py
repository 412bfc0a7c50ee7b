"""The fields that a run keeps on every sample: their names, and reading and writing them in bulk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
        return iter((self.is_issue, self.quality, self.wrong, self.suggested, self.review))


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
"""Type, options and description of each of the `Fields`; by its description a run recognizes its own."""


def declare(dataset: Any, fields: Fields) -> None:
    """Add the fields to the schema, with descriptions, and group them in the App's sidebar."""
    for name, (kind, options, description) in zip(fields, _DECLARED, strict=True):
        dataset.add_sample_field(name, kind, description=description, **options)
    for name in (fields.quality, fields.review):
        dataset.create_index(name)
    _group(dataset, fields.key, list(fields))


def write(dataset: Any, fields: Fields, ids: Ids, issues: LabelIssues) -> None:
    """Write a run's outcome on its samples, all of them unreviewed."""
    time, names = now(), issues.class_names
    a_label = fo.Classification().to_dict()  # one template: making them one by one takes as long as writing them

    def update(
        sample_id: bytes, is_issue: bool, quality: float, wrong: float, suggested: int, confidence: float
    ) -> UpdateOne:
        values = {
            fields.is_issue: is_issue,
            fields.quality: quality,
            fields.wrong: wrong,
            fields.suggested: {**a_label, "_id": ObjectId(), "label": names[suggested], "confidence": confidence},
            fields.review: UNREVIEWED,
            "last_modified_at": time,
        }
        return UpdateOne({"_id": ObjectId(sample_id.decode())}, {"$set": values})

    columns = (
        ids, issues.is_label_issue, issues.label_quality, issues.wrong, issues.suggested, issues.suggested_prob
    )  # fmt: skip
    rows = (zip(*(c[i : i + _CHUNK].tolist() for c in columns), strict=True) for i in range(0, len(ids), _CHUNK))
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
    dataset.rename_sample_fields({name: new_name for name, new_name in zip(old, new, strict=True) if name in there})
    for name in (new.quality, new.review):
        if name in dataset.get_field_schema():
            dataset.create_index(name)
    _group(dataset, old.key, None)
    _group(dataset, new.key, _there(dataset, new))


def foreign(dataset: Any, fields: Fields, *, of_a_run: bool) -> list[str]:
    """Return the names taken by fields that are not the run's or, where there is no run of the key, by any field."""
    schema = dataset.get_field_schema()
    return [
        name for name, (_, _, description) in zip(fields, _DECLARED, strict=True)
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
    return [name for name in fields if name in schema and name not in others]


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
    names = set(paths or ()) | set(Fields(key))
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
