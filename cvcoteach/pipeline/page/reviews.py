"""What people decided about a run's labels, and what that says about the run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cvcoteach._files import digest
from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.issues.corrections import Corrected, Judged, blind_paths, correct
from cvcoteach.issues.precision_recall import Interval, Readout
from cvcoteach.issues.reviews import LEAST_REVIEWS, ReviewSample, measured_precision_recall
from cvcoteach.pipeline.results import RunResults

LEAST_BLIND = LEAST_REVIEWS
"""Images judged blind, in the order drawn, from which precision and recall are measured."""

MOST_GROUPS = 5
"""Groups by which said and found probabilities are compared."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """Decisions about the n labels of a run."""

    corrected: Corrected
    """(n,) labels after the reviews, and what was reviewed or excluded."""
    blind: BoolArray
    """(n,) reviewed without our suggestion."""
    sample: ReviewSample | None
    """The images that are shown blind, in the order drawn."""

    @classmethod
    def read(cls, file: Path, results: RunResults, root: Path, sample: ReviewSample | None) -> Reviews:
        """Read a corrections file, see `correct`. Raises InputError where it does not fit the run."""
        nothing = np.zeros(len(results.labels), np.bool_)
        judged = Judged(results.paths, root, results.labels, results.found.suggested, results.class_names)
        corrected = correct(file, judged, nothing, nothing)
        unseen = blind_paths(file)
        blind = np.array([path in unseen for path in results.paths], np.bool_)
        return cls(corrected, blind & (corrected.reviewed | corrected.excluded), sample)

    @property
    def decided(self) -> BoolArray:
        """(n,) whether somebody decided about the label."""
        return self.corrected.reviewed | self.corrected.excluded

    @property
    def key(self) -> str:
        """A digest of all decisions: what is decided on a page is kept for pages with the same ones."""
        made = self.corrected
        return digest(made.labels, made.reviewed, made.excluded, self.blind)

    @property
    def n_in_order(self) -> int:
        """How many images of the sample were judged blind, from the first on without a gap."""
        if self.sample is None:
            return 0
        done = self.blind[self.sample.indices]
        return len(done) if done.all() else int(np.argmin(done))

    def was_wrong(self, results: RunResults) -> BoolArray:
        """Return whether people found each label wrong, (n,); an excluded image has no right label."""
        return self.corrected.excluded | (self.corrected.labels != results.labels)

    def agreed(self, results: RunResults) -> BoolArray:
        """Return where people came to our answer, (n,): the suggestion if flagged, else the given label.

        An image that no class fits agrees with a flag.
        """
        found = results.found
        ours = np.where(found.is_label_issue, found.suggested, found.labels)
        labelled = self.corrected.reviewed & (self.corrected.labels == ours)
        return labelled | (self.corrected.excluded & found.is_label_issue)

    def measured(self, results: RunResults) -> Readout | None:
        """Return precision and recall by the images judged blind in the order drawn; None before `LEAST_BLIND`."""
        if self.sample is None or self.n_in_order < LEAST_BLIND:
            return None
        wrong = self.was_wrong(results)[self.sample.indices[: self.n_in_order]]
        return measured_precision_recall(results.found, self.sample, wrong)

    def reliability(self, results: RunResults) -> list[dict[str, Any]]:
        """Return a record per group of images judged blind: `said`, the mean probability that their labels are wrong,
        `found`, the share that is, and `n`; nothing without a signal, or for fewer than `LEAST_BLIND` images.
        """
        judged = np.flatnonzero(self.blind)
        if not results.found.has_signal or len(judged) < LEAST_BLIND:
            return []
        said, wrong = results.found.wrong, self.was_wrong(results)
        ordered = judged[np.argsort(said[judged], kind="stable")]
        groups = np.array_split(ordered, min(MOST_GROUPS, len(ordered) // (LEAST_BLIND // 2)))
        return [
            {"said": round(float(said[g].mean()), 4), "found": round(float(wrong[g].mean()), 4), "n": len(g)}
            for g in groups
        ]

    def figures(self, results: RunResults) -> dict[str, Any]:
        """Return the counts of decisions, how often people agreed with us, and what was measured, ready for JSON."""
        decided, agreed = self.decided, self.agreed(results)
        relabelled = self.corrected.reviewed & (self.corrected.labels != results.labels)
        open_ = decided & ~self.blind
        measured = self.measured(results)
        return {
            "n_reviewed": int(decided.sum()),
            "n_relabelled": int(relabelled.sum()),
            "n_kept": int((self.corrected.reviewed & ~relabelled).sum()),
            "n_excluded": int(self.corrected.excluded.sum()),
            "agreed_blind": _share(agreed, self.blind),
            "agreed_not_blind": _share(agreed, open_),
            "measured_precision": None if measured is None else _rounded(measured.precision),
            "measured_recall": None if measured is None else _rounded(measured.recall),
            "reliability": self.reliability(results),
            "n_measured": 0 if measured is None else measured.n_reviewed,
        }


def _share(agreed: BoolArray, of: BoolArray) -> dict[str, int]:
    return {"agreed": int((agreed & of).sum()), "of": int(of.sum())}


def _rounded(interval: Interval | None) -> dict[str, float] | None:
    return None if interval is None else {name: round(value, 4) for name, value in asdict(interval).items()}


def codes_of(reviews: Reviews | None, images: IntArray, results: RunResults) -> list[dict[str, Any] | None]:
    """Return the decision about each image (m,), as the page keeps it; None where there is none."""
    if reviews is None:
        return [None] * len(images)
    corrected, names = reviews.corrected, results.class_names
    return [
        None
        if not reviews.decided[i]
        else {"action": "excluded", "label": "", "blind": bool(reviews.blind[i])}
        if corrected.excluded[i]
        else {"action": "kept", "label": "", "blind": bool(reviews.blind[i])}
        if corrected.labels[i] == results.labels[i]
        else {"action": "set", "label": names[corrected.labels[i]], "blind": bool(reviews.blind[i])}
        for i in images.tolist()
    ]
