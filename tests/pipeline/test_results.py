"""What a run found, written and read back."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cvcoteach import RunResults
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.data.unpacking import unpack_limit
from cvcoteach.issues.flags import FlagRule
from cvcoteach.issues.from_posterior import issues_of, posterior_issues
from cvcoteach.issues.summary import NAMES
from cvcoteach.noise_model import temperature, top_probs
from cvcoteach.noise_model.posterior import fit_posterior
from cvcoteach.noise_model.sparse_transition import SparseTransition
from cvcoteach.noise_model.top_probs import TopProbs
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.run_folder import FoldFiles, RunFolder
from cvcoteach.pipeline.settings import Settings
from cvcoteach.pipeline.unreadable import read_unreadable, write_unreadable
from tests.fakes import Table
from tests.pipeline.test_find_issues import QUICK, fake, source_of

__all__ = ["fake"]


@pytest.fixture
def run(tmp_path: Path, fake: Any) -> RunResults:
    """A finished run, as `find_issues` gives it."""
    source, trainer = source_of()
    fake(trainer)
    return find_issues(source, tmp_path / "run", QUICK)


def test_what_is_read_is_what_was_found_to_the_bit(run: RunResults) -> None:
    loaded = RunResults.load(str(run.folder))
    for field in dataclasses.fields(RunResults):
        if field.name != "found":
            np.testing.assert_array_equal(getattr(loaded, field.name), getattr(run, field.name), field.name)
    for field in dataclasses.fields(run.found):
        before, after = getattr(run.issues(), field.name), getattr(loaded.issues(), field.name)
        assert type(before) is type(after)
        np.testing.assert_array_equal(before, after, field.name)
    np.testing.assert_array_equal(loaded.dropped, ~(run.selected | run.candidate))


def test_the_issues_are_those_that_the_probabilities_of_the_run_give(run: RunResults) -> None:
    loaded = RunResults.load(run.folder)
    posterior = fit_posterior(loaded.labels, loaded.pred_probs)
    flags = posterior_issues(loaded.labels, loaded.pred_probs).is_label_issue
    np.testing.assert_array_equal(loaded.issues().label_quality, posterior.label_quality)
    np.testing.assert_array_equal(loaded.issues().is_label_issue, flags)
    np.testing.assert_array_equal(loaded.likely, posterior.suggested)
    np.testing.assert_array_equal(loaded.likely_prob, posterior.suggested_prob)
    assert loaded.found.has_signal == posterior.has_signal
    assert loaded.issues("posterior") is loaded.issues()
    with pytest.raises(InputError, match="filter_by is 'incvv'; did you mean incv"):
        loaded.issues("incvv")
    with pytest.raises(InputError, match=r"run selected by the posterior; find the issues with select 'agreement'"):
        loaded.issues("incv")


def test_a_run_by_agreement_has_the_flags_of_either_rule(tmp_path: Path, fake: Any) -> None:
    source, trainer = source_of()
    fake(trainer)
    find_issues(source, tmp_path / "run", Settings(select="agreement"))
    loaded = RunResults.load(tmp_path / "run")
    posterior = fit_posterior(loaded.labels, loaded.pred_probs_round_1)
    by_rounds = issues_of(posterior, class_names=loaded.class_names, flags=~loaded.selected, filter_by="incv")
    by_posterior = issues_of(posterior, class_names=loaded.class_names)
    for found, expected in ((loaded.issues(), by_rounds), (loaded.issues("posterior"), by_posterior)):
        for field in dataclasses.fields(expected):
            if field.name == "stranger":  # takes features, which probabilities alone are not
                continue
            np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), field.name)
    assert loaded.issues("incv") is loaded.issues()
    assert set(loaded.table().set) == {"selected", "candidate", "dropped"}


def test_the_table_is_the_csv_and_suggests_another_class_for_every_flag(run: RunResults) -> None:
    table = RunResults.load(run.folder).table()
    assert (run.folder / "issues.csv").read_text() == table.to_csv(index=False, float_format="%.6f")
    flagged = table[table.is_label_issue]
    assert 10 < len(flagged) < 100
    assert (flagged.suggested_label != flagged.given_label).all()
    order = run.worst_first()
    names = np.array(run.class_names)
    assert table.predicted_label.tolist() == names[run.pred_probs.argmax(axis=1)[order]].tolist()
    frame = run.issues().to_frame().iloc[order]
    assert table.suggested_label.tolist() == frame.suggested_class.tolist()
    assert table.suggested_prob.tolist() == frame.suggested_prob.tolist()


def test_the_summary_counts_given_and_suggested_of_all_flags(run: RunResults) -> None:
    flagged = run.table()[run.table().is_label_issue]
    counts = flagged.groupby(["given_label", "suggested_label"]).size()
    assert run.summary["n_issues"] == len(flagged) == counts.sum()
    assert run.summary["confusions"][0]["count"] == counts.max()
    for pair in run.summary["confusions"]:
        assert counts[pair["given"], pair["suggested"]] == pair["count"]


def test_a_folder_without_a_finished_run_is_refused(run: RunResults, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run of cvcoteach"):
        RunResults.load(tmp_path)
    with RunFolder.open(tmp_path / "other", {}) as other:
        with pytest.raises(InputError, match="holds an unfinished run; the command that began it goes on with it"):
            RunResults.load(other.path)
        other.save(state="done")
    with pytest.raises(InputError, match=r"has no probabilities\.npz; it takes the folder of a run of find-issues"):
        RunResults.load(tmp_path / "other")


def test_results_of_another_version_and_damaged_ones_are_refused_in_a_sentence(run: RunResults) -> None:
    file = run.folder / "probabilities.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **{name: array for name, array in content.items() if name != "suggested_prob"})
    with pytest.raises(InputError, match="has no suggested_prob: another version of cvcoteach wrote it"):
        RunResults.load(run.folder)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(InputError, match=r"probabilities\.npz is damaged"):
        RunResults.load(run.folder)


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("labels", lambda labels: labels[:-5], "shape"),
        ("labels", lambda labels: labels + 10**15, "names classes"),
        ("labels", lambda labels: labels - 5, "names classes"),
        ("labels", lambda labels: labels + 0.5, "float64"),
        ("labels", lambda labels: labels[:0], "shape"),
        ("suggested", lambda suggested: suggested + 10**9, "suggested names classes"),
        ("paths", lambda paths: paths[:3], r"paths has shape \(3,\)"),
        ("pred_probs", lambda probs: probs[:, 0], "pred_probs has shape"),
        ("class_names", lambda names: names[:1], "0 to 2 of 1"),
        ("selected", lambda selected: selected * 7, "selected has shape"),
        ("label_quality", lambda quality: quality * np.nan, "not finite"),
        ("filter_by", lambda rule: np.array(3), "filter_by"),
    ],
)
def test_results_that_do_not_fit_each_other_are_refused(run: RunResults, name: str, change: Any, sentence: str) -> None:
    file = run.folder / "probabilities.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **{**content, name: change(content[name])})
    with pytest.raises(InputError, match=rf"probabilities\.npz is damaged .*{sentence}"):
        RunResults.load(run.folder)


@pytest.fixture
def many(tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch) -> RunResults:
    """A finished run whose 150 classes are taken for many."""
    for module in (temperature, top_probs):
        monkeypatch.setattr(module, "MANY_CLASSES", 140)
    rng = np.random.default_rng(0)
    true = np.arange(600) % 150
    labels = np.where(rng.random(600) < 0.1, (true + 1) % 150, true)
    logits = rng.standard_normal((600, 150)) + 8 * (true[:, None] == np.arange(150))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    names = tuple([f"class {i}" for i in range(150)])
    images = np.zeros((600, 4, 4, 3), np.uint8)
    paths = tuple([f"image {i}" for i in range(600)])
    fake(Table(probs))
    source = Source(Path("many"), Path("/"), paths, labels, names, array=images)
    return find_issues(source, tmp_path / "many", QUICK)


def test_a_run_of_many_classes_keeps_the_largest_probabilities_and_a_sparse_transition(many: RunResults) -> None:
    loaded = RunResults.load(many.folder)
    assert isinstance(loaded.pred_probs, TopProbs)
    assert isinstance(loaded.found.transition, SparseTransition)
    for name in ("pred_probs", "pred_probs_round_1"):
        np.testing.assert_array_equal(np.asarray(getattr(loaded, name)), np.asarray(getattr(many, name)))
    np.testing.assert_array_equal(loaded.found.transition.diagonal(), many.found.transition.diagonal())
    assert loaded.issues().n_classes == 150
    assert loaded.found.n_issues > 40
    with np.load(many.folder / "probabilities.npz") as arrays:
        assert arrays["pred_probs"].shape == (600,)
        assert "transition" not in arrays
    assert loaded.flagged_by(FlagRule("precision")).found.n_issues > 40


def test_a_finished_run_of_many_classes_resumes_from_the_folds_that_are_whole(many: RunResults) -> None:
    run = RunFolder.read(many.folder)
    assert len(run.folds) == 7
    assert all(isinstance(fold, TopProbs) for fold in run.folds.values())
    file = next((many.folder / "folds").glob("round-2-fold-1.npy"))
    file.write_bytes(file.read_bytes()[:-40])
    assert len(FoldFiles(many.folder / "folds")) == 6


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("pred_probs", lambda a: a[:-1]),
        ("pred_probs", lambda a: a["values"]),
        ("pred_probs_round_1", lambda a: np.zeros(600, [("classes", "<i4", (128,))])),
        ("class_names", lambda a: a[:-1]),
        ("transition_pairs", lambda a: a - a.max()),
        ("transition_scale", lambda a: a[1:]),
        ("transition_counts", lambda a: a * np.nan),
    ],
)
def test_odd_results_of_many_classes_are_refused_in_a_sentence(many: RunResults, name: str, change: Any) -> None:
    file = many.folder / "probabilities.npz"
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **{**content, name: change(content[name])})
    with pytest.raises(InputError, match=r"probabilities\.npz is damaged"):
        RunResults.load(many.folder)


def test_a_flipped_bit_in_any_result_is_told(run: RunResults) -> None:
    file = run.folder / "probabilities.npz"
    whole = file.read_bytes()
    told = 0
    for at in range(0, len(whole), len(whole) // 50):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        try:  # some bytes of an archive say nothing, such as its times
            loaded = RunResults.load(run.folder)
        except InputError:
            told += 1
        else:
            np.testing.assert_array_equal(loaded.pred_probs, run.pred_probs)
            np.testing.assert_array_equal(loaded.found.label_quality, run.found.label_quality)
    assert told > 40


@pytest.mark.parametrize(
    "change",
    [
        {"identity": []}, {"identity": {"recipe": 3}}, {"identity": {"backbone": 3}}, {"identity": {"image_size": "x"}},
        {"source": 3}, {"reading": [1]}, {"images": 3}, {"weights": 3}, {"rounds": "x"}, {"summary": 1},
    ],
)  # fmt: skip
def test_a_record_whose_fields_are_of_another_kind_is_refused(run: RunResults, change: dict[str, Any]) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(InputError, match=r"run\.json is damaged: its .* is "):
        FinishedRun.read(run.folder)


@pytest.mark.parametrize("change", [{"rounds": []}, {"rounds": ["x"]}, {"rounds": [{"noise_rate": "x"}]}])
def test_a_record_without_a_noise_rate_is_refused(run: RunResults, change: dict[str, Any]) -> None:
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(InputError, match="its first round has no noise_rate"):
        FinishedRun.read(run.folder)


def test_unreadable_images_are_listed_with_the_reason(tmp_path: Path) -> None:
    write_unreadable(tmp_path, {})
    assert not (tmp_path / "unreadable.csv").exists()
    assert read_unreadable(tmp_path) == {}
    reasons = {'a "b", c.png': "cut short", "d\ne.png": "no image"}
    write_unreadable(tmp_path, reasons)
    assert read_unreadable(tmp_path) == reasons
    assert pd.read_csv(tmp_path / "unreadable.csv").columns.tolist() == ["path", "reason"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("make", [os.mkfifo, lambda file: os.symlink("/dev/zero", file)], ids=["pipe", "device"])
def test_a_pipe_or_a_device_in_a_run_is_not_waited_for(run: RunResults, make: Any) -> None:
    for name in ("issues.csv", "unreadable.csv"):
        (run.folder / name).unlink(missing_ok=True)
        make(run.folder / name)
    assert not run.has_written_table()
    assert not run.has_its_table()
    with pytest.raises(InputError, match="is not a regular file"):
        read_unreadable(run.folder)


def test_the_repr_is_one_line(run: RunResults) -> None:
    assert repr(run) == f"RunResults({str(run.folder)!r}, {run.issues()!r})"
    assert "\n" not in repr(run)


@pytest.mark.parametrize(
    "change", [{"n_images": "x"}, {"confusions": {}}, {"expected_recall": 0.5}, {"flag_for": None}]
)
def test_figures_of_another_kind_are_refused_and_absent_ones_counted_again(run: RunResults, change: Any) -> None:
    file = run.folder / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "summary": {**record["summary"], **change}}))
    with pytest.raises(InputError, match=rf"run\.json is damaged: its summary\.{next(iter(change))} is"):
        RunResults.load(run.folder)
    file.write_text(json.dumps({**record, "summary": {}}))
    loaded = RunResults.load(run.folder)
    assert {name: loaded.summary[name] for name in NAMES} == {name: run.summary[name] for name in NAMES}


def test_results_of_a_few_bytes_that_unpack_to_far_more_are_refused_unless_it_is_allowed(run: RunResults) -> None:
    file = run.folder / "probabilities.npz"
    with np.load(file) as content:
        arrays = dict(content)
    np.savez_compressed(file, **arrays, more=np.zeros(2**22))
    assert RunResults.load(run.folder).paths == run.paths
    with unpack_limit(2**20), pytest.raises(InputError, match=r"more.npy in .* would unpack from"):
        RunResults.load(run.folder)


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"path,reason\nx\n", b"path,reason\n\xff,x\n"])
def test_a_damaged_list_of_unreadable_images_gets_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "unreadable.csv").write_bytes(content)
    if not content:
        assert read_unreadable(tmp_path) == {}
        return
    with pytest.raises(InputError, match=r"unreadable.csv is damaged .* it takes the columns path and reason"):
        read_unreadable(tmp_path)
