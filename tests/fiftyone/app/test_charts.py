"""The panel's charts as Plotly data."""

from __future__ import annotations

import numpy as np

from cvcoteach.fiftyone.app.charts import MOST_CLASSES, busiest, class_noise, histogram, matrix


def test_the_matrix_shows_the_most_confused_classes_only() -> None:
    counts = np.zeros((40, 40), np.int64)
    counts[7, 31] = 5
    counts[2, 3] = 1
    shown = busiest(counts)
    assert len(shown) == MOST_CLASSES
    assert {2, 3, 7, 31} <= set(shown.tolist())
    (heat,), _ = matrix(counts, tuple(f"class {k}" for k in range(40)))
    place = heat["y"].index("class 7"), heat["x"].index("class 31")
    assert heat["z"][place[0]][place[1]] == 5


def test_long_class_names_are_cut_on_the_axes_but_not_in_what_a_click_sends() -> None:
    names = ("a very long name of a class indeed", "short")
    (heat,), layout = matrix(np.array([[0, 1], [2, 0]]), names)
    assert heat["x"] == heat["y"] == list(names)
    assert layout["xaxis"]["ticktext"] == layout["yaxis"]["ticktext"] == ["a very lo\u2026s indeed", "short"]
    (bars,), layout = class_noise(np.array([0.1, 0.5]), np.array([1, 2]), names)
    assert bars["y"] == layout["yaxis"]["tickvals"] == ["short", names[0]]


def test_charts_of_nothing_are_still_charts() -> None:
    none = np.zeros(20, np.int64)
    data, _ = histogram(none, none)
    assert [trace["customdata"] for trace in data] == [[0] * 20] * 2
    (bars,), _ = class_noise(np.array([np.nan, 0.5]), np.array([0, 3]), ("a", "b"))
    assert bars["y"] == ["b", "a"]
