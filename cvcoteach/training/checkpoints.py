"""Checkpoints, so that a killed training resumes from its last epoch."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Protocol

import torch

from cvcoteach._files import Sealed, read_sealed, replacing
from cvcoteach._validation import InputError
from cvcoteach.training.loop import EpochReport, OnEpoch
from cvcoteach.training.memory import kept_between_batches
from cvcoteach.training.recipe import Recipe


class Resumable(Protocol):
    """A training of one network or several."""

    recipe: Recipe

    @property
    def epoch(self) -> int:
        """Epochs done so far."""

    def run_epoch(self) -> EpochReport:
        """Train for one epoch."""

    def state_dict(self) -> dict[str, Any]:
        """Return all that `load_state_dict` needs to continue from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state that `state_dict` returned."""


def run_to_end(training: Resumable, checkpoint: Path | None = None, on_epoch: OnEpoch | None = None) -> None:
    """Run the remaining epochs, starting from the checkpoint if there is one, and rewrite it after every epoch.

    Raises:
        InputError: A loss is not finite; the checkpoint of the last good epoch stays.
    """
    if checkpoint is not None and checkpoint.exists():
        try:
            state = load_checkpoint(checkpoint)
        except InputError:  # damaged: what it saved is trained again
            checkpoint.unlink()
        else:
            _resume(training, state, checkpoint)
    with kept_between_batches():
        while training.epoch < training.recipe.epochs:
            report = training.run_epoch()
            if checkpoint is not None:
                save_checkpoint(checkpoint, training.state_dict())
            if on_epoch is not None:
                on_epoch(report)


def _resume(training: Resumable, state: Any, file: Path) -> None:
    """Continue from a state. Raises InputError for one of another training, or of none."""
    try:
        training.load_state_dict(state)
    except MemoryError:
        raise
    except Exception as error:  # torch raises all kinds of errors for states that do not fit
        raise InputError(f"{file} is damaged; delete it to train from the start.") from error


def save_checkpoint(file: Path, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    with replacing(file) as out:
        sealed = Sealed(out)
        try:
            torch.save(state, sealed)  # type: ignore[arg-type]
        except RuntimeError as error:
            if sealed.error is not None:  # torch hides why it could not write
                raise sealed.error from error
            raise
        sealed.seal()


def load_checkpoint(file: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote; nothing but tensors and plain values is ever unpickled.

    Raises:
        InputError: The file holds anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the content of foreign files, which are refused below
            state: dict[str, Any] = torch.load(io.BytesIO(read_sealed(file)), map_location="cpu", weights_only=True)
    except Exception as error:  # a broken archive makes torch raise anything at all
        raise InputError(f"{file} is damaged; delete it to train from the start.") from error
    return state
