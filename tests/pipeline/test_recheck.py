"""Labels judged again after retraining; the whole of it is tested as a command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.coteaching.presets import SOFT_HEAD_RECIPE
from cvcoteach.coteaching.selection import Selection, softened
from cvcoteach.coteaching.training import CoTeachingTask
from cvcoteach.data.sources import read_source
from cvcoteach.issues.corrections import Corrected
from cvcoteach.pipeline import recheck
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.progress import RunProgress
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.retraining_set import Estimates, ImageProperties, RetrainingSet
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.training.inputs import FeatureInputs
from tests.finished_runs import finished_run
from tests.images import CLASSES, class_folders

N = 60


@pytest.fixture
def judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Judges the labels of a run again, whose groups are given, and remembers what each pair was trained on."""
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    results = finished_run(tmp_path / "run", source, source.labels)
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    of_pair = recheck.PairTrainer.fit_predict

    def watched(trainer: Any, train: Any, labels: Any, rows: Any, seed: int) -> Any:
        seen.append((train, rows))
        return of_pair(trainer, train, labels, rows, seed)

    monkeypatch.setattr(recheck.PairTrainer, "fit_predict", watched)

    def judge(groups: np.ndarray | None, record: Any = None) -> RunResults:
        known = replace(results, groups=np.full(N, -1) if groups is None else groups)
        run = FinishedRun(known, RunFolder.read(tmp_path / "run").record | (record or {}))
        rows, nothing = np.arange(5, N), np.zeros(N - 5, np.bool_)
        features = np.eye(len(CLASSES), dtype=np.float32)[source.labels[rows]]
        inputs = FeatureInputs(features + np.random.default_rng(0).normal(0, 0.1, features.shape).astype(np.float32))
        data = RetrainingSet(
            paths=tuple(known.paths[i] for i in rows),
            rows=rows,
            inputs=inputs,
            given=known.labels[rows],
            corrected=Corrected(known.labels[rows], ~nothing, nothing, nothing, nothing),
            estimates=Estimates(None, known.labels[rows], np.ones(N - 5)),
            class_names=known.class_names,
            images=ImageProperties(8, 1, "key"),
        )
        selection = softened(
            Selection.of_everything(data.given, 0.0), np.eye(len(CLASSES), dtype=np.float32)[data.given]
        )
        recipe = replace(SOFT_HEAD_RECIPE, epochs=2)
        task = CoTeachingTask(inputs, selection, len(CLASSES), recipe, selection.curriculum(len(CLASSES), 2), 0)
        plan = inputs.plan(recipe, len(CLASSES), device="cpu", threads=1, precision="float32")
        return recheck.judged_again(
            run, data, task, plan, source, tmp_path / "again", identity={"seed": 0}, progress=RunProgress()
        )

    return SimpleNamespace(judge=judge, seen=seen, before=results)


def test_no_pair_judges_an_image_of_a_group_that_it_trained_on(judged: Any) -> None:
    groups = np.arange(N) // 4
    after = judged.judge(groups)
    assert len(judged.seen) == 5
    for train, rows in judged.seen:
        assert not np.isin(groups[5:][rows], groups[5:][train]).any()
    assert sorted(np.concatenate([rows for _, rows in judged.seen]).tolist()) == [*range(N - 5)]
    np.testing.assert_array_equal(after.pred_probs[:5], judged.before.pred_probs[:5], "left out of the training")
    assert not np.allclose(after.pred_probs[5:], judged.before.pred_probs[5:])
    assert RunResults.load(after.folder).groups.tolist() == groups.tolist()


def test_groups_that_an_earlier_build_did_not_write_down_are_asked_for(judged: Any) -> None:
    with pytest.raises(InputError, match=r"does not say which images belong to one group.*find the issues again"):
        judged.judge(None, {"groups": {"count": 15, "column": None}})
    assert not judged.seen
