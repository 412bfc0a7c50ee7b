"""Train and test in one source are kept apart, from the reading to the copy and the classifier."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.datasets import load_digits

from cvcoteach.cli.main import main
from cvcoteach.pipeline.find_issues import find_issues
from cvcoteach.pipeline.results import RunResults
from cvcoteach.pipeline.settings import Machine, Settings

pytestmark = pytest.mark.slow

N, N_TEST = 900, 200


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pixels, true and given labels, and which are of test; a fifth of train is wrong, and a twentieth of test."""
    rng = np.random.default_rng(0)
    pixels, true = load_digits(return_X_y=True)
    rows = rng.permutation(len(true))[:N]
    pixels, true, test = pixels[rows].reshape(-1, 8, 8), true[rows], np.arange(N) < N_TEST
    wrong = np.where(test, rng.permutation(N) % 20 == 0, rng.permutation(N) % 5 == 0)
    return (pixels * 15.9).astype(np.uint8), true, np.where(wrong, (true + 1) % 10, true), test


@pytest.fixture(autouse=True)
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digits as folders of train and test, with the folders of the classes in them, and their features."""
    monkeypatch.chdir(tmp_path)
    pixels, _, given, test = digits()
    split = np.where(test, "test", "train").tolist()
    names = [f"{split[i]}/{label}/{i:03}.png" for i, label in enumerate(given.tolist())]
    for name, image in zip(names, pixels, strict=True):
        Path("digits", name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(Path("digits", name))
    order = sorted(range(N), key=lambda i: (names[i].startswith("test"), names[i]))
    np.save("x.npy", pixels[order].reshape(N, -1) / 255)
    return tmp_path / "digits"


def run(*options: object) -> Result:
    return CliRunner().invoke(main, [str(option) for option in options])


def find(*options: object) -> Result:
    fixed = ("--features", "x.npy", "--device", "cpu", "--threads", 1)
    result = run("find-issues", "digits", *fixed, *options)
    assert result.exit_code == 0, result.output
    return result


def test_both_noise_rates_are_told_and_test_is_only_judged() -> None:
    summary = json.loads(find("--json").stdout)
    rates = {each["split"]: each["noise_rate"] for each in summary["splits"]}
    assert abs(rates["train"] - 0.2) < 0.05
    assert abs(rates["test"] - 0.05) < 0.03
    assert json.loads(Path("digits-issues/run.json").read_text())["summary"]["splits"] == summary["splits"]
    table = pd.read_csv("digits-issues/issues.csv")
    assert table.groupby("split").size().to_dict() == {"test": N_TEST, "train": N - N_TEST}
    assert (table[table["split"] == "test"]["set"] == "held out").all()
    assert "Models learned from train alone" in Path("digits-issues/issues.html").read_text()
    results = RunResults.load("digits-issues")
    assert results.found.splits is not None
    assert (results.held_out == (results.found.splits == "test")).all()
    again = find()
    assert "holds this run already" in again.stderr
    assert "By split: train" in again.stdout
    checked = run("check", "digits-issues", "--max-noise", 0.1)
    assert "fail: The noise rate of train is" in checked.stdout
    assert "pass: The noise rate of test is" in checked.stdout


def test_one_split_alone_is_another_run() -> None:
    find("--rounds", 1)
    np.save("x.npy", np.load("x.npy")[N - N_TEST :])
    alone = find("--rounds", 1, "--split", "test", "-o", "alone")
    assert "By split" not in alone.stdout
    assert len(pd.read_csv("alone/issues.csv")) == N_TEST


def test_test_images_change_by_review_alone_unless_asked_for() -> None:
    find()
    table = pd.read_csv("digits-issues/issues.csv")
    flagged = table[table["is_label_issue"]]
    of_test = flagged[flagged["split"] == "test"]
    result = run("apply", "digits-issues", "--action", "exclude", "-o", "fixed", "--json")
    assert json.loads(result.stdout)["n_excluded"] == len(flagged) - len(of_test)
    assert f"{len(of_test)} flagged labels of test stay as they are; --held-out changes these too" in result.stderr
    both = run("apply", "digits-issues", "--action", "exclude", "-o", "fixed", "--json", "--held-out")
    assert json.loads(both.stdout)["n_excluded"] == len(flagged)
    path = of_test["path"].iloc[0]
    Path("c.csv").write_text(f"path,action,label\n{path},set,{of_test['suggested_label'].iloc[0]}\n")
    options = ("--corrections", "c.csv", "--write")
    result = run("apply", "digits-issues", "--action", "reviews", "-o", "fixed", *options)
    assert result.exit_code == 0, result.output
    copied = {str(file.relative_to("fixed")) for file in Path("fixed").rglob("*.png")}
    assert path not in copied
    assert f"test/{of_test['suggested_label'].iloc[0]}/{Path(path).name}" in copied
    assert len(copied) == N


def test_retraining_never_learns_from_test_and_may_measure_on_it() -> None:
    find("--rounds", 1)
    options = ("--model", "small", "--epochs", 1, "--device", "cpu", "--threads", 1, "--precision", "float32")
    result = run("retrain", "digits-issues", "--test", "test", *options)
    assert result.exit_code == 0, result.output
    assert f"{N_TEST} images of test are held out, and not trained on" in result.stderr
    record = json.loads(Path("digits-model/run.json").read_text())
    assert record["test"]["n_images"] == N_TEST
    assert record["summary"]["selected"] + record["summary"]["candidate"] <= N - N_TEST
    refused = run("retrain", "digits-issues", "--test", "train", *options)
    assert "'train' is the split that models learned from" in refused.stderr


def test_a_copy_of_a_test_image_in_train_is_told() -> None:
    file = next(Path("digits/test").rglob("*.png"))
    order = sorted(str(each) for each in Path("digits").rglob("*.png"))
    copy = Path("digits/train") / file.parent.name / "copy.png"
    copy.write_bytes(file.read_bytes())
    features = dict(zip(sorted(order, key=lambda name: ("/test/" in name, name)), np.load("x.npy"), strict=True))
    features[str(copy)] = features[str(file)]
    np.save("x.npy", [features[name] for name in sorted(features, key=lambda name: ("/test/" in name, name))])
    assert "1 image is held out, but a copy is among what models learn from" in find("--rounds", 1).stderr


def test_retraining_measures_on_a_split_that_only_an_array_names() -> None:
    pixels, _, given, test = digits()
    Path("flat").mkdir()
    for number, (image, label) in enumerate(zip(pixels, given.tolist(), strict=True)):
        Path("flat", str(label)).mkdir(exist_ok=True)
        Image.fromarray(image).save(Path("flat", str(label), f"{number:03}.png"))
    order = sorted(range(N), key=lambda i: (str(given[i]), i))
    np.save("flat.npy", pixels[order].reshape(N, -1) / 255)
    settings = Settings(features=Path("flat.npy"), n_rounds=1)
    splits = np.where(test[order], "test", "train")
    find_issues("flat", "flat-issues", settings, Machine(device="cpu", threads=1), splits=splits)
    options = ("--model", "small", "--epochs", 1, "--device", "cpu", "--threads", 1, "--precision", "float32")
    result = run("retrain", "flat-issues", "--test", "test", *options)
    assert result.exit_code == 0, result.output
    assert json.loads(Path("flat-model/run.json").read_text())["test"]["n_images"] == N_TEST
