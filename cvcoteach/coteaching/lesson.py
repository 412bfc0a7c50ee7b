"""What two networks are taught: which labels count as clean, which join them later, and how wrong they may be."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cvcoteach._validation import BoolArray, FloatArray, IntArray
from cvcoteach.coteaching.training import Curriculum, incv_curriculum, matched_epochs, vanilla_curriculum
from cvcoteach.crossval.final_scoring import FinalScores
from cvcoteach.crossval.incv import CrossValResult


@dataclass(frozen=True, eq=False)
class Lesson:
    """What is taught of n images, before it is known for how many epochs."""

    labels: IntArray
    """(n,) the class that each image is said to have."""
    selected: BoolArray
    """(n,) S: taken for clean, taught from the start."""
    candidate: BoolArray
    """(n,) C: joins after the warm-up."""
    noise_rate: float
    """ε̂: share of wrong labels among all given ones, in [0, 1)."""
    wrong: FloatArray | None = None
    """(n,) probability that each label is wrong, in [0, 1], where that is known."""
    weights: FloatArray | None = None
    """(n,) what each label counts, in [0, 1]; None: all 1."""
    as_published: bool = False
    """Whether the noise left in S is the paper's; see `incv_curriculum`."""

    def epochs(self, passes: int, *, warmup: int | None = None) -> int:
        """How many show about as many images as `passes`, at most ten times as many as all images would take."""
        n_selected, n_candidate = int(self.selected.sum()), int(self.candidate.sum())
        most = max(1, 10 * passes // len(self.labels))  # twenty images, shown ten thousand times, teach nothing more
        return matched_epochs(n_selected, n_candidate, self.noise_rate, passes, warmup=warmup, most=most)

    def curriculum(
        self, n_classes: int, epochs: int, *, warmup: int | None = None, ramp: float | None = None
    ) -> Curriculum:
        """The rows that are taught in so many epochs, and how many of them are kept; see `incv_curriculum`."""
        if self.selected.all():  # no selection, so that all of ε̂ is left
            return vanilla_curriculum(len(self.labels), self.noise_rate, epochs, ramp=ramp)
        return incv_curriculum(
            np.flatnonzero(self.selected),
            np.flatnonzero(self.candidate),
            self.noise_rate,
            len(self.labels),
            n_classes,
            epochs,
            wrong=self.wrong,
            as_published=self.as_published,
            warmup=warmup,
            ramp=ramp,
        )


def lesson_after(found: CrossValResult, scores: FinalScores | None, *, noise_rate: float | None = None) -> Lesson:
    """What INCV and, unless None, the final scoring make of the given labels.

    With scores, S is what is not flagged, and C what is flagged and INCV left undecided. Without them, S and C are
    INCV's own and all shares the paper's.

    noise_rate: ε̂; None: what was found, by the scores where their posterior has a signal.
    """
    wrong = scores.wrong if scores is not None and scores.posterior.has_signal else None
    if noise_rate is None:
        noise_rate = found.noise_rate if wrong is None else float(wrong.mean())
    if scores is None:
        return Lesson(found.labels, found.selected, found.candidate, noise_rate, as_published=True)
    flagged = scores.is_label_issue
    return Lesson(found.labels, ~flagged, found.candidate & flagged, noise_rate, wrong)


def corrected(lesson: Lesson, suggested: IntArray, suggested_prob: FloatArray) -> Lesson:
    """One step beyond the paper: C is all that is not in S, under corrected labels.

    suggested, suggested_prob: (n,) the most probable class, and its probability, which is what it counts.

    Without probabilities of being wrong there is nothing to correct by, and the lesson stays as it is.
    """
    if lesson.wrong is None:
        return lesson
    c = ~lesson.selected
    return replace(
        lesson,
        labels=np.where(c, suggested, lesson.labels),
        candidate=c,
        wrong=np.where(c, 1 - suggested_prob, lesson.wrong),
        weights=np.where(c, suggested_prob, 1.0),
    )
