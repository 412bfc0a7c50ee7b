"""From labels, with probabilities, images, features or any trainer, to LabelIssues."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cvcoteach._progress import OnProgress
from cvcoteach._validation import (
    BoolArray,
    InputError,
    as_array,
    check_columns,
    check_rows,
    encode_labels,
    lookalikes,
    near,
)
from cvcoteach.crossval.groups import as_groups, joined, n_units
from cvcoteach.crossval.trainer import FoldTrainer
from cvcoteach.crossval.views import as_trainers
from cvcoteach.data.splits import Names, as_splits, held_out, rows_by_split
from cvcoteach.issues.flags import FlagFor, FlagRule, flags_of
from cvcoteach.issues.from_posterior import issues_of
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.noise_model.by_split import fit_by_split
from cvcoteach.noise_model.posterior import Posterior, fit_posterior
from cvcoteach.noise_model.top_probs import MANY_CLASSES
from cvcoteach.pipeline.annotators import consensus, several
from cvcoteach.pipeline.copies import Content, Copies, found_copies
from cvcoteach.pipeline.progress import Bar, Calling, RunProgress
from cvcoteach.pipeline.settings import RULES, InMemorySettings

KINDS = ("pred_probs", "images", "features", "trainer")


class Evidence(NamedTuple):
    """The probabilities of the images, or what they come from."""

    kind: str
    """One of `KINDS`."""
    value: Any
    """Probabilities (n, K), images of any kind (see `pixels_of`), features (n, d), or a `FoldTrainer` or several."""

    @classmethod
    def of(cls, sources: Mapping[str, Any]) -> Evidence:
        """Return the one of `sources`, by kind, that is not None.

        Raises InputError where there is none, or more than one.
        """
        given = [cls(kind, value) for kind, value in sources.items() if value is not None]
        if not given:
            raise InputError("pred_probs is missing; give it, or images, features or a trainer to get it from.")
        if len(given) > 1:
            names = " and ".join(each.kind for each in given)
            raise InputError(f"{names} are given; the probabilities come from one of them.")
        return given[0]

    def read(self) -> Evidence:
        """Return the same with features as an array (n, d)."""
        return Evidence(self.kind, as_array(self.value, "features")) if self.kind == "features" else self


class Flagged(NamedTuple):
    """The posterior and its flags, before suggestions are made of them."""

    posterior: Posterior
    flags: BoolArray
    """(n,) flagged as wrong."""
    class_names: Sequence[str] | None
    """(K,), or None where nobody named them."""
    splits: Names | None = None
    """(n,) name of the split of each image, or None."""
    copies: Copies | None = None
    """Which images are copies of which; None where nothing is known of any."""


def label_issues(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike | None = None,
    *,
    images: Any = None,
    features: npt.ArrayLike | None = None,
    trainer: FoldTrainer | Sequence[FoldTrainer] | None = None,
    preset: str = "auto",
    filter_by: str = "posterior",
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
) -> LabelIssues:
    """Find label issues: all that `find_label_issues` knows, in one object.

    Args:
        labels: (n,) class numbers 0..K-1, or names; `LabelIssues.to_frame` has the index of a pandas Series. With a
            column per annotator (n, A), NaN or None where one gave none, the label is what most gave, each annotator
            is weighed by how good CROWDLAB finds them (`LabelIssues.annotators`), and quality is that of the consensus.
        pred_probs: (n, K) out-of-sample probabilities. Instead of them one of
        images: (n, H, W) or (n, H, W, C) pixels, paths, or a torch Dataset: see `preset`;
        features: (n, d) embeddings, on which linear heads are trained;
        trainer: a `FoldTrainer`, or several, whose probabilities are fused (`IterativeCV.run`).
        preset: of `images`: "auto" trains heads on a pretrained network's features of photographs, and otherwise small
            networks from scratch, fold by fold; "fast" these in any case, "paper" those of the published settings.
        filter_by: "posterior" flags what is probably wrong. With anything to train on, the probabilities come from
            rounds of cross-validation whose models learn only from labels that are probably right, or corrected
            (`IterativeCV`). "incv" flags what the published Iterative Noisy Cross-Validation does not select; on
            `pred_probs`, where there is nothing to iterate: where the prediction is another class.
        class_names: (K,), in the order of the numbers, or of the columns.
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

    The command `cvcoteach find-issues` gives the same answer for the same trainer and seed.

    Raises:
        InputError: for what does not fit, and where not exactly one source is given.
    """
    evidence = Evidence.of({"pred_probs": pred_probs, "images": images, "features": features, "trainer": trainer})
    rule = FlagRule(flag_for, min_probability)
    settings = InMemorySettings(filter_by, n_rounds, n_folds, seed, rule, preset, bind_near_copies)
    given, together, annotations = labels, None, None
    if getattr(labels, "ndim", 1) == 2:
        given, class_names, annotations = several(labels, class_names)
        if class_names is None and evidence.kind != "pred_probs":
            class_names = tuple(map(str, range(int(annotations.label.max()) + 1)))
    found = flagged(given, evidence, settings, class_names, progress, groups=groups, splits=splits)
    if annotations is not None and filter_by == "posterior":
        together = consensus(annotations, found.posterior)
        found = found._replace(posterior=together.posterior, flags=flags_of(together.posterior, settings.flag_rule))
    issues = issues_of(
        found.posterior,
        class_names=found.class_names,
        flags=found.flags,
        filter_by=filter_by,
        rule=settings.flag_rule,
    )
    issues = replace(issues, splits=found.splits)
    if found.copies is not None:
        issues = replace(issues, duplicate_of=found.copies.duplicate_of, near_copy_of=found.copies.near_copy_of)
    if isinstance(labels, pd.Series | pd.DataFrame):
        issues = replace(issues, index=labels.index)
    if together is None:
        return issues
    return replace(issues, n_annotators=together.per_image, agreement=together.agreement, annotators=together.table)


def flagged(
    labels: npt.ArrayLike,
    evidence: Evidence,
    settings: InMemorySettings,
    class_names: Sequence[str] | None = None,
    progress: bool | OnProgress = False,
    *,
    groups: npt.ArrayLike | None = None,
    splits: npt.ArrayLike | None = None,
) -> Flagged:
    """Fit the posterior and flag labels; arguments and errors as of `label_issues`."""
    check_rule(settings.filter_by)
    if evidence.kind == "pred_probs":
        if groups is not None:
            raise InputError(
                "groups are given with pred_probs, which models have made already; give images, features or a trainer."
            )
        return _by_pred_probs(labels, evidence.value, settings, class_names, splits)
    y, names = encode_labels(labels, class_names)
    if class_names is None:
        _warn_of_lookalikes(names)
    found = None if groups is None else as_groups(groups, len(y))
    names = names or tuple(map(str, range(int(y.max()) + 1)))
    if settings.preset != "auto" and evidence.kind != "images":
        raise InputError(f"preset is {settings.preset!r}, which is for images; leave it out with {evidence.kind}.")
    rounds = settings.cross_validation
    parts = None if splits is None else as_splits(splits, len(y))
    out = held_out(parts)
    learned = slice(None) if out is None else ~out
    with _shown(progress) as shown:
        evidence, trainers = _trained_on(evidence.read(), len(names), settings, len(y), shown, len(y[learned]))
        copies = None
        if evidence.kind != "trainer":
            content, n_folds = Content(evidence.value), max(rounds.folds(len(y)))
            copies = found_copies(content, n_folds, found, bind_near=settings.bind_near_copies)
            copies = copies if copies.any else None
        found = joined(found, None if copies is None else copies.near)
        n = len(y[learned])
        shown.plan(n, rounds.folds(n_units(n, None if found is None else found[learned])), view=len(trainers))
        result = rounds.run(trainers, y, n_classes=len(names), groups=found, splits=parts, on_fold=shown.fold)
    flags = result.flags if settings.filter_by == "incv" else flags_of(result.posterior, settings.flag_rule)
    return Flagged(result.posterior, flags, names, parts, copies)


def _by_pred_probs(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike,
    settings: InMemorySettings,
    class_names: Sequence[str] | None,
    splits: npt.ArrayLike | None = None,
) -> Flagged:
    # neither is converted here: a copy of something large is what memory runs out of
    probs, array = as_array(pred_probs, "pred_probs"), as_array(labels, "labels")
    if probs.ndim == 2 and array.ndim == 1:
        check_rows(len(array), "pred_probs", len(probs))
    if array.dtype.kind not in "iuf":
        array, names = encode_labels(array, class_names)
        if class_names is None:
            _warn_of_lookalikes(names)
            if names is not None and probs.ndim == 2:
                check_columns(names, probs.shape[1], from_labels=True)
        class_names = names
    if class_names is not None and probs.ndim == 2:
        check_columns(class_names, probs.shape[1], from_labels=False)
    parts = None if splits is None else as_splits(splits, len(array))
    posterior = fit_posterior(array, probs)
    y = posterior.labels
    # of thousands of classes one model of the noise has to do for all splits, as in `IterativeCV`
    if parts is not None and held_out(parts) is not None and probs.shape[1] <= MANY_CLASSES:
        posterior = fit_by_split(y, probs, list(rows_by_split(parts).values()))
    disagrees = settings.filter_by == "incv"
    flags = probs[np.arange(len(y)), y] < probs.max(axis=1) if disagrees else flags_of(posterior, settings.flag_rule)
    return Flagged(posterior, flags, class_names, parts)


def check_rule(filter_by: str) -> None:
    """Raise InputError for a rule that is not ours."""
    if filter_by not in RULES:
        raise InputError(f"filter_by is {filter_by!r}; {near(str(filter_by), RULES)}")


def _trained_on(
    evidence: Evidence,
    n_classes: int,
    settings: InMemorySettings,
    n_labels: int,
    progress: RunProgress,
    n_learned: int,
) -> tuple[Evidence, Sequence[FoldTrainer]]:
    """Return the evidence, images as pixels (n, H, W, C), and the trainers for it, one for each view."""
    # imported here, as in the doors: with `pred_probs` nothing is trained, and torch takes seconds to import
    trainers: Sequence[FoldTrainer]
    if evidence.kind == "images":
        from cvcoteach.pipeline.in_memory_images import trainers_for

        pixels, trainers = trainers_for(evidence.value, n_classes, settings, n_labels, progress, n_learned)
        return Evidence("images", pixels), trainers
    if evidence.kind == "features":
        from cvcoteach.training.head_trainer import HeadTrainer

        trainers = (HeadTrainer(evidence.value, n_classes),)
    else:
        trainers = as_trainers(evidence.value, n_labels)
    n_rows = getattr(trainers[0], "n_images", None)
    if isinstance(n_rows, int):
        check_rows(n_labels, evidence.kind, n_rows)
    return evidence, trainers


def _warn_of_lookalikes(names: Sequence[str] | None) -> None:
    for note in lookalikes(names or ()):
        warnings.warn(note, stacklevel=4)


@contextmanager
def _shown(progress: bool | OnProgress) -> Iterator[RunProgress]:
    if progress is not True:
        yield RunProgress(Calling(progress) if callable(progress) else None)
        return
    bar = Bar(sys.stderr)
    try:
        yield RunProgress(bar)
    finally:
        bar.close()
