"""What every trainer is asked, and what its answers must be."""

from __future__ import annotations

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import FoldKey, FoldProgress
from tests.fakes import BatchTable, NearestMeans, Table, clouds


def test_finished_folds_are_not_trained_again_and_the_result_is_the_same() -> None:
    x, _, y = clouds(120, 3, 0.3, 8)
    trainer = NearestMeans(x, 3)
    finished: dict[FoldKey, np.ndarray] = {}
    whole = IterativeCV(3, seed=1).run(trainer, y, finished=finished)
    assert sorted(finished) == [(r, f) for r in (1, 2, 3) for f in (1, 2)]

    half = {key: finished[key] for key in [FoldKey(1, 1), FoldKey(1, 2), FoldKey(2, 2)]}
    told: list[FoldProgress] = []
    again = IterativeCV(3, seed=1).run(trainer, y, finished=half, on_fold=told.append)
    np.testing.assert_array_equal(whole.pred_probs, again.pred_probs)
    np.testing.assert_array_equal(whole.selected, again.selected)
    assert [p.key for p in told if p.state == "kept"] == [(1, 1), (1, 2), (2, 2)]
    assert [p.key for p in told if p.state == "done"] == [(2, 1), (3, 1), (3, 2)]


def test_a_batch_trainer_gets_a_whole_round_at_once_or_nothing() -> None:
    x, _, y = clouds(120, 3, 0.3, 9)
    table = NearestMeans(x, 3).fit_predict(np.arange(120), y, np.arange(120), 0)
    finished: dict[FoldKey, np.ndarray] = {}
    trainer = BatchTable(table)
    IterativeCV(2).run(trainer, y, finished=finished)
    assert trainer.batches == 2
    del finished[FoldKey(2, 1)]
    trainer = BatchTable(table)
    IterativeCV(2).run(trainer, y, finished=finished)
    assert trainer.batches == 1
    assert len(trainer.asked) == 2


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (np.full((4, 3), 1 / 3), "has shape"),
        (np.full((4, 2), 0.7), "sums to 1.4"),
        (np.array([[np.nan, 1.0]] * 4), "between 0 and 1"),
        (np.array([[2.0, -1.0]] * 4), "between 0 and 1"),
    ],
)
def test_an_answer_that_is_no_probability_names_fold_and_round(answer: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=f"the trainer's answer for fold 1 of round 1.*{sentence}"):
        IterativeCV().run(Table(answer), [0, 1, 0, 1], n_classes=2)
