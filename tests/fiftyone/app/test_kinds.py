"""What a run knows beside wrong labels: kept in fields, told in the panel, filtered by, and in the right order."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from fiftyone.core.brain import BrainMethod
from fiftyone.operators.executor import ExecutionError

from cvcoteach._validation import InputError
from cvcoteach.cli.main import main
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.fields import FURTHER, Fields
from cvcoteach.fiftyone.work import browse, corrections
from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.issues.from_posterior import posterior_issues
from tests.fiftyone.app.test_panel import Event
from tests.fiftyone.calls import context, execute, form, notes, operator, properties
from tests.fiftyone.conftest import NoisyDataset

FIELDS = Fields("label_issues")
CLASSES = ("bar", "cross", "ring")


class Rich:
    """A run that knows everything that there is to know."""

    def __init__(self, noisy: NoisyDataset) -> None:
        self.noisy, self.dataset, self.ids = noisy, noisy.dataset, noisy.ids
        found = posterior_issues(noisy.given, noisy.pred_probs, class_names=CLASSES)
        right = np.flatnonzero(~found.is_label_issue)
        self.one = int(right[0])
        self.other = int(right[found.labels[right] != found.labels[self.one]][0])
        self.strangers = np.flatnonzero(found.is_label_issue)[:2]
        copies = np.full(60, -1)
        copies[max(self.one, self.other)] = min(self.one, self.other)
        alike = np.flatnonzero(found.labels == found.labels[self.one])
        self.near = alike[alike != self.one][:2]
        near = np.full(60, -1)
        near[self.near[1]] = self.near[0]
        stranger = np.zeros(60)
        stranger[self.strangers] = 0.8
        quality = np.where(found.labels == 2, 0.6 * found.label_quality, found.label_quality)
        self.issues = replace(
            found,
            label_quality=quality,
            duplicate_of=copies,
            near_copy_of=near,
            stranger=stranger,
            overlaps=np.array([[0, 1]]),
            splits=np.where(np.arange(60) < 40, "train", "test"),
            n_annotators=np.full(60, 3),
            agreement=np.where(np.arange(60) < 5, 2 / 3, 1.0),
        )
        import_label_issues(self.dataset, "ground_truth", self.issues)

    @property
    def pair(self) -> set[str]:
        """The two that contradict each other, neither flagged."""
        return {self.ids[self.one], self.ids[self.other]}


@pytest.fixture
def rich(noisy: NoisyDataset) -> Rich:
    return Rich(noisy)


def viewed(rich: Rich, **params: str) -> list[str]:
    """The samples of the view that the filter shows."""
    ctx = context(rich.dataset, params=params)
    operator("filter_label_issues").execute(ctx)
    (asked,) = (it.params for it in ctx.executor._requests if it.operator_uri == "set_view")
    return list(fo.DatasetView._build(rich.dataset, asked["view"]).values("id"))


def test_what_a_run_knows_is_kept_on_every_sample_and_goes_with_the_run(rich: Rich) -> None:
    dataset, schema = rich.dataset, set(rich.dataset.get_field_schema())
    assert set(FIELDS.all) <= schema
    values = {what: dataset.values(FIELDS.of(what)) for what in FURTHER}
    assert {i for i, yes in zip(rich.ids, values["contradiction"], strict=True) if yes} == rich.pair
    first, second = sorted((rich.one, rich.other))
    assert values["duplicate_of"][second] == rich.ids[first]
    assert values["duplicate_of"][first] is None
    assert values["near_copy_of"][rich.near[1]] == rich.ids[rich.near[0]]
    assert np.flatnonzero(values["none_of_these"]).tolist() == rich.strangers.tolist()
    np.testing.assert_allclose(values["stranger"], rich.issues.stranger)
    assert {values["overlap"][i] for i in np.flatnonzero(rich.issues.labels == 0)} == {"cross"}
    assert {values["overlap"][i] for i in np.flatnonzero(rich.issues.labels == 2)} == {None}
    assert np.flatnonzero(values["at_risk"]).tolist() == np.flatnonzero(rich.issues.labels == 2).tolist()
    assert set(values["n_annotators"]) == {3}
    np.testing.assert_allclose(values["agreement"], rich.issues.agreement)
    dataset.rename_brain_run("label_issues", "again")
    assert set(Fields("again").all) <= set(dataset.get_field_schema())
    assert not set(FIELDS.all) & set(dataset.get_field_schema())
    dataset.delete_brain_run("again")
    assert set(dataset.get_field_schema()) == schema - set(FIELDS.all)


def test_a_run_that_knows_nothing_of_it_has_none_of_its_fields_and_shows_none(run: Any) -> None:
    assert not {FIELDS.of(what) for what in FURTHER} & set(run.dataset.get_field_schema())
    shown = Event.of(run, "on_load").shown
    for words in ("contradiction", "Also found", "none of the classes", "At risk", "told apart"):
        assert words not in shown
    assert "kind" not in properties("filter_label_issues", run.dataset)


def test_the_headline_names_what_to_look_at_first(rich: Rich) -> None:
    shown = Event.of(rich.noisy, "on_load").shown
    assert "**2 contradictions first**: exact copies with different labels." in shown
    assert "**2** perhaps of **none of the classes**: exclude before relabeling." in shown
    assert "**Cannot be told apart**, so neither is flagged for the other: bar and cross." in shown
    assert "**At risk**: few labels of ring are right" in shown
    corrections.keep_labels(rich.dataset, [rich.ids[rich.one]])
    corrections.exclude_samples(rich.dataset, [rich.ids[rich.strangers[0]]])
    shown = Event.of(rich.noisy, "refresh").shown
    assert "**1 contradiction first**" in shown
    assert "**1** perhaps of" in shown


def test_contradictions_come_first_in_the_queue_flagged_or_not(rich: Rich) -> None:
    results = runs.load(rich.dataset)
    queue = [results.ids[row].decode() for row in browse.queue(results, browse.reviews(rich.dataset, results))]
    assert set(queue[:2]) == rich.pair
    assert set(queue[2:]) == set(rich.noisy.wrong_ids)
    assert Event.of(rich.noisy, "show_left").viewed == queue
    here, seen = queue[0], []
    while here is not None:
        seen.append(here)
        here = execute("review_and_move_on", rich.dataset, current_sample=here, params={"what": "keep"})["next"]
    assert seen == queue
    corrections.undo_corrections(rich.dataset, queue[:3])
    done = browse.reviews(rich.dataset, results)
    unseen = rich.dataset.match(fo.ViewField(FIELDS.review) == "unreviewed")  # any view, not one of the panel's
    assert browse.following(results, done, None, unseen) == queue[0]
    assert browse.following(results, done, queue[0], unseen) == queue[1]


def test_near_copies_with_other_labels_are_contradictions_that_are_called_near(noisy: NoisyDataset) -> None:
    found = posterior_issues(noisy.given, noisy.pred_probs, class_names=CLASSES)
    right = np.flatnonzero(~found.is_label_issue)
    one, other = int(right[0]), int(right[found.labels[right] != found.labels[right[0]]][0])
    copies = np.full(60, -1)
    copies[other] = one
    dataset, pair = noisy.dataset, {noisy.ids[one], noisy.ids[other]}
    results = import_label_issues(dataset, "ground_truth", replace(found, near_copy_of=copies))
    assert dataset.values(FIELDS.of("near_copy_of"))[other] == noisy.ids[one]
    assert set(dataset.match(fo.ViewField(FIELDS.of("contradiction"))).values("id")) == pair
    queue = [results.ids[row].decode() for row in browse.queue(results, browse.reviews(dataset, results))]
    assert set(queue[:2]) == pair
    shown = Event.of(noisy, "on_load").shown
    assert "**2 contradictions first**: near copies with different labels." in shown
    for kind in ("contradiction", "near_contradiction", "near_copy"):
        assert set(Event.of(noisy, "show_kind", {"kind": kind}).viewed) == pair
    shown = Event.of(noisy, "refresh", current_sample=noisy.ids[one]).shown
    assert f"**Contradiction**: a near copy is labelled **{CLASSES[found.labels[other]]}**." in shown


def test_each_kind_has_a_button_with_its_number_and_a_click_shows_it(rich: Rich) -> None:
    shown = Event.of(rich.noisy, "on_load").shown
    expected = {
        "contradiction": ("Contradictions (2)", rich.pair),
        "stranger": ("None of the classes (2)", {rich.ids[i] for i in rich.strangers}),
        "overlap": (None, {rich.ids[i] for i in np.flatnonzero(rich.issues.labels < 2)}),
        "at_risk": (
            None,
            {rich.ids[i] for i in np.flatnonzero((rich.issues.labels == 2) & rich.issues.is_label_issue)},
        ),
        "disagreement": ("Annotators disagree (5)", set(rich.ids[:5])),
        "copy": ("Exact copies (2)", rich.pair),
        "near_copy": ("Near copies (2)", {rich.ids[i] for i in rich.near}),
    }
    for kind, (words, ids) in expected.items():
        assert words is None or words in shown
        assert set(Event.of(rich.noisy, "show_kind", {"kind": kind}).viewed) == ids
        assert set(viewed(rich, kind=kind)) == ids
    assert "nothing of the kind" in Event.of(rich.noisy, "show_kind", {"kind": "few"}).params("notify")["message"]


def test_the_filter_offers_splits_and_kinds_and_takes_what_fits_all(rich: Rich) -> None:
    flagged = {rich.ids[i] for i in np.flatnonzero(rich.issues.is_label_issue)}
    assert set(viewed(rich, split="test")) == flagged & set(rich.ids[40:])
    assert set(viewed(rich, kind="stranger", split="test")) == {rich.ids[i] for i in rich.strangers if i >= 40}
    with pytest.raises(InputError, match="no split 'tset'"):
        browse.of_split(runs.load(rich.dataset), "tset")
    assert {"kind", "pair", "annotator", "split"} <= set(properties("filter_label_issues", rich.dataset))


def test_groups_are_offered_and_shown(noisy: NoisyDataset) -> None:
    noisy.dataset.add_sample_field("patient", fo.IntField)
    noisy.dataset.set_values("patient", [number // 6 for number in range(60)])
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=CLASSES)
    import_label_issues(noisy.dataset, "ground_truth", issues)
    config = noisy.dataset.get_brain_info("label_issues").config
    config.settings = {"group_field": "patient"}
    BrainMethod.update_run_config(noisy.dataset, "label_issues", config)
    noisy.dataset._brain_cache.clear()
    results = runs.load(noisy.dataset)
    field, counts = browse.groups(noisy.dataset, results)
    assert field == "patient"
    assert sum(counts.values()) == 12
    name = next(iter(counts))
    ctx = context(noisy.dataset, params={"group": name})
    operator("filter_label_issues").execute(ctx)
    (asked,) = (it.params for it in ctx.executor._requests if it.operator_uri == "set_view")
    view = fo.DatasetView._build(noisy.dataset, asked["view"])
    assert view.distinct("patient") == [int(name)]
    assert len(view) == counts[name]
    shown = Event.of(noisy, "refresh", current_sample=noisy.ids[7]).shown
    assert "patient: **1**" in shown
    assert "annotator: **person 1**" in shown


def test_an_open_sample_tells_what_is_known_of_it(rich: Rich) -> None:
    shown = Event.of(rich.noisy, "refresh", current_sample=rich.ids[rich.one]).shown
    other = CLASSES[rich.issues.labels[rich.other]]
    assert f"**Contradiction**: an exact copy is labelled **{other}**." in shown
    assert "3 annotators, **67%** gave this label" in Event.of(rich.noisy, "refresh", current_sample=rich.ids[0]).shown
    shown = Event.of(rich.noisy, "refresh", current_sample=rich.ids[1]).shown
    assert re.search(
        r"annotator: \*\*person 1\*\* . \*\*\d+%\*\* of this annotator's labels are probably right . 3 annotators",
        shown,
    )
    bar = int(np.flatnonzero(rich.issues.labels == 0)[0])
    assert "bar and cross cannot be told apart" in Event.of(rich.noisy, "refresh", current_sample=rich.ids[bar]).shown


def test_a_contradiction_is_settled_once_its_copies_are_corrected(rich: Rich) -> None:
    mine, other = CLASSES[rich.issues.labels[rich.one]], CLASSES[rich.issues.labels[rich.other]]
    here, there = rich.ids[rich.one], [rich.ids[rich.other]]

    def shown() -> tuple[str, str]:
        """Of the panel beside the grid, and beside the open sample."""
        return Event.of(rich.noisy, "refresh").shown, Event.of(rich.noisy, "refresh", current_sample=here).shown

    assert f"a copy is {other}" in shown()[0]
    corrections.set_label(rich.dataset, there, mine)
    for text, what in zip(shown(), ("copies agree now", "**Contradiction**, settled"), strict=True):
        assert what in text
        assert f"copy is labelled **{other}**" not in text
    corrections.undo_corrections(rich.dataset, there)
    assert f"an exact copy is labelled **{other}**" in shown()[1]
    corrections.exclude_samples(rich.dataset, there)
    assert "**Contradiction**, settled" in shown()[1]


def test_of_a_stranger_no_class_is_suggested_and_exclude_comes_first(rich: Rich) -> None:
    row = int(rich.strangers[0])
    shown = Event.of(rich.noisy, "refresh", current_sample=rich.ids[row]).shown
    assert "none of these?" in shown
    assert "80%" in shown
    assert "exclude it, unless you see one that fits" in shown
    assert "is right" not in shown
    assert shown.index("Exclude (e)") < shown.index("Accept (a)")
    plain = int(np.flatnonzero(rich.issues.is_label_issue)[5])
    shown = Event.of(rich.noisy, "refresh", current_sample=rich.ids[plain]).shown
    assert shown.index("Accept (a)") < shown.index("Exclude (e)")


def test_what_is_accepted_in_bulk_leaves_strangers_out(rich: Rich) -> None:
    strangers = {rich.ids[i] for i in rich.strangers}
    assert "2 that probably belong to no class are left out" in " ".join(notes("accept_suggestions", rich.dataset))
    done = execute("accept_probable", rich.dataset, params={"least_probability": 0.0, "empty_classes": True})
    assert set(done["ids"]) == set(rich.noisy.wrong_ids) - strangers - set(rich.ids[40:])  # these are held out
    corrections.undo_corrections(rich.dataset)
    done = execute("accept_suggestions", rich.dataset, params={"empty_classes": True})
    assert set(done["ids"]) == set(rich.noisy.wrong_ids) - strangers
    by_hand = execute("accept_suggestions", rich.dataset, selected=sorted(strangers))
    assert set(by_hand["ids"]) == strangers  # somebody chose these


def test_no_bulk_action_empties_a_class_without_asking(run: Any) -> None:
    rings = [i for i, label in zip(run.ids, run.labels(), strict=True) if label == "ring"]
    for door, params in (("exclude_samples", {}), ("set_label", {"label": "bar"})):
        assert "the class 'ring' would be left without an image" in form(
            door, run.dataset, selected=rings, params=params
        )
        with pytest.raises(ExecutionError, match="'ring' would be left without an image"):
            execute(door, run.dataset, selected=rings, params=params)
        allowed = {**params, "empty_classes": True}
        assert form(door, run.dataset, selected=rings, params=allowed) == ""
        done = execute(door, run.dataset, selected=rings, params=allowed)
        assert len(done["ids"]) == len(rings)
        corrections.undo_corrections(run.dataset)
    assert form("exclude_samples", run.dataset, selected=rings[1:]) == ""
    assert form("keep_labels", run.dataset, selected=rings) == ""


def test_accepting_all_of_a_rare_class_is_asked_for_in_the_panel_too(noisy: NoisyDataset) -> None:
    """The only two labels of a class are flagged."""
    given = np.where(noisy.given == 2, 0, noisy.given)
    rare = np.flatnonzero(noisy.true != 2)[:2]
    given[rare] = 2
    noisy.dataset.set_values("ground_truth.label", [CLASSES[k] for k in given])
    issues = posterior_issues(given, noisy.pred_probs, class_names=CLASSES)
    flags = np.zeros(60, np.bool_)
    flags[rare] = True
    suggested = np.where(flags, noisy.true, given)
    issues = replace(issues, is_label_issue=flags, suggested=suggested, suggested_prob=np.full(60, 0.99))
    import_label_issues(noisy.dataset, "ground_truth", issues)
    ids = [noisy.ids[i] for i in rare]
    for door in ("accept_suggestions", "accept_probable"):
        assert "'ring' would be left without an image" in form(door, noisy.dataset)
        with pytest.raises(ExecutionError, match="'ring' would be left without an image"):
            execute(door, noisy.dataset)
    marks = [{"id": sample_id, "type": "default"} for sample_id in ids]
    asked = Event.of(noisy, "accept", selected=ids).params("prompt_user_for_operation")
    assert asked["operator_uri"].endswith("accept_suggestions")
    assert asked["params"]["ids"] == ids
    told = Event.of(noisy, "apply_marks", marks=marks, selected=ids).params("notify")
    assert "'ring' would be left without an image" in told["message"]
    assert set(noisy.labels()) == {"bar", "cross", "ring"}
    execute("review_and_move_on", noisy.dataset, current_sample=ids[0], params={"what": "accept"})
    ctx = context(noisy.dataset, current_sample=ids[1], params={"what": "accept"}, query_performance=True)
    operator("review_and_move_on").execute(ctx)
    told = " ".join(it.params["message"] for it in ctx.executor._requests if it.operator_uri == "notify")
    assert "The class 'ring' has no image left." in told


def test_annotators_are_shown_with_how_right_they_are(noisy: NoisyDataset) -> None:
    """One of three gave all wrong labels; a click shows what is left of one's."""
    wrong = noisy.true != noisy.given
    who = [f"person {2 if is_wrong else number % 2}" for number, is_wrong in enumerate(wrong)]
    noisy.dataset.set_values("ground_truth.annotator", who)
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=CLASSES)
    results = import_label_issues(noisy.dataset, "ground_truth", issues)
    worst, *others = results.info["annotators"]
    assert (worst["annotator"], worst["n_labels"], worst["n_flagged"]) == ("person 2", 12, 12)
    assert worst["quality"] == pytest.approx(issues.label_quality[wrong].mean(), abs=1e-4)
    assert len(others) == 2
    assert "Expected share of wrong labels per annotator" in Event.of(noisy, "on_load").shown
    corrections.keep_labels(noisy.dataset, noisy.wrong_ids[:1])
    assert set(Event.of(noisy, "show_annotator", {"y": "person 2"}).viewed) == set(noisy.wrong_ids[1:])


@pytest.mark.slow
def test_annotators_of_a_run_folder_come_along(tmp_path: Path, noisy: NoisyDataset) -> None:
    """Of three, one gave every other label wrong; what most gave is the samples' label."""
    given = np.array(noisy.labels(), dtype=object)
    other = np.where(given == "bar", "ring", "bar")
    by = {"lea": np.where(np.arange(60) % 2 == 0, other, given), "kim": given, "sam": given}
    rows = [
        (path, label, who)
        for who, gave in by.items()
        for path, label in zip(noisy.dataset.values("filepath"), gave, strict=True)
    ]
    pd.DataFrame(rows, columns=["path", "label", "who"]).to_csv(tmp_path / "table.csv", index=False)
    np.save(
        tmp_path / "x.npy", np.eye(3, dtype=np.float32)[noisy.true] + np.random.default_rng(0).normal(size=(60, 3)) / 9
    )
    options = ("--features", str(tmp_path / "x.npy"), "--annotator-column", "who", "--rounds", "1", "--quiet")
    done = CliRunner().invoke(main, ["find-issues", str(tmp_path / "table.csv"), "-o", str(tmp_path / "run"), *options])
    assert done.exit_code == 0, done.output
    results = import_label_issues(noisy.dataset, "ground_truth", tmp_path / "run")
    assert results.info["annotators"][0]["annotator"] == "lea"
    assert set(noisy.dataset.values(FIELDS.of("n_annotators"))) == {3}
    shown = Event.of(noisy, "on_load").shown
    assert "The least reliable first, by quality from 0 to 1: **lea**" in shown
    assert "3 annotators, **67%** gave this label" in Event.of(noisy, "refresh", current_sample=noisy.ids[0]).shown
