"""The record of corrections: who, when, what; nothing is ever lost from it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.audit import COLUMNS, Audit, top
from cvcoteach.fiftyone.work import corrections

CLASSES = ("bar", "cross", "ring")


def test_the_record_says_who_when_what_and_is_never_shortened(run: Any) -> None:
    one = run.wrong_ids[0]
    row = run.ids.index(one)
    corrections.accept_suggestions(run.dataset, [one], who="ann")
    corrections.undo_corrections(run.dataset, who="bob")
    record = corrections.history(run.dataset)
    given, true = CLASSES[run.given[row]], CLASSES[run.true[row]]
    assert record["who"].tolist() == ["ann", "bob"]
    assert record["what"].tolist() == ["accept", "undo"]
    assert record["sample_id"].tolist() == [one, one]
    assert record["filepath"].str.endswith(f"{row:05d}.png").all()
    assert record[["old", "new"]].to_numpy().tolist() == [[given, true], [true, given]]
    assert record[["old_review", "new_review"]].to_numpy().tolist() == [
        ["unreviewed", "accepted"],
        ["accepted", "unreviewed"],
    ]
    assert record["action"].tolist() == ["accepted", "unreviewed"]
    assert record["action_id"].nunique() == 2
    assert record["when"].is_monotonic_increasing
    assert set(record["run"]) == {"label_issues"}


def test_the_record_outlives_the_run_and_its_samples(run: Any) -> None:
    one, two = run.wrong_ids[:2]
    file = run.dataset[one].filepath
    corrections.accept_suggestions(run.dataset, [one, two])
    run.dataset.delete_samples([one])
    run.dataset.delete_brain_run("label_issues")
    record = corrections.history(run.dataset)
    assert record["sample_id"].tolist() == [one, two]
    assert record["filepath"][0] == file
    assert record["what"].tolist() == ["accept", "accept"]


def test_the_record_of_nothing_is_an_empty_table(run: Any) -> None:
    record = corrections.history(run.dataset)
    assert len(record) == 0
    assert list(record.columns) == list(COLUMNS)


def test_what_a_chain_says_came_later_is_never_put_before_whatever_the_clocks_say(run: Any) -> None:
    one, two = run.wrong_ids[:2]
    corrections.keep_labels(run.dataset, [two])
    corrections.set_label(run.dataset, [one], "ring")
    corrections.set_label(run.dataset, [one], "spiral")
    actions = Audit(run.dataset, runs.load(run.dataset).config.run_id)._actions
    last = actions.find_one({"dataset_id": run.dataset._doc.id}, sort=[("_id", -1)])
    actions.update_one({"_id": last["_id"]}, {"$set": {"when": datetime(2020, 1, 1)}})
    record = corrections.history(run.dataset)
    assert record["new"].tolist()[1:] == ["ring", "spiral"]


def test_the_record_follows_a_renamed_run(run: Any) -> None:
    corrections.keep_labels(run.dataset, run.wrong_ids[:3])
    run.dataset.rename_brain_run("label_issues", "renamed")
    assert len(corrections.history(run.dataset, "renamed")) == 3
    corrections.undo_corrections(run.dataset, brain_key="renamed")
    assert set(run.dataset.values("renamed_review")) == {"unreviewed"}


def test_chains_stand_as_their_undos_say() -> None:
    def chain(*undoes: int | None) -> list[dict[str, Any]]:
        return [{"n": n, "undoes": undone} for n, undone in enumerate(undoes)]

    assert top(chain(None))["n"] == 0
    assert top(chain(None, 0)) is None
    assert top(chain(None, 0, None))["n"] == 2
    assert top(chain(None, None, 1))["n"] == 0
    assert top(chain(None, None, 1, 0)) is None
    assert top(chain(None, 0, None, None, 3))["n"] == 2
    assert top(chain(None, 0, None, None, 3, 2)) is None
