"""Corrections: exact, on record, undone exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from bson import ObjectId

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import corrections
from cvcoteach.fiftyone.work.imports import import_label_issues
from tests.fiftyone.calls import in_a_fresh_process, status

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


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


@pytest.mark.slow
def test_undo_works_after_a_restart(run: Any) -> None:
    before, unreviewed = run.raw_labels(), status(run)
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:8])
    corrections.set_label(run.dataset, run.wrong_ids[6:], "spiral")
    fresh = in_a_fresh_process(
        run, "for _ in range(2):", "    print(corrections.undo_corrections(dataset).message, flush=True)"
    )
    assert fresh.communicate()[0].splitlines()[-2:] == ["6 corrections taken back.", "8 corrections taken back."]
    run.dataset.reload()
    assert run.raw_labels() == before
    assert status(run) == unreviewed


def test_undo_keeps_a_confidence_that_is_no_number(run: Any) -> None:
    one = run.wrong_ids[0]
    run.dataset._sample_collection.update_one(
        {"_id": ObjectId(one)}, {"$set": {"ground_truth.confidence": float("nan")}}
    )
    corrections.keep_labels(run.dataset, [one])
    corrections.undo_corrections(run.dataset)
    corrections.accept_suggestions(run.dataset, [one])
    corrections.undo_corrections(run.dataset)
    assert np.isnan(run.raw_labels()[one]["confidence"])
    assert status(run)[one] == "unreviewed"


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


def test_an_action_that_cannot_be_undone_any_more_does_not_stand_before_the_older_ones(run: Any) -> None:
    before = run.raw_labels()
    one, two, three = run.wrong_ids[:3]
    for sample_id in (one, two, three):
        corrections.accept_suggestions(run.dataset, [sample_id])
    run.dataset.set_values("ground_truth.label", {two: "elsewhere"}, key_field="id")
    run.dataset.delete_samples([three])
    done = corrections.undo_corrections(run.dataset)
    assert done.ids == (one,)
    assert done.message == (
        "1 correction taken back; 1 left alone: deleted in the meantime; "
        "1 left alone: changed elsewhere in the meantime."
    )
    assert run.raw_labels()[one] == before[one]
    assert run.raw_labels()[two]["label"] == "elsewhere"
    why = r"nothing was undone \(1 deleted in the meantime; 1 changed elsewhere in the meantime\)"
    with pytest.raises(InputError, match=why):
        corrections.undo_corrections(run.dataset)
    with pytest.raises(InputError, match=r"nothing was undone \(1 deleted in the meantime\)"):
        corrections.undo_corrections(run.dataset, [three])


def test_a_label_changed_since_the_run_takes_no_suggestion_made_for_another(run: Any) -> None:
    one, two = run.wrong_ids[:2]
    run.dataset.set_values("ground_truth.label", {one: "spiral"}, key_field="id")
    done = corrections.accept_suggestions(run.dataset, [one, two])
    assert (done.ids, done.left_alone) == ((two,), {"relabelled since the run": 1})
    with pytest.raises(InputError, match=r"no label was accepted \(1 relabelled since the run\)"):
        corrections.accept_suggestions(run.dataset, [one])
    assert run.dataset[one]["ground_truth"].label == "spiral"
    corrections.set_label(run.dataset, [one], "ring")  # explicitly
    corrections.accept_suggestions(run.dataset, [one])  # and a decision of one's own can be changed
    assert status(run)[one] == "accepted"


def test_a_flag_without_another_label_to_suggest_leaves_nothing_to_accept(noisy: Any) -> None:
    mask = noisy.true != noisy.given
    import_label_issues(noisy.dataset, "ground_truth", mask)
    with pytest.raises(InputError, match=r"no label was accepted \(12 flagged without another label to suggest\)"):
        corrections.accept_suggestions(noisy.dataset, noisy.wrong_ids)
    assert corrections.keep_labels(noisy.dataset, noisy.wrong_ids).message == "12 labels kept."


def test_a_read_only_field_is_not_written_to(run: Any) -> None:
    before = run.raw_labels()
    corrections.accept_suggestions(run.dataset, run.wrong_ids[:1])
    field = run.dataset.get_field("ground_truth")
    field.read_only = True
    field.save()
    for correct in (
        lambda: corrections.accept_suggestions(run.dataset, run.wrong_ids),
        lambda: corrections.set_label(run.dataset, run.wrong_ids, "ring"),
        lambda: corrections.undo_corrections(run.dataset),
    ):
        with pytest.raises(InputError, match="'ground_truth' is read-only"):
            correct()
    corrections.keep_labels(run.dataset, run.wrong_ids[1:2])
    assert {i for i in run.ids if run.raw_labels()[i] != before[i]} == {run.wrong_ids[0]}


def test_what_is_no_sample_id_is_refused(run: Any) -> None:
    with pytest.raises(InputError, match="'abc' is not a sample id"):
        corrections.keep_labels(run.dataset, [run.ids[0], "abc"])


def test_samples_outside_the_run_are_counted_not_corrected(run: Any) -> None:
    run.dataset.add_sample(run.dataset.first().copy())
    new = run.dataset.last()
    new.clear_field(FIELDS.review)
    new.save()
    run.dataset.add_sample(run.dataset.first().copy())  # with the run's fields, but not judged by it
    done = corrections.accept_suggestions(run.dataset, [run.wrong_ids[0], new.id, run.dataset.last().id])
    assert (done.ids, done.left_alone) == ((run.wrong_ids[0],), {"not part of the run": 2})
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
    partly = corrections.Correction("accept", tuple(run.ids[:2]), {corrections.CHANGED_ELSEWHERE: 1, "so": 1234})
    assert partly.message == "2 labels accepted; 1 left alone: changed elsewhere in the meantime; 1,234 left alone: so."


def test_a_label_that_is_missing_can_be_set_and_taken_away_again(run: Any) -> None:
    one = run.ids[0]
    run.dataset._sample_collection.update_one({"_id": ObjectId(one)}, {"$unset": {"ground_truth": ""}})
    run.dataset.reload()
    corrections.set_label(run.dataset, [one], "ring")
    assert run.raw_labels()[one]["label"] == "ring"
    corrections.undo_corrections(run.dataset)
    assert run.raw_labels().get(one) is None or run.dataset.values("ground_truth.label")[0] is None
