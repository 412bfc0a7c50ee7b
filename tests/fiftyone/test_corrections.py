"""Corrections: exact, on record, undone exactly, consistent whoever else is at work."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from bson import ObjectId

from cvcoteach._checks import InputError
from cvcoteach.fiftyone import corrections, runs
from cvcoteach.fiftyone.audit import COLUMNS, Audit
from cvcoteach.fiftyone.fields import Fields
from cvcoteach.fiftyone.imports import import_label_issues
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


def in_a_fresh_process(run: Any, *statements: str) -> subprocess.Popen[str]:
    """A process of its own, with `dataset` and `corrections` at hand."""
    run.dataset.persistent = True
    lines = (
        "import sys",
        "import fiftyone as fo",
        "from cvcoteach._checks import InputError",
        "from cvcoteach.fiftyone import corrections",
        f"dataset = fo.load_dataset({run.dataset.name!r})",
        *statements,
    )
    return subprocess.Popen(
        [sys.executable, "-c", "\n".join(lines)],
        env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def in_agreement(run: Any) -> dict[ObjectId, list[dict[str, Any]]]:
    """The chains; each sample has the label, to the last attribute, and the status that its chain says."""
    results = runs.load(run.dataset)
    fields = {"ground_truth": 1, FIELDS.review: 1}
    chains: dict[ObjectId, list[dict[str, Any]]] = {}
    links = Audit(run.dataset, results.config.run_id)._links
    for link in links.find({"run_id": results.config.run_id, "void": False}).sort("n"):
        chains.setdefault(link["sample_id"], []).append(link)
    assert not list(Audit(run.dataset, results.config.run_id).pending())
    for sample in run.dataset._sample_collection.find({}, fields):
        chain = chains.get(sample["_id"], [])
        for earlier, later in itertools.pairwise(chain):
            assert later["old"] == earlier["new"]
            assert later["old_review"] == earlier["new_review"]
        status = chain[-1]["new_review"] if chain else "unreviewed"
        assert sample[FIELDS.review] == status
        if chain:
            assert sample["ground_truth"] == chain[-1]["new"]
    return chains


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


@pytest.mark.slow
def test_two_processes_at_the_same_samples_end_in_agreement_with_the_record(run: Any) -> None:
    """As two browser tabs: each accepts, keeps, sets, excludes and undoes at random, all on the same few samples."""
    before, ids = run.raw_labels(), run.wrong_ids[:3]
    statements = (
        "import random, time",
        "rng, write = random.Random(), corrections.fo_fields.bulk_write",
        "def slow_write(*arguments):",  # now and then: the other gets between record and writing
        "    time.sleep(0.1 * (rng.random() < 0.2))",
        "    return write(*arguments)",
        "corrections.fo_fields.bulk_write = slow_write",
        f"ids = {ids!r}",
        "doors = (corrections.accept_suggestions, corrections.keep_labels, corrections.exclude_samples,",
        "         lambda d, i: corrections.set_label(d, i, rng.choice(('ring', 'spiral'))),",
        "         lambda d, i: corrections.undo_corrections(d, i), lambda d, i: corrections.undo_corrections(d))",
        "print('ready', flush=True)",
        "sys.stdin.readline()",
        "for _ in range(60):",
        "    try:",
        "        rng.choice(doors)(dataset, rng.sample(ids, rng.randint(1, 3)))",
        "    except InputError:",
        "        pass",  # nothing to undo
    )
    tabs = [in_a_fresh_process(run, *statements) for _ in range(2)]
    for tab in tabs:
        assert tab.stdout is not None
        while tab.stdout.readline().strip() != "ready":
            assert tab.poll() is None
    for tab in tabs:
        assert tab.stdin is not None
        tab.stdin.write("go\n")
        tab.stdin.flush()
    for tab in tabs:
        tab.communicate()
    assert [tab.returncode for tab in tabs] == [0, 0]
    run.dataset.reload()
    chains = in_agreement(run)
    assert sum(map(len, chains.values())) > 60
    for _ in range(sum(map(len, chains.values()))):
        try:
            corrections.undo_corrections(run.dataset, ids)
        except InputError:
            break
    assert run.raw_labels() == before
    assert set(status(run).values()) == {"unreviewed"}


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
    with pytest.raises(InputError, match="'abc' is no sample id"):
        corrections.keep_labels(run.dataset, [run.ids[0], "abc"])


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
    assert sum(len(done.ids) for done in results) == len(corrections.history(run.dataset))
    in_agreement(run)


def test_a_label_edited_between_reading_and_writing_is_a_conflict_and_not_on_record(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = run.wrong_ids[:2]
    append = Audit.append

    def meddled(*arguments: Any) -> Any:
        run.dataset.set_values("ground_truth.label", {one: "edited"}, key_field="id")
        return append(*arguments)

    monkeypatch.setattr(Audit, "append", meddled)
    done = corrections.accept_suggestions(run.dataset, [one, two])
    assert (done.ids, done.conflicts) == ((two,), 1)
    assert corrections.history(run.dataset)["sample_id"].tolist() == [two]
    assert run.dataset[one]["ground_truth"].label == "edited"
    assert status(run)[one] == "unreviewed"
    corrections.undo_corrections(run.dataset)
    assert status(run)[two] == "unreviewed"


def test_a_write_that_comes_too_late_changes_nothing(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tab stalls between record and writing; another settles its correction and takes it back."""
    before, one = run.raw_labels(), run.wrong_ids[0]
    write, late = corrections.fo_fields.bulk_write, []

    def stalled(dataset: Any, updates: Any) -> int:
        updates = list(updates)
        if not late:
            late.append(True)
            corrections.undo_corrections(run.dataset)
        return write(dataset, iter(updates))

    monkeypatch.setattr(corrections.fo_fields, "bulk_write", stalled)
    corrections.accept_suggestions(run.dataset, [one])
    assert corrections.history(run.dataset)["what"].tolist() == ["accept", "undo"]
    assert run.raw_labels() == before
    assert status(run)[one] == "unreviewed"
    in_agreement(run)


def test_a_process_killed_between_record_and_fields_is_made_good(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(corrections.fo_fields, "bulk_write", _killed)
        with pytest.raises(KeyboardInterrupt):
            corrections.accept_suggestions(run.dataset, run.wrong_ids)
    assert set(status(run).values()) == {"unreviewed"}
    assert corrections.settle(run.dataset, runs.load(run.dataset)) == 12
    assert corrections.settle(run.dataset, runs.load(run.dataset)) == 0
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
    assert partly.message == "2 labels accepted; 1 left alone: changed elsewhere meanwhile; 1,234 left alone: so."


def test_a_label_that_is_missing_can_be_set_and_taken_away_again(run: Any) -> None:
    one = run.ids[0]
    run.dataset._sample_collection.update_one({"_id": ObjectId(one)}, {"$unset": {"ground_truth": ""}})
    run.dataset.reload()
    corrections.set_label(run.dataset, [one], "ring")
    assert run.raw_labels()[one]["label"] == "ring"
    corrections.undo_corrections(run.dataset)
    assert run.raw_labels().get(one) is None or run.dataset.values("ground_truth.label")[0] is None


def test_chains_stand_as_their_undos_say() -> None:
    from cvcoteach.fiftyone.audit import top

    def chain(*undoes: int | None) -> list[dict[str, Any]]:
        return [{"n": n, "undoes": undone} for n, undone in enumerate(undoes)]

    assert top(chain(None))["n"] == 0
    assert top(chain(None, 0)) is None
    assert top(chain(None, 0, None))["n"] == 2
    assert top(chain(None, None, 1))["n"] == 0
    assert top(chain(None, None, 1, 0)) is None
    assert top(chain(None, 0, None, None, 3))["n"] == 2
    assert top(chain(None, 0, None, None, 3, 2)) is None
