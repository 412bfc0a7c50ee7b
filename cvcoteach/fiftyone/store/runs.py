"""A run as FiftyOne's Brain knows it: saved with the dataset, loaded, renamed, deleted with every field it wrote."""

from __future__ import annotations

import base64
import tempfile
import uuid
import zlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import fiftyone.core.brain as fob
import fiftyone.core.odm as odm
import numpy as np

from cvcoteach._validation import InputError, IntArray, near
from cvcoteach.fiftyone.store import fields as fo_fields
from cvcoteach.fiftyone.store.annotators import annotators_of
from cvcoteach.fiftyone.store.fields import Fields, Ids
from cvcoteach.issues.label_issues import LabelIssues

METHOD = "cvcoteach.label_issues"
DEFAULT_KEY = "label_issues"
_ID_BYTES = 24
_LOOKED_AT = 1_000
"""Labels that are compared to tell whether a field is a renamed one."""
_ALIKE = 0.9
"""Share of them that must be the same: some may have been edited."""
_SAVED_MODULE = "cvcoteach.fiftyone.runs"
"""Saved runs name their classes in this module, so that moving the code does not orphan them."""


class FindLabelIssuesConfig(fob.BrainMethodConfig):
    """The settings of a run."""

    def __init__(
        self,
        label_field: str,
        source: str = "incv",
        settings: Mapping[str, Any] | None = None,
        run_id: str | None = None,
        **kwargs: Any,
    ) -> None:
        """label_field: of the judged labels. source: "incv", a run folder or "cleanlab". run_id: generated if None."""
        self.label_field = label_field
        self.source = source
        self.settings = dict(settings or {})
        self.run_id = run_id or uuid.uuid4().hex
        super().__init__(**kwargs)

    @property
    def method(self) -> str:
        """The method that FiftyOne lists it under."""
        return METHOD

    @property
    def cls(self) -> str:
        """The name that is saved; `build` and loading look it up."""
        return f"{_SAVED_MODULE}.{type(self).__name__}"


class FindLabelIssues(fob.BrainMethod):
    """Called by FiftyOne when a run is listed, renamed or deleted."""

    def get_fields(self, samples: Any, key: str) -> list[str]:
        """Return the label field, and those the run wrote."""
        schema = samples._dataset.get_field_schema()
        return [self.config.label_field, *(name for name in Fields(key).all if name in schema)]

    def rename(self, samples: Any, key: str, new_key: str) -> None:
        """Rename the fields."""
        fo_fields.rename(samples._dataset, Fields(key), Fields(new_key))

    def cleanup(self, samples: Any, key: str) -> None:
        """Delete the fields; labels and the record of corrections stay."""
        fo_fields.delete(samples._dataset, Fields(key))

    def _validate_run(self, samples: Any, key: str, existing_info: Any) -> None:
        self._validate_fields_match(key, "label_field", existing_info)


class FindLabelIssuesResults(fob.BrainResults):
    """A finished run: the label issues, and the samples they belong to."""

    def __init__(
        self,
        samples: Any,
        config: FindLabelIssuesConfig,
        key: str,
        *,
        ids: Ids,
        issues: LabelIssues,
        info: Mapping[str, Any],
        backend: Any = None,
    ) -> None:
        """ids: (n,) the samples, in the order of `issues`. info: figures and notes for people, as JSON."""
        super().__init__(samples, config, key, backend=backend)
        self._ids, self._issues, self._info = ids, issues, dict(info)
        self.stored: Any = None
        """The file in the database that they were last read from, once `load` knows."""

    @property
    def cls(self) -> str:
        """The name that is saved; loading looks it up."""
        return f"{_SAVED_MODULE}.{type(self).__name__}"

    @property
    def ids(self) -> Ids:
        """(n,) sample ids."""
        return self._ids

    @property
    def issues(self) -> LabelIssues:
        """Every label's quality, flag and suggestion, as found; corrections made since do not show here."""
        return self._issues

    @property
    def info(self) -> dict[str, Any]:
        """Figures and notes for people."""
        return self._info

    def rows(self, ids: Sequence[str]) -> IntArray:
        """Return the row of each sample in `issues` (m,), -1 where the run did not judge it."""
        if not len(ids):
            return np.zeros(0, np.int64)
        wanted = np.array(ids, dtype="S24")
        place = np.minimum(np.searchsorted(self._ids, wanted, sorter=self._order), len(self._ids) - 1)
        rows = self._order[place]
        return np.where(self._ids[rows] == wanted, rows, -1)

    def given(self, ids: Sequence[str]) -> list[str | None]:
        """Return the label of each sample that the run judged; None where it judged none."""
        names = self._issues.class_names
        return [None if row < 0 else names[self._issues.labels[row]] for row in self.rows(ids).tolist()]

    @cached_property
    def _order(self) -> IntArray:
        return np.argsort(self._ids, kind="stable")

    @property
    def fields(self) -> Fields:
        """The fields of this run."""
        return Fields(self.key)

    @property
    def packed_ids(self) -> str:
        """`ids` as text."""
        return base64.b64encode(zlib.compress(self._ids.tobytes())).decode()

    @property
    def packed_issues(self) -> str:
        """`issues` as text."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "issues.npz"
            self._issues.save(file)
            return base64.b64encode(file.read_bytes()).decode()

    def attributes(self) -> list[str]:
        """Name what FiftyOne saves."""
        return ["cls", "packed_ids", "packed_issues", "info"]

    def get_meta(self) -> dict[str, Any]:
        """Return figures that FiftyOne can read without loading the rest."""
        return {"n_samples": len(self._ids), "n_issues": self._issues.n_issues}

    @classmethod
    def _from_dict(cls, d: Mapping[str, Any], samples: Any, config: Any, key: str) -> FindLabelIssuesResults:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "issues.npz"
            file.write_bytes(base64.b64decode(d["packed_issues"]))
            issues = LabelIssues.load(file)
        ids = _unpacked_ids(d["packed_ids"], len(issues.labels), key)
        return cls(samples, config, key, ids=ids, issues=issues, info=d["info"])


def _unpacked_ids(packed: str, n: int, key: str) -> Ids:
    """Return the ids (n,) of the samples of a run. Raises InputError where the text holds anything else."""
    try:
        content = zlib.decompressobj().decompress(
            base64.b64decode(packed), _ID_BYTES * n + 1
        )  # no more than one too many
        if len(content) != _ID_BYTES * n:
            raise ValueError("it names another number of samples than it judged")
    except (ValueError, TypeError, zlib.error) as error:
        raise InputError(f"the run {key!r} is damaged in the database ({error}); find label issues again.") from None
    return np.frombuffer(content, dtype=f"S{_ID_BYTES}")


def check_key(dataset: Any, key: str, label_field: str | None = None, *, overwrite: bool = False) -> None:
    """Raise InputError where a run cannot be saved under `key` in the dataset as it is now.

    label_field: of the new run; a run is replaced by one of the same field only. What a killed process left without
    results is replaced without asking.
    """
    if dataset.deleted or not odm.get_db_conn().datasets.count_documents({"_id": dataset._doc.id}):
        raise InputError(f"the dataset {dataset.name!r} was deleted in the meantime; nothing was saved.")
    dataset.reload()
    if not isinstance(key, str) or not key.isidentifier() or key.startswith("_"):
        raise InputError(
            f"the brain key is {key!r}; it takes letters, digits and _, such as label_issues, and not _ first."
        )
    if key in dataset.list_brain_runs():
        config = dataset.get_brain_info(key).config
        if not isinstance(config, FindLabelIssuesConfig):
            raise InputError(f"the brain key {key!r} belongs to a run of another kind; choose another.")
        if label_field not in (None, config.label_field):
            raise InputError(
                f"the run {key!r} is about {config.label_field}, not {label_field}; choose another brain key, "
                "or delete that run."
            )
        if dataset._doc.brain_methods[key].results and not overwrite:
            raise InputError(
                f"there is already a run {key!r}; choose another brain key, or allow it to be replaced."
                + (f" {end}" if (end := end_of_reviews(dataset, key)) else "")
            )
    taken = fo_fields.foreign(dataset, Fields(key), of_a_run=key in dataset.list_brain_runs())
    if taken:
        raise InputError(f"the dataset has a field {taken[0]!r} that belongs to no run; choose another brain key.")


def end_of_reviews(dataset: Any, key: str) -> str:
    """Say in a sentence what replacing the run `key` discards; "" where there is no run, or no review."""
    reviewed = {"$in": [status for status in fo_fields.STATUSES if status != fo_fields.UNREVIEWED]}
    n = 0
    if key in dataset.list_brain_runs():
        n = dataset._sample_collection.count_documents({Fields(key).review: reviewed})
    if not n:
        return ""
    return (
        f"Replacing the run {key!r} discards {n:,} review{'s' * (n != 1)}: corrected labels stay, "
        "and so does their record, but they can no longer be undone."
    )


def save(
    samples: Any, key: str, config: FindLabelIssuesConfig, ids: Ids, issues: LabelIssues, info: Mapping[str, Any]
) -> FindLabelIssuesResults:
    """Save a run and write its fields. A crash halfway leaves a run without results, and labels as they were."""
    dataset = samples._dataset
    if end := end_of_reviews(dataset, key):
        info = {**info, "notes": [*info["notes"], end]}
    method = config.build()
    method.register_run(samples, key, overwrite=True, cleanup=True)
    fields, more = Fields(key), fo_fields.further(ids, issues)
    fo_fields.declare(dataset, fields, [*more])
    fo_fields.write(dataset, fields, ids, issues, more)
    info = {"annotators": annotators_of(samples, config.label_field, ids, issues), **info}
    info["saved_at"] = fo_fields.now().isoformat()
    results = FindLabelIssuesResults(samples, config, key, ids=ids, issues=issues, info=info, backend=method)
    method.save_run_results(samples, key, results)
    return results


def keys(dataset: Any) -> list[str]:
    """Return the brain keys of the runs of this kind, newest first."""
    found = dataset.list_brain_runs(type=FindLabelIssues)
    return sorted(found, key=lambda key: dataset.get_brain_info(key).timestamp, reverse=True)


def no_run(dataset: Any) -> str:
    """Say that a dataset has no run, in words that fit in Python and in the App, whose button has the same name."""
    return f"The labels of {dataset.name} have not been checked yet: find label issues first."


def load(dataset: Any, key: str | None = None) -> FindLabelIssuesResults:
    """Load the run `key`, or the newest.

    Raises InputError where there is none, where it has not finished, or where it has become stale: its label field
    (RenamedFieldError where that seems to have another name now) or one of its own is gone.
    """
    known = keys(dataset)
    if not known:
        raise InputError(no_run(dataset))
    if key is None:
        key = known[0]
    if key not in known:
        raise InputError(f"there is no run {key!r}; {near(key, known)}")
    stored = dataset._doc.brain_methods[key].results  # a file in the database; every save makes a new one
    cached = dataset._brain_cache.get(key)
    if cached is not None and cached.stored != stored.grid_id:  # another process has replaced the run, or added to it
        del dataset._brain_cache[key]
    if key not in dataset._brain_cache and stored and stored.grid_id in _unpacked:
        ids, issues, info = _unpacked[stored.grid_id]
        config = dataset.get_brain_info(key).config
        dataset._brain_cache[key] = FindLabelIssuesResults(dataset, config, key, ids=ids, issues=issues, info=info)
    results = dataset.load_brain_results(key)
    if results is not None:
        results.stored = stored.grid_id
        _remember(stored.grid_id, results)
    if results is None:
        raise InputError(
            f"the run {key!r} did not finish; find label issues again, with the same brain key, to replace it."
        )
    schema = dataset.get_field_schema()
    gone = [name for name in (results.config.label_field, *Fields(key)) if name not in schema]
    if gone:
        raise _stale(dataset, results, gone)
    return results


_unpacked: dict[Any, tuple[Ids, LabelIssues, dict[str, Any]]] = {}
"""By file in the database, what it holds: the App's server lets go of a dataset after every request."""
_MOST_UNPACKED = 4


def _remember(grid_id: Any, results: FindLabelIssuesResults) -> None:
    """Keep what a file in the database holds, of the few that were used last."""
    known = _unpacked.pop(grid_id, None)
    _unpacked[grid_id] = known or (results.ids, results.issues, dict(results.info))
    while len(_unpacked) > _MOST_UNPACKED:
        del _unpacked[next(iter(_unpacked))]


class RenamedFieldError(InputError):
    """The label field of a run is gone, and others hold its labels: it was probably renamed."""

    def __init__(self, key: str, old: str, candidates: Sequence[str]) -> None:
        """candidates: the fields that hold the labels."""
        self.key, self.candidates = key, tuple(candidates)
        named = " and ".join(map(repr, candidates))
        super().__init__(
            f"the run {key!r} is about the field {old!r}, which is gone; {named} "
            f"{'holds' if len(candidates) == 1 else 'hold'} its labels. If it was renamed, go on with the new name: by "
            "the button in the panel or, in Python, cvcoteach.fiftyone.store.runs.follow_label_field."
        )


def follow_label_field(dataset: Any, key: str, label_field: str) -> None:
    """Let the run `key`, whose label field was renamed, go on with `label_field`; reviews and record stay.

    Raises InputError where the run still has its field, or `label_field` does not hold its labels.
    """
    try:
        load(dataset, key)
    except RenamedFieldError as error:
        if label_field not in error.candidates:
            raise InputError(f"{label_field!r} does not hold the labels of the run; {error}") from None
    else:
        raise InputError(f"the run {key!r} has its label field; there is nothing to follow.")
    config = dataset.get_brain_info(key).config
    config.label_field = label_field
    fob.BrainMethod.update_run_config(dataset, key, config)
    dataset._brain_cache.pop(key, None)


def _stale(dataset: Any, results: FindLabelIssuesResults, gone: Sequence[str]) -> InputError:
    """Return what to say of a run some of whose fields are gone."""
    key = results.key
    if gone == [results.config.label_field]:
        others = [name for name in fo_fields.label_fields(dataset) if _holds_labels(dataset, results, name)]
        if others:
            return RenamedFieldError(key, gone[0], others)
        return InputError(
            f"the run {key!r} is stale: the field {gone[0]!r} is gone, and no other holds its labels. "
            "Delete the run and start a new one."
        )
    return InputError(
        f"the run {key!r} is stale: the field {gone[0]!r} is gone. If it was renamed, give it its name back; "
        "otherwise delete the run and start a new one."
    )


def _holds_labels(dataset: Any, results: FindLabelIssuesResults, label_field: str) -> bool:
    """Return whether a field holds the labels that the run judged, as far as nobody has reviewed them."""
    query = {results.fields.review: fo_fields.UNREVIEWED}
    samples = dataset._sample_collection.find(query, {f"{label_field}.label": 1}).limit(_LOOKED_AT)
    ids, labels = [], []
    for sample in samples:
        ids.append(str(sample["_id"]))
        labels.append((sample.get(label_field) or {}).get("label"))
    same = np.array([given == now for given, now in zip(results.given(ids), labels, strict=True)], np.bool_)
    return bool(len(same)) and bool(same.mean() > _ALIKE)
