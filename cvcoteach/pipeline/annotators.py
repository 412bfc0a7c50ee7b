"""How good each annotator is, by CROWDLAB, and what all of them together say about each image."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from cvcoteach._validation import FloatArray, InputError, IntArray, counted, is_whole, near
from cvcoteach.data.annotations import Annotations
from cvcoteach.data.sources.annotated import by_columns
from cvcoteach.data.sources.source import spread
from cvcoteach.noise_model.consensus import seen_in_images, with_annotators
from cvcoteach.noise_model.posterior import Posterior

ANNOTATORS = "annotators.csv"

_MOST_CELLS = 20_000_000
"""Images times annotators, or classes, that CROWDLAB gets; of more images as many as fit."""
_PRIOR_LABELS = 5
"""Labels of the usual quality that each annotator is credited with, so that one image does not decide."""
_MOST_NAMED = 3
"""Annotators that a sentence names."""


class Consensus(NamedTuple):
    """What annotators and images say together."""

    posterior: Posterior
    """Of the label that most annotators gave."""
    table: pd.DataFrame
    """A row per annotator, the least reliable first: annotator, n_labels, agreement (share of the labels that are the
    consensus), quality (CROWDLAB's, in [0, 1])."""
    agreement: FloatArray
    """(n,) share of the annotators of each image that gave the consensus label."""
    per_image: IntArray
    """(n,) how many annotators labelled each image."""


def consensus(annotations: Annotations, posterior: Posterior) -> Consensus:
    """Weigh each annotator by the quality that CROWDLAB finds, the posterior of the images being one more witness.

    Args:
        annotations: Of n images.
        posterior: Of the label that most annotators gave each image.

    Raises:
        InputError: A label lies beyond the classes.

    References:
        Goh, Tkachenko, Mueller, CROWDLAB, NeurIPS 2022 Human in the Loop Workshop.
    """
    labels, k = posterior.labels, posterior.pred_probs.shape[1]
    if annotations.label.max() >= k:
        raise InputError(f"labels go up to {annotations.label.max()}, but there are {k} classes, 0 to {k - 1}.")
    quality = _crowdlab(annotations, posterior)
    counts = np.bincount(annotations.annotator, minlength=len(annotations.annotators))
    known = ~np.isnan(quality)
    usual = float(np.average(quality[known], weights=counts[known])) if known.any() else 0.5
    quality = np.where(known, quality, usual)
    right = (quality * counts + usual * _PRIOR_LABELS) / (counts + _PRIOR_LABELS)
    right = np.clip(right, (1 + 1e-3) / k, 0.99)
    votes = annotations.weighed(k, np.log(right / (1 - right) * (k - 1)))
    same = annotations.label == labels[annotations.image]
    agreeing = np.bincount(annotations.annotator, same, minlength=len(counts))
    table = pd.DataFrame(
        {
            "annotator": list(annotations.annotators),
            "n_labels": counts,
            "agreement": agreeing / np.maximum(counts, 1),
            "quality": quality,
        }
    )
    return Consensus(
        with_annotators(posterior, votes),
        table[counts > 0].sort_values("quality", kind="stable", ignore_index=True),
        annotations.agreement(labels),
        annotations.per_image(),
    )


class Several(NamedTuple):
    """Labels by several annotators, in memory."""

    labels: Any
    """(n,) what most gave: numbers, or names."""
    class_names: Sequence[str] | None
    """(K,), or None where labels are numbers and nobody named them."""
    annotations: Annotations
    """With the numbers of these classes."""


def several(labels: Any, class_names: Sequence[str] | None) -> Several:
    """Return what most annotators gave, of labels (n, A), a column each; NaN or None where one gave none.

    Raises InputError where an image has no label, no image has two, and for names that `class_names` lacks.
    """
    frame = pd.DataFrame(labels).convert_dtypes()  # whole numbers beside NaN are no floats
    frame = frame.set_axis([str(column) for column in frame.columns], axis="columns").reset_index(drop=True)
    found = by_columns(frame, list(frame.columns), "labels", words=False)
    absent = np.setdiff1d(np.arange(len(frame)), found.rows)
    if len(absent):
        raise InputError(f"labels[{absent[0]}] has no label by any annotator; leave such images out.")
    names = found.encoded.class_names
    if all(map(is_whole, names)) and (class_names is None or not set(names) <= set(map(str, class_names))):
        numbers = np.array([int(name) for name in names])
        return Several(numbers[found.encoded.labels], class_names, found.annotations.relabelled(numbers))
    wanted = tuple(names if class_names is None else map(str, class_names))
    unknown = [name for name in names if name not in wanted]
    if unknown:
        raise InputError(f"labels hold the class {unknown[0]!r}, which class_names lacks; {near(unknown[0], wanted)}")
    numbers = np.array([wanted.index(name) for name in names])
    given = np.array(names, dtype=object)[found.encoded.labels]
    return Several(given, wanted, found.annotations.relabelled(numbers))


def figures(found: Consensus) -> dict[str, Any]:
    """Return the annotators for a summary: how many, how many labels, and the records of the least reliable ones."""
    return {
        "n_annotators": len(found.table),
        "n_annotations": int(found.table["n_labels"].sum()),
        "annotators": found.table.head(_MOST_NAMED).round(4).to_dict("records"),
    }


def _crowdlab(annotations: Annotations, posterior: Posterior) -> FloatArray:
    """Return the quality of each annotator, (A,), in [0, 1]; NaN for one without a label among those looked at."""
    # imported here: it takes seconds, and most runs have one label per image
    from cleanlab.multiannotator import get_label_quality_multiannotator

    n_annotators = len(annotations.annotators)
    widest = max(n_annotators, posterior.pred_probs.shape[1])
    rows = spread(annotations.n_images, max(1, _MOST_CELLS // widest))
    part = annotations.subset(rows)
    labels = np.full((len(rows), n_annotators), np.nan)
    labels[part.image, part.annotator] = part.label
    there = np.flatnonzero(~np.isnan(labels).all(axis=0))
    result = np.full(n_annotators, np.nan)
    if part.per_image().max(initial=0) < 2:
        return result
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_label_quality_multiannotator(
            pd.DataFrame(labels[:, there], columns=there),
            seen_in_images(posterior, rows),
            return_detailed_quality=False,
            verbose=False,
        )
    stats = found["annotator_stats"]["annotator_quality"]
    result[stats.index.to_numpy(dtype=np.int64)] = stats.to_numpy(dtype=np.float64)
    return result.clip(0, 1)


def sentence(figures: Any) -> str:
    """Return what there is to say about the annotators of a summary."""
    named: Sequence[Any] = figures["annotators"]
    each = ", ".join(f"{one['annotator']} {one['quality']:.2f} ({counted(one['n_labels'], 'label')})" for one in named)
    return (
        f"{figures['n_annotators']:,} annotators gave {figures['n_annotations']:,} labels; the least reliable, by "
        f"quality from 0 to 1: {each}."
    )
