"""Files as MedMNIST itself writes them (medmnist 3)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, read_source

medmnist = pytest.importorskip("medmnist")
SIZES = {"train": 6, "val": 2, "test": 3}


def made(folder: Path, flag: str, n_labels: int) -> dict[str, np.ndarray]:
    """Write FLAG.npz, of six arrays, as MedMNIST downloads it."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in SIZES.items():
        arrays[f"{split}_images"] = rng.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = np.arange(n * n_labels).reshape(n, n_labels) % 2
        arrays[f"{split}_labels"] = labels.astype(np.uint8)
    np.savez(folder / f"{flag}.npz", **arrays)
    return arrays


def labels(source: Source) -> list[str]:
    return [source.class_names[label] for label in source.labels]


def test_the_table_that_save_writes_has_no_header_and_its_files_in_a_folder(tmp_path: Path) -> None:
    arrays = made(tmp_path, "pneumoniamnist", 1)
    for split in SIZES:
        medmnist.PneumoniaMNIST(split, root=str(tmp_path)).save(str(tmp_path / "out"))
    source = read_source(tmp_path / "out" / "pneumoniamnist.csv")
    assert len(source) == sum(SIZES.values())
    assert labels(source)[:6] == [str(label) for label in arrays["train_labels"][:, 0]]
    assert source.files is not None
    assert all(Path(file).is_file() for file in source.files)
    assert "the folder pneumoniamnist was added to the paths in the column '2' of pneumoniamnist.csv." in source.notes


@pytest.mark.parametrize("split", SIZES)
def test_the_six_arrays_are_three_parts(tmp_path: Path, split: str) -> None:
    arrays = made(tmp_path, "pneumoniamnist", 1)
    source = read_source(tmp_path / "pneumoniamnist.npz", split=split)
    assert labels(source) == [str(label) for label in arrays[f"{split}_labels"][:, 0]]
    assert (source.array == arrays[f"{split}_images"]).all()


def test_several_labels_per_image_are_refused_by_name(tmp_path: Path) -> None:
    made(tmp_path, "chestmnist", 14)
    with pytest.raises(InputError, match=r"train_labels in chestmnist\.npz give several labels .* multi-label"):
        read_source(tmp_path / "chestmnist.npz")
    medmnist.ChestMNIST("train", root=str(tmp_path)).save(str(tmp_path / "out"))
    with pytest.raises(InputError, match=r"of chestmnist\.csv give several labels .* multi-label"):
        read_source(tmp_path / "out" / "chestmnist.csv")
