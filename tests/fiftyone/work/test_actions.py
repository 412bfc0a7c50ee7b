"""Corrections by several at once, and by processes that are killed: fields and record agree in the end."""

from __future__ import annotations

import itertools
import signal
import threading
from datetime import timedelta
from typing import Any

import pytest
from bson import ObjectId
from pymongo.collection import Collection

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import audit, runs
from cvcoteach.fiftyone.store.audit import Audit
from cvcoteach.fiftyone.store.fields import Fields
from cvcoteach.fiftyone.work import actions, corrections
from tests.fiftyone.calls import in_a_fresh_process, status

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


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


def test_what_another_is_still_recording_is_not_taken_for_finished(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the middle of the record, with somebody settling a moment before."""
    results = runs.load(run.dataset)
    insert = Collection.insert_many

    def killed_half_way(collection: Any, links: Any, **options: Any) -> None:
        insert(collection, links[:6], **options)
        corrections.settle(run.dataset, results)
        insert(collection, links[6:], **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Collection, "insert_many", killed_half_way)
        with pytest.raises(KeyboardInterrupt):
            corrections.accept_suggestions(run.dataset, run.wrong_ids)
    assert list(status(run).values()).count("accepted") == 6
    corrections.settle(run.dataset, results)
    assert run.labels() == [CLASSES[k] for k in run.true]
    monkeypatch.setattr(audit, "PATIENCE", timedelta(0))  # nobody records for so long
    corrections.settle(run.dataset, results)
    assert corrections.settle(run.dataset, results) == 0
    in_agreement(run)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before it writes", "half way through its writing"])
def test_a_correction_killed_in_earnest_is_made_good_by_the_next_to_look(run: Any, moment: str) -> None:
    before = run.raw_labels()
    killed = in_a_fresh_process(
        run,
        "import os, signal",
        "write = corrections.fo_fields.bulk_write",
        "def half(dataset, updates):",
        "    updates = list(updates)",
        f"    write(dataset, iter(updates[: 6 * ({moment!r} != 'before it writes')]))",
        "    os.kill(os.getpid(), signal.SIGKILL)",
        "corrections.fo_fields.bulk_write = half",
        f"corrections.accept_suggestions(dataset, {run.wrong_ids!r})",
    )
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    run.dataset.reload()
    assert [value == "accepted" for value in status(run).values()].count(True) == (0 if "before" in moment else 6)
    corrections.keep_labels(run.dataset, run.ids[:1])  # whoever comes next, whatever for
    assert run.labels() == [CLASSES[k] for k in run.true]
    in_agreement(run)
    corrections.undo_corrections(run.dataset, run.ids)
    assert run.raw_labels() == before


@pytest.mark.parametrize("part", [0, 1, 2])
def test_an_undo_killed_between_its_parts_is_finished_by_the_next(
    run: Any, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    """The action before it is not taken back in its stead."""
    before, one = run.raw_labels(), run.ids[0]
    monkeypatch.setattr(actions, "CHUNK", 4)
    corrections.set_label(run.dataset, [one], "spiral")
    set_ = run.raw_labels()
    corrections.accept_suggestions(run.dataset, [i for i in run.wrong_ids if i != one])
    write, parts = corrections.fo_fields.bulk_write, itertools.count()

    def killed_at(*arguments: Any) -> int:
        if next(parts) == part:
            raise KeyboardInterrupt
        return write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(corrections.fo_fields, "bulk_write", killed_at)
        with pytest.raises(KeyboardInterrupt):
            corrections.undo_corrections(run.dataset)
    assert next(parts) == part + 1
    if part < 2:  # of the last part everything is on record, and whoever looks first writes it
        corrections.undo_corrections(run.dataset)
    corrections.settle(run.dataset, runs.load(run.dataset))
    assert run.raw_labels() == set_
    in_agreement(run)
    corrections.undo_corrections(run.dataset)
    assert run.raw_labels() == before
