"""Whatever is in a file, reading it ends in a result or in one sentence; `make fuzz` tries ten thousand times."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.coteaching.model_files import ImageFormat, Model, load_model, save_model
from cvcoteach.data.decode import decode_files
from cvcoteach.data.sources import read_source, read_unlabelled
from cvcoteach.issues.corrections import Judged, correct
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.finished_run import FinishedRun
from cvcoteach.pipeline.retrain_recipe import recipe_of
from cvcoteach.pipeline.run_folder import FoldFiles, RunFolder
from cvcoteach.pipeline.settings import Machine, RetrainSettings, Settings
from cvcoteach.training.checkpoints import load_checkpoint, save_checkpoint
from cvcoteach.training.head_trainer import load_features
from cvcoteach.training.model_spec import ModelSpec
from cvcoteach.training.models import ModelFactory
from cvcoteach.training.normalisation import Scaling
from cvcoteach.training.pretrained import load_pretrained
from tests.faults.formats import made

CASES = int(os.environ.get("CVCOTEACH_FUZZ", "500" if os.environ.get("CI") else "100"))
PATHS = tuple(f"{i}.png" for i in range(12))
NAMES = ("a", "b", "c")


@dataclass(frozen=True)
class Whole:
    """A file as it should be, and what reads it."""

    content: bytes
    read: Callable[[Path], Any]
    """Of the folder that `name` is in."""


class Wholes(NamedTuple):
    """Files as they should be."""

    root: Path
    """The folder that they are in."""
    files: Mapping[str, Whole]
    """By name."""

    def __repr__(self) -> str:  # hypothesis would print them all
        return "…"


def retrained(folder: Path) -> None:
    """Read what `retrain` reads of a run."""
    run = FinishedRun.read(folder)
    recipe_of(RetrainSettings(), run.record)
    assert len(run.results.paths) == len(run.results.labels)


def decoded(folder: Path) -> None:
    """Decode all images; a broken one is a reason, never an exception."""
    files = [str(file) for file in folder.iterdir() if file.suffix in (".png", ".jpg", ".tif", ".gif", ".webp")]
    errors = decode_files(files, 8, 3, False)[2]
    assert all(errors.values())


def corrected(folder: Path) -> None:
    nothing = np.zeros(12, np.bool_)
    labels = np.arange(12) % 3
    correct(folder / "corrections.csv", Judged(PATHS, folder, labels, labels, NAMES), nothing, nothing)


def pretrained(folder: Path) -> None:
    load_pretrained(ModelFactory(ModelSpec.parse("small")).build(3, 1), folder / "weights.pt")


def source_of(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> None:
        source = read_source(folder / name)
        assert len(source.labels) == len(source.paths)
        read_unlabelled(folder / name)

    return read


@pytest.fixture(scope="module")
def wholes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wholes]:
    """A folder of files of every kind, with all that reads them."""
    root = tmp_path_factory.mktemp("whole")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(root / "cache"))
    rng = np.random.default_rng(0)
    true = np.arange(12) % 3
    pixels = (true[:, None, None] * 80 + rng.integers(0, 20, (12, 8, 8))).astype(np.uint8)
    for folder in ("run", "model", "images", "more"):
        (root / folder).mkdir()
    np.savez(root / "images" / "d.npz", images=pixels, labels=true)
    np.save(root / "more" / "f.npy", np.eye(3, dtype=np.float32)[true])
    machine = Machine("cpu", 1, "float32", root / "cache")
    found = find_issues(
        root / "images" / "d.npz", root / "run", Settings(features=root / "more" / "f.npy", n_rounds=1), machine
    )
    assert found.pred_probs.shape == (12, 3)
    spec = ModelSpec.parse("small", "none")
    network = ModelFactory(spec).build(3, 1)
    images = ImageFormat(8, 1, Scaling((0.2,), (0.3,)))
    save_model(root / "model", Model([network], spec, NAMES, images, mirror=False))
    for i, (suffix, picture) in enumerate(zip((".png", ".jpg", ".tif", ".gif", ".webp"), pixels, strict=False)):
        Image.fromarray(picture).save(root / "images" / f"{i}{suffix}")
    for name, picture in zip(PATHS, pixels, strict=True):
        Image.fromarray(picture).save(root / "more" / name)
    table = "path,label\n" + "".join(f"{name},{NAMES[k]}\n" for name, k in zip(PATHS, true, strict=True))
    (root / "more" / "t.csv").write_text(table)
    (root / "more" / "corrections.csv").write_text("path,action,label\n0.png,set,b\n1.png,excluded,\n2.png,accepted,\n")
    save_checkpoint(root / "more" / "checkpoint.pt", {"epoch": 1, **network.state_dict()})
    torch.save(network.state_dict(), root / "more" / "weights.pt")
    readers: dict[str, Callable[[Path], Any]] = {
        "run/run.json": retrained,
        "run/probabilities.npz": retrained,
        "run/folds/round-1-fold-1.npy": lambda folder: dict(FoldFiles(folder)),
        "run/issues.csv": lambda folder: FinishedRun.read(folder).results.has_its_table(),
        "model/model.json": load_model,
        "model/model.safetensors": load_model,
        "images/d.npz": source_of("d.npz"),
        **{f"images/{i}{suffix}": decoded for i, suffix in enumerate((".png", ".jpg", ".tif", ".gif", ".webp"))},
        "more/t.csv": source_of("t.csv"),
        "more/f.npy": lambda folder: load_features(folder / "f.npy"),
        "more/corrections.csv": corrected,
        "more/checkpoint.pt": lambda folder: load_checkpoint(folder / "checkpoint.pt"),
        "more/weights.pt": pretrained,
        **made(root),
    }
    there = {name: read for name, read in readers.items() if (root / name).exists()}
    assert len(there) == len(readers), sorted(readers.keys() - there.keys())
    yield Wholes(root, {name: Whole((root / name).read_bytes(), read) for name, read in there.items()})
    monkeypatch.undo()


def test_every_file_is_read_as_it_should_be(wholes: Any) -> None:
    root, files = wholes
    for name, whole in files.items():
        whole.read((root / name).parent)


BYTES = st.tuples(
    st.sampled_from(["flip", "cut", "insert", "drop", "replace"]),
    st.floats(0, 1, exclude_max=True),
    st.binary(min_size=1, max_size=12),
)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=6),
    st.just([]),
    st.just({}),
    st.just([0.0]),
    st.just("helper:net"),
    st.just("frozen:torchvision:resnet18@9"),
)


def spoiled(content: bytes, changes: list[tuple[str, float, bytes]]) -> bytes:
    """Return content with some bytes changed."""
    for kind, where, data in changes:
        at = int(where * len(content))
        if kind == "flip" and content:
            content = content[:at] + bytes([content[at] ^ (data[0] or 1)]) + content[at + 1 :]
        elif kind == "cut":
            content = content[:at]
        elif kind == "insert":
            content = content[:at] + data + content[at:]
        elif kind == "drop":
            content = content[:at] + content[at + len(data) :]
        elif kind == "replace":
            content = content[:at] + data + content[at + len(data) :]
    return content


def replaced(record: Any, where: list[float], value: Any) -> Any:
    """Return JSON in which one value, at some depth, is another."""
    if not where or not isinstance(record, dict | list) or not record:
        return value
    keys = list(record) if isinstance(record, dict) else list(range(len(record)))
    key = keys[int(where[0] * len(keys))]
    if isinstance(record, list):
        return [replaced(item, where[1:], value) if i == key else item for i, item in enumerate(record)]
    return {**record, key: replaced(record[key], where[1:], value)}


def read_with(wholes: Wholes, name: str, content: bytes) -> None:
    """Read a file with this content in place of its own; only InputError may come of it."""
    root, files = wholes
    file, whole = root / name, files[name]
    file.write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            whole.read(file.parent)
    except InputError:
        pass
    finally:
        file.write_bytes(whole.content)


RECORDS = ["run/run.json", "model/model.json"] + [
    f"tools/{name}.json" for name in ("datumaro", "studio", "coco", "fiftyone")
]
NAMES_OF_FILES = st.integers(0, 10**6)


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=CASES < 1000)
@given(number=NAMES_OF_FILES, changes=st.lists(BYTES, min_size=1, max_size=3))
@example(number=0, changes=[("cut", 0.0, b"x")])
def test_files_with_changed_bytes_end_in_a_result_or_a_sentence(wholes: Any, number: int, changes: Any) -> None:
    names = sorted(wholes[1])
    name = names[number % len(names)]
    read_with(wholes, name, spoiled(wholes[1][name].content, changes))


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=CASES < 1000)
@given(
    name=st.sampled_from(RECORDS),
    where=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4),
    value=VALUES,
)
def test_records_with_changed_values_end_in_a_result_or_a_sentence(
    wholes: Any, name: str, where: list[float], value: Any
) -> None:
    record = replaced(json.loads(wholes[1][name].content), where, value)
    read_with(wholes, name, json.dumps(record).encode())


def test_a_record_is_opened_or_refused_whatever_its_fields(wholes: Any, tmp_path: Path) -> None:
    shutil.copytree(wholes[0] / "run", tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text('{"format": 1, "state": "done", "identity": 3}')
    with pytest.raises(InputError, match="is damaged"):
        RunFolder.open(tmp_path / "run", {"seed": 0})
