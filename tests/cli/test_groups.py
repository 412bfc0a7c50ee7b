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


def test_near_copies_in_different_folds_are_noted_and_their_column_is_named(table: pd.DataFrame) -> None:
    table.assign(camera=np.arange(2000) % 3).to_csv("t.csv", index=False)
    said = find("--label-column", "label", "--rounds", 1).stderr
    assert "100% of 2,000 images looked at have a near copy, which may lie in another fold" in said
    assert "the column 'clip' looks like their groups: --group-column clip keeps each in one fold." in said
    table.drop(columns="clip").assign(camera=np.arange(2000) % 3).to_csv("t.csv", index=False)
    said = find("--label-column", "label", "--rounds", 1, "--output", "other").stderr
    assert "name these groups (--group-column, in FiftyOne group_field)" in said
    assert "near copy" not in find("--label-column", "label", "--group-column", "camera", "-o", "third").stderr
