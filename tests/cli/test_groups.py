"""`--group-column`: what is recorded, what is resumed, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from cvcoteach.cli.main import main
from tests.crossval.test_groups import clips

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    """The clips as a table, and their features in a file."""
    monkeypatch.chdir(tmp_path)
    features, _, given, clip = clips(3)
    np.save("x.npy", features.astype(np.float32))
    names = [f"{i:04}.png" for i in range(len(given))]
    for name in names:
        Path(name).touch()
    found = pd.DataFrame({"path": names, "label": [f"digit {label}" for label in given], "clip": clip})
    found.to_csv("t.csv", index=False)
    return found


def find(*options: object) -> Result:
    fixed = ("find-issues", "t.csv", "--features", "x.npy", "--device", "cpu", "--threads", "1")
    return CliRunner().invoke(main, [*fixed, *map(str, options)])


def test_clips_that_are_wrong_as_a_whole_are_found_and_the_groups_are_on_record(table: pd.DataFrame) -> None:
    result = find("--group-column", "clip", "--label-column", "label")
    assert result.exit_code == 0, result.output
    flagged = pd.read_csv("t-issues/issues.csv").query("is_label_issue").path
    wrong = set(table.path[clips(3)[1]])
    assert len(wrong & set(flagged)) >= 0.75 * len(wrong)
    assert len(wrong & set(flagged)) >= 0.6 * len(flagged)
    record = json.loads(Path("t-issues/run.json").read_text())
    assert record["groups"] == {"count": 200, "column": "clip"}
    assert record["reading"]["group_column"] == "clip"


def test_other_groups_are_another_run(table: pd.DataFrame) -> None:
    options = ("--group-column", "clip", "--label-column", "label", "--rounds", 1)
    assert find(*options).exit_code == 0
    assert "holds this run already" in find(*options).stderr
    refused = find(*options[2:])
    assert refused.exit_code == 1
    assert "belongs to another run: its groups have changed since" in refused.stderr
    table.assign(clip=table["clip"] // 2).to_csv("t.csv", index=False)
    assert "groups or splits have changed since the run in t-issues: going on in t-issues-2" in find(*options).stderr
    table.assign(clip=[f"video {clip}" for clip in table["clip"]]).to_csv("t.csv", index=False)
    assert "holds this run already" in find(*options).stderr  # other names for the same groups


def test_groups_that_do_not_fit_get_a_sentence(table: pd.DataFrame) -> None:
    refused = find("--group-column", "video", "--label-column", "label")
    assert "t.csv has no column 'video' (--group-column); did you mean" in refused.stderr
    gaps = table["clip"].astype(object)
    gaps[[4, 7]] = ""
    table.assign(clip=gaps).to_csv("t.csv", index=False)
    refused = find("--group-column", "clip", "--label-column", "label")
    assert refused.exit_code == 1
    assert "2 of 2,000 groups in the column 'clip' of t.csv are missing, the first in row 5" in refused.stderr
    table.assign(clip="one").to_csv("t.csv", index=False)
    refused = find("--group-column", "clip", "--label-column", "label")
    assert "all images of t.csv are of one group in 'clip' (one), so that no model could judge them" in refused.stderr
    assert not Path("t-issues").exists()


def test_the_groups_of_an_npz_are_an_array(table: pd.DataFrame) -> None:
    images = np.random.default_rng(0).integers(256, size=(2000, 8, 8), dtype=np.uint8)
    np.savez("t.npz", images=images, labels=clips(3)[2], clip=table["clip"])
    options = ["--features", "x.npy", "--rounds", "1", "--device", "cpu", "--threads", "1"]
    run = CliRunner().invoke(main, ["find-issues", "t.npz", "--group-column", "clip", *options])
    assert run.exit_code == 0, run.output
    assert json.loads(Path("t-issues/run.json").read_text())["groups"]["count"] == 200
    refused = CliRunner().invoke(main, ["find-issues", "t.npz", "--group-column", "nothing", *options])
    assert "t.npz has no array 'nothing' (--group-column)" in refused.stderr


def test_clips_are_bound_without_their_column_as_near_copies(table: pd.DataFrame) -> None:
    table.drop(columns="clip").assign(camera=np.arange(2000) % 3).to_csv("t.csv", index=False)
    result = find("--label-column", "label")
    assert result.exit_code == 0, result.output
    n_near = json.loads(Path("t-issues/run.json").read_text())["summary"]["n_near_copies"]
    assert 1790 <= n_near <= 1800
    assert f"{n_near:,} of 2,000 images repeat another one nearly" in result.stderr
    issues = pd.read_csv("t-issues/issues.csv", keep_default_na=False)
    flagged, wrong = set(issues.path[issues.is_label_issue]), set(table.path[clips(3)[1]])
    assert len(wrong & flagged) >= 0.75 * len(wrong)
    assert len(wrong & flagged) >= 0.6 * len(flagged)
    clip_of = table.set_index("path")["clip"]
    named = issues[issues.near_copy_of != ""]
    assert len(named) == n_near
    assert (clip_of[named.path].to_numpy() == clip_of[named.near_copy_of].to_numpy()).all()
    assert "groups" not in json.loads(Path("t-issues/run.json").read_text())
    assert f"{n_near:,} images are near copies of another one." in Path("t-issues/issues.html").read_text()


def test_near_copies_are_noted_and_their_column_is_named(table: pd.DataFrame) -> None:
    table.assign(camera=np.arange(2000) % 3).to_csv("t.csv", index=False)
    said = find("--label-column", "label", "--rounds", 1).stderr
    assert "of 2,000 images repeat another one nearly, such as frames of a burst" in said
    assert "near copies stay in one fold" in said
    assert "the column 'clip' looks like their groups: --group-column clip keeps each in one fold." in said
    part = find("--label-column", "label", "--rounds", 1, "--no-bind-near-copies", "-o", "parted")
    assert "100% of 2,000 images looked at have a near copy, which may lie in another fold" in part.stderr
    assert "the column 'clip' looks like their groups: --group-column clip keeps each in one fold." in part.stderr
    assert (pd.read_csv("parted/issues.csv", keep_default_na=False).near_copy_of == "").all()
    table.drop(columns="clip").assign(camera=np.arange(2000) % 3).to_csv("t.csv", index=False)
    said = find("--label-column", "label", "--rounds", 1, "--no-bind-near-copies", "--output", "other").stderr
    assert "name these groups (--group-column, in FiftyOne group_field)" in said
