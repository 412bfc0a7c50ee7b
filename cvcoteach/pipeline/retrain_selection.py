"""Decide which labels of a retraining set are trained on, and as what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cvcoteach._validation import FloatArray, InputError, IntArray
from cvcoteach.coteaching.curriculum import check_noise_rate
from cvcoteach.coteaching.selection import Selection, corrected, softened
from cvcoteach.issues.corrections import Corrected
from cvcoteach.pipeline.retraining_set import RetrainingSet
from cvcoteach.pipeline.settings import RetrainSettings


def selection_of(data: RetrainingSet, settings: RetrainSettings, run_noise_rate: float) -> Selection:
    """Return which labels are trained on, and how wrong they may be.

    Args:
        data: What there is to train on.
        settings: How to choose from it.
        run_noise_rate: ε̂ of the run, in [0, 1), for labels that were not reviewed.

    Raises:
        InputError: No label, or none of a class, is selected, nothing is known to correct or to soften labels by, or
            the mode does not go with what is selected.
    """
    reviewed, wrong = data.corrected, data.estimates.wrong
    noise_rate = settings.noise_rate
    if noise_rate is None and wrong is not None:
        noise_rate = float(wrong.mean())
    elif noise_rate is None:
        noise_rate = run_noise_rate * (1 - float(reviewed.reviewed.mean()))
    check_noise_rate(noise_rate)
    mode = mode_of(data, settings)
    if mode == "vanilla":
        return Selection.of_everything(reviewed.labels, noise_rate)
    if mode == "posterior":
        posterior = data.estimates.posterior
        if posterior is None:
            raise InputError(
                "the run does not tell which of its labels are wrong, so there is no posterior to learn from; take "
                + ("--mode incv." if settings.selection == "flags" else "--select flags, or leave --mode out.")
            )
        _check_counts(posterior.sum(axis=0), data.class_names)
        return _without(softened(Selection.of_everything(reviewed.labels, noise_rate), posterior), data.held_out)
    if mode == "paper" and settings.selection != "agreement":
        raise InputError("mode is 'paper', which takes what INCV selected by agreement; leave --select out.")
    _check_selected(reviewed, data.class_names)
    selection = Selection(
        reviewed.labels,
        reviewed.selected,
        reviewed.candidate,
        noise_rate,
        wrong,
        as_published=settings.selection == "agreement",
    )
    if mode == "incv" and settings.selection == "flags":
        return _without(selection, data.held_out)
    if mode != "correct":
        return selection
    if wrong is None:
        raise InputError(
            "the run does not tell which of its labels are wrong, so none can be corrected; take --mode incv"
            + (" or --select flags." if settings.selection != "flags" else ".")
        )
    return _without(corrected(selection, data.estimates.suggested, data.estimates.suggested_prob), data.held_out)


def _without(selection: Selection, rows: IntArray) -> Selection:
    """Return the selection without the images in these rows."""
    selected, candidate = selection.selected.copy(), selection.candidate.copy()
    selected[rows] = candidate[rows] = False
    return replace(selection, selected=selected, candidate=candidate)


def mode_of(data: RetrainingSet, settings: RetrainSettings) -> str:
    """Return what is run: the mode of the settings, or what pays where none is named.

    That is "posterior" for heads on features, where the posterior is known; networks on images learn by Co-teaching.
    """
    by_coteaching = data.frozen is None or data.estimates.posterior is None
    if settings.mode is None and settings.training_mode == "posterior" and by_coteaching:
        return "incv"
    return settings.training_mode


def _check_selected(reviewed: Corrected, class_names: Sequence[str]) -> None:
    if not reviewed.selected.any():
        raise InputError("no label of the run counts as clean; there is nothing to train on.")
    _check_counts(np.bincount(reviewed.labels[reviewed.selected], minlength=len(class_names)), class_names)


def _check_counts(counts: FloatArray | IntArray, class_names: Sequence[str]) -> None:
    """Raise InputError if less than half an image of a class is expected among what is trained on."""
    if (counts < 0.5).any():
        name = class_names[int(np.argmin(counts))]
        raise InputError(
            f"no image of class {name!r} counts as clean, so the networks could not learn it; review some of its "
            "images and give them with --corrections, or take --mode vanilla."
        )
