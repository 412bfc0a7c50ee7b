"""The loop of use: fix labels, add images, run the same command again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.pipeline.earlier_runs import decided_labels
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.settings import Settings

N = 90


class Notes:
    """A watcher that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, sentence: str) -> None:
        self.said.append(sentence)

    def progress(self, update: Any) -> None:
        """Nothing to do with it."""


class Photos:
    """A table of images with three classes and a few wrong labels, and features that know."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.true = np.arange(N) % 3
        self.given = self.true.copy()
        self.given[:6] = (self.given[:6] + 1) % 3
        self.paths = [f"class{k}/{i:03}.png" for i, k in enumerate(self.given)]
        self.write()

    def write(self) -> None:
        """Write the table, the features, and what takes the place of images."""
        for path in self.paths:
            file = self.folder / path
            if not file.exists():
                file.parent.mkdir(exist_ok=True)
                Image.new("L", (8, 8)).save(file)
        labels = [f"class{k}" for k in self.given]
        pd.DataFrame({"path": self.paths, "label": labels}).to_csv(self.folder / "photos.csv", index=False)
        noise = np.random.default_rng(0).normal(size=(len(self.true), 3))
        np.save(self.folder / "features.npy", (6 * np.eye(3)[self.true] + noise).astype(np.float32))

    def fix(self, rows: range) -> None:
        """Give the images their true labels, as somebody does who moves the files."""
        self.given[rows] = self.true[rows]
        self.paths = [f"class{k}/{Path(path).name}" for k, path in zip(self.given, self.paths, strict=True)]
        self.write()

    def add(self, n: int) -> None:
        """Add images with the right label."""
        more = np.arange(n) % 3
        self.paths += [f"class{k}/new{i}.png" for i, k in enumerate(more)]
        self.true, self.given = np.concatenate([self.true, more]), np.concatenate([self.given, more])
        self.write()

    def run(self, **options: Any) -> tuple[RunResults, list[str]]:
        """Find the issues; return the results and what was said of earlier runs."""
        notes, settings = Notes(), options.pop("settings", {})
        settings = Settings(features=self.folder / "features.npy", epochs=10, n_rounds=1, **settings)
        results = find_issues(self.folder / "photos.csv", settings=settings, watcher=notes, **options)
        return results, [sentence for sentence in notes.said if "since the" in sentence]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Photos:
    monkeypatch.chdir(tmp_path)
    return Photos(tmp_path)


def test_after_labels_were_fixed_the_same_call_goes_on_beside_the_earlier_run(photos: Photos) -> None:
    first, said = photos.run()
    assert (first.folder, said) == (Path("photos-issues"), [])
    flagged = {*np.flatnonzero(first.found.is_label_issue).tolist()}
    assert {0, 1, 3, 4, 5} <= flagged <= {*range(6)}
    photos.fix(range(4))
    photos.add(2)
    second, said = photos.run()
    assert said == [
        "4 labels changed, 2 images added since the run in photos-issues: going on in photos-issues-2 "
        "(--fresh to start over, --replace to overwrite; in Python again=)."
    ]
    assert second.folder == Path("photos-issues-2")
    assert second.summary["since"] == {
        "run": str(photos.folder / "photos-issues"),
        "labels_changed": 4,
        "images_added": 2,
        "images_removed": 0,
        "fixed": len(flagged & {*range(4)}),
        "still_flagged": 2,
        "new": 0,
        "cleared": 0,
    }
    again, said = photos.run()
    assert (again.folder, again.was_done, said) == (Path("photos-issues-2"), True, [])
    assert RunResults.load("photos-issues").summary == first.summary  # as it was
    photos.fix(range(6))
    third, _ = photos.run()
    assert third.folder == Path("photos-issues-3")
    assert third.summary["since"]["run"].endswith("photos-issues-2")
    assert third.summary["since"]["fixed"] == 2


def test_labels_as_they_were_find_the_run_that_judged_them(photos: Photos) -> None:
    photos.run()
    given, paths = photos.given.copy(), photos.paths
    photos.fix(range(2))
    photos.run()
    photos.given, photos.paths = given, paths
    photos.write()
    results, said = photos.run()
    assert (results.folder, results.was_done, said) == (Path("photos-issues"), True, [])


def test_fresh_starts_over_and_replace_overwrites(photos: Photos) -> None:
    photos.run()
    fresh, _ = photos.run(again="fresh")
    assert (fresh.folder, fresh.was_done) == (Path("photos-issues-2"), False)
    (Path("photos-issues") / "my-notes.txt").write_text("mine")
    photos.fix(range(3))
    replaced, _ = photos.run(again="replace")
    assert (replaced.folder, replaced.was_done) == (Path("photos-issues"), False)
    assert set(np.flatnonzero(RunResults.load("photos-issues").found.is_label_issue)) == {3, 4, 5}
    assert (Path("photos-issues") / "my-notes.txt").read_text() == "mine"
    kept, _ = photos.run(again="replace")
    assert kept.was_done


def test_a_named_folder_and_other_settings_are_refused_as_ever(photos: Photos) -> None:
    there, _ = photos.run(output="mine")
    photos.fix(range(3))
    with pytest.raises(
        InputError,
        match=r"^3 labels changed since the run in mine; .* or none .* \(--replace, .*\)\.$",
    ):
        photos.run(output="mine")
    assert RunResults.load("mine").summary["n_issues"] == there.summary["n_issues"]
    with pytest.raises(InputError, match="mine belongs to another run: its seed is 0, not 1"):
        photos.run(output="mine", settings={"seed": 1})
    photos.run()
    with pytest.raises(InputError, match="photos-issues belongs to another run: its seed is 0, not 1"):
        photos.run(settings={"seed": 1})
    with pytest.raises(InputError, match="again is 'new'"):
        photos.run(again="new")


def test_flags_of_another_rule_belong_to_the_same_run(photos: Photos) -> None:
    photos.run()
    results, _ = photos.run(settings={"min_probability": 0.9})
    assert (results.folder, results.was_done) == (Path("photos-issues"), True)


def test_a_label_that_somebody_kept_is_not_flagged_again(photos: Photos) -> None:
    photos.run()
    decided = pd.DataFrame(
        {
            "path": [photos.paths[3], photos.paths[4], photos.paths[5], photos.paths[0]],
            "action": ["kept", "set", "set", "excluded"],
            "label": ["", f"class{photos.given[4]}", f"class{photos.true[5]}", ""],
        }
    )
    decided.to_csv("corrections.csv", index=False)
    results, _ = photos.run(corrections="corrections.csv")
    assert results.was_done
    assert set(np.flatnonzero(results.reviewed)) == {3, 4}  # 5 is not what was chosen yet
    assert not results.found.is_label_issue[[3, 4]].any()
    assert results.found.is_label_issue[[0, 5]].all()
    assert (results.summary["n_reviewed"], results.summary["n_probably_wrong"]) == (2, results.found.n_issues)
    assert (results.found.label_quality[[3, 4]] == 1).all()
    table = pd.read_csv("photos-issues/issues.csv")
    assert not table.set_index("path").is_label_issue[[photos.paths[3], photos.paths[4]]].any()

    photos.fix(range(5, 6))
    photos.fix(range(4, 5))
    moved, _ = photos.run(settings={"flag_for": "recall"})
    assert moved.folder == Path("photos-issues-2")
    assert set(np.flatnonzero(moved.reviewed)) == {3}  # another label of 4 was never reviewed
    assert not moved.found.is_label_issue[3]
    again, _ = photos.run(corrections="corrections.csv")
    assert set(np.flatnonzero(again.reviewed)) == {3, 5}


def test_corrections_of_other_images_are_refused(photos: Photos) -> None:
    pd.DataFrame({"path": ["cat/1.png"], "action": ["kept"]}).to_csv("corrections.csv", index=False)
    with pytest.raises(InputError, match=r"none of the 1 image in corrections\.csv is in photos\.csv"):
        photos.run(corrections="corrections.csv")
    pd.DataFrame({"path": [photos.paths[0]], "action": ["keep"]}).to_csv("corrections.csv", index=False)
    with pytest.raises(InputError, match="line 2: the action is 'keep'; did you mean kept"):
        photos.run(corrections="corrections.csv")
    assert not Path("photos-issues").exists()


def test_decisions_hold_for_the_label_and_the_image_that_they_were_made_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def decided(rows: list[tuple[str, str, str, str]]) -> list[bool]:
        pd.DataFrame(rows, columns=["path", "action", "label", "given_label"]).to_csv("c.csv", index=False)
        paths = ("cat/1.png", "dog/2.png", "cat/1.png", "dog/4.png")
        source = Source(tmp_path, tmp_path, paths, np.array([0, 1, 0, 1]), ("cat", "dog"))
        return decided_labels(Path("c.csv"), source).tolist()

    monkeypatch.chdir(tmp_path)
    assert decided([("cat/1.png", "kept", "", "cat")]) == [True, False, True, False]  # wherever the path occurs
    assert decided([("dog/2.png", "kept", "", "cat")]) == [False] * 4  # another label was kept
    assert decided([("cat/2.png", "set", "dog", "cat")]) == [False, True, False, False]  # it was moved
    both = [("cat/4.png", "kept", "", ""), ("dog/4.png", "set", "cat", "")]
    assert decided(both) == [False] * 4  # dog/4.png was there all along


def test_images_known_by_number_are_not_compared_once_one_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 255, (60, 8, 8), np.uint8), np.arange(60) % 2
    settings = Settings(n_rounds=1, epochs=1)

    def run(rows: np.ndarray, given: np.ndarray, **options: Any) -> tuple[RunResults, list[str]]:
        np.savez("d.npz", images=images[rows], labels=given[rows])
        notes = Notes()
        return find_issues("d.npz", settings=settings, watcher=notes, **options), notes.said

    everything, relabelled = np.arange(60), np.where(np.arange(60) == 5, 1 - labels, labels)
    pd.DataFrame({"path": ["d.npz#20"], "action": ["kept"]}).to_csv("c.csv", index=False)
    run(everything, labels, corrections="c.csv")
    results, _ = run(everything, relabelled)
    assert results.summary["since"]["labels_changed"] == 1
    assert set(np.flatnonzero(results.reviewed)) == {20}
    results, said = run(everything[3:], relabelled)
    assert "since" not in results.summary
    assert not results.reviewed.any()
    assert any("known by their numbers alone, so nothing is carried over" in sentence for sentence in said)
    with pytest.raises(InputError, match=r"names images by number, and the images of d\.npz have changed"):
        run(everything[7:], relabelled, corrections="c.csv")


def test_an_edited_table_is_put_aside_before_another_rule_writes_it(photos: Photos) -> None:
    photos.run()
    table = pd.read_csv("photos-issues/issues.csv")
    table.assign(my_notes="look again").to_csv("photos-issues/issues.csv", index=False)
    photos.run(settings={"min_probability": 0.9})
    assert "my_notes" not in pd.read_csv("photos-issues/issues.csv")
    assert (pd.read_csv("photos-issues/issues.changed.csv").my_notes == "look again").all()


def test_a_classifier_is_not_replaced(photos: Photos) -> None:
    photos.run(output="model")
    (Path("model") / "model.json").write_text("{}")
    photos.fix(range(2))
    with pytest.raises(InputError, match="model holds a classifier"):
        photos.run(output="model", again="replace")
