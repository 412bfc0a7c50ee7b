"""cleanlab's `find_label_issues` and `get_label_quality_scores`, with more to ask for."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import cleanlab.filter
import cleanlab.rank
import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._progress import OnProgress
from cvcoteach._validation import BoolArray, FloatArray, InputError, IntArray, check_at_least, near, without_torch
from cvcoteach._working_folder import unsearched
from cvcoteach.cleanlab.limits import limited_flags
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.issues.flags import FlagFor, FlagRule
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.pipeline.in_memory import Evidence, flagged
from cvcoteach.pipeline.settings import RULES, InMemorySettings

CLEANLAB_FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_normalized_margin",
    "low_self_confidence",
)
CLEANLAB_RANKINGS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")

# below this many probabilities starting processes costs more than it saves; above it cleanlab itself speaks of a big
# dataset. The answer is the same for any number of processes
_SMALL = 10**8


def find_label_issues(
    labels: Any,
    pred_probs: npt.NDArray[np.floating] | None = None,
    *,
    return_indices_ranked_by: str | None = None,
    rank_by_kwargs: dict[str, Any] | None = None,
    filter_by: str | None = None,
    frac_noise: float = 1.0,
    num_to_remove_per_class: Iterable[int] | None = None,
    min_examples_per_class: int = 1,
    confident_joint: npt.NDArray[Any] | None = None,
    n_jobs: int | None = None,
    verbose: bool = False,
    multi_label: bool = False,
    images: Any = None,
    features: npt.ArrayLike | None = None,
    trainer: FoldTrainer | Sequence[FoldTrainer] | None = None,
    preset: str = "auto",
    class_names: Sequence[str] | None = None,
    n_rounds: int | None = None,
    n_folds: int | None = None,
    seed: int = 0,
    groups: npt.ArrayLike | None = None,
    splits: npt.ArrayLike | None = None,
    bind_near_copies: bool = True,
    flag_for: FlagFor = "f1",
    min_probability: float | None = None,
    progress: bool | OnProgress = True,
) -> BoolArray | IntArray | pd.Series[bool]:
    """Answer as `cleanlab.filter.find_label_issues`; from images too, and with better answers where asked for.

    With `pred_probs` and nothing that cleanlab does not know, this is cleanlab's answer: its values, dtypes, order,
    warnings and exceptions, since it is cleanlab that is called.

    With a `filter_by` of ours cleanlab's options keep their meaning: `frac_noise` leaves the worst share of the flags,
    `num_to_remove_per_class` flags exactly so many of each given class, `min_examples_per_class` stay unflagged in
    each; `confident_joint` and `multi_label` have none there and are refused.

    Args:
        labels: (n,) given labels, 0..K-1. With `images`, `features` or `trainer` any labels, also names.
        pred_probs: (n, K) out-of-sample probabilities. Instead of them one of `images`, `features` and `trainer`.
        return_indices_ranked_by: a score of cleanlab's, or "posterior".
        rank_by_kwargs: as cleanlab's.
        filter_by: a method of cleanlab's (with `pred_probs`), or "posterior", the default without `pred_probs`:
            probably wrong, by the rule of `flag_for`, after rounds of cross-validation whose models learn only from
            labels that are probably right; or "incv": not selected by the published Iterative Noisy Cross-Validation
            (Chen et al., ICML 2019). On `pred_probs`, where there is nothing to iterate, that is: the prediction is
            another class.
        frac_noise: as cleanlab's.
        num_to_remove_per_class: as cleanlab's.
        min_examples_per_class: as cleanlab's.
        confident_joint: as cleanlab's.
        n_jobs: as cleanlab's.
        verbose: as cleanlab's.
        multi_label: as cleanlab's.
        images: (n, H, W) or (n, H, W, C) pixels, paths, or a torch Dataset: see `preset`.
        features: (n, d) embeddings; a linear head is trained on them.
        trainer: anything with `fit_predict`, see `cvcoteach.FoldTrainer`; or several, whose probabilities are fused.
        preset: how `images` are trained on: "auto", "fast" or "paper", see `label_issues`.
        class_names: (K,) name of each column of `pred_probs`, where labels are names.
        n_rounds: number of rounds; None: 3, for "incv" the paper's 4.
        n_folds: folds of every round; None: see `IterativeCV.folds`.
        seed: of splits and trainings.
        groups: (n,) group of each image, of any kind, such as its patient or video; no model judges an image of a group
            that it trained on. None: each image stands alone.
        splits: (n,) name of the split of each image, such as train and test: models learn from train alone, and the
            noise of each split is estimated apart; of `pred_probs` the latter only.
        bind_near_copies: of images and features keep near copies in one fold, as exact ones always are.
        flag_for: what "posterior" flags are good at: the best expected "f1", or an expected "precision" or "recall" of
            90 %.
        min_probability: flag every label that is wrong with at least this probability instead, in (0, 1].
        progress: True for a bar on stderr, False for nothing, or a function that takes each `Progress`.

    Returns:
        A mask (n,), True where the label is probably wrong: an array, or with a `filter_by` of ours and labels that are
        a pandas Series, a Series with their index. With `return_indices_ranked_by` the int64 positions of these, worst
        first.

    Raises:
        InputError: a ValueError, for what does not fit; and what cleanlab raises.

    Warns where the labels carry no signal: then nothing is flagged, and self-confidence ranks.
    """
    labels, pred_probs = without_torch(labels), without_torch(pred_probs)
    flag_rule = FlagRule(flag_for, min_probability)
    sources = {"pred_probs": pred_probs, "images": images, "features": features, "trainer": trainer}
    cleanlab_alone = images is None and features is None and trainer is None
    if cleanlab_alone and filter_by not in RULES and groups is None and splits is None:
        if filter_by is not None and filter_by not in CLEANLAB_FILTERS:
            raise InputError(f"filter_by is {filter_by!r}; it takes {', '.join((*RULES, *CLEANLAB_FILTERS))}.")
        if flag_rule != FlagRule():
            raise InputError(
                "flag_for and min_probability go with filter_by='posterior'; cleanlab's filters have none."
            )
        options: dict[str, Any] = {
            "rank_by_kwargs": rank_by_kwargs,
            "frac_noise": frac_noise,
            "num_to_remove_per_class": num_to_remove_per_class,
            "min_examples_per_class": min_examples_per_class,
            "confident_joint": confident_joint,
            "verbose": verbose,
            "multi_label": multi_label,
        }
        if filter_by is not None:
            options["filter_by"] = filter_by
        if return_indices_ranked_by != "posterior":
            return _cleanlab(
                labels, pred_probs, n_jobs, options | {"return_indices_ranked_by": return_indices_ranked_by}
            )
        _check_ranking("posterior", rank_by_kwargs, multi_label)
        flags = _cleanlab(labels, pred_probs, n_jobs, options)
        return _worst_first(flags, _quality(labels, pred_probs))

    evidence, rule = Evidence.of(sources), filter_by or "posterior"
    if rule not in RULES:
        raise InputError(
            f"filter_by is {rule!r}, cleanlab's way with pred_probs; "
            f"with {evidence.kind} it takes {' or '.join(map(repr, RULES))}."
        )
    if multi_label:
        raise InputError(f"multi_label is True, but filter_by={rule!r} takes one label per image; leave filter_by out.")
    if confident_joint is not None:
        raise InputError(f"confident_joint is given, but filter_by={rule!r} estimates the noise itself; leave it out.")
    if n_jobs is not None:
        check_at_least("n_jobs", n_jobs, 1)
    _check_ranking(return_indices_ranked_by, rank_by_kwargs, multi_label)

    settings = InMemorySettings(rule, n_rounds, n_folds, seed, flag_rule, preset, bind_near_copies)
    found = flagged(labels, evidence, settings, class_names, progress, groups=groups, splits=splits)
    posterior = found.posterior
    if rule == "posterior" or return_indices_ranked_by == "posterior":
        _warn_without_signal(posterior)
    flags = limited_flags(
        posterior.labels,
        posterior.label_quality,
        found.flags,
        posterior.pred_probs.shape[1],
        frac_noise=frac_noise,
        num_to_remove_per_class=num_to_remove_per_class,
        min_examples_per_class=min_examples_per_class,
    )
    if verbose:  # cleanlab's sentence: a caller may read it from the log
        print(f"Number of label issues found: {int(flags.sum())}")
    if return_indices_ranked_by is None:
        return pd.Series(flags, index=labels.index, name="is_label_issue") if isinstance(labels, pd.Series) else flags
    if return_indices_ranked_by == "posterior":
        return _worst_first(flags, posterior.label_quality)
    ranking = {"rank_by": return_indices_ranked_by, "rank_by_kwargs": rank_by_kwargs or {}}
    return cleanlab.rank.order_label_issues(flags, posterior.labels, np.clip(posterior.pred_probs, 0, 1), **ranking)


def get_label_quality_scores(
    labels: Any,
    pred_probs: npt.NDArray[np.floating],
    *,
    method: str = "self_confidence",
    adjust_pred_probs: bool = False,
) -> npt.NDArray[np.floating]:
    """Answer as `cleanlab.rank.get_label_quality_scores`, with one more method.

    Args:
        labels: (n,) given labels, 0..K-1.
        pred_probs: (n, K) out-of-sample probabilities.
        method: a method of cleanlab's, or "posterior": the probability that the given label is right.
        adjust_pred_probs: as cleanlab's.

    Returns:
        (n,) scores in [0, 1]; low is doubtful.

    Raises:
        InputError: where adjust_pred_probs is asked for with "posterior", which weighs the classes itself.
    """
    labels, pred_probs = without_torch(labels), without_torch(pred_probs)
    if method == "posterior":
        if adjust_pred_probs:
            raise InputError(
                "adjust_pred_probs is True, but method='posterior' weighs the classes itself; leave it out."
            )
        return _quality(labels, pred_probs)
    return cleanlab.rank.get_label_quality_scores(
        labels, pred_probs, method=method, adjust_pred_probs=adjust_pred_probs
    )


def _cleanlab(labels: Any, pred_probs: Any, n_jobs: int | None, options: dict[str, Any]) -> Any:
    # with `verbose` cleanlab tells of its processes; who asks for that shall read it
    if n_jobs is None and not options["verbose"] and getattr(pred_probs, "size", _SMALL + 1) <= _SMALL:
        n_jobs = 1
    with unsearched():  # by its processes, where the system does not fork them
        return cleanlab.filter.find_label_issues(labels, pred_probs, n_jobs=n_jobs, **options)


def _quality(labels: Any, pred_probs: Any) -> FloatArray:
    posterior = fit_posterior(labels, pred_probs)
    _warn_without_signal(posterior, stacklevel=4)
    return posterior.label_quality


def _warn_without_signal(posterior: Posterior, stacklevel: int = 3) -> None:
    """Warn that there is no signal: a mask or a score cannot carry the note."""
    if not posterior.has_signal:
        warnings.warn(posterior.note, stacklevel=stacklevel)


def _check_ranking(ranking: str | None, kwargs: dict[str, Any] | None, multi_label: bool) -> None:
    known = (*CLEANLAB_RANKINGS, "posterior")
    if ranking is not None and ranking not in known:
        raise InputError(f"return_indices_ranked_by is {ranking!r}; {near(str(ranking), known)}")
    if ranking == "posterior" and multi_label:
        raise InputError("multi_label is True, but the ranking by posterior takes one label per image.")
    if ranking == "posterior" and kwargs:
        raise InputError(f"rank_by_kwargs is {kwargs}, but the ranking by posterior has no options; leave it out.")


def _worst_first(flags: BoolArray, quality: FloatArray) -> IntArray:
    flagged = np.flatnonzero(flags)
    return flagged[np.argsort(quality[flagged], kind="stable")]
