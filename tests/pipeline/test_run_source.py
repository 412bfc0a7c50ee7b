"""Where the images of a run are, and how they are read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Choices, Source, read_source
from cvcoteach.pipeline.apply_plan import ApplySettings, plan
from cvcoteach.pipeline.page.report import report
from cvcoteach.pipeline.retrain import retrain
from cvcoteach.pipeline.run_source import as_in_run, choices_in, location_of, reading_record, root_of
from cvcoteach.pipeline.settings import Machine
from tests.finished_runs import finished_run
from tests.images import class_folders


@pytest.fixture
def run(tmp_path: Path) -> Path:
    class_folders(tmp_path / "shapes", n=60)
    source = read_source(tmp_path / "shapes")
    return finished_run(tmp_path / "run", source, source.labels).folder


USES: dict[str, Callable[[Path], Any]] = {
    "apply": lambda run: plan(run, ApplySettings("relabel")),
    "report": report,
    "retrain": retrain,
}


def made_cache(folder: Path) -> Path:
    """Make a cache into which images were unpacked, and return it."""
    (folder / "unpacked" / "x").mkdir(parents=True)
    (folder / "unpacked" / "x" / "unpacked.json").write_text("{}")
    return folder


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("reading", [{"colour": "red"}, {"split": 3}, {"cache_dir": ["x"]}])
def test_an_odd_reading_ends_in_a_sentence(run: Path, use: str, reading: dict[str, Any]) -> None:
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "reading": reading}))
    with pytest.raises(InputError, match=r"run\.json is damaged: its reading has "):
        USES[use](run)


@pytest.mark.parametrize(
    ("use", "module"), [("apply", "apply_plan"), ("report", "page.report"), ("retrain", "retraining_set")]
)
@pytest.mark.parametrize("is_cache", [True, False])
def test_the_cache_of_the_run_is_used_again_and_no_folder_that_is_none(
    run: Path, use: str, module: str, is_cache: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named"
    if is_cache:
        made_cache(named)
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "reading": {"cache_dir": str(named)}}))
    used: list[Path | None] = []

    def reads(location: Path, *, cache_dir: Path | None, **others: Any) -> Source:
        used.append(cache_dir)
        raise InputError("enough")

    monkeypatch.setattr(f"cvcoteach.pipeline.{module}.read_source", reads)
    with suppress(InputError):
        USES[use](run)
    assert used == [named if is_cache else None]
    assert named.exists() == is_cache


def test_retraining_unpacks_into_the_cache_of_its_machine(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reads(location: Path, *, cache_dir: Path | None, **others: Any) -> Source:
        raise InputError(f"unpacks into {cache_dir}")

    monkeypatch.setattr("cvcoteach.pipeline.retraining_set.read_source", reads)
    with pytest.raises(InputError, match=f"unpacks into {tmp_path / 'cache'}"):
        retrain(run, machine=Machine(cache_dir=tmp_path / "cache"))


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    made_cache(tmp_path)
    choices = Choices("path", split="test", cache_dir=tmp_path)
    assert choices_in(json.loads(json.dumps(reading_record(choices))), tmp_path) == choices
    assert reading_record(Choices(cache_dir=Path("here")))["cache_dir"] == str(Path("here").absolute())


def test_images_of_the_run_are_read_as_it_read_them_save_for_what_is_named(tmp_path: Path) -> None:
    record = {"source": str(tmp_path / "a.csv"), "reading": {"path_column": "p", "label_column": "l"}}
    named = Choices(label_column="other", cache_dir=tmp_path)
    assert as_in_run(tmp_path, record, tmp_path / "a.csv", named) == Choices("p", "other", cache_dir=tmp_path)
    assert as_in_run(tmp_path, record, tmp_path / "b.csv", named) == named


def test_a_record_without_a_source_is_damaged(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="damaged: it has no source"):
        location_of(tmp_path, {}, "with --source")


def test_paths_are_relative_to_the_folder_of_a_table(tmp_path: Path) -> None:
    assert root_of(str(tmp_path)) == root_of(str(tmp_path / "labels.csv")) == tmp_path


def test_what_the_run_was_told_counts_where_its_images_have_moved_to_as_far_as_it_is_taken(tmp_path: Path) -> None:
    cache = made_cache(tmp_path / "cache")
    reading = {"path_column": "p", "split_column": "part", "annotator_column": "who", "cache_dir": str(cache)}
    record = {"source": str(tmp_path / "a.csv"), "reading": reading}
    (tmp_path / "moved.csv").write_text("p,label,part,who\n")
    moved = as_in_run(tmp_path, record, tmp_path / "moved.csv", Choices(split_column="other"))
    assert moved == Choices("p", split_column="other", annotator_column="who", cache_dir=cache)
    class_folders(tmp_path / "shapes", n=6)
    assert as_in_run(tmp_path, record, tmp_path / "shapes") == Choices(cache_dir=cache)
