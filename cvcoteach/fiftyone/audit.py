"""The record of corrections: append-only, in FiftyOne's database, beside the dataset it is about.

Each correction of a sample is the next link of that sample's chain (run, sample, 0, 1, 2, …). The database takes each
link once, so that of two people correcting a sample at the same moment one is told. The fields of the samples are
drawn from the chains: a process killed between the record and the fields is made good by `settle`.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import fiftyone.core.odm as odm
import pandas as pd
from bson import ObjectId
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError

Document = dict[str, Any]

UNDO = "undo"
COLUMNS = (
    "when", "who", "run", "action", "what", "sample_id", "filepath",
    "old", "new", "old_review", "new_review",
)  # fmt: skip

_LINKS = "cvcoteach_corrections"
_ACTIONS = "cvcoteach_actions"
_TAKEN = 11000  # MongoDB's code of a duplicate key
_CHUNK = 5_000


@dataclass(frozen=True, eq=False)
class Change:
    """What is to become of one sample."""

    sample_id: ObjectId
    old: Document | None
    """The label as the database has it, every attribute of it; None for none."""
    new: Document | None
    old_review: str
    new_review: str
    undoes: int | None = None
    """The link of the sample's chain that this takes back."""


class Audit:
    """The chains of one run of one dataset."""

    def __init__(self, dataset: Any, run_id: str) -> None:
        """run_id: of the run's config; it outlives a renaming."""
        self.dataset = dataset
        self._run = {"dataset_id": dataset._doc.id, "run_id": run_id}
        database = odm.get_db_conn()
        self._links, self._actions = database[_LINKS], database[_ACTIONS]
        chain = [(name, ASCENDING) for name in ("dataset_id", "run_id", "sample_id", "n")]
        self._links.create_index(chain, unique=True)
        self._links.create_index([("action", ASCENDING)])
        self._actions.create_index([("dataset_id", ASCENDING), ("run_id", ASCENDING), ("when", DESCENDING)])

    def begin(self, what: str, key: str, label_field: str, who: str | None, undoes: ObjectId | None = None) -> Document:
        """A new action, not yet finished."""
        action = {
            **self._run,
            "_id": ObjectId(),
            "what": what,
            "key": key,
            "label_field": label_field,
            "who": who or default_user(),
            "when": datetime.now(UTC).replace(tzinfo=None),
            "undoes": undoes,
            "finished": False,
        }
        self._actions.insert_one(action)
        return action

    def finish(self, action: Document) -> None:
        """The fields of its samples are written."""
        self._actions.update_one({"_id": action["_id"]}, {"$set": {"finished": True}})

    def append(
        self, action: Document, changes: Sequence[Change], lengths: Mapping[ObjectId, int]
    ) -> tuple[list[Change], list[Change]]:
        """Add a link for each change: those added, and those whose place another has taken meanwhile.

        lengths: of the chains, from before the samples were read.
        """
        added, lost = [], []
        for start in range(0, len(changes), _CHUNK):
            chunk = changes[start : start + _CHUNK]
            links = [self._link(action, change, lengths.get(change.sample_id, 0)) for change in chunk]
            taken: set[int] = set()
            try:
                self._links.insert_many(links, ordered=False)
            except BulkWriteError as error:
                problems = error.details["writeErrors"]
                if any(problem["code"] != _TAKEN for problem in problems):
                    raise
                taken = {problem["index"] for problem in problems}
            added += [change for i, change in enumerate(chunk) if i not in taken]
            lost += [change for i, change in enumerate(chunk) if i in taken]
        return added, lost

    def lengths(self, sample_ids: Sequence[ObjectId]) -> dict[ObjectId, int]:
        """How many links each sample's chain has; samples without one are left out."""
        result: dict[ObjectId, int] = {}
        for ids in _chunks(sample_ids):
            stages: list[Document] = [
                {"$match": {**self._run, "sample_id": {"$in": ids}}},
                {"$group": {"_id": "$sample_id", "last": {"$max": "$n"}}},
            ]
            result |= {row["_id"]: row["last"] + 1 for row in self._links.aggregate(stages)}
        return result

    def effective(self, sample_ids: Iterable[ObjectId]) -> dict[ObjectId, Document]:
        """The last link of each sample that has not been taken back; samples without one are left out."""
        chains: dict[ObjectId, list[Document]] = {}
        for ids in _chunks(list(sample_ids)):
            query = {**self._run, "sample_id": {"$in": ids}}
            for link in self._links.find(query).sort([("sample_id", ASCENDING), ("n", ASCENDING)]):
                chains.setdefault(link["sample_id"], []).append(link)
        tops = {sample_id: _top(chain) for sample_id, chain in chains.items()}
        return {sample_id: top for sample_id, top in tops.items() if top is not None}

    def undoable(self) -> Iterator[Document]:
        """The actions that have not been taken back as a whole, newest first."""
        undone = set()
        for action in self._actions.find(self._run).sort([("when", DESCENDING), ("_id", DESCENDING)]):
            if action["undoes"] is not None:
                undone.add(action["undoes"])
            elif action["what"] != UNDO and action["_id"] not in undone:
                yield action

    def samples_of(self, action: Document) -> list[ObjectId]:
        """The samples that an action corrected."""
        return [link["sample_id"] for link in self._links.find({"action": action["_id"]}, {"sample_id": 1})]

    def unfinished(self) -> list[Document]:
        """Actions begun and not ended: under way elsewhere, or left by a killed process."""
        return list(self._actions.find({**self._run, "finished": False}).sort("when", ASCENDING))

    def last_links(self, action: Document) -> list[Document]:
        """The links of an action that no later one follows."""
        links = list(self._links.find({"action": action["_id"]}))
        lengths = self.lengths([link["sample_id"] for link in links])
        return [link for link in links if link["n"] == lengths[link["sample_id"]] - 1]

    def frame(self) -> pd.DataFrame:
        """Every correction in order, one a row, with COLUMNS."""
        actions = {action["_id"]: action for action in self._actions.find(self._run)}
        files = dict(zip(*self.dataset.values(["id", "filepath"]), strict=True))
        rows = []
        for link in self._links.find(self._run).sort([("_id", ASCENDING)]):
            action = actions[link["action"]]
            sample_id = str(link["sample_id"])
            rows.append(
                (
                    action["when"], action["who"], action["key"], str(action["_id"]), action["what"], sample_id,
                    files.get(sample_id, ""), name_of(link["old"]), name_of(link["new"]), link["old_review"],
                    link["new_review"],
                )
            )  # fmt: skip
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def _link(self, action: Document, change: Change, n: int) -> Document:
        return {
            **self._run,
            "sample_id": change.sample_id,
            "n": n,
            "action": action["_id"],
            "old": change.old,
            "new": change.new,
            "old_review": change.old_review,
            "new_review": change.new_review,
            "undoes": change.undoes,
        }


def name_of(label: Document | None) -> str:
    """The class a stored label names, "" for none."""
    return "" if label is None else label.get("label") or ""


def default_user() -> str:
    """Who is at work, where FiftyOne does not know: CVCOTEACH_USER, else the user of this computer."""
    try:
        return os.environ.get("CVCOTEACH_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


def _top(chain: Sequence[Document]) -> Document | None:
    """The last link that stands: an undo takes back one link, and what stood before that stands again."""
    n = len(chain) - 1
    while n >= 0 and chain[n]["undoes"] is not None:
        n = chain[n]["undoes"] - 1
    return chain[n] if n >= 0 else None


def _chunks(ids: Sequence[ObjectId]) -> Iterator[list[ObjectId]]:
    for start in range(0, len(ids), _CHUNK):
        yield list(ids[start : start + _CHUNK])
