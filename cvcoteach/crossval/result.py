"""What the rounds of iterative cross-validation saw and decided."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cvcoteach._validation import BoolArray, IntArray
from cvcoteach.crossval.views import View
from cvcoteach.data.splits import Names, held_out
from cvcoteach.issues.display import table_html
from cvcoteach.issues.flags import FlagRule, flags_of
from cvcoteach.issues.from_posterior import issues_of
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.noise_model.posterior import Posterior
from cvcoteach.noise_model.top_probs import Answer

Select = Literal["posterior", "agreement"]


@dataclass(frozen=True, eq=False)
class Round:
    """The record of one round, the same for either rule."""

    scored: IntArray
    """(m,) indices of the images that the round scored, ascending: all, or the candidates ("agreement")."""
    pred_probs: Answer
    """(m, K) their probabilities, by models that did not train on them."""
    kept: IntArray
    """Indices that joined S."""
    dropped: IntArray
    """Indices that left S ("posterior"), or the candidates for good ("agreement")."""
    agreement: float
    """Share of the scored, without what is held out, on which prediction and given label agree, in [0, 1]."""
    noise_rate: float
    """Estimated share of wrong labels among these, in [0, 1]: by the posterior, or by the agreement."""
    selected: BoolArray
    """(n,) S after the round. After the last round of "posterior" it stays what that round learned from."""
    candidate: BoolArray
    """(n,) C after the round; for "posterior" all outside S that is not held out: nothing is dropped for good."""
    learned: IntArray
    """(n,) the class that an image of S is learned as; its given label for "agreement"."""


@dataclass(frozen=True, eq=False)
class CrossValResult:
    """The outcome of all rounds."""

    labels: IntArray
    """(n,) given labels."""
    pred_probs: Answer
    """(n, K) out-of-sample probabilities: the mean of the rounds ("posterior", without round 1 where there are more),
    or of the last round that scored the image ("agreement"). `TopProbs` where there are `many`."""
    last_round: IntArray
    """(n,) the last round that scored the image, from 1."""
    rounds: tuple[Round, ...]
    """What each round saw and decided."""
    select: Select
    """The rule that selected."""
    remove_ratio: float
    """r as used: images dropped for each one kept, at most; 0 for "posterior"."""
    posterior: Posterior
    """Of `pred_probs`; for "agreement" of those of round 1, which all come from models of the same kind."""
    splits: Names | None = None
    """(n,) name of the split of each image; None where there are none."""
    views: tuple[View, ...] = ()
    """What each of several trainers said; none where there is a single one."""

    def _repr_html_(self) -> str:
        """Return a row per round, for notebooks."""
        rows = [
            (str(i), f"{len(r.scored):,}", f"{r.selected.sum():,}", f"{r.agreement:.1%}", f"{r.noise_rate:.1%}")
            for i, r in enumerate(self.rounds, start=1)
        ]
        title = f"{len(self.labels):,} labels, {self.n_classes:,} classes, selected by {self.select}"
        return table_html(title, ("round", "judged", "taken for right", "models agree", "noise rate"), rows)

    @property
    def selected(self) -> BoolArray:
        """(n,) S: taken for right; the models of the last round of "posterior" learned from it."""
        return self.rounds[-1].selected

    @property
    def candidate(self) -> BoolArray:
        """(n,) C: neither in S nor dropped."""
        return self.rounds[-1].candidate

    @property
    def dropped(self) -> BoolArray:
        """(n,) taken for wrong beyond use; nothing for "posterior"."""
        return ~(self.selected | self.candidate | self.held_out)

    @property
    def held_out(self) -> BoolArray:
        """(n,) images of other splits than the one learned from, which models only judged."""
        out = held_out(self.splits)
        return np.zeros(len(self.labels), np.bool_) if out is None else out

    @property
    def noise_rate(self) -> float:
        """Estimated share of wrong labels in [0, 1]; for "agreement" ε̂ of round 1, biased low under heavy noise.

        Of several splits that of the one learned from. NaN where "posterior" found no signal.
        """
        if self.select == "posterior" and not self.posterior.has_signal:
            return math.nan
        return self.rounds[0 if self.select == "agreement" else -1].noise_rate

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.pred_probs.shape[1])

    @property
    def flags(self) -> BoolArray:
        """(n,) labels flagged as wrong: by the posterior for the best expected F1, or everything outside S
        ("agreement"), and of what is held out, every image on which models and label disagree.
        """
        if self.select == "posterior":
            return flags_of(self.posterior)
        return np.where(self.held_out, self.pred_probs.argmax(axis=1) != self.labels, ~self.selected)

    def issues(self, class_names: Sequence[str] | None = None, rule: FlagRule | None = None) -> LabelIssues:
        """Return the label issues: qualities and suggestions of the posterior, flags of the rule that selected.

        Args:
            class_names: (K,), or their numbers.
            rule: Which labels to flag by the posterior; None: as many as give the best expected F1. "agreement" flags
                every image outside S.
        """
        if self.select == "agreement":
            found = issues_of(self.posterior, class_names=class_names, flags=self.flags, filter_by="incv")
        else:
            found = issues_of(self.posterior, class_names=class_names, rule=rule)
        return found if self.splits is None else replace(found, splits=self.splits)
