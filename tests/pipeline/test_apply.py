"""A corrected copy from a finished run and reviews, with a record that takes it back."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.data.writers.registry import fingerprint
from cvcoteach.pipeline.apply import check, record_of, undo, write, write_list
from cvcoteach.pipeline.apply_plan import Action, ApplySettings, plan
from cvcoteach.pipeline.results import RunResults
from tests.finished_runs import finished_run
from tests.images import CLASSES, class_folders, dataset

N = 120


@pytest.fixture
def run(tmp_path: Path) -> RunResults:
    """A run on a folder with twelve wrong labels."""
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, true_of(source))


def true_of(source: Source) -> Any:
    """The true classes, which the numbers of the images tell."""
    return np.array([int(Path(path).stem) for path in source.paths]) % len(CLASSES)


def reviews(tmp_path: Path, *rows: tuple[str, str, str]) -> Path:
    file = tmp_path / "reviews.csv"
    pd.DataFrame(rows, columns=["path", "action", "label"]).to_csv(file, index=False)
    return file


def test_the_flagged_labels_become_the_suggested_ones(run: RunResults, tmp_path: Path) -> None:
    planned = plan(run.folder, ApplySettings("relabel"))
    assert planned.summary["n_relabelled"] == run.found.n_issues == 12
    assert planned.summary["n_excluded"] == 0
    assert 0 < planned.expected_mistakes < 1
    written = write(planned, tmp_path / "fixed")
    assert (tmp_path / "fixed").stat().st_mode == (tmp_path / "shapes").stat().st_mode
    read = read_source(tmp_path / "fixed")
    assert (read.labels == true_of(read)).all()
    record = json.loads(written.record.read_text())
    assert record["state"] == "done"
    assert len(record["changes"]) == 12
    assert {"path", "old", "new", "probability", "why"} <= record["changes"][0].keys()


def test_copies_that_keep_different_labels_are_told_and_left_to_people(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    right = np.flatnonzero(source.labels == true_of(source))
    wrong = int(np.flatnonzero(source.labels != true_of(source))[0])
    twin = int(right[source.labels[right] == true_of(source)[wrong]][-2])
    a, b = int(right[0]), int(right[-1])  # of different classes, neither flagged
    copies = np.full(N, -1)
    copies[max(a, b)], copies[max(wrong, twin)] = min(a, b), min(wrong, twin)
    run = finished_run(tmp_path / "run", source, true_of(source), near_copy_of=copies)
    actions: tuple[Action, ...] = ("relabel", "exclude")
    for action in actions:  # either way the wrong one contradicts its copy no more
        planned = plan(run.folder, ApplySettings(action))
        told = "2 images have near copies with other labels still; review them, they come first in the report."
        assert planned.notes == (told,)
        assert not {run.paths[a], run.paths[b]} & set(planned.changes["path"])
    for done in ((run.paths[a], "kept", ""), (run.paths[b], "kept", "")), ((run.paths[a], "excluded", ""),):
        assert not plan(run.folder, ApplySettings("relabel", corrections=reviews(tmp_path, *done))).notes


def test_excluded_images_are_left_out_and_come_back(run: RunResults, tmp_path: Path) -> None:
    written = write(plan(run.folder, ApplySettings("exclude")), tmp_path / "fixed")
    assert len(read_source(tmp_path / "fixed")) == N - 12
    assert undo(written.record, dry_run=True).n_changes == 12
    assert len(read_source(tmp_path / "fixed")) == N - 12
    assert undo(written.record).n_changes == 12
    assert read_source(tmp_path / "fixed").paths == run.paths
    with pytest.raises(InputError, match="taken back already"):
        undo(written.record)


def test_people_overrule_the_run(run: RunResults, tmp_path: Path) -> None:
    flagged = [run.paths[i] for i in run.found.worst_first()]
    fine = [path for path in run.paths if path not in flagged]
    other = next(name for name in CLASSES if not fine[1].startswith(name))
    file = reviews(
        tmp_path,
        (flagged[0], "kept", ""),
        (flagged[1], "excluded", ""),
        (fine[0], "excluded", ""),
        (fine[1], "set", other),
    )
    planned = plan(run.folder, ApplySettings("relabel", corrections=file))
    changes = planned.changes.set_index("path")
    assert flagged[0] not in changes.index
    assert changes.loc[flagged[1], "action"] == changes.loc[fine[0], "action"] == "excluded"
    assert changes.loc[fine[1], "new"] == other
    assert (changes.loc[[flagged[1], *fine[:2]], "why"] == "reviewed").all()
    assert planned.summary["n_reviewed"] == 3
    alone = plan(run.folder, ApplySettings("reviews", corrections=file))
    assert set(alone.changes["path"]) == {flagged[1], fine[0], fine[1]}
    assert alone.expected_mistakes is None


def test_reviews_made_in_fiftyone_are_honored(run: RunResults, tmp_path: Path) -> None:
    worst = run.paths[run.found.worst_first()[0]]
    fine = run.paths[run.worst_first()[-1]]
    head = "when,who,run,action,what,sample_id,filepath,old,new,old_review,new_review\n"
    rows = [
        f"now,me,k,1,keep,7,{tmp_path / 'shapes' / worst},,,unreviewed,kept\n",
        f"now,me,k,2,exclude,8,{tmp_path / 'shapes' / fine},,,unreviewed,excluded\n",
    ]
    (tmp_path / "photos.corrections.csv").write_text(head + "".join(rows))
    planned = plan(run.folder, ApplySettings("relabel", corrections=tmp_path / "photos.corrections.csv"))
    changes = planned.changes.set_index("path")
    assert worst not in changes.index
    assert changes.loc[fine, "action"] == "excluded"
    assert planned.summary["n_relabelled"] == 11


def test_a_list_is_a_corrections_file(run: RunResults, tmp_path: Path) -> None:
    planned = plan(run.folder, ApplySettings("list"))
    text = write_list(planned, tmp_path / "list.csv")
    assert text == (tmp_path / "list.csv").read_text()
    again = plan(run.folder, ApplySettings("reviews", corrections=tmp_path / "list.csv"))
    assert set(again.changes["path"]) == set(planned.changes["path"])
    assert again.changes.set_index("path")["new"].to_dict() == planned.changes.set_index("path")["new"].to_dict()
    with pytest.raises(InputError, match="already exists"):
        write_list(planned, tmp_path / "list.csv")


def test_a_probability_takes_the_place_of_the_flags(run: RunResults) -> None:
    for action, right in (("relabel", run.alternative_prob), ("exclude", run.found.wrong)):
        least = float(np.sort(right)[-5])
        planned = plan(run.folder, ApplySettings(action, min_probability=least))
        assert len(planned.changes) == 5
        assert (planned.changes["probability"] >= least).all()


def test_a_label_that_was_reviewed_before_the_run_is_left_alone(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    reviewed = source.labels != true_of(source)
    run = finished_run(tmp_path / "run", source, true_of(source), reviewed=reviewed)
    assert not len(plan(run.folder, ApplySettings("relabel", min_probability=0.9)).changes)


def test_no_class_loses_all_its_images_unless_that_is_meant(run: RunResults, tmp_path: Path) -> None:
    rows = [(path, "excluded", "") for path in run.paths if path.startswith("bar/")]
    file = reviews(tmp_path, *rows)
    with pytest.raises(InputError, match="the class 'bar' would lose all its images; --allow-empty-classes"):
        plan(run.folder, ApplySettings("reviews", corrections=file))
    planned = plan(run.folder, ApplySettings("reviews", corrections=file, allow_empty_classes=True))
    assert planned.summary["n_excluded"] == len(rows)
    listed = plan(run.folder, ApplySettings("list", min_probability=1.0, corrections=file))
    assert "the class 'bar' would lose all its images." in listed.notes, "a list changes nothing"


def test_an_image_that_was_moved_since_the_run_is_not_said_to_be_gone(run: RunResults, tmp_path: Path) -> None:
    first, second, third = [run.paths[i] for i in run.found.worst_first()[:3]]
    for path in (first, second):
        number = run.paths.index(path)
        name = run.class_names[run.found.suggested[number]]
        (tmp_path / "shapes" / path).rename(tmp_path / "shapes" / name / Path(path).name)
    (tmp_path / "shapes" / third).unlink()
    planned = plan(run.folder, ApplySettings("relabel"))
    gone = f"1 image of the run is no longer in {tmp_path / 'shapes'}."
    assert planned.notes[:2] == ("2 images of the run were moved since and are left alone.", gone)
    assert planned.copy.kept.all()


def test_what_was_changed_since_the_run_is_left_alone(run: RunResults, tmp_path: Path) -> None:
    first, second = [run.paths[i] for i in run.found.worst_first()[:2]]
    suggested = run.class_names[run.found.suggested[run.paths.index(first)]]
    (tmp_path / "shapes" / first).unlink()
    new = tmp_path / "shapes" / CLASSES[0] / "new.png"
    new.write_bytes((tmp_path / "shapes" / second).read_bytes())
    planned = plan(run.folder, ApplySettings("relabel"))
    assert planned.summary["n_relabelled"] == 11
    assert planned.notes == (f"1 image of the run is no longer in {tmp_path / 'shapes'}.",)
    assert planned.copy.kept.all()
    assert suggested in run.class_names


@pytest.mark.parametrize("name", ["labels.csv", "labels.parquet", "shapes.npz"])
def test_files_are_copied_and_taken_back_to_the_byte(tmp_path: Path, name: str) -> None:
    class_folders(tmp_path, n=N)
    folder = read_source(tmp_path)
    given = [folder.class_names[label] for label in folder.labels]
    table = pd.DataFrame({"path": folder.paths, "label": given, "id": range(N)})
    if name.endswith("csv"):
        table.to_csv(tmp_path / name, index=False)
    elif name.endswith("parquet"):
        table.to_parquet(tmp_path / name)
    else:
        np.savez(tmp_path / name, images=np.zeros((N, 4, 4), np.uint8), labels=np.array(given))
    source = read_source(tmp_path / name)
    run = finished_run(tmp_path / "run", source, true_of(folder))
    destination = tmp_path / f"fixed-{name}"
    written = write(plan(run.folder, ApplySettings("relabel")), destination)
    assert (read_source(destination).labels == true_of(folder)).all()
    before = destination.read_bytes()
    undone = undo(written.record)
    assert undone.n_changes == 12
    assert (read_source(destination).labels == source.labels).all()
    if name.endswith("csv"):
        assert destination.read_bytes() == (tmp_path / name).read_bytes()
        destination.write_bytes(before + b"ring/999.png,ring,999\n")
        content = json.loads(written.record.read_text())
        written.record.write_text(json.dumps({**content, "state": "done"}))
        with pytest.raises(InputError, match="has changed since; taking the changes back would lose that"):
            undo(written.record)


@pytest.mark.parametrize("action", ["relabel", "exclude"])
def test_a_parquet_that_holds_the_images_is_copied_row_by_row(tmp_path: Path, action: Action) -> None:
    class_folders(tmp_path / "shapes", n=N)
    folder = read_source(tmp_path / "shapes")
    images = [{"bytes": Path(file).read_bytes(), "path": None} for file in folder.files or ()]
    given = pa.array([-1, *folder.labels[1:]], pa.int64())  # the first has no label
    features = {"label": {"names": list(folder.class_names), "_type": "ClassLabel"}}
    schema = pa.schema(
        [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())],
        {"huggingface": json.dumps({"info": {"features": features}})},
    )
    pq.write_table(
        pa.table([pa.array(images, schema.field("image").type), given], schema=schema), tmp_path / "x.parquet"
    )
    source = read_source(tmp_path / "x.parquet", cache_dir=tmp_path / "cache")
    true = true_of(folder)[1:]
    reading = Choices(cache_dir=tmp_path / "cache")
    run = finished_run(tmp_path / "run", source, true)
    (tmp_path / "elsewhere").mkdir()
    destination = tmp_path / "elsewhere" / "fixed.parquet"
    written = write(plan(run.folder, ApplySettings(action), choices=reading), destination)
    fixed, n = read_source(destination, cache_dir=tmp_path / "cache"), int((source.labels != true).sum())
    kept = slice(None) if action == "relabel" else source.labels == true
    assert (fixed.labels == true[kept]).all()
    assert pq.read_schema(destination) == schema
    content = pq.read_table(destination)["image"].to_pylist()[1:]
    assert content == np.array(images[1:], dtype=object)[kept].tolist()
    assert undo(written.record).n_changes == n > 0
    assert pq.read_table(destination) == pq.read_table(tmp_path / "x.parquet")


@pytest.mark.parametrize("action", ["relabel", "exclude"])
def test_a_folder_that_is_no_class_folders_is_copied_and_taken_back_as_a_whole(tmp_path: Path, action: Action) -> None:
    images, true, given = dataset(N, 0.1)
    (tmp_path / "mnist").mkdir()
    for kind, array in (("images-idx3", images), ("labels-idx1", given.astype(np.uint8))):
        head = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
        (tmp_path / "mnist" / f"train-{kind}-ubyte").write_bytes(head + array.tobytes())
    source = read_source(tmp_path / "mnist")
    run = finished_run(tmp_path / "run", source, true)
    destination = tmp_path / "fixed"
    written = write(plan(run.folder, ApplySettings(action)), destination)
    kept = slice(None) if action == "relabel" else given == true
    assert (read_source(destination).labels == true[kept]).all()
    labels = destination / "train-labels-idx1-ubyte"
    before = labels.read_bytes()
    labels.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # of the same size
    with pytest.raises(InputError, match="fixed has changed since; taking the changes back would lose that"):
        undo(written.record)
    labels.write_bytes(before)
    assert undo(written.record, dry_run=True).n_changes == int((given != true).sum())
    assert labels.read_bytes() == before
    undo(written.record)
    for file in (tmp_path / "mnist").iterdir():
        assert (destination / file.name).read_bytes() == file.read_bytes()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["fixed", "fixed.changes.json", "mnist", "run"]


def test_a_file_that_was_moved_since_stays_where_it_is(run: RunResults, tmp_path: Path) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    changes = json.loads(written.record.read_text())["changes"]
    moved = tmp_path / "fixed" / changes[0]["file_in_copy"]
    moved.rename(moved.with_stem("mine"))
    undone = undo(written.record)
    assert (undone.n_changes, undone.n_left) == (11, 1)
    assert moved.with_stem("mine").exists()


def test_an_interrupted_undo_goes_on(run: RunResults, tmp_path: Path) -> None:
    written = write(plan(run.folder, ApplySettings("relabel")), tmp_path / "fixed")
    first = json.loads(written.record.read_text())["changes"][-1]
    (tmp_path / "fixed" / first["file_in_copy"]).rename(tmp_path / "fixed" / first["file"])
    assert undo(written.record).n_changes == 12
    assert fingerprint(tmp_path / "fixed") == fingerprint(tmp_path / "shapes")


def test_nothing_is_written_where_something_is(
    run: RunResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plan(run.folder, ApplySettings("relabel"))
    record_of(tmp_path / "fixed").write_text("{}")
    with pytest.raises(InputError, match="is no record of changes"):
        check(planned, tmp_path / "fixed")
    record_of(tmp_path / "fixed").unlink()
    monkeypatch.setattr("shutil.copy2", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(InputError, match=r"the disk is full\. Nothing was left behind"):
        write(planned, tmp_path / "fixed")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "shapes"]


def test_labels_without_a_signal_are_changed_by_people_only(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=N)
    source = read_source(tmp_path / "shapes")
    run = finished_run(tmp_path / "run", source, np.random.default_rng(1).permutation(source.labels), sure=0.1)
    assert not run.found.has_signal
    with pytest.raises(InputError, match="no signal in the labels, so its flags are no ground to change any"):
        plan(run.folder, ApplySettings("relabel"))
    file = reviews(tmp_path, (run.paths[0], "excluded", ""))
    assert len(plan(run.folder, ApplySettings("reviews", corrections=file)).changes) == 1


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"action": "relable"}, "did you mean relabel"),
        ({"action": "relabel", "min_probability": 1.5}, "above 0 and up to 1"),
        ({"action": "reviews"}, "name one with --corrections"),
        ({"action": "reviews", "corrections": Path("x"), "min_probability": 0.5}, "takes no --min-probability"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        ApplySettings(**settings)


def test_a_run_or_images_that_are_not_there_are_refused(run: RunResults, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no run"):
        plan(tmp_path, ApplySettings("relabel"))
    class_folders(tmp_path / "others", n=6, wrong=0)
    for file in (tmp_path / "others").rglob("*.png"):
        file.rename(file.with_stem("other" + file.stem))
    with pytest.raises(InputError, match="holds none of the images of the run"):
        plan(run.folder, ApplySettings("relabel"), source=tmp_path / "others")
    (tmp_path / "shapes").rename(tmp_path / "moved")
    with pytest.raises(InputError, match="is not there; name them with --source"):
        plan(run.folder, ApplySettings("relabel"))
    assert len(plan(run.folder, ApplySettings("relabel"), source=tmp_path / "moved").changes) == 12
    file = reviews(tmp_path, ("nowhere.png", "kept", ""))
    with pytest.raises(InputError, match=r"nowhere\.png is not an image of the run"):
        plan(run.folder, ApplySettings("relabel", corrections=file), source=tmp_path / "moved")


def test_a_name_that_looks_like_a_formula_is_listed_as_text_and_found_again(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=N)
    (tmp_path / "shapes" / "bar").rename(tmp_path / "shapes" / "=1+1")
    source = read_source(tmp_path / "shapes")
    true = np.array([source.class_names.index(("=1+1", "cross", "ring")[k]) for k in true_of(source)])
    run = finished_run(tmp_path / "run", source, true)
    planned = plan(run.folder, ApplySettings("list"))
    text = write_list(planned, tmp_path / "list.csv")
    assert "'=1+1" in text
    assert not [cell for line in text.splitlines() for cell in line.split(",") if cell.startswith("=")]
    again = plan(run.folder, ApplySettings("reviews", corrections=tmp_path / "list.csv"))
    assert set(again.changes["path"]) == set(planned.changes["path"])
    # our own table is a source too, whose texts are escaped
    table = tmp_path / "shapes" / "issues.csv"
    table.write_bytes((run.folder / "issues.csv").read_bytes())
    data = read_source(table, label_column="given_label")
    order = [run.paths.index(path) for path in data.paths]
    choices = Choices(label_column="given_label")
    second = finished_run(tmp_path / "second", data, true[order], choices=choices)
    written = write(plan(second.folder, ApplySettings("relabel")), tmp_path / "shapes" / "fixed.csv")
    read = read_source(written.destination, label_column="given_label")
    assert [read.class_names[k] for k in read.labels] == [source.class_names[k] for k in true[order]]


def test_one_split_of_a_table_is_copied_beside_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=180)
    folder = read_source(tmp_path / "shapes")
    table = pd.DataFrame({"path": folder.paths, "label": [folder.class_names[k] for k in folder.labels]})
    table["split"] = np.where(np.arange(len(table)) % 3, "train", "test")
    table.to_csv(folder.location / "t.csv", index=False)
    named = Choices(split="train")
    source = read_source(folder.location / "t.csv", split="train")
    finished_run(tmp_path / "run", source, source.labels, choices=named)
    planned = plan(tmp_path / "run", ApplySettings("relabel"))
    with pytest.raises(InputError, match=r"t\.csv keeps the rows of its other splits, .*: name a place in"):
        check(planned, tmp_path / "elsewhere" / "fixed.csv")
    written = write(planned, folder.location / "fixed.csv")
    assert len(pd.read_csv(written.destination)) == len(table)
