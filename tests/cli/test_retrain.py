"""`cvcoteach retrain` and `predict`: from a run folder to a classifier and its answers."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner, Result
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.cli.main import main
from cvcoteach.coteaching.model_files import Model, load_model, save_model
from cvcoteach.coteaching.training import CoTraining, incv_curriculum
from cvcoteach.pipeline import find_issues as runs
from cvcoteach.pipeline.retrain import plain_epochs
from cvcoteach.pipeline.retrain_task import RetrainSettings, recipe_of
from cvcoteach.pipeline.scores import comparison_text, score
from cvcoteach.training.backbones import load_backbone, with_heads
from cvcoteach.training.batches import Scaling
from cvcoteach.training.devices import Plan
from cvcoteach.training.extraction import extract_features
from cvcoteach.training.inputs import features_of, standard_of
from cvcoteach.training.networks import feature_head
from cvcoteach.training.recipe import FINETUNE, Recipe
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


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CVCOTEACH_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


# -- scores --


def test_scores_count_right_answers_by_class_and_confusions() -> None:
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)
    scores = score(probs, np.array([0, 0, 1, 1]))
    assert scores.top1 == 0.75
    assert scores.top5 is None, "with two classes it would always be 1"
    assert scores.per_class == (0.5, 1.0)
    assert scores.confusion.tolist() == [[1, 1], [0, 2]]


def test_top_5_asks_for_the_right_class_among_the_five_most_probable() -> None:
    probs = np.tile(np.array([0.3, 0.25, 0.2, 0.1, 0.09, 0.06], np.float32), (2, 1))
    assert score(probs, np.array([4, 5])).top5 == 0.5


def test_a_class_without_test_images_has_no_accuracy() -> None:
    scores = score(np.eye(3, dtype=np.float32)[[0, 1]], np.array([0, 1]))
    assert np.isnan(scores.per_class[2])
    assert "on 2 test images" in comparison_text(scores, scores, ("a", "b", "c")).lower()


def test_the_plain_network_gets_as_many_image_passes() -> None:
    curriculum = incv_curriculum(np.arange(600), np.arange(600, 1000), 0.3, 1200, 10, 20)
    assert curriculum.warmup == 4
    assert curriculum.passes(20) == 20 * 600 + 16 * 300
    assert plain_epochs(curriculum, 20, 1200) == 14


# -- the commands --


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
    confusion = pd.read_csv(folder / "confusion.csv", index_col=0)
    assert confusion.to_numpy().sum() == 60
    assert pd.read_csv(folder / "per_class.csv")["class"].tolist() == list(CLASSES)
    assert not list(folder.glob("*.pt"))
    assert {"model.safetensors", "plain.safetensors"} <= {file.name for file in folder.iterdir()}

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
    assert "1 images cannot be read" in result.stdout
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
        (loose, work / "paths.csv", "paths.csv is there and holds no earlier predictions"),
        (work / "paths.csv", work / "paths.csv", "holds no earlier predictions; name another --output"),
        (work / "loose.csv", work / "loose.csv", "holds no earlier predictions; name another --output"),
        (loose, work, "is a folder; --output takes a file"),
        (work / "missing", work / "loose.csv", "missing does not exist"),
        (loose, work / "nowhere" / "p.csv", "nowhere, where the predictions are to be, is no folder"),
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
    assert "Going on from the last epoch" in resumed.stderr
    assert "Going on" not in first.stderr
    weights = [safetensors.torch.load_file(work / name / "model.safetensors") for name in ("unbroken", "killed")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    columns = ["epoch", "keep_rate", "loss_kept", "loss_left_out", "agreement"]
    histories = [pd.read_csv(work / name / "history.csv")[columns] for name in ("unbroken", "killed")]
    pd.testing.assert_frame_equal(*histories)


@pytest.mark.slow
def test_reviewed_labels_are_trained_on_and_excluded_images_are_not(work: Path) -> None:
    table = pd.read_csv(work / "run" / "issues.csv")
    rows = table[table.set != "selected"].head(6)
    corrections = rows[["path"]].assign(action=["excluded"] * 2 + ["set"] * 4, label=["", "", *["ring"] * 4])
    corrections.to_csv(work / "corrections.csv", index=False)
    arguments = (work / "run", "--epochs", 1, *MACHINE, "-q", "--json")
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
    assert history.stage.iloc[0] == "warm-up"
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
    refused(call("retrain", work / "frozen", "-o", work / "other"), "has other weights than in the run; --weights")


def test_a_saved_classifier_gives_images_what_its_heads_gave_their_features(tmp_path: Path) -> None:
    pixels = dataset(24, 0.0)[0][..., None].repeat(3, axis=3)
    backbone = load_backbone("torchvision:resnet18", "none", size=32)
    features = extract_features(backbone, pixels, "shapes", cache_dir=tmp_path, device="cpu", threads=1)
    center, scale = standard_of(features)
    inputs = features_of(features, center, scale)
    heads = [inputs.build(Recipe(), 3, seed).eval() for seed in (1, 2)]
    with torch.inference_mode():
        of_features = sum(head(torch.from_numpy(inputs.array)).softmax(dim=1) for head in heads) / 2
    whole = with_heads(backbone, heads, center, scale, 3)
    name, names = "frozen:torchvision:resnet18@32", ("a", "b", "c")
    size, by = pixels.shape[1], Scaling(backbone.mean, backbone.std)
    save_model(tmp_path, Model([whole], name, names, size, 3, by, False))
    loaded = load_model(tmp_path)
    assert not loaded.networks[0].train().body.training, "a frozen body takes no statistics"
    of_images = loaded.predict_proba(pixels, Plan())
    np.testing.assert_allclose(of_images, of_features.numpy(), atol=0.01)
    assert of_images.std(axis=0).min() > 0.03, "else anything would be close"


def test_a_backbone_used_on_another_device_is_brought_back(tmp_path: Path) -> None:
    backbone = load_backbone("torchvision:resnet18", "none", size=32)
    backbone.network.to(torch.float64)
    moved: list[str] = []
    backbone.network.cpu = lambda: moved.append("cpu") or backbone.network.float()
    with_heads(backbone, [feature_head(512, 3)], np.zeros(512), np.ones(512), 3)
    assert moved == ["cpu"]


def test_what_is_trained_follows_from_how_the_run_judged() -> None:
    fine_tuned = {"identity": {"recipe": asdict(replace(FINETUNE, model="backbone:torchvision:resnet18"))}}
    assert recipe_of(RetrainSettings(), fine_tuned).learning_rate == FINETUNE.learning_rate
    assert recipe_of(RetrainSettings(), fine_tuned).body_rate == 0.1
    scratch = recipe_of(RetrainSettings(model="small", learning_rate=0.5), fine_tuned)
    assert (scratch.model, scratch.learning_rate, scratch.optimizer) == ("small", 0.5, "sgd")
    frozen = {"identity": {"backbone": "torchvision:resnet18", "image_size": 224}, "weights": "none"}
    heads = recipe_of(RetrainSettings(), frozen)
    assert (heads.model, heads.weights, heads.optimizer) == ("frozen:torchvision:resnet18", "none", "adamw")
    fine = recipe_of(RetrainSettings(model="backbone:torchvision:resnet18"), frozen)
    assert fine.weights == "none", "those of the run"
    assert recipe_of(RetrainSettings(model="backbone:torchvision:resnet50"), frozen).weights is None
    with pytest.raises(InputError, match="heads see features: flip is for networks that see images"):
        recipe_of(RetrainSettings(flip=True), frozen)
    with pytest.raises(InputError, match="heads see features: preset paper is for networks"):
        recipe_of(RetrainSettings(preset="paper", model="frozen:torchvision:resnet18"), frozen)
    absolute = {**fine_tuned, "weights": "/elsewhere/w.pth"}
    assert recipe_of(RetrainSettings(), absolute).weights == "/elsewhere/w.pth"
    assert recipe_of(RetrainSettings(preset="paper"), frozen).model == "resnet32"


@pytest.mark.slow
def test_excluding_another_image_is_another_retraining(work: Path) -> None:
    table = pd.read_csv(work / "run" / "issues.csv")
    alike = table[(table.set == "selected") & ~table.is_label_issue & (table.given_label == "ring")].path[:2]
    arguments = ("--epochs", 1, *MACHINE, "-q", "-o", work / "without", "--select", "agreement")
    for path, code in zip(alike, (0, 1), strict=True):
        (work / "excluded.csv").write_text(f"path,action\n{path},excluded\n")
        result = call("retrain", work / "run", *arguments, "--corrections", work / "excluded.csv")
        assert result.exit_code == code, result.output
    refused(result, "images have changed since")
    other = call("retrain", work / "run", *arguments, "--learning-rate", "0.05")
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
    table = pd.DataFrame({"img_a": map(str, files), "img_b": map(str, files), "is": [f.parent.name for f in files]})
    table.to_csv(tmp_path / "test.csv", index=False)
    arguments = (work / "run", "--epochs", 1, "-q", *MACHINE, "-o", tmp_path / "m", "--test", tmp_path / "test.csv")
    refused(call("retrain", *arguments), "--path-column")
    named = call("retrain", *arguments, "--path-column", "img_b", "--label-column", "is")
    assert named.exit_code == 0, named.output
    assert "On 20 test images" in named.stdout
    misspelt = call("retrain", *arguments, "--path-column", "img_b", "--label-column", "iz")
    refused(misspelt, "has no column 'iz' (--label-column)")
    refused(call("predict", tmp_path / "m", tmp_path / "none.csv"), "none.csv")


@pytest.mark.slow
def test_corrected_all_images_are_trained_on(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # whether so few images carry a signal is chance
    monkeypatch.setattr("cvcoteach.noise_model.posterior.Posterior.has_signal", True)
    arguments = (work / "run", "--epochs", 2, *MACHINE, "-q", "--json", "--mode", "correct", "-o", work / "corrected")
    result = call("retrain", *arguments)
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout)
    assert 0 < summary["candidate"] == 240 - summary["selected"]


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
def test_what_does_not_fit_a_run_is_told_in_one_sentence(work: Path, tmp_path: Path) -> None:
    refused(call("retrain", tmp_path), "holds no run of cvcoteach")
    assert call("retrain", work / "run", "--epochs", 1, "-q", "-o", work / "a-model", *MACHINE).exit_code == 0
    refused(call("retrain", work / "a-model"), "is a classifier that retrain wrote; it takes the run folder of find-")
    refused(call("retrain", work / "run", "--noise-rate", "1"), "noise_rate is 1.0; it is the share of wrong labels")
    refused(call("retrain", work / "run", "--export", "tflite"), "export is 'tflite'; there are onnx and torch.export")
    refused(call("retrain", work / "run", "-o", work / "run"), "run is the run itself; name another --output")
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
        (run / file).write_bytes((work / "run" / file).read_bytes())
    with np.load(run / "probabilities.npz") as arrays:
        content = dict(arrays)
    nothing = np.zeros_like(content["selected"])
    np.savez(run / "probabilities.npz", **{**content, "selected": nothing})
    refused(call("retrain", run, "--select", "agreement"), "no label of the run counts as clean")
    np.savez(run / "probabilities.npz", **{**content, "selected": content["labels"] != 1})
    without = call("retrain", run, "--select", "agreement")
    refused(without, "no image of class 'cross' counts as clean, so that the networks could not learn it")

    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**record, "source": str(tmp_path / "gone")}))
    refused(call("retrain", run), "is not there; name them: cvcoteach retrain SOURCE --run")
    (run / "run.json").write_text(json.dumps({**record, "state": "running"}))
    refused(call("retrain", run), "is not finished")
