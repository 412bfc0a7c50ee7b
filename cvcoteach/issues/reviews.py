"""Reviews by a person: which images to look at, and what the answers say about precision and recall."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, check_at_least, counted, near
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.issues.precision_recall import WIDE, Interval, Readout, check_level, interval_around

FLAGGED_STRATA, UNFLAGGED_STRATA = 2, 2
_N_STRATA = FLAGGED_STRATA + UNFLAGGED_STRATA
_DRAWS = 4000
_PLANS, _PLAN_DRAWS = 64, 500

LEAST_REVIEWS = 10
"""Reviews that a plan asks for at least."""


@dataclass(frozen=True, eq=False)
class ReviewSample:
    """Images for a person to review, in the order to review them: every first part of it is such a sample too."""

    indices: IntArray
    """(m,) images, each once."""
    stratum: IntArray
    """(m,) the group each was drawn from, 0.. (flagged first, in each half the more probably wrong first)."""
    inclusion: FloatArray
    """(m,) probability with which the image came into the sample, in (0, 1]."""
    flagged_share: float
    """Share of the reviews meant for flagged images."""

    def __len__(self) -> int:
        return len(self.indices)


def review_sample(issues: LabelIssues, n: int, *, seed: int = 0, flagged_share: float = 0.5) -> ReviewSample:
    """Draw n images to review such that few reviews say much: stratified by flag and by probability of being wrong.

    Flagged and unflagged images are cut into two groups each that hold equally much doubt, Σ √(w(1-w)); with equally
    many reviews in each, drawn at random without replacement, that is Neyman's allocation. A larger n of the same
    seed goes on where the smaller ended.

    flagged_share: share of the reviews for flagged images, in (0, 1); the others are what recall is known from.

    Raises InputError where n exceeds the images, or nothing is flagged.
    """
    check_at_least("n", n, 1)
    if n > len(issues.labels):
        raise InputError(f"n is {n}, but there are {len(issues.labels)} images to review.")
    if not 0 < flagged_share < 1:
        raise InputError(f"flagged_share is {flagged_share}; it lies between 0 and 1.")
    if not issues.n_issues:
        raise InputError("no label is flagged, so there is no precision or recall to review for.")
    stratum = strata(issues)
    order = np.random.default_rng(seed).permutation(len(stratum))
    order = order[np.argsort(stratum[order], kind="stable")]
    counts = np.bincount(stratum, minlength=_N_STRATA)
    place = np.arange(len(stratum)) - np.repeat(np.cumsum(counts) - counts, counts)
    # each group's j-th image is due at (j + ½) / its share: dealt in turn, and past the end of a small group
    due = (place + 0.5) / _shares(flagged_share)[stratum[order]]
    indices = order[np.argsort(due, kind="stable")[:n]]
    taken = np.bincount(stratum[indices], minlength=_N_STRATA)
    return ReviewSample(indices, stratum[indices], (taken / np.maximum(counts, 1))[stratum[indices]], flagged_share)


def strata(issues: LabelIssues) -> IntArray:
    """Return the groups of `review_sample`, (n,): 0, 1 flagged and 2, 3 not, the more probably wrong first."""
    result = np.empty(len(issues.labels), np.int64)
    doubt = np.sqrt(issues.wrong * issues.label_quality) + 1e-6  # a group of certainties is cut by number
    for flagged, first, parts in ((True, 0, FLAGGED_STRATA), (False, FLAGGED_STRATA, UNFLAGGED_STRATA)):
        rows = np.flatnonzero(issues.is_label_issue == flagged)
        if not len(rows):
            continue
        rows = rows[np.argsort(issues.label_quality[rows], kind="stable")]
        middle = np.cumsum(doubt[rows]) - doubt[rows] / 2
        result[rows] = first + np.minimum((middle / doubt[rows].sum() * parts).astype(np.int64), parts - 1)
    return result


def measured_precision_recall(
    issues: LabelIssues, sample: ReviewSample, wrong: npt.ArrayLike, *, level: float = 0.9
) -> Readout:
    """Estimate precision and recall from the reviews of a sample, with the posterior's help.

    wrong: (m,) True where the reviewer found the given label wrong; or fewer, for the first images of the sample.

    Estimates are stratified prediction-powered (Angelopoulos et al., Science 2023; Fisch et al., NeurIPS 2024): in each
    group the posterior's mean over all images, plus the mean of (wrong - posterior) over the reviewed. Intervals do
    not trust the posterior: each group's count of wrong labels has its mid-p confidence distribution, and these are
    melded (Fay, Proschan, Brittain, Biometrics 2015), so that few reviews and rare errors give wide intervals, not
    false ones.

    Raises InputError where the answers do not fit the sample, or the sample was drawn from other issues.
    """
    check_level(level)
    reviewed, stratum, (sizes, seen, found) = _counted(issues, sample, wrong)
    model = np.bincount(stratum, issues.wrong, minlength=_N_STRATA) / np.maximum(sizes, 1)
    model_seen = np.bincount(stratum[reviewed], issues.wrong[reviewed], minlength=_N_STRATA) / np.maximum(seen, 1)
    rectified = model + np.where(seen > 0, found / np.maximum(seen, 1) - model_seen, 0)
    totals = sizes * np.clip(rectified, 0, 1)

    flagged, unflagged = slice(0, FLAGGED_STRATA), slice(FLAGGED_STRATA, None)
    precision, recall, notes = None, None, []
    if not seen[flagged].any():
        notes.append("No flagged image was reviewed, so neither precision nor recall is known.")
    else:
        precision_ends, recall_ends = _ends(sizes, seen, found, level)
        precision = interval_around(totals[flagged].sum() / sizes[flagged].sum(), precision_ends, level)
        if sizes[unflagged].any() and not seen[unflagged].any():
            notes.append("No unflagged image was reviewed, so nobody knows how many wrong labels were missed.")
        elif not found.any():
            notes.append("None of the reviewed labels was wrong, so recall is not known.")
        else:
            recall = interval_around(totals[flagged].sum() / totals.sum(), recall_ends, level)
    for name, interval in (("Precision", precision), ("Recall", recall)):
        if interval is not None and interval.width > WIDE:
            notes.append(
                f"{name} lies anywhere from {interval.low:.0%} to {interval.high:.0%}; "
                f"{counted(len(reviewed), 'review is', 'reviews are')} few, four times as many about halve that."
            )
    return Readout(precision, recall, issues.n_issues, len(reviewed), " ".join(notes))


def measured_noise_rate(
    issues: LabelIssues, sample: ReviewSample, wrong: npt.ArrayLike, *, level: float = 0.9
) -> Interval:
    """Estimate the share of wrong labels from the reviews of a sample; the interval does not trust the posterior.

    Arguments, method and errors are those of `measured_precision_recall`.
    """
    check_level(level)
    _, stratum, (sizes, seen, found) = _counted(issues, sample, wrong)
    model = np.bincount(stratum, issues.wrong, minlength=_N_STRATA) / np.maximum(sizes, 1)
    rate = np.where(seen > 0, found / np.maximum(seen, 1), model)
    ends = _noise_ends(sizes, seen, found, level)
    return interval_around(float((sizes * rate).sum() / sizes.sum()), ends, level)


def reviews_to_decide(issues: LabelIssues, limit: float, *, level: float = 0.9, flagged_share: float = 0.5) -> int:
    """Return how many reviews of a `review_sample` tell whether more labels are wrong than `limit` allows.

    That is the number from which most of the likely answers leave the limit outside of the interval, if the posterior's
    rates are about right; all images where nothing less would do.

    limit: share of wrong labels, in [0, 1).

    Raises InputError for a limit outside [0, 1), and where nothing is flagged.
    """
    check_level(level)
    if not 0 <= limit < 1:
        raise InputError(f"limit is {limit}; it is a share of the labels, from 0 up to but not including 1.")
    if not issues.n_issues:
        raise InputError("no label is flagged, so there is no sample to review.")
    stratum = strata(issues)
    sizes = np.bincount(stratum, minlength=_N_STRATA)
    rates = np.bincount(stratum, issues.wrong, minlength=_N_STRATA) / np.maximum(sizes, 1)

    def decides(n: int) -> bool:
        rng = np.random.default_rng(0)
        seen = _allocation(sizes, n, flagged_share)
        ends = [_noise_ends(sizes, seen, rng.binomial(seen, rates), level, _PLAN_DRAWS) for _ in range(_PLANS // 4)]
        return float(np.mean([not low <= limit <= high for low, high in ends])) > 0.5

    few, many = LEAST_REVIEWS - 1, 2 * LEAST_REVIEWS
    while many < len(issues.labels) and not decides(many):
        few, many = many, 2 * many
    many = min(many, len(issues.labels))
    while many - few > max(1, few // 20):
        n = (few + many) // 2
        few, many = (few, n) if decides(n) else (n, many)
    return many


def how_many_reviews(
    issues: LabelIssues,
    *,
    for_width: float,
    of: Literal["precision", "recall"] = "precision",
    level: float = 0.9,
    flagged_share: float = 0.5,
) -> int:
    """Return how many reviews make the interval about this narrow, if the posterior's rates are about right.

    for_width: of the interval, in (0, 1). Without a signal, rates of ½ are assumed: the worst case for precision.

    Raises InputError for a width outside (0, 1), and where nothing is flagged.
    """
    check_level(level)
    if not 0 < for_width < 1:
        raise InputError(f"for_width is {for_width}; the width of an interval lies between 0 and 1.")
    if of not in ("precision", "recall"):
        raise InputError(f"of is {of!r}; {near(str(of), ('precision', 'recall'))}")
    if not issues.n_issues:
        raise InputError("no label is flagged, so there is no precision or recall to review for.")
    stratum = strata(issues)
    sizes = np.bincount(stratum, minlength=_N_STRATA)
    rates = np.bincount(stratum, issues.wrong, minlength=_N_STRATA) / np.maximum(sizes, 1)
    if not issues.has_signal:
        rates = np.full(_N_STRATA, 0.5)

    def width(n: int) -> float:
        # the mean over likely answers: at the mean answer, with errors this rare, it would come out too narrow
        rng = np.random.default_rng(0)
        seen = _allocation(sizes, n, flagged_share)
        plans = [rng.binomial(seen, rates) for _ in range(_PLANS)]
        ends = [_ends(sizes, seen, found, level, _PLAN_DRAWS)[of == "recall"] for found in plans]
        return float(np.mean([high - low for low, high in ends]))

    few, many = 0, 16
    while many < len(issues.labels) and width(many) > for_width:
        few, many = many, 2 * many
    many = min(many, len(issues.labels))
    while many - few > 1:
        n = (few + many) // 2
        few, many = (few, n) if width(n) <= for_width else (n, many)
    return many


def _shares(flagged_share: float) -> FloatArray:
    return np.repeat(
        [flagged_share / FLAGGED_STRATA, (1 - flagged_share) / UNFLAGGED_STRATA], [FLAGGED_STRATA, UNFLAGGED_STRATA]
    )


def _allocation(sizes: IntArray, n: int, flagged_share: float) -> IntArray:
    """Return the reviews in each group when n images are dealt as `review_sample` does, within one."""
    shares = _shares(flagged_share)
    low, high = 0.0, n / shares.min() + sizes.max() / shares.min()
    for _ in range(60):  # the moment at which n images are due
        moment = (low + high) / 2
        dealt = np.minimum(sizes, np.floor(moment * shares + 0.5)).sum()
        low, high = (moment, high) if dealt < n else (low, moment)
    return np.minimum(sizes, np.floor(high * shares + 0.5)).astype(np.int64)


def _ends(
    sizes: IntArray, seen: IntArray, found: IntArray, level: float, draws: int = _DRAWS
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the ends of the intervals of precision and of recall, by melding.

    Both rise with the wrong labels among the flagged, and recall falls with those among the unflagged: drawn from the
    upper confidence distribution of what raises and the lower of what lowers, the quantile is the upper end.
    """
    rng = np.random.default_rng(0)
    low, high = (_drawn_totals(sizes, seen, found, draws, upper, rng) for upper in (False, True))
    flagged, unflagged = slice(0, FLAGGED_STRATA), slice(FLAGGED_STRATA, None)
    tail = (1 - level) / 2
    few, many = low[flagged].sum(axis=0), high[flagged].sum(axis=0)
    n_flagged = sizes[flagged].sum()
    precision = float(np.quantile(few, tail) / n_flagged), float(np.quantile(many, 1 - tail) / n_flagged)
    least = few / np.maximum(few + high[unflagged].sum(axis=0), 1e-9)
    most = many / np.maximum(many + low[unflagged].sum(axis=0), 1e-9)
    return precision, (float(np.quantile(least, tail)), float(np.quantile(most, 1 - tail)))


def _noise_ends(
    sizes: IntArray, seen: IntArray, found: IntArray, level: float, draws: int = _DRAWS
) -> tuple[float, float]:
    """Return the ends of the interval of the share of wrong labels, by melding."""
    rng = np.random.default_rng(0)
    low, high = (_drawn_totals(sizes, seen, found, draws, upper, rng).sum(axis=0) for upper in (False, True))
    tail, n = (1 - level) / 2, sizes.sum()
    return float(np.quantile(low, tail) / n), float(np.quantile(high, 1 - tail) / n)


def _drawn_totals(
    sizes: IntArray, seen: IntArray, found: IntArray, draws: int, upper: bool, rng: np.random.Generator
) -> FloatArray:
    """Draw wrong labels in each group, (groups, draws), from the mid-p confidence distribution given its reviews.

    That is the even mixture of Clopper and Pearson's two: Beta(k, m-k+1) and Beta(k+1, m-k). A group nobody looked
    at may hold none or nothing but wrong labels: 0 for the lower, all for the upper.
    """
    result = np.empty((_N_STRATA, draws))
    for group, (size, m, k) in enumerate(zip(sizes, seen, found, strict=True)):
        if m == 0:
            result[group] = size if upper else 0
            continue
        above = rng.beta(k + 1, m - k, draws) if k < m else np.ones(draws)
        below = rng.beta(k, m - k + 1, draws) if k > 0 else np.zeros(draws)
        rate = np.where(rng.random(draws) < 0.5, above, below)
        result[group] = k + rng.binomial(size - m, rate)
    return result


def _counted(
    issues: LabelIssues, sample: ReviewSample, wrong: npt.ArrayLike
) -> tuple[IntArray, IntArray, tuple[IntArray, IntArray, IntArray]]:
    """Return the reviewed images, the group of every image, and per group: all images, the reviewed, the wrong ones.

    Raises InputError where the answers do not fit the sample, or the sample was drawn from other issues.
    """
    answers = _as_answers(wrong, len(sample))
    reviewed = sample.indices[: len(answers)]
    stratum = strata(issues)
    if reviewed.max(initial=0) >= len(stratum) or not np.array_equal(stratum[reviewed], sample.stratum[: len(answers)]):
        raise InputError("the sample was drawn from other issues; draw a new one with review_sample.")
    places = (stratum, stratum[reviewed], stratum[reviewed][answers])
    sizes, seen, found = (np.bincount(place, minlength=_N_STRATA) for place in places)
    return reviewed, stratum, (sizes, seen, found)


def _as_answers(wrong: npt.ArrayLike, n: int) -> BoolArray:
    answers = np.asarray(wrong)
    if answers.ndim != 1 or not 1 <= len(answers) <= n:
        raise InputError(f"wrong has shape {answers.shape}; it takes one answer for each of the first 1 to {n} images.")
    if answers.dtype.kind not in "biu" or not np.isin(answers, (0, 1)).all():
        raise InputError("wrong takes True (the given label is wrong) and False only.")
    return answers.astype(np.bool_)
