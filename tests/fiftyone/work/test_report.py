"""The report of a run in FiftyOne."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvcoteach.fiftyone.work.imports import import_label_issues
from cvcoteach.fiftyone.work.report import write_report
from cvcoteach.issues.from_posterior import posterior_issues
from cvcoteach.pipeline.page import report
from cvcoteach.pipeline.results import RunResults


def test_no_array_of_all_images_and_classes_is_made(
    noisy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 100,000 images and 5,000 classes it would take two gigabytes."""
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=("bar", "cross", "ring"))
    import_label_issues(noisy.dataset, "ground_truth", issues)
    written: list[RunResults] = []
    monkeypatch.setattr(report, "write_page", lambda file, found, *rest: written.append(found))
    write_report(noisy.dataset, str(tmp_path / "report.html"))
    for probs in (written[0].pred_probs, written[0].pred_probs_round_1):
        assert probs.shape == (60, 3)
        assert probs.strides == (0, 0)


def test_copies_with_other_labels_are_named_in_it(noisy: Any, tmp_path: Path) -> None:
    issues = posterior_issues(noisy.given, noisy.pred_probs, class_names=("bar", "cross", "ring"))
    copies = np.full(60, -1)
    one, other = 0, int(np.flatnonzero(noisy.given != noisy.given[0])[0])
    copies[other] = one
    import_label_issues(noisy.dataset, "ground_truth", replace(issues, duplicate_of=copies))
    page = write_report(noisy.dataset, str(tmp_path / "report.html")).read_text()
    assert "2 images contradict a copy by their label" in page
