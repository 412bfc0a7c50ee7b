"""Pictures of what was found, as matplotlib figures; pip install 'cvcoteach[plots]' brings matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray, InputError, IntArray, check_at_least, counted
from cvcoteach.crossval.result import CrossValResult
from cvcoteach.issues.label_issues import LabelIssues
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.run_summary import round_figures

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter
except ImportError as error:
    raise ImportError("plots are drawn by matplotlib: pip install 'cvcoteach[plots]'") from error

_BLUE, _ORANGE, _GREY = "#2156b8", "#d9661f", "#8a8f98"


class Plot(Figure):
    """A figure that notebooks show as it is, without pyplot."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=120)
        return file.getvalue()


def plot_confusions(found: LabelIssues | RunResults, *, most: int = 20) -> Figure:
    """Draw how often each class (row) was given where another (column) is more probable, among the flagged labels.

    most: classes that are drawn, those confused most often.

    Raises InputError where nothing is flagged, and for fewer than two classes.
    """
    check_at_least("most", most, 2)
    issues = _issues(found)
    rows = issues.is_label_issue & (issues.suggested != issues.labels)
    if not rows.any():
        raise InputError("no label is flagged, so no classes are confused.")
    k, given, suggested = issues.n_classes, issues.labels[rows], issues.suggested[rows]
    involved = np.bincount(given, minlength=k) + np.bincount(suggested, minlength=k)
    chosen = np.sort(np.argsort(-involved, kind="stable")[: min(most, k)])
    place = np.full(k, -1, np.int64)
    place[chosen] = np.arange(len(chosen))
    both = (place[given] >= 0) & (place[suggested] >= 0)
    part = np.zeros((len(chosen), len(chosen)), np.int64)
    np.add.at(part, (place[given[both]], place[suggested[both]]), 1)
    names = [issues.class_names[i] for i in chosen]
    figure, axes = _axes(1.8 + 0.45 * len(chosen), 1.6 + 0.4 * len(chosen))
    axes.imshow(np.where(part > 0, part, np.nan), cmap="Blues", vmin=0)
    for row, column in np.argwhere(part > 0).tolist():
        dark = part[row, column] > 0.6 * part.max()
        axes.text(
            column, row, f"{part[row, column]:,}", ha="center", va="center", color="white" if dark else "black", size=8
        )
    axes.set_xticks(range(len(names)), map(_plain, names), rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), map(_plain, names))
    axes.set_xlabel("looks like")
    axes.set_ylabel("given")
    axes.set_title(
        counted(int(rows.sum()), "flagged label") + ("" if len(chosen) == k else f", {len(chosen)} of {k} classes")
    )
    return figure


def plot_noise_per_class(found: LabelIssues | RunResults, *, most: int = 30) -> Figure:
    """Draw the expected share of wrong labels among those given each class, the noisiest classes first.

    Raises InputError without a signal.
    """
    check_at_least("most", most, 1)
    issues = _issues(found)
    rate = issues.noise_ratio_per_class
    if not np.isfinite(rate).any():
        raise InputError("the labels carry no signal, so the noise of no class is known.")
    order = np.argsort(np.where(np.isfinite(rate), -rate, np.inf), kind="stable")[:most]
    order = order[np.isfinite(rate[order])]
    figure, axes = _axes(6.4, 1.2 + 0.28 * len(order))
    axes.barh(range(len(order)), rate[order], color=_BLUE)
    axes.set_yticks(range(len(order)), [_plain(issues.class_names[i]) for i in order])
    axes.invert_yaxis()
    axes.axvline(issues.noise_ratio, color=_ORANGE, lw=1)
    axes.set_title(f"all classes: {issues.noise_ratio:.1%}", color=_ORANGE, size=10, loc="right")
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    axes.set_xlabel("expected share of wrong labels")
    return figure


def plot_quality(found: LabelIssues | RunResults) -> Figure:
    """Draw how many labels have which probability of being right, flagged and not, on a logarithmic axis."""
    issues = _issues(found)
    flags = issues.is_label_issue
    figure, axes = _axes(6.4, 3.8)
    axes.hist(
        [issues.label_quality[flags], issues.label_quality[~flags]],
        bins=np.linspace(0, 1, 41).tolist(),
        stacked=True,
        color=[_ORANGE, _BLUE],
        label=[f"flagged: {int(flags.sum()):,}", f"not flagged: {int((~flags).sum()):,}"],
    )
    axes.set_yscale("log")
    axes.set_xlabel(
        "probability that the given label is right" if issues.has_signal else "rank of the label (no signal)"
    )
    axes.set_ylabel("labels")
    axes.legend(frameon=False)
    return figure


def plot_rounds(result: RunResults | CrossValResult) -> Figure:
    """Draw, per round, the share of images taken for right, agreement with the labels, and the estimated noise rate."""
    rounds: Sequence[Mapping[str, Any]] = result.rounds if isinstance(result, RunResults) else round_figures(result)
    number, n = [record["round"] for record in rounds], len(result.labels)
    figure, axes = _axes(6.4, 3.8)
    for values, name, color in (
        ([record["selected"] / n for record in rounds], "taken for right", _BLUE),
        ([record["agreement"] for record in rounds], "models agree with the label", _GREY),
        ([record["noise_rate"] for record in rounds], "estimated noise rate", _ORANGE),
    ):
        axes.plot(number, values, marker="o", color=color, label=name)
    axes.set_xticks(number)
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("round")
    axes.set_ylabel("share of the images")
    axes.legend(frameon=False)
    return figure


def plot_reliability(
    found: LabelIssues | RunResults, wrong: npt.ArrayLike, *, indices: npt.ArrayLike | None = None, n_bins: int = 10
) -> Figure:
    """Draw how often labels are wrong against how probably the run says so; on the diagonal, it says what is so.

    Args:
        found: What was found about n labels.
        wrong: (n,) whether each label is wrong, as reviews or true labels tell; or (m,) of the images `indices`.
        indices: (m,) images, drawn at random; None: all.
        n_bins: Groups of equally many images.

    Raises:
        InputError: For shapes that do not fit, and without a signal.
    """
    issues = _issues(found)
    check_at_least("n_bins", n_bins, 2)
    if not issues.has_signal:
        raise InputError("the labels carry no signal, so there are no probabilities to compare.")
    known: FloatArray = np.asarray(wrong, dtype=np.float64)
    which: IntArray = np.arange(len(issues.labels)) if indices is None else np.asarray(indices, np.int64)
    if known.shape != which.shape or not len(which):
        raise InputError(f"wrong has shape {known.shape}; it takes one answer for each of {len(which):,} images.")
    said = issues.wrong[which]
    order = np.argsort(said, kind="stable")
    groups = [group for group in np.array_split(order, min(n_bins, len(order))) if len(group)]
    x = np.array([said[group].mean() for group in groups])
    y = np.array([known[group].mean() for group in groups])
    error = 1.645 * np.sqrt(np.maximum(y * (1 - y), 0) / [len(group) for group in groups])
    figure, axes = _axes(4.8, 4.6)
    axes.plot([0, 1], [0, 1], color=_GREY, lw=1, ls="--")
    axes.errorbar(x, y, yerr=error, marker="o", color=_BLUE, capsize=2)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("probability of being wrong, as the run says")
    axes.set_ylabel("share that is wrong")
    axes.set_title(f"{len(which):,} labels in {len(groups)} groups", size=10)
    return figure


def _issues(found: LabelIssues | RunResults) -> LabelIssues:
    return found.issues() if isinstance(found, RunResults) else found


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Plot(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _plain(name: str) -> str:
    """Return a class name that matplotlib takes for text, not for mathematics."""
    return name.replace("$", r"\$")
