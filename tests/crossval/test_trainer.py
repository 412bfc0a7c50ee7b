"""What every trainer is asked, and what its answers must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.crossval.incv import IterativeCV
from cvcoteach.crossval.trainer import Fold, FoldKey, FoldProgress
from tests.fakes import BatchTable, NearestMeans, Table, clouds


def test_finished_folds_are_not_trained_again_and_the_result_is_the_same() -> None:
    x, _, y = clouds(120, 3, 0.3, 8)
    trainer = NearestMeans(x, 3)
    finished: dict[FoldKey, np.ndarray] = {}
    whole = IterativeCV("agreement", 3, seed=1).run(trainer, y, finished=finished)
    assert sorted(finished) == [(r, f) for r in (1, 2, 3) for f in (1, 2)]

    half = {key: finished[key] for key in [FoldKey(1, 1), FoldKey(1, 2), FoldKey(2, 2)]}
    told: list[FoldProgress] = []
    again = IterativeCV("agreement", 3, seed=1).run(trainer, y, finished=half, on_fold=told.append)
    np.testing.assert_array_equal(whole.pred_probs, again.pred_probs)
    np.testing.assert_array_equal(whole.selected, again.selected)
    assert [p.key for p in told if p.state == "kept"] == [(1, 1), (1, 2), (2, 2)]
    assert [p.key for p in told if p.state == "done"] == [(2, 1), (3, 1), (3, 2)]


def test_a_batch_trainer_gets_a_whole_round_at_once_or_nothing() -> None:
    x, _, y = clouds(120, 3, 0.3, 9)
    table = NearestMeans(x, 3).fit_predict(np.arange(120), y, np.arange(120), 0)
    finished: dict[FoldKey, np.ndarray] = {}
    trainer = BatchTable(table)
    IterativeCV("agreement", 2).run(trainer, y, finished=finished)
    assert trainer.batches == 2
    del finished[FoldKey(2, 1)]
    trainer = BatchTable(table)
    IterativeCV("agreement", 2).run(trainer, y, finished=finished)
    assert trainer.batches == 1
    assert len(trainer.asked) == 2


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (np.full((4, 3), 1 / 3), "has shape"),
        (np.full((4, 2), 0.7), "sums to 1.4"),
        (np.array([[np.nan, 1.0]] * 4), r"\[0\] is nan for class 0; probabilities lie between 0 and 1"),
        (np.array([[np.inf, 1.0]] * 4), r"\[0\] is inf for class 0; probabilities lie between 0 and 1"),
        (np.array([[2.0, -1.0]] * 4), "between 0 and 1"),
    ],
)
def test_an_answer_that_is_no_probability_names_fold_and_round(answer: np.ndarray, sentence: str) -> None:
    with pytest.raises(InputError, match=f"the trainer's answer for fold 1 of round 1.*{sentence}"):
        IterativeCV().run(Table(answer), [0, 1, 0, 1], n_classes=2)


def _with_nan(answer: np.ndarray) -> np.ndarray:
    answer[3, 1] = np.nan
    return answer


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (_with_nan, r"\[3\] is nan for class 1; probabilities lie between 0 and 1"),
        (lambda answer: answer * 0.5, r"\[\d+\] sums to 0\.5; each row of probabilities sums to 1"),
        (lambda answer: answer[:, :2], r"has shape \(\d+, 2\); \d+ images and 3 classes need"),
        (lambda answer: answer[1:], r"has shape \(\d+, 3\); \d+ images and 3 classes need"),
        (lambda answer: None, r"has shape \(\); \d+ images and 3 classes need"),
        (lambda answer: [[1], [2, 3]], r"is not an array; \d+ images and 3 classes need"),
    ],
)
def test_a_bad_answer_is_one_sentence_and_what_finished_before_is_kept(spoil: Any, sentence: str) -> None:
    @dataclass
    class Spoiling(NearestMeans):
        """Spoils its fifth answer."""

        calls: int = 0

        def fit_predict(self, *fold: Any) -> Any:
            self.calls += 1
            answer = super().fit_predict(*fold)
            return spoil(answer) if self.calls == 5 else answer

    x, _, y = clouds(200, 3, 0.3, 8)
    finished: dict[FoldKey, np.ndarray] = {}
    with pytest.raises(InputError, match="the trainer's answer for fold 3 of round 2 ?" + sentence) as error:
        IterativeCV(seed=1).run(Spoiling(x, 3), y, finished=finished)
    assert "\n" not in str(error.value)
    assert sorted(finished) == [(1, 1), (1, 2), (2, 1), (2, 2)]


def test_a_batch_with_too_few_answers_is_one_sentence() -> None:
    class Short(BatchTable):
        """Forgets the last folds."""

        def fit_predict_many(self, folds: Any) -> Any:
            return super().fit_predict_many(folds)[:1]

    with pytest.raises(InputError, match="the trainer gave 1 answer in round 1; 2 folds need one each"):
        IterativeCV().run(Short(np.full((200, 2), 0.5)), np.arange(200) % 2)


@dataclass
class SideBySide(NearestMeans):
    """Answers several folds at a time, the last first; stops after some."""

    answers_at_most: int = 99
    asked: int = 0

    def fit_predict_each(self, folds: Sequence[Fold]) -> Iterator[tuple[int, np.ndarray]]:
        """One answer a fold."""
        self.asked += len(folds)
        for position in reversed(range(len(folds))[-self.answers_at_most :]):
            yield position, self.fit_predict(*folds[position])


def test_folds_side_by_side_give_what_they_give_one_after_the_other_and_each_is_kept_when_it_is_ready() -> None:
    x, _, y = clouds(200, 3, 0.3, 8)
    whole = IterativeCV(seed=1).run(NearestMeans(x, 3), y)
    finished: dict[FoldKey, np.ndarray] = {}
    with pytest.raises(InputError, match="no answer for fold 1 of round 1"):
        IterativeCV(seed=1).run(SideBySide(x, 3, 1), y, finished=finished)
    assert sorted(finished) == [(1, 2)]
    trainer = SideBySide(x, 3)
    told: list[FoldProgress] = []
    again = IterativeCV(seed=1).run(trainer, y, finished=finished, on_fold=told.append)
    np.testing.assert_array_equal(whole.pred_probs, again.pred_probs)
    assert [p.key for p in told if p.state == "kept"] == [(1, 2)]
    assert trainer.asked == len(finished) - 1
