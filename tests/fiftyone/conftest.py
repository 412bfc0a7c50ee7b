"""FiftyOne on a database, plugin folder and configuration of the tests' own. Set before FiftyOne is imported."""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.pipeline.run_folder import FoldFiles
from tests import images
from tests.fiftyone import mongod

FOLDER = Path(tempfile.mkdtemp(prefix="cvcoteach-fiftyone-"))
PORT = mongod.free_port()
HOME = {
    "FIFTYONE_DATABASE_URI": f"mongodb://127.0.0.1:{PORT}",
    "FIFTYONE_DATABASE_NAME": "cvcoteach_tests",
    "FIFTYONE_DO_NOT_TRACK": "true",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
    "FIFTYONE_ALLOW_LEGACY_ORCHESTRATORS": "true",
    "FIFTYONE_DATABASE_DIR": str(FOLDER / "database"),
    "FIFTYONE_CONFIG_PATH": str(FOLDER / "config.json"),
    "FIFTYONE_APP_CONFIG_PATH": str(FOLDER / "app_config.json"),
    "FIFTYONE_DEFAULT_DATASET_DIR": str(FOLDER / "datasets"),
    "FIFTYONE_DATASET_ZOO_DIR": str(FOLDER / "zoo"),
    "FIFTYONE_MODEL_ZOO_DIR": str(FOLDER / "models"),
    "FIFTYONE_PLUGINS_DIR": str(FOLDER / "plugins"),
    "CVCOTEACH_FIFTYONE_DIR": str(FOLDER / "runs"),
}
os.environ.update(HOME)

if importlib.util.find_spec("fiftyone") is None:
    raise pytest.UsageError("FiftyOne is not installed; `pip install -e '.[test]'` brings it.")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # FiftyOne's own, at import
    importlib.import_module("fiftyone")


@dataclass
class NoisyDataset:
    """A FiftyOne dataset with some wrong labels, and what is true."""

    dataset: Any
    true: np.ndarray
    given: np.ndarray
    pred_probs: np.ndarray
    """Out-of-sample probabilities of a good model: about .9 for the true class."""

    @classmethod
    def make(cls, folder: Path, n: int, n_wrong: int, side: int = 12) -> NoisyDataset:
        """Images of `side` pixels in `folder`; every label has an attribute, tags and a confidence to be lost."""
        images_, true, given = images.dataset(n, n_wrong / n)
        return cls.of(folder, images_, true, given, images.CLASSES, side)

    @classmethod
    def of(
        cls, folder: Path, images_: Any, true: np.ndarray, given: np.ndarray, names: Sequence[str], side: int
    ) -> NoisyDataset:
        """The same of other images, n of (H, W) uint8."""
        import fiftyone as fo

        dataset = fo.Dataset()
        samples = []
        for number, (image, label) in enumerate(zip(images_, given, strict=True)):
            file = folder / f"{number:05d}.png"
            smooth = Image.Resampling.NEAREST if image.shape[0] == 12 else Image.Resampling.LANCZOS
            Image.fromarray(image).resize((side, side), smooth).save(file)
            classification = fo.Classification(
                label=names[label], tags=["checked"], confidence=0.25, annotator=f"person {number % 3}"
            )
            samples.append(fo.Sample(filepath=str(file), ground_truth=classification))
        dataset.add_samples(samples, dynamic=True)
        n = len(true)
        probs = np.random.default_rng(1).uniform(0.04, 0.06, (n, len(names)))
        probs[np.arange(n), true] = 0.9
        probs /= probs.sum(axis=1, keepdims=True)
        return cls(dataset, true, given, probs)

    @property
    def ids(self) -> list[str]:
        """In the order of the images."""
        return list(self.dataset.values("id"))

    @property
    def wrong_ids(self) -> list[str]:
        """Samples with a wrong label."""
        return [self.ids[i] for i in np.flatnonzero(self.true != self.given)]

    def labels(self) -> list[str]:
        """As the database has them now."""
        return list(self.dataset.values("ground_truth.label"))

    def raw_labels(self) -> dict[str, Any]:
        """Every attribute of every label, as stored."""
        found = self.dataset._sample_collection.find({}, {"ground_truth": 1})
        return {str(sample["_id"]): sample["ground_truth"] for sample in found}


@pytest.fixture(scope="session", autouse=True)
def database() -> Iterator[str]:
    """A MongoDB server for the session."""
    for name in ("plugins", "datasets"):
        (FOLDER / name).mkdir(exist_ok=True)
    with mongod.running_mongod(mongod.find_mongod(), FOLDER, PORT) as uri:
        yield uri
        from fiftyone.core.odm import database as connection

        # at exit FiftyOne would look half a minute for a server that is gone
        atexit.unregister(connection._delete_non_persistent_datasets_if_allowed)
        connection._disconnect()
    shutil.rmtree(FOLDER, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """FiftyOne uses what Python and MongoDB's driver deprecate; its warnings are not ours to mend."""
    for item in items:
        if "fiftyone" in item.path.parts:
            for kind in ("DeprecationWarning", "PendingDeprecationWarning", "ResourceWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))


@pytest.fixture
def noisy(tmp_path: Path) -> Iterator[NoisyDataset]:
    """Sixty images of three shapes, twelve with a wrong label, and probabilities that know."""
    made = NoisyDataset.make(tmp_path, 60, 12)
    yield made
    made.dataset.delete()


@pytest.fixture
def trained_folds(monkeypatch: pytest.MonkeyPatch) -> list[FoldKey]:
    """The folds that were trained, not found finished, in order."""
    trained: list[FoldKey] = []
    store = FoldFiles.__setitem__

    def recording(folds: FoldFiles, key: FoldKey, value: Any) -> None:
        trained.append(key)
        store(folds, key, value)

    monkeypatch.setattr(FoldFiles, "__setitem__", recording)
    return trained


@pytest.fixture
def run(noisy: NoisyDataset) -> NoisyDataset:
    """The same with a finished run, whose suggestions are right."""
    from tests.fiftyone.store.test_runs import imported

    imported(noisy)
    return noisy
