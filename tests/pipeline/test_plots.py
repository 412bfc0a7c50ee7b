"""Figures and notebook tables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cvcoteach import IterativeCV, LabelIssues, plot_confusions, plot_noise_per_class, plot_quality, plot_reliability
from cvcoteach._validation import InputError
from cvcoteach.data.sources import read_source
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.pipeline.plots import plot_rounds
from cvcoteach.pipeline.results import RunResults
from tests.fakes import NearestMeans, clouds
from tests.finished_runs import finished_run
from tests.images import class_folders
from tests.pipeline.test_apply import true_of

NAMES = ("<b>ant</b>", "$bee$", "cow")


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A run on a folder with twelve wrong labels."""
    class_folders(tmp_path / "shapes", n=120)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, true_of(source))


def issues_of(sure: float = 4.0) -> tuple[LabelIssues, np.ndarray]:
    """Label issues of three classes with odd names, and which labels are wrong."""
    rng = np.random.default_rng(0)
    true = np.arange(600) % 3
    labels = np.where(rng.random(600) < 0.2, (true + 1) % 3, true)
    logits = sure * np.eye(3)[true] + rng.normal(size=(600, 3))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return posterior_issues(labels, probs.astype(np.float32), class_names=NAMES), labels != true


def test_every_plot_is_a_figure_that_a_notebook_shows(run: RunResults) -> None:
    issues, wrong = issues_of()
    figures = [
        plot_confusions(issues),
        plot_confusions(run, most=2),
        plot_noise_per_class(issues),
        plot_quality(run),
        plot_rounds(run),
        plot_reliability(issues, wrong),
        plot_reliability(issues, wrong[:50], indices=np.arange(50)),
    ]
    for figure in figures:
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_the_cells_count_what_confusions_counts() -> None:
    issues, _ = issues_of()
    written = sorted(int(text.get_text()) for text in plot_confusions(issues).axes[0].texts)
    assert written == sorted(issues.confusions()["count"].tolist())


def test_bars_are_the_noise_of_the_classes_worst_first() -> None:
    issues, _ = issues_of()
    bars = [bar.get_width() for bar in plot_noise_per_class(issues).axes[0].patches]
    assert bars == sorted(issues.noise_ratio_per_class, reverse=True)


def test_rounds_of_a_cross_validation_are_drawn_too() -> None:
    features, _, labels = clouds(150, 3, 0.2, 0)
    result = IterativeCV(n_rounds=2).run(NearestMeans(features, 3), labels, n_classes=3)
    axes = plot_rounds(result).axes[0]
    assert [line.get_xdata()[-1] for line in axes.lines] == [2, 2, 2]
    assert "<td" in result._repr_html_()


def test_what_cannot_be_drawn_is_said() -> None:
    nothing = posterior_issues(np.random.default_rng(0).integers(0, 3, 300), np.full((300, 3), 1 / 3, np.float32))
    with pytest.raises(InputError, match="no label is flagged"):
        plot_confusions(nothing)
    with pytest.raises(InputError, match="carry no signal"):
        plot_noise_per_class(nothing)
    with pytest.raises(InputError, match="one answer for each of 600 images"):
        plot_reliability(issues_of()[0], [True])


def test_names_are_text_in_notebooks() -> None:
    issues, _ = issues_of()
    shown = issues._repr_html_()
    assert "&lt;b&gt;ant&lt;/b&gt;" in shown
    assert "<b>" not in shown
    assert shown.count("<tr>") == 11


def test_a_run_shows_its_pictures_where_they_still_are(run: RunResults, tmp_path: Path) -> None:
    worst = run.paths[run.found.worst_first()[0]]
    assert run._repr_html_().count("data:image/jpeg;base64,") == 10
    (tmp_path / "shapes" / worst).unlink()
    assert run._repr_html_().count("data:image/jpeg;base64,") == 9
    assert worst in run._repr_html_()
    (tmp_path / "shapes").rename(tmp_path / "moved")
    assert "data:image" not in run._repr_html_()


def test_matplotlib_is_loaded_by_plots_alone() -> None:
    code = "import sys; from cvcoteach import LabelIssues, RunResults; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
