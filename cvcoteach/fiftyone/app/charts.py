"""The panel's charts as Plotly data: matrix, histogram, noise per class. Knows nothing of FiftyOne."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from cvcoteach._validation import FloatArray, IntArray

Plot = tuple[list[dict[str, Any]], dict[str, Any]]
"""Plotly's data and layout."""

MOST_CLASSES = 16
"""As many as fit in the panel with legible names."""

_ORANGE = "#ff6d04"  # FiftyOne's own accent; the colours of text and lines come from its theme
_GREY = "#7b8290"
_FEW = "#5c6370"  # darker, for white figures
_ROOM = 40
"""Characters of class names that fit side by side above the matrix."""
_SCALE = [[0, _FEW], [1, _ORANGE]]  # few catch the eye less than many, on a dark and on a light page


def matrix(counts: npt.NDArray[np.int64] | csr_array, names: tuple[str, ...]) -> Plot:
    """Draw flagged labels by given class (down) and suggested class (across), the most confused classes only.

    counts: (K, K).
    """
    shown = busiest(counts)
    cells = counts[shown][:, shown]
    if isinstance(cells, csr_array):
        cells = cells.toarray()
    labels = [names[k] for k in shown]
    heat = {
        "type": "heatmap",
        "x": labels,
        "y": labels,
        "z": [[count or None for count in row] for row in cells.tolist()],  # nothing to see, nothing to click
        "zmin": 0,
        "text": [[f"{count:,}" if count else "" for count in row] for row in cells.tolist()],
        "texttemplate": "%{text}",
        "textfont": {"color": "#ffffff"},
        "hovertemplate": "given <b>%{y}</b>, suggested <b>%{x}</b>: %{z:,}<extra></extra>",
        "colorscale": _SCALE,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    layout = _layout(height=88 + max(26 * len(shown), 90))
    layout["xaxis"] |= {"title": _title("suggested"), "side": "top", "showgrid": False, "type": "category"}
    layout["yaxis"] |= {"title": _title("given"), "autorange": "reversed", "showgrid": False, "type": "category"}
    for axis in ("xaxis", "yaxis"):
        layout[axis] |= _names(labels)
    layout["xaxis"]["tickangle"] = 0 if sum(len(shorter(name)) for name in labels) <= _ROOM else -45
    layout["margin"]["b"] = 8
    return [heat], layout


def histogram(flagged: IntArray, others: IntArray) -> Plot:
    """Draw labels by quality, (bins,) each, flagged ones stacked; heights are square roots, to show both."""
    bins = len(flagged)
    edges = np.linspace(0, 1, bins + 1)
    middles = ((edges[1:] + edges[:-1]) / 2).round(4).tolist()
    traces = [
        {
            "type": "bar",
            "name": name,
            "x": middles,
            "y": np.sqrt(counts).tolist(),
            "customdata": counts.tolist(),
            "marker": {"color": colour},
            "width": 0.9 / bins,
            "hovertemplate": f"quality %{{x:.2f}}: %{{customdata:,}} {name}<extra></extra>",
        }
        for name, counts, colour in (("flagged", flagged, _ORANGE), ("not flagged", others, _GREY))
    ]
    layout = _layout(height=200) | {"barmode": "stack", "showlegend": True}
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1.16, "bgcolor": "rgba(0,0,0,0)", "traceorder": "normal"}
    layout["xaxis"] |= {"title": _title("probability that the given label is right"), "range": [0, 1]}
    layout["xaxis"] |= {"showgrid": False, "tickformat": ".1f", "tick0": 0, "dtick": 0.2}
    layout["margin"]["r"] = 16  # half the width of the last number
    top = float(np.sqrt((flagged + others).max())) if bins else 1.0
    layout["yaxis"] |= _square_root_ticks(top)
    return traces, layout


def class_noise(ratios: FloatArray, counts: IntArray, names: tuple[str, ...]) -> Plot:
    """Draw the expected share of wrong labels per given class, the noisiest first. ratios, counts (flagged): (K,)."""
    order = np.argsort(-np.nan_to_num(ratios), kind="stable")[:MOST_CLASSES]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": np.nan_to_num(ratios[order]).tolist(),
        "y": [names[k] for k in order],
        "customdata": counts[order].tolist(),
        "text": [f"{ratio:.0%}" for ratio in np.nan_to_num(ratios[order])],
        "textposition": "outside",
        "cliponaxis": False,
        "marker": {"color": _ORANGE},
        "hovertemplate": "<b>%{y}</b>: %{x:.1%} wrong, %{customdata:,} flagged<extra></extra>",
    }
    layout = _layout(height=24 + max(24 * len(order), 60))
    layout["bargap"] = 0.3
    layout["yaxis"] |= _names(bars["y"])
    layout["xaxis"] |= {"visible": False, "rangemode": "tozero"}
    layout["margin"] |= {"r": 48, "t": 4, "b": 4}
    layout["yaxis"] |= {"autorange": "reversed", "showgrid": False, "type": "category"}
    return [bars], layout


def busiest(counts: npt.NDArray[np.int64] | csr_array) -> IntArray:
    """Return at most MOST_CLASSES classes with the most flagged labels, in their own order. counts: (K, K)."""
    weight = counts.sum(axis=0) + counts.sum(axis=1)
    return np.sort(np.argsort(-weight, kind="stable")[:MOST_CLASSES])


def shorter(name: str, most: int = 18) -> str:
    """Shorten a class name in its middle: names that begin alike are told apart by their ends."""
    end = most // 2 - 1
    return name if len(name) <= most else f"{name[: most - end - 1]}\u2026{name[-end:]}"


def _names(names: list[str]) -> dict[str, Any]:
    """Label an axis with shortened class names; a click still sends the full name."""
    return {"tickmode": "array", "tickvals": names, "ticktext": [shorter(name) for name in names]}


def _square_root_ticks(top: float) -> dict[str, Any]:
    """Label an axis of square roots, up to `top`, with the counts themselves."""
    step = 10 ** np.floor(np.log10(max(top**2, 1)))
    values = [0, *(int(share * step) for share in (0.1, 0.5, 1, 2, 5) if 1 <= share * step <= top**2)]
    return {"tickvals": np.sqrt(values).tolist(), "ticktext": [f"{value:,}" for value in values]}


def _title(text: str) -> dict[str, Any]:
    return {"text": text, "standoff": 10, "font": {"size": 12}}


def _layout(height: int) -> dict[str, Any]:
    axis = {"automargin": True, "zeroline": False, "ticks": "", "fixedrange": True}
    return {
        "height": height,
        "autosize": True,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 12},
        "margin": {"l": 8, "r": 8, "t": 24, "b": 40, "pad": 4},
        "xaxis": dict(axis),
        "yaxis": dict(axis),
        "showlegend": False,
        "dragmode": False,
    }
