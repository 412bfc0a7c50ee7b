"""Corrections: exact, on record, undone exactly, consistent whoever else is at work."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from bson import ObjectId

from cvcoteach._checks import InputError
from cvcoteach.fiftyone import corrections, runs
from cvcoteach.fiftyone.fields import Fields
from tests.fiftyone.test_runs import imported

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


@pytest.fixture
def run(noisy: Any) -> Any:
    imported(noisy)
    return noisy


def status(run: Any) -> dict[str, str]:
    return dict(zip(*run.dataset.values(["id", FIELDS.review]), strict=True))


def test_accepting_gives_the_suggested_label_and_keeps_attributes_and_tags(run: Any) -> None:
    before = run.raw_labels()
    done = corrections.accept_suggestions(run.dataset, run.wrong_ids)
    assert sorted(done.ids) == sorted(run.wrong_ids)
    assert run.labels() == [CLASSES[k] for k in run.true]
    after = run.raw_labels()
    for sample_id in run.ids:
        if sample_id in run.wrong_ids:
            assert after[sample_id]["annotator"] == before[sample_id]["annotator"]
            assert after[sample_id]["tags"] == ["checked"]
            assert after[sample_id]["confidence"] is None  # it was the old label's
            assert status(run)[sample_id] == "accepted"
        else:
            assert after[sample_id] == before[sample_id]
            assert status(run)[sample_id] == "unreviewed"


def test_keeping_and_excluding_leave_the_label_alone(run: Any) -> None:
    before = run.raw_labels()
    kept, excluded = run.wrong_ids[:2]
    corrections.keep_labels(run.dataset, [kept])
    corrections.exclude_samples(run.dataset, [excluded])
    assert run.raw_labels() == before
    assert (status(run)[kept], status(run)[excluded]) == ("kept", "excluded")


def test_setting_gives_the_named_label_a_new_class_too(run: Any) -> None:
    corrections.set_label(run.dataset, run.ids[:2], " spiral ")
    assert run.labels()[:2] == ["spiral", "spiral"]
    assert [status(run)[i] for i in run.ids[:2]] == ["set", "set"]


@pytest.mark.parametrize("label", ["", "  ", None])
def test_setting_no_label_is_refused(run: Any, label: Any) -> None:
    with pytest.raises(InputError, match="takes the name of a class"):
        corrections.set_label(run.dataset, run.ids[:1], label)


def test_undo_restores_every_attribute_exactly_action_by_action(run: Any) -> None:
    states = [(run.raw_labels(), status(run))]
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:5])
    states.append((run.raw_labels(), status(run)))
    corrections.set_label(run.dataset, run.wrong_ids[3:8], "ring")
    states.append((run.raw_labels(), status(run)))
    corrections.exclude_samples(run.dataset, run.wrong_ids[:6])
    for labels, reviews in reversed(states):
        corrections.undo_corrections(run.dataset)
        assert run.raw_labels() == labels
        assert status(run) == reviews
    with pytest.raises(InputError, match="no correction to take back"):
        corrections.undo_corrections(run.dataset)


def test_undo_works_after_a_restart(run: Any) -> None:
    before = run.raw_labels()
    corrections.accept_suggestions(run.dataset, run.wrong_ids)
    run.dataset._brain_cache.clear()
    run.dataset.reload()
    corrections.undo_corrections(run.dataset)
    assert run.raw_labels() == before


def test_undo_of_one_sample_leaves_the_others_of_its_action(run: Any) -> None:
    before = run.raw_labels()
    one, *others = run.wrong_ids
    corrections.accept_suggestions(run.dataset, run.wrong_ids)
    corrections.undo_corrections(run.dataset, [one])
    assert run.raw_labels()[one] == before[one]
    assert status(run)[one] == "unreviewed"
    assert {status(run)[i] for i in others} == {"accepted"}
    corrections.undo_corrections(run.dataset)  # the rest of the action
    assert run.raw_labels() == before


def test_undo_then_correct_then_undo_returns_to_the_start(run: Any) -> None:
    before = run.raw_labels()
    one = run.wrong_ids[:1]
    corrections.accept_suggestions(run.dataset, one)
    corrections.undo_corrections(run.dataset)
    corrections.set_label(run.dataset, one, "ring")
    corrections.undo_corrections(run.dataset)
    assert run.raw_labels() == before
    with pytest.raises(InputError, match="no correction to take back"):
        corrections.undo_corrections(run.dataset, one)


def test_undo_leaves_alone_what_was_changed_elsewhere_since(run: Any) -> None:
    one, two = run.wrong_ids[:2]
    corrections.accept_suggestions(run.dataset, [one, two])
    sample = run.dataset[one]
    sample["ground_truth"].label = "elsewhere"
    sample.save()
    done = corrections.undo_corrections(run.dataset)
    assert (done.ids, done.conflicts) == ((two,), 1)
    assert run.dataset[one]["ground_truth"].label == "elsewhere"


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
    assert record["when"].is_monotonic_increasing
    assert set(record["run"]) == {"label_issues"}


def test_the_record_follows_a_renamed_run(run: Any) -> None:
    corrections.keep_labels(run.dataset, run.wrong_ids[:3])
    run.dataset.rename_brain_run("label_issues", "renamed")
    assert len(corrections.history(run.dataset, "renamed")) == 3
    corrections.undo_corrections(run.dataset, brain_key="renamed")
    assert set(run.dataset.values("renamed_review")) == {"unreviewed"}


def test_of_many_people_correcting_at_once_each_sample_takes_one(run: Any) -> None:
    """Threads that accept, keep and exclude the same samples: the fields agree with the record's last entry."""
    start = threading.Barrier(3)
    doors = (corrections.accept_suggestions, corrections.keep_labels, corrections.exclude_samples)
    results: list[corrections.Correction] = []

    def correct(door: Any) -> None:
        start.wait()
        results.extend(door(run.dataset, run.wrong_ids) for _ in range(4))

    threads = [threading.Thread(target=correct, args=(door,)) for door in doors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    record = corrections.history(run.dataset)
    last = record.groupby("sample_id").last()
    assert sum(len(done.ids) for done in results) == len(record)
    now = status(run)
    labels = dict(zip(run.ids, run.labels(), strict=True))
    for sample_id in run.wrong_ids:
        assert now[sample_id] == last.loc[sample_id, "new_review"]
        assert labels[sample_id] == last.loc[sample_id, "new"]
    for _, chain in record.groupby("sample_id"):
        assert chain["old"].tolist()[1:] == chain["new"].tolist()[:-1]
        assert chain["old_review"].tolist()[1:] == chain["new_review"].tolist()[:-1]


def test_a_process_killed_between_record_and_fields_is_made_good(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(corrections.fo_fields, "bulk_write", _killed)
        with pytest.raises(KeyboardInterrupt):
            corrections.accept_suggestions(run.dataset, run.wrong_ids)
    assert set(status(run).values()) == {"unreviewed"}
    corrections.settle(run.dataset, runs.load(run.dataset))
    assert run.labels() == [CLASSES[k] for k in run.true]
    assert {status(run)[i] for i in run.wrong_ids} == {"accepted"}
    corrections.undo_corrections(run.dataset)
    assert run.labels() == [CLASSES[k] for k in run.given]


def _killed(*_: Any) -> int:
    raise KeyboardInterrupt


def test_samples_outside_the_run_are_counted_not_corrected(run: Any) -> None:
    run.dataset.add_sample(run.dataset.first().copy())
    new = run.dataset.last()
    new.clear_field(FIELDS.review)
    new.save()
    done = corrections.accept_suggestions(run.dataset, [run.wrong_ids[0], new.id])
    assert (done.ids, done.not_in_run) == ((run.wrong_ids[0],), 1)
    with pytest.raises(InputError, match="none of the 1 samples is part of the run"):
        corrections.accept_suggestions(run.dataset, [new.id])


def test_no_samples_is_no_correction(run: Any) -> None:
    with pytest.raises(InputError, match="no samples are chosen"):
        corrections.accept_suggestions(run.dataset, [])


def test_the_messages_read_as_sentences(run: Any) -> None:
    one = corrections.accept_suggestions(run.dataset, run.wrong_ids[:1])
    assert one.message == "1 label accepted."
    assert corrections.keep_labels(run.dataset, run.wrong_ids[:3]).message == "3 labels kept."
    assert corrections.undo_corrections(run.dataset).message == "3 corrections taken back."
    partly = corrections.Correction("accept", tuple(run.ids[:2]), conflicts=1, not_in_run=1)
    assert partly.message == (
        "2 labels accepted; 1 left alone: changed elsewhere meanwhile; 1 left alone: not part of the run."
    )


def test_a_label_that_is_missing_can_be_set_and_taken_away_again(run: Any) -> None:
    one = run.ids[0]
    run.dataset._sample_collection.update_one({"_id": ObjectId(one)}, {"$unset": {"ground_truth": ""}})
    run.dataset.reload()
    corrections.set_label(run.dataset, [one], "ring")
    assert run.raw_labels()[one]["label"] == "ring"
    corrections.undo_corrections(run.dataset)
    assert run.raw_labels().get(one) is None or run.dataset.values("ground_truth.label")[0] is None


def test_chains_stand_as_their_undos_say() -> None:
    from cvcoteach.fiftyone.audit import _top

    def chain(*undoes: int | None) -> list[dict[str, Any]]:
        return [{"n": n, "undoes": undone} for n, undone in enumerate(undoes)]

    assert _top(chain(None))["n"] == 0
    assert _top(chain(None, 0)) is None
    assert _top(chain(None, 0, None))["n"] == 2
    assert _top(chain(None, None, 1))["n"] == 0
    assert _top(chain(None, None, 1, 0)) is None
    assert _top(chain(None, 0, None, None, 3))["n"] == 2
    assert _top(chain(None, 0, None, None, 3, 2)) is None
