"""The record of corrections: append-only, in FiftyOne's database, beside the dataset it is about.

Each correction of a sample is the next link of that sample's chain (run, sample, 0, 1, 2, …). The database takes each
link once, so that of two people correcting a sample at the same moment, one learns of the conflict. A link also names
the one that the sample carried when it was read, and a sample takes a link only while it still carries that one:
whoever writes, and however often, each link is written once. What a killed process recorded and did not write is
pending; `settle` writes it. A link that no sample could take, because its label was changed elsewhere, is void.
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from typing import Any

import fiftyone.core.odm as odm
import pandas as pd
from bson import ObjectId
from pymongo import ASCENDING, DESCENDING
from pymongo.errors import BulkWriteError, DuplicateKeyError

from cvcoteach.fiftyone.store.fields import now

Document = dict[str, Any]

UNDO = "undo"
EDIT = "edit"
"""What stands on record of a label that was changed by other means, such as FiftyOne's own Annotate tab."""
COLUMNS = (
    "when", "who", "run", "action_id", "what", "sample_id", "filepath",
    "old", "new", "old_review", "new_review", "action",
)  # fmt: skip
"""`action` says what `new_review` does, as corrections of every other origin say it: accepted, kept, set, excluded."""
CHUNK = 5_000
"""Samples corrected at a time: memory stays flat, however many there are."""

PATIENCE = timedelta(minutes=1)
"""A process that has been recording one part of an action for longer is considered dead."""

_LINK_COLUMNS = ("action", "old", "new", "old_review", "new_review", "run_id", "sample_id", "filepath", "n")
_LINKS = "cvcoteach_corrections"
_ACTIONS = "cvcoteach_actions"
_TAKEN = 11000  # MongoDB's code of a duplicate key


@dataclass(frozen=True, eq=False)
class Change:
    """A correction of one sample, before it is made."""

    sample_id: ObjectId
    filepath: str
    old: Document | None
    """The label as the database has it, every attribute of it; None for none."""
    new: Document | None
    old_review: str
    new_review: str
    seen: ObjectId | None
    """The link that the sample carried when it was read; None where it carried none."""
    undoes: int | None = None
    """The link of the sample's chain that this takes back."""
    noticed: bool = False
    """The label is `new` already: it was changed by other means, and only the record and the review follow."""


class Audit:
    """The chains of one run of one dataset."""

    def __init__(self, dataset: Any, run_id: str) -> None:
        """run_id: of the run's config; it outlives a renaming."""
        self._run = {"dataset_id": dataset._doc.id, "run_id": run_id}
        self._links, self._actions = _collections()

    def begin(
        self,
        what: str,
        key: str,
        label_field: str,
        who: str | None,
        when: datetime | None = None,
        *,
        press: ObjectId | None = None,
    ) -> Document:
        """Record a new action, as yet without links, and return it.

        when: it was done; now if None. press: its id, chosen by who asks for it; where there is one of that id, it is
        that one that goes on: whoever asked did not live to see the answer.
        """
        action = {
            **self._run,
            "_id": press or ObjectId(),
            "what": what,
            "key": key,
            "label_field": label_field,
            "who": who or default_user(),
            "when": when or now(),
            "undoes": None,
            "pending": None,
            "since": None,
            "recorded": False,
        }
        try:
            self._actions.insert_one(action)
        except DuplicateKeyError:
            if begun := self._actions.find_one({**self._run, "_id": press}):
                return dict(begun)
            raise  # of another run
        return action

    def append(
        self, action: Document, part: int, changes: Sequence[Change], lengths: Mapping[ObjectId, int]
    ) -> list[Document]:
        """Add a link for each change; return the links, without those whose place was taken in the meantime.

        part: of the action, from 0; pending from now on. lengths: of the chains, from before the samples were read.
        """
        begun = {"pending": part, "since": now(), "recorded": False}
        self._actions.update_one({"_id": action["_id"]}, {"$set": begun})
        links = [self._link(action, part, change, lengths.get(change.sample_id, 0)) for change in changes]
        try:
            self._links.insert_many(links, ordered=False)
        except BulkWriteError as error:
            problems = error.details["writeErrors"]
            if any(problem["code"] != _TAKEN for problem in problems):
                raise
            taken = {problem["index"] for problem in problems}
            links = [link for i, link in enumerate(links) if i not in taken]
        self._actions.update_one({"_id": action["_id"], "pending": part}, {"$set": {"recorded": True}})
        return links

    def finish(self, action: Document, part: int) -> None:
        """Record that the links of this part are written or void; ignored where the action is at a later part."""
        self._actions.update_one({"_id": action["_id"], "pending": part}, {"$set": {"pending": None}})

    def took_back(self, undo: Document, action: ObjectId) -> None:
        """Record that the undo has taken back all of the action. Called last: the next undo completes a killed one."""
        self._actions.update_one({"_id": undo["_id"]}, {"$set": {"undoes": action}})

    def pending(self) -> Iterator[tuple[Document, bool, list[Document]]]:
        """Yield what is on record and perhaps not written: under way elsewhere, or left behind by a killed process.

        Each action with the links of its pending part, and whether these are all: another process may be adding more,
        but hardly for longer than PATIENCE.
        """
        waiting = {**self._run, "pending": {"$ne": None}}
        for action in list(self._actions.find(waiting).sort([("when", ASCENDING), ("_id", ASCENDING)])):
            query = {"action": action["_id"], "part": action["pending"], "void": False}
            yield action, action["recorded"] or now() - action["since"] > PATIENCE, list(self._links.find(query))

    def void_unless_followed(self, links: Sequence[Document]) -> set[ObjectId]:
        """Mark as void what no sample carries, except what a later link was built upon; return the void ones' ids."""
        ids = [link["_id"] for link in links]
        samples = [link["sample_id"] for link in links]
        query = {**self._run, "sample_id": {"$in": samples}, "seen": {"$in": ids}}
        followed = {link["seen"] for link in self._links.find(query, {"seen": 1})}
        void = {link_id for link_id in ids if link_id not in followed}
        self._links.update_many({"_id": {"$in": list(void)}}, {"$set": {"void": True}})
        return void

    def lengths(self, sample_ids: Sequence[ObjectId]) -> dict[ObjectId, int]:
        """Return how many links each sample's chain has; samples without one are left out."""
        stages: list[Document] = [
            {"$match": {**self._run, "sample_id": {"$in": list(sample_ids)}}},
            {"$group": {"_id": "$sample_id", "last": {"$max": "$n"}}},
        ]
        return {row["_id"]: row["last"] + 1 for row in self._links.aggregate(stages)}

    def effective(self, sample_ids: Sequence[ObjectId]) -> dict[ObjectId, Document]:
        """Return the last link of each sample that has not been taken back; samples without one are left out."""
        chains: dict[ObjectId, list[Document]] = {}
        query = {**self._run, "sample_id": {"$in": list(sample_ids)}, "void": False}
        for link in self._links.find(query).sort([("sample_id", ASCENDING), ("n", ASCENDING)]):
            chains.setdefault(link["sample_id"], []).append(link)
        tops = {sample_id: top(chain) for sample_id, chain in chains.items()}
        return {sample_id: link for sample_id, link in tops.items() if link is not None}

    def undoable(self) -> Iterator[Document]:
        """Yield the actions that have not been taken back as a whole, newest first; what others edited is not ours."""
        undone = set()
        for action in self._actions.find(self._run).sort([("when", DESCENDING), ("_id", DESCENDING)]):
            if action["undoes"] is not None:
                undone.add(action["undoes"])
            elif action["what"] not in (UNDO, EDIT) and action["_id"] not in undone:
                yield action

    def samples_of(self, action: Document) -> list[ObjectId]:
        """Return the samples that an action corrected."""
        query = {**self._run, "action": action["_id"], "void": False}
        return [link["sample_id"] for link in self._links.find(query, {"sample_id": 1})]

    def n_known(self, links: Sequence[ObjectId]) -> int:
        """Count those of the links that are on record."""
        return int(self._links.count_documents({**self._run, "_id": {"$in": list(links)}}))

    def edited_samples(self) -> list[ObjectId]:
        """Return the samples of which an edit by other means is on record."""
        edits = [action["_id"] for action in self._actions.find({**self._run, "what": EDIT}, {"_id": 1})]
        if not edits:
            return []
        return list(self._links.distinct("sample_id", {"action": {"$in": edits}, "void": False}))

    def _link(self, action: Document, part: int, change: Change, n: int) -> Document:
        return {
            **self._run,
            "_id": ObjectId(),
            "sample_id": change.sample_id,
            "n": n,
            "action": action["_id"],
            "part": part,
            "filepath": change.filepath,
            "old": change.old,
            "new": change.new,
            "old_review": change.old_review,
            "new_review": change.new_review,
            "seen": change.seen,
            "undoes": change.undoes,
            "noticed": change.noticed,
            "void": False,
        }


def top(chain: Iterable[Document]) -> Document | None:
    """Return the last link that stands: an undo takes back one link, and what stood before that stands again."""
    rest = list(chain)
    while rest and (undone := rest[-1]["undoes"]) is not None:
        rest = [link for link in rest if link["n"] < undone]
    return rest[-1] if rest else None


def frame(dataset: Any, run_id: str | None = None) -> pd.DataFrame:
    """Return every correction of a dataset, or of one run, in order, one per row with COLUMNS, of deleted runs too."""
    links, actions = _collections()
    query = {"dataset_id": dataset._doc.id} | ({"run_id": run_id} if run_id else {})
    wanted = ("action", "sample_id", "filepath", "old.label", "new.label", "old_review", "new_review", "run_id", "n")
    # links first: an action is on record before its links, so that each link read finds its action
    rows = (_row(link) for link in links.find({**query, "void": False}, dict.fromkeys(wanted, 1)))
    found = pd.DataFrame(list(rows), columns=list(_LINK_COLUMNS))
    acted = pd.DataFrame(
        [(str(one["_id"]), one["when"], one["who"], one["key"], one["what"]) for one in actions.find(query)],
        columns=["action", "when", "who", "run", "what"],
    )
    table = found.merge(acted, on="action", how="left")
    table["when"] = pd.to_datetime(table["when"])  # also where there is no row
    # clocks of two computers differ: what a chain says came later is never put before
    table = table.sort_values(["run_id", "sample_id", "n"], kind="stable")
    table["order"] = table.groupby(["run_id", "sample_id"])["when"].cummax()
    table = table.sort_values(["order", "n"], kind="stable", ignore_index=True)
    table = table.rename(columns={"action": "action_id"}).assign(action=table["new_review"])
    return table[list(COLUMNS)]


def _row(link: Document) -> tuple[Any, ...]:
    """Return the values of _LINK_COLUMNS; strings that many links have in common are kept once."""
    common = (
        str(link["action"]), name_of(link.get("old")), name_of(link.get("new")), link["old_review"],
        link["new_review"], link["run_id"],
    )  # fmt: skip
    return *map(sys.intern, common), str(link["sample_id"]), link["filepath"], link["n"]


def name_of(label: Document | None) -> str:
    """Return the class that a stored label names, "" for none."""
    return "" if label is None else label.get("label") or ""


def default_user() -> str:
    """Return who is at work where FiftyOne does not know: CVCOTEACH_USER, else the user of this computer."""
    try:
        return os.environ.get("CVCOTEACH_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container without a name for its user
        return "unknown"


def _collections() -> tuple[Any, Any]:
    """Return the collections of links and of actions, indexed."""
    database = odm.get_db_conn()
    _index_once(database.name)
    return database[_LINKS], database[_ACTIONS]


@cache
def _index_once(name: str) -> None:
    """Make the indexes once per process and database, not at every key press."""
    database = odm.get_db_conn()
    links, actions = database[_LINKS], database[_ACTIONS]
    links.create_index([(name, ASCENDING) for name in ("dataset_id", "run_id", "sample_id", "n")], unique=True)
    links.create_index([("action", ASCENDING)])
    actions.create_index([("dataset_id", ASCENDING), ("run_id", ASCENDING), ("when", DESCENDING)])
