"""From the posterior over true labels to label issues: which are flagged, and what each should be."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, InputError
from cvcoteach.issues.flags import FlagRule, flags_of
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.noise_model.posterior import Posterior, fit_posterior


def posterior_issues(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    rule: FlagRule | None = None,
) -> LabelIssues:
    """Find label issues by the posterior over true labels.

    Args:
        labels: (n,) given, whole numbers 0..K-1.
        pred_probs: (n, K) out of sample, rows sum to 1.
        class_names: (K,), or their numbers.
        rule: Which labels to flag; None: as many as give the best expected F1.

    Raises:
        InputError: For labels, probabilities or names that do not fit.
    """
    return issues_of(fit_posterior(labels, pred_probs), class_names=class_names, rule=rule)


def issues_of(
    posterior: Posterior,
    *,
    class_names: Sequence[str] | None = None,
    flags: BoolArray | None = None,
    filter_by: str = "posterior",
    rule: FlagRule | None = None,
) -> LabelIssues:
    """Return label issues with the flags (n,) of the rule `filter_by`, or the posterior's own.

    Args:
        posterior: Of the labels.
        class_names: (K,), or their numbers.
        flags: (n,); None: those of `rule`.
        filter_by: Who made the flags.
        rule: Which labels to flag; None: as many as give the best expected F1.

    Raises:
        InputError: For names that do not fit.
    """
    rule = rule or FlagRule()
    flags = flags_of(posterior, rule) if flags is None else flags
    return LabelIssues(
        labels=posterior.labels,
        predicted=posterior.predicted,
        label_quality=posterior.label_quality,
        is_label_issue=flags,
        suggested=np.where(flags, posterior.alternative, posterior.suggested),
        suggested_prob=np.where(flags, posterior.alternative_prob, posterior.suggested_prob),
        transition=posterior.transition,
        prior=posterior.prior,
        class_names=_checked_names(class_names, len(posterior.prior)),
        filter_by=filter_by,
        has_signal=posterior.has_signal,
        note=posterior.note,
        flag_for=str(rule) if filter_by == "posterior" else "",
        overlaps=posterior.overlaps,
        stranger=posterior.stranger,
    )


def _checked_names(names: Sequence[str] | None, n_classes: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(n_classes)))
    result = tuple(map(str, names))
    if len(result) != n_classes:
        raise InputError(f"class_names holds {len(result)} names, but pred_probs has columns for {n_classes} classes.")
    if len(set(result)) != n_classes:
        twice = next(name for name in result if result.count(name) > 1)
        raise InputError(f"class_names holds {twice!r} twice; each class needs a name of its own.")
    return result
