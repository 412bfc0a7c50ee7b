"""A training to its end: epoch after epoch, stopped early where held-out images say so."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

from cvcoteach.training.loop import EpochReport, OnEpoch, Training


class Fitting:
    """A training on its way to its end."""

    def __init__(self, training: Training, validate: Callable[[], float] | None = None) -> None:
        """Take a training at any epoch.

        Args:
            training: Its epochs are run by whoever holds this.
            validate: Returns the loss on images that are not trained on; see `fit`.
        """
        self.training = training
        self._validate = validate
        self._best, self._best_epoch = math.inf, training.epoch
        self._best_weights: list[dict[str, object]] | None = None
        self.ended = training.epoch >= training.recipe.epochs

    def take(self, report: EpochReport) -> EpochReport:
        """Take in that an epoch was run; return its report with the loss on held-out images, if there are any."""
        training = self.training
        patience = training.recipe.patience
        if self._validate is not None:
            loss = self._validate()
            report = replace(report, validation_loss=loss)
            if loss < self._best:
                self._best, self._best_epoch = loss, report.epoch
                self._best_weights = [copy.deepcopy(network.state_dict()) for network in training.networks]
        stopped = self._validate is not None and patience is not None and report.epoch - self._best_epoch >= patience
        self.ended = stopped or training.epoch >= training.recipe.epochs
        return report

    def settle(self) -> None:
        """Give the networks the weights of the best epoch, where held-out images told which one it is."""
        if self._best_weights is not None:
            for network, weights in zip(self.training.networks, self._best_weights, strict=True):
                network.load_state_dict(weights)


def fit(training: Training, on_epoch: OnEpoch | None = None, validate: Callable[[], float] | None = None) -> None:
    """Run the remaining epochs.

    Args:
        training: At any epoch.
        on_epoch: Called after each epoch.
        validate: Returns the loss on images that are not trained on. The networks then end with the weights of its
            best epoch, and training stops after the recipe's `patience` epochs without improvement.

    Raises:
        InputError: A loss is not finite.
    """
    fit_on(Fitting(training, validate), on_epoch)


def fit_on(fitting: Fitting, on_epoch: OnEpoch | None = None) -> None:
    """Run the remaining epochs of a training that has begun; errors as of `fit`."""
    while not fitting.ended:
        report = fitting.take(fitting.training.run_epoch())
        if on_epoch is not None:
            on_epoch(report)
    fitting.settle()
