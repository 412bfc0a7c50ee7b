"""The recipes of the paper's tables, on tiny trees in the layouts of CIFAR-10, WebVision and ILSVRC-2012."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import cifar10
import experiment
import layouts
import numpy as np
import pandas as pd
import pytest
import webvision
from PIL import Image
from scipy.io import savemat

from cvcoteach._validation import InputError
from tests.data.sources.test_cifar import TEN, as_python_2
from tests.examples.conftest import EXAMPLES

SYNSETS = ("n01440764", "n01443537", "n01484850", "n01491361")
"""Of WebVision, in order of its numbers."""
KIT = {"n01443537": 1, "n01491361": 2, "n01440764": 3, "n01484850": 4}
"""ILSVRC2012_ID of each: another order."""


def picture(label: int, rng: np.random.Generator, side: int = 32) -> np.ndarray:
    """An image (side, side, 3) uint8 that says its class by place and color of a block, and does so mirrored, too."""
    image = rng.integers(0, 60, (side, side, 3))
    size = side // 4
    row, column = divmod(label, 4)
    image[row * size : (row + 1) * size, column * size : (column + 1) * size, (label + label // 2) % 3] += 190
    return image.astype(np.uint8)


def cifar_batches(folder: Path, n: int = 20) -> Path:
    """Write five training batches of n images and a test batch, as Python 2 did."""
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        labels = [k % 10 for k in range(n)]
        pixels = np.stack([picture(label, rng).transpose(2, 0, 1).ravel() for label in labels])
        as_python_2({"data": pixels, "labels": labels}, folder / name)
    as_python_2({"label_names": TEN, "num_cases_per_batch": n}, folder / "batches.meta")
    return folder


def saved(image: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, "JPEG", quality=95)


def webvision_tree(root: Path, n: int = 12, side: int = 32) -> Path:
    """Write info/, google/ and val_images_256/; one in ten training labels of the first two classes is wrong."""
    rng = np.random.default_rng(0)
    (root / "info").mkdir(parents=True)
    words = ("tench, Tinca tinca", "goldfish", "great white shark, white shark", "tiger shark")
    (root / "info" / "synsets.txt").write_text("".join(f"{s} {w}\n" for s, w in zip(SYNSETS, words, strict=True)))
    train, val = [], []
    for i in range(4 * n):
        label = i % 4
        name = f"google/q{label + 1:04d}/{i}_a.jpg"
        saved(picture((label + (i in (0, 1))) % 4, rng, side), root / name)
        train.append(f"{name} {label}\n")
    for i in range(8):
        saved(picture(i % 4, rng, side), root / "val_images_256" / f"val{i:06d}.jpg")
        val.append(f"val{i:06d}.jpg {i % 4}\n")
    (root / "info" / "train_filelist_google.txt").write_text("".join(train))
    (root / "info" / "train_filelist_flickr.txt").write_text("flickr/q0001/1.jpg 0\n")
    (root / "info" / "val_filelist.txt").write_text("".join(val))
    return root


@dataclass(frozen=True)
class Ilsvrc:
    """The validation images of ILSVRC-2012 and the development kit."""

    images: Path
    devkit: Path
    synsets: tuple[str, ...]
    """Of the images, in order of their numbers."""


def ilsvrc_tree(root: Path, n: int = 8, side: int = 32) -> Ilsvrc:
    rng = np.random.default_rng(1)
    truth = tuple([SYNSETS[i % 4] for i in range(n)])
    for i, synset in enumerate(truth, start=1):
        file = root / "ILSVRC2012_img_val" / f"ILSVRC2012_val_{i:08d}.JPEG"
        saved(picture(SYNSETS.index(synset), rng, side), file)
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    numbers = "".join(f"{KIT[synset]}\n" for synset in truth)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(numbers)
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(number, synset, "a fish", 0) for synset, number in KIT.items()] + [(1001, "n00000001", "a thing", 2)]
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=fields).reshape(-1, 1)})
    return Ilsvrc(root / "ILSVRC2012_img_val", data.parent, truth)


# -- layouts -----------------------------------------------------------------------------------------------------


def test_cifar10_is_read_from_its_batches_and_from_class_folders(tmp_path: Path) -> None:
    train, test = layouts.read_cifar10(cifar_batches(tmp_path / "cifar-10-batches-py"))
    assert train.images.shape == (100, 32, 32, 3)
    assert (test.labels == np.arange(20) % 10).all()
    for part, name in ((train, "train"), (test, "test")):
        for i, (image, label) in enumerate(zip(part.images, part.labels, strict=True)):
            saved(image, tmp_path / "files" / name / TEN[label] / f"{i:04d}.jpg")
    files, _ = layouts.read_cifar10(tmp_path / "files", tmp_path / "cache")
    assert (np.sort(files.labels) == np.sort(train.labels)).all()
    assert np.abs(files.images[files.labels == 3].mean(0) - train.images[train.labels == 3].mean(0)).mean() < 20


def test_the_development_images_are_written_as_the_recipe_reads_them(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_data", EXAMPLES / "benchmarks" / "data.py")
    assert spec is not None
    assert spec.loader is not None
    data = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = data
    spec.loader.exec_module(data)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    labels = np.array([1, 0, 1, 0])
    data.write_folders(tmp_path / "images", data.Cifar10N(images[:4], images[4:], labels, labels, {}, ("cat", "dog")))
    train, test = layouts.read_cifar10(tmp_path / "images", tmp_path / "cache")
    assert (train.images == images[[1, 3, 0, 2]]).all()
    assert (test.labels == [0, 0, 1, 1]).all()


def test_webvision_is_the_first_classes_of_its_google_part(tmp_path: Path) -> None:
    root = webvision_tree(tmp_path / "webvision")
    train = layouts.read_webvision(root, 3)
    assert set(train.synsets) == set(SYNSETS[:3])
    assert len(train) == 36
    assert all("google" in file.parts and file.is_file() for file in train.files)
    validation = layouts.read_webvision_validation(root, 3)
    assert [file.name for file in validation.files][:3] == ["val000000.jpg", "val000001.jpg", "val000002.jpg"]
    assert validation.synsets[:3] == SYNSETS[:3]


def test_the_ground_truth_of_ilsvrc_is_found_in_three_layouts(tmp_path: Path) -> None:
    tree = ilsvrc_tree(tmp_path)
    wanted = SYNSETS[:2]
    flat = layouts.read_ilsvrc_validation(tree.images, wanted)  # the kit is beside the images
    assert [(file.name[-6:-5], synset) for file, synset in zip(flat.files, flat.synsets, strict=True)] == [
        (str(i), tree.synsets[i - 1]) for i in range(1, 9) if tree.synsets[i - 1] in wanted
    ]
    assert layouts.read_ilsvrc_validation(tree.images, wanted, tree.devkit).synsets == flat.synsets
    lines = [f"ILSVRC2012_val_{i:08d},{synset} 1 2 3 4 {synset} 5 6 7 8" for i, synset in enumerate(tree.synsets, 1)]
    (tree.images / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    assert layouts.read_ilsvrc_validation(tree.images, wanted).synsets == flat.synsets
    for i, file in enumerate(sorted(tree.images.glob("*.JPEG"))):
        (tree.images / tree.synsets[i]).mkdir(exist_ok=True)
        file.rename(tree.images / tree.synsets[i] / file.name)
    by_class = layouts.read_ilsvrc_validation(tree.images, wanted)
    assert sorted(file.name for file in by_class.files) == sorted(file.name for file in flat.files)


def test_trees_that_lack_something_are_refused_in_a_sentence(tmp_path: Path) -> None:
    root, tree = webvision_tree(tmp_path / "webvision"), ilsvrc_tree(tmp_path)
    with pytest.raises(InputError, match="n_classes is 5; WebVision has 4 here"):
        layouts.read_webvision(root, 5)
    (root / "val_images_256").rename(root / "elsewhere")
    with pytest.raises(InputError, match=r"val000000\.jpg, the first image of val_filelist\.txt, is not in"):
        layouts.read_webvision_validation(root, 2)
    (root / "info" / "train_filelist_google.txt").write_text("google/1.jpg zero\n")
    with pytest.raises(InputError, match=r"line 1 of .* it takes an image and the number of its class"):
        layouts.read_webvision(root, 2)
    (root / "info" / "synsets.txt").unlink()
    with pytest.raises(InputError, match=r"synsets\.txt cannot be read"):
        layouts.read_webvision(root, 2)
    (tree.devkit / "data" / "meta.mat").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"cannot be read as the meta\.mat"):
        layouts.read_ilsvrc_validation(tree.images, SYNSETS)
    (tree.devkit).rename(tmp_path / "kit")
    with pytest.raises(InputError, match="has no ground truth; name the development kit"):
        layouts.read_ilsvrc_validation(tree.images, SYNSETS)
    with pytest.raises(InputError, match="is not a folder"):
        layouts.read_ilsvrc_validation(tmp_path / "nowhere", SYNSETS)


# -- figures -----------------------------------------------------------------------------------------------------


def test_a_subset_has_as_many_images_of_every_class() -> None:
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 30))
    rows = cifar10.some_of_each(labels, 50, np.random.default_rng(0))
    assert (np.bincount(labels[rows]) == 5).all()
    assert (np.diff(rows) > 0).all()


def test_top_k_counts_the_classes_that_are_more_probable() -> None:
    probs = np.array(
        [[0.4, 0.3, 0.1, 0.1, 0.06, 0.04], [0.3, 0.4, 0.1, 0.1, 0.06, 0.04], [0.9, 0.05, 0.03, 0.02, 0, 0]]
    )
    table = pd.DataFrame(probs, columns=[f"p:{k}" for k in "abcdef"])
    table.insert(0, "given_label", ["a", "a", "f"])
    table.insert(1, "predicted_label", ["a", "b", "a"])
    assert experiment.top_k(table) == {"1": pytest.approx(1 / 3), "5": pytest.approx(1)}  # f ties with e
    table.loc[1, "predicted_label"] = np.nan  # an image that cannot be read
    assert experiment.top_k(table)["1"] == pytest.approx(1 / 2)


def test_the_estimate_counts_every_image_that_is_shown() -> None:
    lengths = experiment.Lengths(epochs=10, coteaching_epochs=10, rounds=1)
    folds, pair = experiment.images_shown(1000, experiment.Noise(0.0, 10), lengths)
    assert folds == 10 * 1000  # two halves
    assert pair == 2 * 10 * 1000  # two networks, everything selected
    more, _ = experiment.images_shown(1000, experiment.Noise(0.0, 10), experiment.Lengths(10, 10, 2))
    assert more == folds + 10 * 2 * 1000  # S in both folds
    assert experiment.estimate("row", (7200, 3600), 1.0).startswith("row: about 2 h 0 min for INCV and 1 h 0 min")


def test_a_published_figure_stands_beside_every_measured_one() -> None:
    rounds = [{"round": r, "label_precision": 0.9, "label_recall": 0.8} for r in range(1, 5)]
    found = {"accuracy": {"test": {"1": 0.5}}, "images": 1000, "epochs": [50, 200], "noise_rate": 0.4}
    result = {"rounds": rounds, **found}
    shown = cifar10.table("symmetric 0.5", result)
    assert "| label precision, round 1 | 0.953 | 0.900 |" in shown
    assert "| label recall, round 4 | 0.900 | 0.800 |" in shown
    assert "| test accuracy after Co-teaching, % | 84.78 ± .33 | 50.00 |" in shown


# -- from end to end ---------------------------------------------------------------------------------------------


def run(module: object, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["recipe", *arguments])
    module.main()  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_row_on_cifar10_runs_to_its_table_and_is_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = cifar_batches(tmp_path / "cifar-10-batches-py", n=40)
    arguments = [str(folder), "--row", "symmetric 0.2", "--model", "small", "--epochs", "25", "--rounds", "2"]
    arguments += ["--coteaching-epochs", "25", "--output", str(tmp_path / "out"), "--device", "cpu", "--threads", "1"]
    run(cifar10, [*arguments, "--estimate"], monkeypatch)
    assert re.search(r"symmetric 0\.2: about .* for INCV and .* for Co-teaching", capsys.readouterr().out)
    assert not (tmp_path / "out").exists()
    run(cifar10, arguments, monkeypatch)
    first = capsys.readouterr()
    assert "| symmetric 0.2 | paper | here |" in first.out
    result = json.loads((tmp_path / "out" / "symmetric-0.2" / "result.json").read_text())
    assert result["images"] == 200
    assert result["rounds"][1]["label_precision"] > 0.9
    assert result["accuracy"]["test"]["1"] > 0.7
    run(cifar10, arguments, monkeypatch)
    again = capsys.readouterr()
    assert again.out.partition("| symmetric")[2] == first.out.partition("| symmetric")[2]
    assert "round 1" not in again.err  # nothing was trained


@pytest.mark.slow
def test_mini_webvision_runs_to_its_table_with_both_validation_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, tree = webvision_tree(tmp_path / "webvision", n=30), ilsvrc_tree(tmp_path)
    arguments = [str(root), "--ilsvrc", str(tree.images), "--classes", "3", "--model", "small", "--image-size", "32"]
    arguments += ["--epochs", "25", "--rounds", "2", "--coteaching-epochs", "25", "--output", str(tmp_path / "out")]
    arguments += ["--device", "cpu", "--threads", "1", "--cache-dir", str(tmp_path / "cache")]
    run(webvision, arguments, monkeypatch)
    shown = capsys.readouterr().out
    assert "90 training images, 6 of webvision, 6 of ilsvrc" in shown
    found = dict(re.findall(r"\| (.*?, top-1), % \| [\d.]+ \| ([\d.]+) \|", shown))
    assert float(found["WebVision validation, top-1"]) > 60
    assert float(found["ILSVRC-2012 validation, top-1"]) > 60


@pytest.mark.slow
def test_the_network_of_mini_webvision_trains_on_small_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lengths = experiment.Lengths(model=f"{webvision.MODEL}@80")
    speed = experiment.images_per_second(lengths, 80, 3, experiment.Machine("cpu", 1))
    assert speed > 0
