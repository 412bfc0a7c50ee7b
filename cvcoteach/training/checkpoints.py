"""A training that is killed goes on from its last epoch."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch

from cvcoteach._files import replacing
from cvcoteach._validation import InputError
from cvcoteach.training.loop import EpochReport, OnEpoch
from cvcoteach.training.memory import kept_between_batches
from cvcoteach.training.recipe import Recipe


class Resumable(Protocol):
    """A training of one network or several."""

    recipe: Recipe

    @property
    def epoch(self) -> int:
        """How many are done."""

    def run_epoch(self) -> EpochReport:
        """Train through one epoch."""

    def state_dict(self) -> dict[str, Any]:
        """All that a later `load_state_dict` needs to go on."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""


def run_to_end(training: Resumable, checkpoint: Path | None = None, on_epoch: OnEpoch | None = None) -> None:
    """Run the epochs that are left, from the checkpoint if there is one; it is written anew after every epoch.

    Raises InputError where a loss is not finite, and the checkpoint of the last good epoch stays.
    """
    if checkpoint is not None and checkpoint.exists():
        training.load_state_dict(load_checkpoint(checkpoint))
    with kept_between_batches():
        while training.epoch < training.recipe.epochs:
            report = training.run_epoch()
            if checkpoint is not None:
                save_checkpoint(checkpoint, training.state_dict())
            if on_epoch is not None:
                on_epoch(report)


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values, atomically."""
    with replacing(file) as out:
        torch.save(state, out)


def load_checkpoint(file: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing but tensors and plain values is ever unpickled.

    Raises InputError where the file holds something else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what foreign files hold; they are refused below
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
        raise InputError(f"{file} is damaged; delete it, and the training begins anew.") from error
    return state
