"""Carries out corrections: first recorded, then written, a part at a time, so that a kill in between loses nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from cvcoteach.fiftyone.store import fields as fo_fields
from cvcoteach.fiftyone.store.audit import CHUNK, Audit, Change, Document
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults

CHANGED_ELSEWHERE = "changed elsewhere in the meantime"
"""The reason for leaving alone a sample that somebody else changed at the same moment."""

CARRIED = "correction"
"""Attribute of the suggested label: the link that the sample carries, the last that was written on it."""


def settle(dataset: Any, results: FindLabelIssuesResults) -> int:
    """Write the corrections on record whose process was killed before it wrote them; return how many links."""
    audit = audit_of(dataset, results)
    written = 0
    for action, complete, links in audit.pending():
        written += len(_write(dataset, results, audit, links))
        if complete:
            audit.finish(action, action["pending"])
    return written


class Action:
    """An action under way: a part at a time, recorded first and written afterwards."""

    def __init__(
        self,
        dataset: Any,
        results: FindLabelIssuesResults,
        what: str,
        who: str | None,
        when: datetime | None = None,
        *,
        press: str | None = None,
    ) -> None:
        """when: it was done; now if None. press: 24 hex digits by which it is carried out once, however often asked."""
        self.dataset, self.results, self.what, self.who, self.when = dataset, results, what, who, when
        self.audit = audit_of(dataset, results)
        self.ids: list[str] = []
        """The samples that were corrected."""
        self.left_alone: dict[str, int] = {}
        """How many samples were left alone, by reason."""
        self._press = fo_fields.object_ids([press])[0] if press else None
        self._begun: Document | None = None
        self._part = 0

    def done_before(self) -> tuple[str, ...]:
        """Return the samples that it corrected when it was asked for the first time; none if this is the first."""
        if self._press is None:
            return ()
        return tuple(str(sample_id) for sample_id in self.audit.samples_of({"_id": self._press}))

    def leave(self, why: str, n: int = 1) -> None:
        """Count samples that are left alone."""
        if n:
            self.left_alone[why] = self.left_alone.get(why, 0) + n

    def carry_out(self, changes: Sequence[Change], lengths: Mapping[ObjectId, int]) -> None:
        """Record the changes, then write them; where that is killed in between, `settle` writes them.

        lengths: of the samples' chains, from before they were read. Samples in conflict are left alone.
        """
        if not changes:
            return
        if self._begun is None:
            key, label_field = self.results.key, self.results.config.label_field
            self._begun = self.audit.begin(self.what, key, label_field, self.who, self.when, press=self._press)
        links = self.audit.append(self._begun, self._part, changes, lengths)
        written = _write(self.dataset, self.results, self.audit, links)
        self.audit.finish(self._begun, self._part)
        self._part += 1
        self.ids += [str(link["sample_id"]) for link in written]
        self.leave(CHANGED_ELSEWHERE, len(changes) - len(written))

    def took_back(self, action: Document) -> None:
        """Record that `action` has been taken back as a whole, once every part is carried out."""
        if self._begun is not None:
            self.audit.took_back(self._begun, action["_id"])


def chunks(ids: Sequence[ObjectId]) -> Iterator[list[ObjectId]]:
    """Yield the ids, each once, a part at a time."""
    once = list(dict.fromkeys(ids))
    for start in range(0, len(once), CHUNK):
        yield once[start : start + CHUNK]


def _write(dataset: Any, results: FindLabelIssuesResults, audit: Audit, links: Sequence[Document]) -> list[Document]:
    """Write links on their samples; return those that are written, by this process or another. The others are void."""
    if not links:
        return []
    matched = fo_fields.bulk_write(dataset, (_update(results, link) for link in links))
    if matched == len(links):
        return list(links)
    carried = f"{results.fields.suggested}.{CARRIED}"
    now = {link["sample_id"]: None for link in links}
    for sample in read_samples(dataset, list(now), (carried,)):
        now[sample["_id"]] = (sample.get(results.fields.suggested) or {}).get(CARRIED)
    void = audit.void_unless_followed([link for link in links if now[link["sample_id"]] != link["_id"]])
    return [link for link in links if link["_id"] not in void]


def _update(results: FindLabelIssuesResults, link: Document) -> UpdateOne:
    """Return the update for a link; it applies only while the sample is as it was read: no change is overwritten."""
    fields, label_field = results.fields, results.config.label_field
    carried = f"{fields.suggested}.{CARRIED}"
    values: Document = {
        fields.review: link["new_review"],
        carried: link["_id"],
        "last_modified_at": fo_fields.now(),
    }
    noticed = link.get("noticed")  # the label has been written by other means
    if link["new"] != link["old"] and not noticed:
        values[label_field] = link["new"]
    still = {
        "_id": link["sample_id"],
        label_field: link["new"] if noticed else link["old"],
        fields.review: link["old_review"],
        carried: link["seen"],
    }
    return UpdateOne(still, {"$set": values})


def change_of(
    sample: Document,
    results: FindLabelIssuesResults,
    new: Document | None,
    status: str,
    undoes: int | None = None,
) -> Change:
    """Describe the change of a sample as it was read. undoes: the link of its chain that this takes back."""
    fields = results.fields
    return Change(
        sample["_id"],
        sample["filepath"],
        sample.get(results.config.label_field),
        new,
        sample[fields.review],
        status,
        sample[fields.suggested].get(CARRIED),
        undoes,
    )


def read_samples(dataset: Any, ids: Sequence[ObjectId], names: Sequence[str]) -> Iterator[Document]:
    """Yield samples as the database has them, with some of their fields."""
    yield from dataset._sample_collection.find({"_id": {"$in": list(ids)}}, dict.fromkeys(names, 1))


def audit_of(dataset: Any, results: FindLabelIssuesResults) -> Audit:
    """Return the record of a run."""
    return Audit(dataset, results.config.run_id)
