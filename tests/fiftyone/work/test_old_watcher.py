"""Events of a run as one `Progress`, until the pipeline reports that itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from cvcoteach._progress import Progress
from cvcoteach.crossval.trainer import FoldKey, FoldProgress
from cvcoteach.fiftyone.work.old_watcher import OldWatcher
from cvcoteach.pipeline.settings import ExtractionWatcher


class Heard:
    """Remembers everything."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.updates: list[Progress] = []

    def note(self, sentence: str) -> None:
        """One after the other."""
        self.notes.append(sentence)

    def progress(self, update: Progress) -> None:
        """One after the other."""
        self.updates.append(update)


def training(watcher: OldWatcher, n_rounds: int, n_folds: int, key: tuple[int, int], kept: bool = False) -> None:
    """Report one training of two epochs."""

    def event(state: Any) -> FoldProgress:
        return FoldProgress(FoldKey(*key), n_rounds, n_folds, 1, 1, state)

    if kept:
        watcher.fold(event("kept"))
        return
    watcher.fold(event("start"))
    for epoch in (1, 2):
        watcher.epoch(SimpleNamespace(epoch=epoch, n_epochs=2))
    watcher.fold(event("done"))


@pytest.mark.parametrize("n_final", [5, 10])
@pytest.mark.parametrize("n_rounds", [1, 4])
@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("kept", [0, 3])
def test_training_rises_to_its_end(n_rounds: int, n_final: int, kept: int, passes: int) -> None:
    heard = Heard()
    watcher = OldWatcher(heard)
    watcher.note("a sentence")
    watcher.reading(50, 100)
    watcher.extracting(50, 100, 12.0)
    trainings = [(n_rounds, 2, (round_, fold)) for round_ in range(1, n_rounds + 1) for fold in (1, 2)]
    last = n_rounds + passes
    trainings += [
        (last, n_final, (round_, fold)) for round_ in range(n_rounds + 1, last + 1) for fold in range(1, n_final + 1)
    ]
    for number, one in enumerate(trainings):
        training(watcher, *one, kept=number < kept)
    assert heard.notes == ["a sentence"]
    assert heard.updates[:2] == [
        Progress("reading images", 50, 100),
        Progress("computing features", 50, 100, "50 of 100 (12 images/s)"),
    ]
    updates = heard.updates[2:]
    assert {update.stage for update in updates} == {"training"}
    shares = [update.done / update.total for update in updates]
    assert shares == sorted(shares)
    assert len(set(shares)) > 2 * n_final * passes
    assert shares[-1] == pytest.approx(1)
    which = "" if passes == 1 else "pass 2 of 2, "
    assert updates[-2].message == f"final scoring, {which}fold {n_final} of {n_final}, epoch 2 of 2"
    messages = [update.message for update in updates]
    assert (f"round 1 of {n_rounds}, fold 1 of 2, kept from before" in messages) == (kept > 0)


def test_it_hears_of_features_too() -> None:
    assert isinstance(OldWatcher(Heard()), ExtractionWatcher)
