"""Which labels Co-teaching takes for right, which join them later, and how many of them are wrong."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from cvcoteach._validation import BoolArray, FloatArray, IntArray, PredProbs
from cvcoteach.coteaching.curriculum import (
    PUBLISHED_PACE,
    Curriculum,
    Pace,
    incv_curriculum,
    matched_epochs,
    vanilla_curriculum,
)
from cvcoteach.crossval.result import CrossValResult


@dataclass(frozen=True, eq=False)
class Selection:
    """The labels of n images that are trained on, before the number of epochs is known."""

    labels: IntArray
    """(n,) the class that each image is trained as, 0..K-1."""
    selected: BoolArray
    """(n,) S: labels taken to be right, trained on from the start."""
    candidate: BoolArray
    """(n,) C: labels that join after the warm-up."""
    noise_rate: float
    """ε̂: share of wrong labels among all given labels, in [0, 1)."""
    wrong: FloatArray | None = None
    """(n,) probability that each label is wrong, in [0, 1]; None: not known."""
    weights: FloatArray | None = None
    """(n,) weight of each label, in [0, 1]; None: all 1."""
    soft: PredProbs | None = None
    """(n, K) what each image of S is learned as, in place of its label and without leaving any out; None: its label."""
    as_published: bool = False
    """Whether the noise left in S is the paper's; see `incv_curriculum`."""

    @classmethod
    def of_everything(cls, labels: IntArray, noise_rate: float) -> Self:
        """Return all labels (n,) as S, as in the original Co-teaching."""
        everything = np.ones(len(labels), np.bool_)
        return cls(labels, everything, ~everything, noise_rate)

    def subset(self, rows: IntArray) -> Self:
        """Return the selection of some of the images, rows (m,)."""

        def of(array: Any) -> Any:
            return None if array is None else array[rows]

        return replace(
            self,
            labels=self.labels[rows],
            selected=self.selected[rows],
            candidate=self.candidate[rows],
            wrong=of(self.wrong),
            weights=of(self.weights),
            soft=of(self.soft),
        )

    def epochs(self, passes: int, *, pace: Pace = PUBLISHED_PACE) -> int:
        """Return how many epochs show about as many images as `passes`, at most ten times those of all images."""
        n_selected, n_candidate = int(self.selected.sum()), int(self.candidate.sum())
        most = max(1, 10 * passes // len(self.labels))  # twenty images shown ten thousand times teach nothing more
        return matched_epochs(n_selected, n_candidate, self.noise_rate, passes, warmup=pace.warmup, most=most)

    def curriculum(self, n_classes: int, epochs: int, *, pace: Pace = PUBLISHED_PACE) -> Curriculum:
        """Return what is trained on in so many epochs, and how much of it is kept; see `incv_curriculum`."""
        if self.soft is not None:  # doubt is in the labels, so none is left out
            return Curriculum(np.flatnonzero(self.selected), np.arange(0), 0.0, 0.0, 0, pace.ramp_in(epochs))
        if self.selected.all():  # nothing was sorted out, so all of ε̂ is left
            return vanilla_curriculum(len(self.labels), self.noise_rate, epochs, pace=pace)
        return incv_curriculum(
            np.flatnonzero(self.selected),
            np.flatnonzero(self.candidate),
            self.noise_rate,
            epochs,
            n=len(self.labels),
            n_classes=n_classes,
            wrong=self.wrong,
            as_published=self.as_published,
            pace=pace,
        )


def selection_after(found: CrossValResult, *, noise_rate: float | None = None) -> Selection:
    """Return the selection that follows from cross-validation.

    After "posterior", S is what is not flagged, and C what is flagged. After "agreement", S and C are INCV's own, and
    all shares are the paper's.

    Args:
        found: The result of all rounds.
        noise_rate: ε̂; None: as estimated, by the posterior if it has a signal (of a few dozen images it has none).
    """
    if found.select == "agreement":
        rate = found.noise_rate if noise_rate is None else noise_rate
        return Selection(found.labels, found.selected, found.candidate, rate, as_published=True)
    wrong = found.posterior.wrong if found.posterior.has_signal else None
    if noise_rate is None:
        noise_rate = found.rounds[-1].noise_rate if wrong is None else float(wrong.mean())
    flags = found.flags
    return Selection(found.labels, ~flags, flags, noise_rate, wrong)


def softened(selection: Selection, posterior: PredProbs) -> Selection:
    """Return the selection of everything, each image learned as the classes that the posterior takes it for.

    Args:
        selection: Its labels and noise rate are kept.
        posterior: (n, K) probability of each true class, rows sum to 1; see `label_posterior`.
    """
    everything = Selection.of_everything(selection.labels, selection.noise_rate)
    return replace(everything, wrong=selection.wrong, soft=posterior.astype(np.float32, copy=False))


def corrected(selection: Selection, suggested: IntArray, suggested_prob: FloatArray) -> Selection:
    """Return the selection with everything outside S as C, under corrected labels, one step beyond the paper.

    Without probabilities that labels are wrong, nothing can be corrected, and the selection is returned unchanged.

    Args:
        selection: S decides what is kept as it is.
        suggested: (n,) most probable class of each image.
        suggested_prob: (n,) its probability in [0, 1], which becomes the weight of the corrected label.
    """
    if selection.wrong is None:
        return selection
    c = ~selection.selected
    return replace(
        selection,
        labels=np.where(c, suggested, selection.labels),
        candidate=c,
        wrong=np.where(c, 1 - suggested_prob, selection.wrong),
        weights=np.where(c, suggested_prob, 1.0),
    )
