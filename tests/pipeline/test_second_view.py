"""A second view: networks from scratch beside heads on features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.run_folder import RunFolder
from cvcoteach.pipeline.run_summary import summary_text
from cvcoteach.pipeline.settings import Machine, Settings
from tests.images import class_folders

MACHINE = Machine("cpu", 1, "float32")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Sixty shapes, and features that know them well enough."""
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    class_folders(tmp_path / "shapes", n=60)
    rng = np.random.default_rng(0)
    names = sorted(path.relative_to(tmp_path / "shapes").as_posix() for path in (tmp_path / "shapes").rglob("*.png"))
    true = np.array([int(name[-7:-4]) % 3 for name in names])
    np.save(tmp_path / "features.npy", 2 * np.eye(3)[true] + rng.normal(size=(60, 3)))
    return Settings(features=tmp_path / "features.npy", also_from_scratch=True, n_rounds=2)


@pytest.mark.slow
def test_a_run_of_two_views_resumes_and_says_what_each_contributed(settings: Settings) -> None:
    first = find_issues("shapes", "run", settings, MACHINE)
    assert sorted(path.name for path in Path("run/folds/second").iterdir()) == [
        f"round-{number}-fold-{fold}.npy" for number, folds in ((1, 2), (2, 5)) for fold in range(1, folds + 1)
    ]
    names = [view["name"] for view in first.summary["views"]]
    assert names == ["heads on features", "networks from scratch"]
    assert sum(view["weight"] for view in first.summary["views"]) == pytest.approx(1, abs=0.001)
    text = summary_text(first.summary)
    assert "View, networks from scratch: weight " in text
    assert "Found only by the views together: " in text

    run = RunFolder.read(Path("run"))
    run.save(state="running")
    for file in ("folds/second/round-2-fold-5.npy", "folds/round-2-fold-1.npy"):
        (Path("run") / file).unlink()
    again = find_issues("shapes", "run", settings, MACHINE)
    np.testing.assert_array_equal(again.pred_probs, first.pred_probs)
    alone = find_issues("shapes", "alone", Settings(features=settings.features, n_rounds=2), MACHINE)
    assert "views" not in alone.summary
    assert np.abs(alone.pred_probs - first.pred_probs).max() > 0.01


@pytest.mark.parametrize(
    ("settings_", "sentence"),
    [
        (
            Settings(also_from_scratch=True, preset="fast"),
            "is set without features to train heads on",
        ),
        (
            Settings(also_from_scratch=True, select="agreement"),
            "algorithm 1, which has a single view",
        ),
    ],
)
def test_where_there_is_nothing_to_add_a_view_to_it_is_refused(
    settings: Settings, settings_: Settings, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        find_issues("shapes", "run", settings_, MACHINE)


def test_an_image_without_pixels_is_no_second_view(settings: Settings) -> None:
    sorted(Path("shapes").rglob("*.png"))[0].write_bytes(b"no image")
    with pytest.raises(InputError, match="1 of the images cannot be read; networks from scratch need every image"):
        find_issues("shapes", "run", settings, MACHINE)
