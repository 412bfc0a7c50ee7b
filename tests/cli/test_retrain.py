"""`cvcoteach retrain` and `predict`: from a run folder to a classifier and its answers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cvcoteach.cli.main import main
from cvcoteach.coteaching import calibration
from cvcoteach.coteaching.training import CoTraining
from cvcoteach.issues.flags import FlagRule
from cvcoteach.pipeline import find_issues as runs
from cvcoteach.pipeline.results import RunResults
from tests.backbones import counted
from tests.images import CLASSES, class_folders, dataset

MACHINE = ("--device", "cpu", "--threads", "1", "--precision", "float32")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, sentence: str) -> None:
    """Exit code 1 and one sentence, no traceback."""
    assert result.exit_code == 1, result.output
    assert result.stderr.count("Error:") == 1
    assert sentence in result.stderr


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """240 images in class folders, a fifth of them wrong, their finished run, and 60 right test images."""
    folder = tmp_path_factory.mktemp("retrain")
    class_folders(folder / "shapes", n=240, wrong=0.2)
    images, true, _ = dataset(60, 0.0, seed=1)
    np.savez(folder / "test.npz", images=images, labels=np.array(CLASSES)[true])
    settings = runs.Settings(epochs=30, n_rounds=2)
    runs.find_issues(folder / "shapes", folder / "run", settings, runs.Machine("cpu", 1, "float32", folder / "cache"))
    return folder


@pytest.fixture(scope="module")
def agreed(work: Path) -> Path:
    """A finished run of the same images that selected by agreement."""
    settings = runs.Settings(epochs=10, n_rounds=2, select="agreement")
    machine = runs.Machine("cpu", 1, "float32", work / "cache")
    return runs.find_issues(work / "shapes", work / "agreed", settings, machine).folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.slow
def test_retrain_writes_a_classifier_and_says_what_it_bought(work: Path) -> None:
    result = call("retrain", work / "run", "-o", work / "model", "--test", work / "test.npz", *MACHINE)
    assert result.exit_code == 0, result.output + result.stderr
    assert "On 60 test images" in result.stdout
    folder = work / "model"
    history = pd.read_csv(folder / "history.csv")
    about = json.loads((folder / "model.json").read_text())
    recipe = about["trained"]["recipe"]
    assert f"Two networks, {recipe['epochs']} epochs on" in result.stderr
    assert history.epoch.tolist() == list(range(1, recipe["epochs"] + 1))
    assert (history.images / 32).round().clip(lower=1).sum() >= 160, "fewer batches of 32 would not be enough"
    assert {"keep_rate", "loss_kept", "loss_left_out", "agreement", "stage"} <= set(history)
    assert about["classes"] == list(CLASSES)
    assert about["preprocessing"]["size"] == 12
    record = json.loads((folder / "run.json").read_text())
    assert record["test"]["top1"] > 0.9
    assert record["test"]["top1"] >= record["test"]["top1_plain"]
    assert record["test"]["top1_left_out"] > 0.8
    assert "flagged left out, plain" in result.stdout
    confusion = pd.read_csv(folder / "confusion.csv", index_col=0)
    assert confusion.to_numpy().sum() == 60
    assert pd.read_csv(folder / "per_class.csv")["class"].tolist() == list(CLASSES)
    assert not list(folder.glob("*.pt"))
    assert {"model.safetensors", "plain.safetensors", "left-out.safetensors"} <= {
        file.name for file in folder.iterdir()
    }

    again = call("retrain", work / "run", "-o", work / "model", *MACHINE)
    assert "holds this classifier already" in again.stderr

    images = sorted((work / "shapes").rglob("*.png"))[:30]
    loose = work / "loose"
    loose.mkdir()
    for number, file in enumerate(images):
        (loose / f"{number}.png").write_bytes(file.read_bytes())
    (loose / "broken.png").write_bytes(b"no image")
    result = call("predict", folder, loose, "-o", work / "loose.csv", *MACHINE[:4])
    assert result.exit_code == 0, result.output
    assert "1 image cannot be read; its row is empty." in result.stdout
    table = pd.read_csv(work / "loose.csv")
    assert list(table) == ["path", "predicted_label", "probability", *(f"p:{name}" for name in CLASSES)]
    assert len(table) == 31
    assert table[table.path == "broken.png"].predicted_label.isna().all()
    assert table[[f"p:{name}" for name in CLASSES]].dropna().sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-4)

    result = call("predict", folder, work / "test.npz", "-o", work / "test.csv", "-q", *MACHINE[:4])
    assert f"{record['test']['top1']:.1%} of the predictions are the given label" in result.stdout
    assert "given_label" in pd.read_csv(work / "test.csv")

    one = call("predict", folder, images[0], "-o", work / "one.csv", "-q", *MACHINE[:4])
    assert one.exit_code == 0
    assert len(pd.read_csv(work / "one.csv")) == 1

    pd.DataFrame({"path": [str(file) for file in images]}).to_csv(work / "paths.csv", index=False)
    listed = call("predict", folder, work / "paths.csv", "-o", work / "listed.csv", "-q", *MACHINE[:4])
    assert listed.exit_code == 0, listed.output
    assert len(pd.read_csv(work / "listed.csv")) == 30

    mine = (work / "paths.csv").read_bytes()
    for source, output, sentence in (
        (loose, work / "paths.csv", "paths.csv exists and holds no earlier predictions"),
        (work / "paths.csv", work / "paths.csv", "holds no earlier predictions; name another output"),
        (work / "loose.csv", work / "loose.csv", "holds no earlier predictions; name another output"),
        (loose, work, "is a folder; the output is a file"),
        (work / "missing", work / "loose.csv", "missing does not exist"),
        (loose, work / "nowhere" / "p.csv", "nowhere, the folder for the predictions, does not exist"),
    ):
        refused(call("predict", folder, source, "-o", output, *MACHINE[:4]), sentence)
    assert (work / "paths.csv").read_bytes() == mine
    assert call("predict", folder, loose, "-o", work / "loose.csv", *MACHINE[:4]).exit_code == 0, "earlier predictions"

    (work / "one" / "ring").mkdir(parents=True)
    (work / "one" / "ring" / "0.png").write_bytes(images[0].read_bytes())
    assert call("predict", folder, work / "one", "-o", work / "of-one.csv", *MACHINE[:4]).exit_code == 0

    others = work / "others"
    for name in ("bar", "star"):
        (others / name).mkdir(parents=True)
        (others / name / "0.png").write_bytes(images[0].read_bytes())
    refused(call("predict", folder, others, *MACHINE[:4]), "has the class 'star', which the model lacks")
    assert call("predict", folder, others, "--ignore-labels", "-o", work / "o.csv", *MACHINE[:4]).exit_code == 0


@pytest.mark.slow
def test_a_killed_retraining_goes_on_to_the_same_classifier(work: Path) -> None:
    arguments = [
        "--epochs",
        "8",
        "--device",
        "cpu",
        "--threads",
        "1",
        "--precision",
        "float32",
        "--cache-dir",
        str(work / "cache"),
    ]
    first = call("retrain", work / "run", "-o", work / "unbroken", *arguments)
    assert first.exit_code == 0, first.output
    script = (
        "import sys, time\n"
        "from cvcoteach.training.loop import Training\n"
        "run = Training.run_epoch\n"
        "def slow(self):\n    time.sleep(0.3); return run(self)\n"
        "Training.run_epoch = slow\n"
        "from cvcoteach.cli.retrain import retrain\n"
        "retrain(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", script, str(work / "run"), "-o", str(work / "killed"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoint = work / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists()
    assert not (work / "killed" / "model.safetensors").exists()
    resumed = call("retrain", work / "run", "-o", work / "killed", *arguments)
    assert resumed.exit_code == 0, resumed.output
    assert "Resuming from the last finished epoch" in resumed.stderr
    assert "Resuming" not in first.stderr
    weights = [safetensors.torch.load_file(work / name / "model.safetensors") for name in ("unbroken", "killed")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    columns = ["epoch", "keep_rate", "loss_kept", "loss_left_out", "agreement"]
    histories = [pd.read_csv(work / name / "history.csv")[columns] for name in ("unbroken", "killed")]
    pd.testing.assert_frame_equal(*histories)


@pytest.mark.slow
def test_reviewed_labels_are_trained_on_and_excluded_images_are_not(work: Path) -> None:
    table = pd.read_csv(work / "run" / "issues.csv")
    rows = table[table.is_label_issue].head(6)
    corrections = rows[["path"]].assign(action=["excluded"] * 2 + ["set"] * 4, label=["", "", *["ring"] * 4])
    corrections.to_csv(work / "corrections.csv", index=False)
    arguments = (work / "run", "--epochs", 1, *MACHINE, "-q", "--json", "--mode", "incv")
    before = json.loads(call("retrain", *arguments, "-o", work / "before").stdout)
    after = json.loads(
        call("retrain", *arguments, "-o", work / "after", "--corrections", work / "corrections.csv").stdout
    )
    assert after["selected"] == before["selected"] + 4
    assert after["reviewed"] == 4
    assert after["noise_rate"] < before["noise_rate"]
    everything = (*arguments, "--mode", "vanilla", "-o", work / "all", "--corrections", work / "corrections.csv")
    assert json.loads(call("retrain", *everything).stdout)["selected"] == 240 - 2
    other = call("retrain", *arguments, "-o", work / "before", "--corrections", work / "corrections.csv")
    refused(other, "belongs to another run")


@pytest.mark.slow
def test_after_a_frozen_backbone_heads_are_trained_on_the_same_features(work: Path) -> None:
    settings = runs.Settings(backbone="torchvision:resnet18", weights="none", image_size=32, n_rounds=2)
    runs.find_issues(work / "shapes", work / "frozen", settings, runs.Machine("cpu", 1, None, work / "cache"))
    arguments = ("-o", work / "heads", "--test", work / "test.npz", *MACHINE)
    result = call("retrain", work / "frozen", *arguments)
    assert result.exit_code == 0, result.output + result.stderr
    assert "Two heads on frozen features of torchvision:resnet18" in result.stderr
    about = json.loads((work / "heads" / "model.json").read_text())
    assert about["architecture"] == {"model": "frozen:torchvision:resnet18@32", "channels": 1, "networks": 1}
    assert about["preprocessing"]["size"] == 12, "as the images are; the backbone scales them up"
    record, history = json.loads((work / "heads" / "run.json").read_text()), pd.read_csv(work / "heads" / "history.csv")
    assert len(history) == record["summary"]["recipe"]["epochs"]
    top1 = record["test"]["top1"]
    assert top1 > 0.6, "features of random weights tell three shapes apart, not well"
    again = call("predict", work / "heads", work / "test.npz", "-o", work / "heads.csv", "-q", *MACHINE[:4])
    assert f"{top1:.1%} of the predictions are the given label" in again.stdout
    export = call("retrain", work / "frozen", "-o", work / "heads", "--export", "torch.export", "-q", *MACHINE)
    assert export.exit_code == 0, export.output
    assert (work / "heads" / "model.pt2").exists()

    record = json.loads((work / "frozen" / "run.json").read_text())
    record["identity"]["weights_digest"] = "0" * 32
    (work / "frozen" / "run.json").write_text(json.dumps(record))
    refused(
        call("retrain", work / "frozen", "-o", work / "other"),
        "has other weights than in the run; bring the earlier ones with --weights",
    )


@pytest.mark.slow
def test_after_agreement_the_papers_sets_are_trained_on(work: Path, agreed: Path) -> None:
    sets = pd.read_csv(agreed / "issues.csv").set.value_counts()
    for select in ("agreement", "flags"):
        arguments = ("--epochs", 2, *MACHINE, "-q", "--json", "--select", select, "-o", work / f"agreed-{select}")
        result = call("retrain", agreed, *arguments)
        assert result.exit_code == 0, result.output
        summary = json.loads(result.stdout)
        assert (summary["selected"], summary["candidate"]) == (sets["selected"], sets.get("candidate", 0))
    refused(
        call("retrain", work / "run", "--select", "agreement", "-o", work / "neither"),
        "selected by the posterior, not by agreement; take --select flags, or find the issues with --select agreement.",
    )
    refused(call("retrain", work / "run", "--preset", "paper", "-o", work / "neither"), "take --select flags")


@pytest.mark.slow
def test_after_the_posterior_the_flagged_are_candidates(work: Path) -> None:
    flagged = int(pd.read_csv(work / "run" / "issues.csv").is_label_issue.sum())
    arguments = ("--epochs", 2, *MACHINE, "-q", "--json", "--mode", "incv", "-o", work / "by-flags")
    result = call("retrain", work / "run", *arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert 20 < flagged < 120
    assert (summary["selected"], summary["candidate"]) == (240 - flagged, flagged)


@pytest.mark.slow
def test_excluding_another_image_is_another_retraining(work: Path, agreed: Path) -> None:
    table = pd.read_csv(agreed / "issues.csv")
    alike = table[(table.set == "selected") & ~table.is_label_issue & (table.given_label == "ring")].path[:2]
    arguments = ("--epochs", 1, *MACHINE, "-q", "-o", work / "without", "--select", "agreement")
    for path, code in zip(alike, (0, 1), strict=True):
        (work / "excluded.csv").write_text(f"path,action\n{path},excluded\n")
        result = call("retrain", agreed, *arguments, "--corrections", work / "excluded.csv")
        assert result.exit_code == code, result.output
    refused(result, "images have changed since")
    other = call("retrain", agreed, *arguments, "--learning-rate", "0.05")
    refused(other, "belongs to another run: its learning rate is 0.1, not 0.05. ")
    hopeless = ("retrain", work / "run", "-q", "--epochs", 1, "-o", work / "hopeless", *MACHINE)
    refused(call(*hopeless, "--learning-rate", "1e9"), "the loss is nan")
    assert call(*hopeless).exit_code == 0, "of a training that failed at once nothing is lost"


@pytest.mark.slow
def test_a_classifier_of_another_device_is_used_on_this_one(work: Path) -> None:
    arguments = ("--epochs", 1, "-q", "-o", work / "elsewhere")
    assert call("retrain", work / "run", *arguments, *MACHINE).exit_code == 0
    record = json.loads((work / "elsewhere" / "run.json").read_text())
    record["plan"]["device"] = "cuda"
    (work / "elsewhere" / "run.json").write_text(json.dumps(record))
    result = call("retrain", work / "run", *arguments, "--test", work / "test.npz", *MACHINE)
    assert result.exit_code == 0, result.output
    assert "On 60 test images" in result.stdout


@pytest.mark.slow
def test_a_training_that_was_broken_off_goes_on_under_another_plan(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("retrain", work / "run", "-q", "--epochs", 3, "-o", work / "moving", "--device", "cpu", "--threads", 1)
    run_epoch = CoTraining.run_epoch

    def stopped(training: CoTraining) -> object:
        if training.epoch == 2:
            raise KeyboardInterrupt
        return run_epoch(training)

    monkeypatch.setattr(CoTraining, "run_epoch", stopped)
    call(*arguments, "--precision", "float32")
    monkeypatch.undo()
    record = json.loads((work / "moving" / "run.json").read_text())
    assert record["state"] == "running"
    record["plan"]["device"] = "cuda"
    (work / "moving" / "run.json").write_text(json.dumps(record))
    result = call(*arguments, "--precision", "float16")
    assert result.exit_code == 0, result.output
    assert json.loads((work / "moving" / "run.json").read_text())["plan"]["dtype"] == "float16"
    assert len(pd.read_csv(work / "moving" / "history.csv")) == 3


@pytest.mark.slow
def test_a_table_in_which_a_path_comes_twice_can_be_retrained_on(work: Path, tmp_path: Path) -> None:
    files = sorted((work / "shapes").rglob("*.png"))[::4]
    paths = [str(file) for file in (*files, files[0])]
    table = pd.DataFrame({"path": paths, "label": [Path(path).parent.name for path in paths]})
    table.to_csv(tmp_path / "twice.csv", index=False)
    runs.find_issues(
        tmp_path / "twice.csv", tmp_path / "run", runs.Settings(epochs=2, n_rounds=1), runs.Machine("cpu", 1, "float32")
    )
    (tmp_path / "out.csv").write_text(f"path,action\n{paths[0]},excluded\n")
    arguments = ("--epochs", 1, "-q", "--json", "--mode", "vanilla", "--noise-rate", 0.1, *MACHINE)
    everything = call("retrain", tmp_path / "run", *arguments, "-o", tmp_path / "all")
    assert json.loads(everything.stdout)["selected"] == 61
    without = call("retrain", tmp_path / "run", *arguments, "-o", tmp_path / "w", "--corrections", tmp_path / "out.csv")
    assert json.loads(without.stdout)["selected"] == 59


@pytest.mark.slow
def test_test_images_in_a_table_may_have_their_own_columns(work: Path, tmp_path: Path) -> None:
    files = sorted((work / "shapes").rglob("*.png"))[:30:3] + sorted((work / "shapes").rglob("*.png"))[-30::3]
    table = pd.DataFrame(
        {"img_a": map(str, files), "img_b": map(str, files[::-1]), "is": [f.parent.name for f in files]}
    )
    table.to_csv(tmp_path / "test.csv", index=False)
    arguments = (work / "run", "--epochs", 1, "-q", *MACHINE, "-o", tmp_path / "m", "--test", tmp_path / "test.csv")
    refused(call("retrain", *arguments), "--path-column")
    named = call("retrain", *arguments, "--path-column", "img_b", "--label-column", "is")
    assert named.exit_code == 0, named.output
    assert "On 20 test images" in named.stdout
    misspelt = call("retrain", *arguments, "--path-column", "img_b", "--label-column", "iz")
    refused(misspelt, "has no column 'iz' (--label-column)")
    refused(call("predict", tmp_path / "m", tmp_path / "none.csv"), "none.csv")


@pytest.fixture
def signal_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether so few images carry a signal is chance."""
    load = RunResults.load

    def with_signal(folder: Path) -> RunResults:
        results = load(folder)
        return replace(results, found=replace(results.found, has_signal=True)).flagged_by(FlagRule())

    monkeypatch.setattr(RunResults, "load", with_signal)


@pytest.mark.slow
@pytest.mark.usefixtures("signal_found")
def test_corrected_all_images_are_trained_on(work: Path) -> None:
    arguments = (work / "run", "--epochs", 2, *MACHINE, "-q", "--json", "--mode", "correct", "-o", work / "corrected")
    result = call("retrain", *arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert 0 < summary["candidate"] == 240 - summary["selected"]


@pytest.mark.slow
@pytest.mark.usefixtures("signal_found")
def test_by_the_posterior_every_image_is_learned_and_held_out_ones_tell_how_well(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "LEAST_HELD_OUT", 12)
    arguments = (work / "run", "--epochs", 10, *MACHINE, "-q", "--mode", "posterior", "-o", work / "by-posterior")
    result = call("retrain", *arguments)
    assert result.exit_code == 0, result.output
    assert "Trained on 228 images; the two networks agree" in result.stdout
    assert "An estimate, since no --test was given: " in result.stdout
    assert "by 12 held-out images whose classes are known by the run's posterior only." in result.stdout
    about = json.loads((work / "by-posterior" / "model.json").read_text())
    assert about["trained"]["mode"] == "posterior"
    found = about["calibration"]
    assert found["low"] <= found["accuracy"] <= found["high"]
    assert about["temperature"] == found["temperature"] > 0
    assert 0 <= found["ece"] <= 1
    again = json.loads(call("retrain", *arguments, "--json").stdout)
    assert again["calibration"] == found, "of a classifier that was there already"


@pytest.mark.slow
@pytest.mark.usefixtures("signal_found")
def test_labels_are_judged_again_by_networks_that_did_not_train_on_them(work: Path) -> None:
    kept = RunResults.load(work / "run").worst_first()[0]
    path, given = RunResults.load(work / "run").paths[kept], RunResults.load(work / "run").labels[kept]
    (work / "kept.csv").write_text(f"path,action,label\n{path},kept,\n")
    arguments = (work / "run", "--epochs", 8, "--corrections", work / "kept.csv", *MACHINE, "-o", work / "twice")
    result = call("retrain", *arguments, "--recheck")
    assert result.exit_code == 0, result.output
    assert "Judged again by networks that did not train on them: " in result.stdout
    before, after = RunResults.load(work / "run"), RunResults.load(work / "twice" / "recheck")
    assert (before.paths, len(after.rounds)) == (after.paths, len(before.rounds) + 1)
    assert not np.allclose(before.pred_probs, after.pred_probs)
    assert after.reviewed[kept], "somebody kept it"
    assert not after.found.is_label_issue[kept]
    assert after.labels[kept] == given
    since = after.summary["since"]
    changed = before.found.is_label_issue != after.found.is_label_issue
    assert since["new"] + since["cleared"] == changed.sum()
    again = json.loads(call("retrain", *arguments, "--recheck", "--json", "-q").stdout)["recheck"]
    assert again["since"] == since, "what is there is not computed again"
    for next_step in (
        ("apply", work / "twice" / "recheck", "--action", "list"),
        ("report", work / "twice" / "recheck"),
    ):
        assert call(*next_step).exit_code == 0


@pytest.mark.slow
def test_a_run_by_agreement_is_not_judged_again(agreed: Path, work: Path) -> None:
    refused(call("retrain", agreed, "--recheck", "-o", work / "no"), "selected by agreement, which leaves no")
    assert not (work / "no").exists()


@pytest.mark.slow
def test_images_that_have_moved_are_named_beside_their_run(work: Path) -> None:
    shutil.copytree(work / "shapes", work / "moved")
    arguments = ("--epochs", 1, *MACHINE, "-q")
    assert call("retrain", work / "run", "-o", work / "there", *arguments).exit_code == 0
    here = call("retrain", work / "moved", "--run", work / "run", "-o", work / "here", *arguments)
    assert here.exit_code == 0, here.output
    weights = [safetensors.torch.load_file(work / name / "model.safetensors") for name in ("there", "here")]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


@pytest.mark.slow
def test_what_does_not_fit_a_run_is_told_in_one_sentence(work: Path, agreed: Path, tmp_path: Path) -> None:
    refused(call("retrain", tmp_path), "holds no run of cvcoteach")
    assert call("retrain", work / "run", "--epochs", 1, "-q", "-o", work / "a-model", *MACHINE).exit_code == 0
    refused(call("retrain", work / "a-model"), "is a classifier that retrain wrote; it takes the run folder of find-")
    refused(call("retrain", work / "run", "--noise-rate", "1"), "noise_rate is 1.0; it is the share of wrong labels")
    refused(call("retrain", work / "run", "--export", "tflite"), "export is 'tflite'; it takes onnx or torch.export")
    refused(call("retrain", work / "run", "-o", work / "run"), "run is the run itself; name another place")
    refused(call("retrain", work / "run", "--preset", "fats"), "preset is 'fats'; did you mean fast")
    class_folders(tmp_path / "few", n=12)
    refused(call("retrain", tmp_path / "few", "--run", work / "run"), "images of the run are not in")

    (tmp_path / "test" / "bar").mkdir(parents=True)
    (tmp_path / "test" / "oval").mkdir()
    for name in ("bar", "oval"):
        Image.fromarray(dataset(3, 0.0)[0][0]).save(tmp_path / "test" / name / "0.png")
    refused(call("retrain", work / "run", "--test", tmp_path / "test"), "has the class 'oval', which the model lacks")

    run = tmp_path / "run"
    run.mkdir()
    for file in ("run.json", "probabilities.npz", "issues.csv"):
        (run / file).write_bytes((agreed / file).read_bytes())
    with np.load(run / "probabilities.npz") as arrays:
        content = dict(arrays)
    nothing = np.zeros_like(content["selected"])
    np.savez(run / "probabilities.npz", **{**content, "selected": nothing})
    refused(call("retrain", run, "--select", "agreement"), "no label of the run counts as clean")
    np.savez(run / "probabilities.npz", **{**content, "selected": content["labels"] != 1})
    without = call("retrain", run, "--select", "agreement")
    refused(without, "no image of class 'cross' counts as clean, so the networks could not learn it")

    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "source": str(tmp_path / "gone")}))
    refused(call("retrain", run), "is not there; name them with cvcoteach retrain SOURCE --run")
    (run / "run.json").write_text(json.dumps({**record, "state": "running"}))
    refused(call("retrain", run), "is not finished")


@pytest.mark.slow
def test_a_backbone_is_loaded_once_per_run(work: Path, tmp_path: Path) -> None:
    before = counted.loads
    settings = runs.Settings(backbone="tests.backbones:counted", finetune=True, epochs=1, n_rounds=1)
    machine = runs.Machine("cpu", 1, "float32", work / "cache", trusted=("tests.backbones:counted",))
    runs.find_issues(work / "shapes", tmp_path / "run", settings, machine)
    assert counted.loads == before + 1
    arguments = ("--epochs", 1, "--mode", "vanilla", "--noise-rate", 0.1, "-q", *MACHINE)
    arguments += ("--trust", "tests.backbones:counted")
    result = call("retrain", tmp_path / "run", "-o", tmp_path / "m", "--test", work / "test.npz", *arguments)
    assert result.exit_code == 0, result.output + result.stderr
    assert counted.loads == before + 2
