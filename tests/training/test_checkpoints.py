"""Checkpoints of a training."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from cvcoteach._files import Sealed
from cvcoteach._validation import InputError
from cvcoteach.training.checkpoints import load_checkpoint, run_to_end, save_checkpoint
from cvcoteach.training.loop import EpochReport
from cvcoteach.training.recipe import Recipe


class Harmful:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> Any:
        return (pytest.fail, ("the checkpoint was unpickled",))


def test_a_foreign_checkpoint_is_refused_and_never_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    for content in (pickle.dumps(Harmful()), b"no checkpoint at all"):
        with open(file, "wb") as out:
            sealed = Sealed(out)
            sealed.write(content)
            sealed.seal()
        with pytest.raises(InputError, match="damaged"):
            load_checkpoint(file)


class Counting:
    """A training that counts its epochs, and fails after some."""

    recipe = Recipe(epochs=4)

    def __init__(self, fails_after: int = 99) -> None:
        self.epoch, self.fails_after = 0, fails_after

    def run_epoch(self) -> EpochReport:
        if self.epoch == self.fails_after:
            raise InputError("the loss is nan")
        self.epoch += 1
        return EpochReport(self.epoch, 4, 1.0, 0.5)

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch = state["epoch"]


def test_a_failed_training_resumes_from_the_last_good_epoch(tmp_path: Path) -> None:
    file, reports = tmp_path / "checkpoint.pt", list[EpochReport]()
    with pytest.raises(InputError, match="the loss is nan"):
        run_to_end(Counting(fails_after=3), file)
    run_to_end(Counting(), file, reports.append)
    assert [report.epoch for report in reports] == [4]
    assert load_checkpoint(file) == {"epoch": 4}


def test_tensors_come_back_to_the_bit(tmp_path: Path) -> None:
    state = {"weights": torch.rand(3), "epoch": 2}
    save_checkpoint(tmp_path / "a.pt", state)
    again = load_checkpoint(tmp_path / "a.pt")
    assert torch.equal(again["weights"], state["weights"])
    assert again["epoch"] == 2


def test_a_damaged_checkpoint_is_trained_again(tmp_path: Path) -> None:
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"weights": torch.rand(1000), "epoch": 3})
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1  # in the weights
    for damaged in (bytes(content), bytes(content[:-100]), b""):
        file.write_bytes(damaged)
        reports: list[EpochReport] = []
        run_to_end(Counting(), file, reports.append)
        assert [report.epoch for report in reports] == [1, 2, 3, 4]


def test_a_full_disk_is_a_sentence_and_the_checkpoint_before_it_stays(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    file = tmp_path / "checkpoint.pt"
    save_checkpoint(file, {"epoch": 1})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 100, 10_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            with pytest.raises(InputError, match="could not be written: the disk is full"):
                save_checkpoint(file, {"weights": torch.rand(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_checkpoint(file) == {"epoch": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("state", [{}, [], {"weights": torch.zeros(3)}])
def test_a_checkpoint_of_something_else_gets_a_sentence(tmp_path: Path, state: Any) -> None:
    save_checkpoint(tmp_path / "checkpoint.pt", state)
    with pytest.raises(InputError, match=r"checkpoint.pt is damaged; delete it to train from the start"):
        run_to_end(Counting(), tmp_path / "checkpoint.pt")
