"""`cvcoteach find-issues` as its user meets it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from torch import nn

from cvcoteach.cli.main import main
from cvcoteach.training.pretrained import Preprocessing
from tests.images import CLASSES, class_folders, dataset

QUICK = ("--epochs", "4", "--rounds", "2", "--device", "cpu", "--threads", "1", "--precision", "float32")

HERE = "tests.cli.test_find_issues"  # where its backbones are imported from

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path / "cache"))


def find_issues(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["find-issues", *map(str, arguments)])


def refused(result: Result, sentence: str) -> None:
    """Exit code 1 and one sentence, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    assert sentence in result.stderr
    assert result.stderr.count("Error:") == 1


def test_a_folder_of_class_folders_becomes_a_run_folder_with_the_errors_on_top(tmp_path: Path) -> None:
    wrong = class_folders(tmp_path / "shapes", n=300)
    result = find_issues(tmp_path / "shapes", "--output", tmp_path / "run", "--epochs", 30, *QUICK[2:])
    assert result.exit_code == 0, result.output
    table = pd.read_csv(tmp_path / "run" / "issues.csv")
    assert list(table) == [
        "path",
        "given_label",
        "predicted_label",
        "label_quality",
        "is_label_issue",
        "suggested_label",
        "suggested_prob",
        "set",
        "round",
        "duplicate_of",
        "contradiction",
        "near_copy_of",
        "overlap",
        "stranger",
    ]
    assert len(table) == 300
    assert table.label_quality.is_monotonic_increasing
    assert table.label_quality.between(0, 1).all()
    assert set(table.set) <= {"selected", "candidate", "dropped"}
    assert table.is_label_issue.sum() == pytest.approx(len(wrong), rel=0.4)
    assert table.is_label_issue.is_monotonic_decreasing
    assert len(set(table.path.head(len(wrong))) & wrong) > 0.8 * len(wrong)

    with np.load(tmp_path / "run" / "probabilities.npz", allow_pickle=False) as arrays:
        assert arrays["pred_probs"].shape == (300, 3)
        assert arrays["class_names"].tolist() == list(CLASSES)
        order = {path: i for i, path in enumerate(arrays["paths"].tolist())}
        rows = [order[path] for path in table.path]
        np.testing.assert_allclose(table.label_quality, arrays["label_quality"][rows], atol=1e-6)
        names = arrays["class_names"][arrays["suggested"][rows]]
        assert table.suggested_label.tolist() == names.tolist()
        predicted = arrays["class_names"][arrays["pred_probs"][rows].argmax(axis=1)]
        assert table.predicted_label.tolist() == predicted.tolist()
    flagged = table[table.is_label_issue]
    assert (flagged.given_label != flagged.suggested_label).all()
    assert table.suggested_prob.between(0, 1).all()

    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["state"] == "done"
    assert record["identity"]["seed"] == 0
    assert record["plan"]["device"] == "cpu"
    assert [r["round"] for r in record["rounds"]] == [1, 2]
    assert {t["what"] for t in record["timings"]} >= {"reading", "round 1, fold 1", "round 2, fold 2"}
    assert record["versions"]["torch"]


def test_the_summary_is_for_people_or_for_machines(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    people = find_issues(tmp_path / "shapes", "--output", tmp_path / "run", *QUICK)
    assert "of 90 labels" in people.stdout.splitlines()[0]
    assert "noise rate" in people.stdout.splitlines()[1].lower()
    assert f"{tmp_path / 'run'}/issues.csv" in people.stdout
    machines = find_issues(tmp_path / "shapes", "--output", tmp_path / "run", "--json", *QUICK)
    summary = json.loads(machines.stdout)
    assert summary["n_images"] == 90
    assert summary["n_worth_a_look"] == summary["n_issues"] >= 0
    assert {"n_probably_wrong", "expected_precision", "expected_recall", "has_signal", "flag_for"} <= summary.keys()
    assert machines.stderr.splitlines() == [
        "note: 90 images, 3 classes, a folder each in shapes.",
        f"note: {tmp_path / 'run'} holds this run already; nothing was computed again.",
    ]
    assert sum(pair["count"] for pair in summary["confusions"]) <= summary["n_issues"]
    assert all(pair["given"] != pair["suggested"] for pair in summary["confusions"])


def test_a_table_and_an_npz_give_what_the_folder_gives(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    files = sorted((tmp_path / "shapes").rglob("*.png"))
    paths = [str(f.relative_to(tmp_path / "shapes")) for f in files]
    labels = [f.parent.name for f in files]
    pd.DataFrame({"path": paths, "label": labels}).to_csv(tmp_path / "shapes" / "labels.csv", index=False)
    images, _, given = dataset(90, 0.1)
    numbers = [int(f.stem) for f in files]
    np.savez(tmp_path / "shapes.npz", images=images[numbers], labels=np.array(CLASSES)[given[numbers]])

    sources = {
        "folder": tmp_path / "shapes",
        "table": tmp_path / "shapes" / "labels.csv",
        "npz": tmp_path / "shapes.npz",
    }
    tables = {}
    for name, source in sources.items():
        result = find_issues(source, "--output", tmp_path / name, *QUICK)
        assert result.exit_code == 0, result.output
        tables[name] = pd.read_csv(tmp_path / name / "issues.csv")
    pd.testing.assert_frame_equal(tables["folder"], tables["table"])
    pd.testing.assert_frame_equal(tables["folder"].drop(columns="path"), tables["npz"].drop(columns="path"))


def test_features_of_ones_own_train_heads_and_no_image_is_read(tmp_path: Path) -> None:
    images, true, given = dataset(150, 0.1)
    rng = np.random.default_rng(0)
    np.save(tmp_path / "features.npy", np.eye(3)[true] * 3 + rng.normal(size=(150, 3)))
    np.savez(tmp_path / "shapes.npz", images=images, labels=given)
    for head in ("linear", "mlp"):
        output = tmp_path / f"{head} $(it)"
        result = find_issues(
            tmp_path / "shapes.npz",
            "--features",
            tmp_path / "features.npy",
            "--head",
            head,
            "--output",
            output,
            "--quiet",
        )
        assert result.exit_code == 0, result.output
        table = pd.read_csv(output / "issues.csv")
        found = table.path.head(15).str.split("#").str[1].astype(int)
        assert (given != true)[found].mean() > 0.6
        assert f"Next: cvcoteach apply '{output}' --action" in result.output


def test_features_of_a_backbone_are_computed_once_and_train_heads(tmp_path: Path) -> None:
    wrong = class_folders(tmp_path / "shapes", n=300)
    options = ("--backbone", f"{HERE}:stripes", "--head", "mlp", "--trust", f"{HERE}:stripes")
    for run in ("first", "second"):
        result = find_issues(tmp_path / "shapes", *options, "--output", tmp_path / run, "--device", "cpu")
        assert result.exit_code == 0, result.output
        assert ("computing features" in result.stderr) == (run == "first")
    table = pd.read_csv(tmp_path / "first" / "issues.csv")
    assert len(set(table.path.head(len(wrong))) & wrong) > 0.7 * len(wrong)
    record = json.loads((tmp_path / "first" / "run.json").read_text())
    assert record["identity"]["backbone"] == f"{HERE}:stripes"


def stripes() -> nn.Module:
    """A backbone whose features are the pixels, coarsely."""
    network = nn.Sequential(nn.AvgPool2d(2), nn.Flatten())
    network.preprocessing = Preprocessing(16, (0.5,) * 3, (0.25,) * 3)
    return network


def test_a_backbone_is_fine_tuned_in_the_folds(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    options = (
        "--backbone",
        f"{HERE}:trainable",
        "--trust",
        f"{HERE}:trainable",
        "--finetune",
        "--epochs",
        2,
        "--rounds",
        1,
        "--device",
        "cpu",
    )
    result = find_issues(tmp_path / "shapes", *options, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["identity"]["recipe"]["model"] == f"backbone:{HERE}:trainable"


def trainable() -> nn.Module:
    """A backbone of one convolution."""
    network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU())
    network.preprocessing = Preprocessing(16, (0.5,) * 3, (0.25,) * 3)
    return network


def test_the_default_preset_says_what_it_chose_why_and_how_long_it_takes(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=60)
    result = find_issues(tmp_path / "shapes", "--rounds", 1, "--output", tmp_path / "run", "--device", "cpu")
    assert result.exit_code == 0, result.output
    (said,) = [line for line in result.stderr.splitlines() if "preset auto" in line]
    assert "takes a small network from scratch, since the images have 12 pixels a side; that takes about" in said


def test_the_rule_is_the_presets_or_what_is_asked_for(tmp_path: Path) -> None:
    images, true, given = dataset(150, 0.1)
    np.save(tmp_path / "features.npy", np.eye(3)[true] * 3 + np.random.default_rng(0).normal(size=(150, 3)))
    np.savez(tmp_path / "shapes.npz", images=images, labels=given)

    def run(name: str, *options: object) -> tuple[dict[str, Any], pd.DataFrame]:
        features = ("--features", tmp_path / "features.npy", "--output", tmp_path / name)
        result = find_issues(tmp_path / "shapes.npz", *features, *options)
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / name / "run.json").read_text()), pd.read_csv(tmp_path / name / "issues.csv")

    record, table = run("default")
    assert (record["identity"]["select"], record["identity"]["folds"]) == ("posterior", [2, 5, 5])
    assert set(table.set) == {"selected", "candidate"}
    assert set(table["round"]) == {3}
    assert len(list((tmp_path / "default" / "folds").iterdir())) == 12
    record, table = run("paper", "--preset", "paper")
    assert (record["identity"]["select"], record["identity"]["folds"]) == ("agreement", [2, 2, 2, 2])
    assert (table.is_label_issue == (table.set != "selected")).all()
    record, table = run("asked", "--preset", "paper", "--select", "posterior", "--rounds", 2, "--folds", 3)
    assert (record["identity"]["select"], record["identity"]["folds"]) == ("posterior", [3, 3])
    assert set(table["round"]) == {2}


def test_the_seed_decides_and_nothing_else_does(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert find_issues(tmp_path / "shapes", "--output", tmp_path / name, "--seed", seed, *QUICK).exit_code == 0
    a, b, c = ((tmp_path / name / "issues.csv").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_killed_at_any_point_the_same_command_ends_with_the_same_result(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    arguments = ["find-issues", str(tmp_path / "shapes"), *QUICK]
    command = [sys.executable, "-m", "cvcoteach", *arguments, "--output", str(tmp_path / "killed")]
    folds = tmp_path / "killed" / "folds"
    for wanted in (0, 1, 3):  # folds on disk when the signal comes
        process = subprocess.Popen(command)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if (tmp_path / "killed" / "run.json").exists() and len(list(folds.glob("*.npy"))) >= wanted:
                break
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    survived = {f.name: f.stat().st_mtime_ns for f in folds.glob("*.npy")}
    assert survived
    assert subprocess.run(command, check=False).returncode == 0
    assert all((folds / name).stat().st_mtime_ns == when for name, when in survived.items())
    assert find_issues(*arguments[1:], "--output", tmp_path / "whole").exit_code == 0
    assert (tmp_path / "killed" / "issues.csv").read_bytes() == (tmp_path / "whole" / "issues.csv").read_bytes()
    with (
        np.load(tmp_path / "killed" / "probabilities.npz") as k,
        np.load(tmp_path / "whole" / "probabilities.npz") as w,
    ):
        assert k.files == w.files
        for name in k.files:
            np.testing.assert_array_equal(k[name], w[name])


def test_control_c_says_how_to_go_on(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    command = [sys.executable, "-m", "cvcoteach", "find-issues", str(tmp_path / "shapes"), "--epochs", "2000"]
    command += ["--output", str(tmp_path / "run"), "--device", "cpu", "--threads", "1"]
    # a shell that runs the tests in the background has its children ignore the signal
    hear = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear) as process:
        try:
            while "plan" not in (json.loads(f.read_text()) if (f := tmp_path / "run" / "run.json").exists() else {}):
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "the same command resumes from there" in errors
    assert "cvcoteach find-issues" in errors
    assert "Traceback" not in errors


def test_another_runs_folder_is_refused_and_stays(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    assert find_issues(tmp_path / "shapes", "--output", tmp_path / "run", *QUICK).exit_code == 0
    before = {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    refused(find_issues(tmp_path / "shapes", "--output", tmp_path / "run", "--seed", 5, *QUICK), "its seed is 0, not 5")
    moved = tmp_path / "shapes" / "bar"
    next(moved.glob("*.png")).rename(tmp_path / "shapes" / "ring" / "moved.png")
    refused(find_issues(tmp_path / "shapes", "--output", tmp_path / "run", *QUICK), "since the run in")
    assert {f: f.read_bytes() for f in (tmp_path / "run").rglob("*") if f.is_file()} == before


def test_unreadable_images_are_listed_and_the_rest_goes_on(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes")
    files = sorted((tmp_path / "shapes").rglob("*.png"))
    files[3].write_bytes(files[3].read_bytes()[:60])
    files[40].write_bytes(b"no image")
    result = find_issues(tmp_path / "shapes", "--output", tmp_path / "run", *QUICK)
    assert result.exit_code == 0, result.output
    unreadable = pd.read_csv(tmp_path / "run" / "unreadable.csv")
    assert set(unreadable.path) == {str(files[i].relative_to(tmp_path / "shapes")) for i in (3, 40)}
    assert unreadable.reason.notna().all()
    assert len(pd.read_csv(tmp_path / "run" / "issues.csv")) == 88
    assert "2 unreadable images" in result.stdout
    for file in files[:60]:
        file.write_bytes(b"no image")
    refused(find_issues(tmp_path / "shapes", "--output", tmp_path / "other", *QUICK), "unreadable")


def test_a_class_with_a_single_image_is_named_in_one_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    images, _, given = dataset(90, 0.1)
    names = np.array(CLASSES)[given].astype("U10")
    names[0] = "lone"
    np.savez(tmp_path / "shapes.npz", images=images, labels=names)
    result = find_issues(tmp_path / "shapes.npz", "--output", tmp_path / "run", *QUICK)
    assert result.exit_code == 0
    assert "lone" not in result.stderr
    assert result.stdout.count("lone") == 1
    assert "\nToo few labels to judge any, so look at them yourself: lone.\n" in result.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--device", "cudaa"], "cudaa"),
        (["--model", "resnet23"], "resnet32"),
        (["--preset", "best"], "fast, paper"),
        (["--remove-ratio", "-1"], "remove_ratio is -1"),
        (["--features", "missing.npy"], "missing.npy"),
        (["--backbone", "resnet18"], "it takes torchvision:<model>"),
        (["--finetune"], "finetune is set without a backbone; name the network to fine-tune with --backbone"),
        (
            ["--backbone", "torchvision:resnet18", "--features", "a.npy"],
            "features and backbone are both given; features come from only one of them",
        ),
        (
            ["--model", "frozen:torchvision:resnet18@32", "--weights", "none"],
            "are trained with backbone torchvision:resnet18",
        ),
    ],
)
def test_options_that_do_not_fit_get_one_sentence(tmp_path: Path, options: list[Any], sentence: str) -> None:
    class_folders(tmp_path / "shapes", n=30)
    refused(find_issues(tmp_path / "shapes", "--output", tmp_path / "run", "--quiet", *options), sentence)
    assert not (tmp_path / "run" / "issues.csv").exists()


def test_options_of_networks_are_said_to_change_nothing_of_heads(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=30)
    np.save(tmp_path / "features.npy", np.random.default_rng(0).normal(size=(30, 4)))
    options = ("--features", tmp_path / "features.npy", "--learning-rate", "1", "--epochs", "3", "--rounds", "1")
    result = find_issues(tmp_path / "shapes", "--output", tmp_path / "run", *map(str, options))
    assert result.exit_code == 0, result.output
    assert "ignored for heads on features: epochs, learning_rate." in result.stderr


def test_features_that_do_not_fit_get_one_sentence(tmp_path: Path) -> None:
    class_folders(tmp_path / "shapes", n=30)
    features = np.zeros((30, 4))
    for name, array, sentence in (
        ("short", features[:29], "29 rows"),
        ("flat", features[:, 0], "shape"),
        ("nan", np.where(np.arange(30)[:, None] == 7, np.nan, features), "features[7, 0] is nan"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        refused(
            find_issues(tmp_path / "shapes", "--features", tmp_path / f"{name}.npy", "--output", tmp_path / name),
            sentence,
        )
        assert not (tmp_path / name).exists()


def test_sources_that_do_not_fit_get_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    class_folders(tmp_path / "one", n=3, wrong=0)
    for name in ("cross", "ring"):
        for file in (tmp_path / "one" / name).iterdir():
            file.unlink()
        (tmp_path / "one" / name).rmdir()
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, 1]}).to_csv(tmp_path / "nowhere.csv", index=False)
    pd.DataFrame({"path": ["a.png", "b.png"], "label": [0, None]}).to_csv(tmp_path / "nan.csv", index=False)
    for source in ("absent", "empty", "one", "nowhere.csv", "nan.csv"):
        refused(find_issues(tmp_path / source, "--output", tmp_path / "run"), "")
    assert not (tmp_path / "run").exists()


def test_a_wrong_option_is_a_usage_error() -> None:
    assert find_issues("somewhere", "--rounds", "none").exit_code == 2
    assert find_issues("somewhere", "--folds", "1").exit_code == 2
    assert find_issues("somewhere", "--select", "agrement").exit_code == 2
    assert find_issues("somewhere", "--passes", "2").exit_code == 2, "gone: a round is what it was"
    assert find_issues("somewhere", "--remove-ratio", "much").exit_code == 2
    assert find_issues().exit_code == 2
