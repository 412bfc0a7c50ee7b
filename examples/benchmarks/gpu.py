"""What a GPU gains, in one run of eight minutes: build 63c7401 beside today's, steps, folds, heads, retraining, checks.

    python examples/benchmarks/gpu.py pack build/gpu        # here: images, the earlier build and wheels, under 30 MiB
    python examples/benchmarks/gpu.py run build/gpu         # on the machine with the card
    python examples/benchmarks/gpu.py run build/gpu --dry   # all of it on a CPU with 300 images, captures rehearsed

Each stage is a process of its own with a time limit; figures are printed as they come, and all of them at the end. A
stage that fails or for which too little time is left is named there.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image
from sklearn.metrics import average_precision_score

REPOSITORY = Path(__file__).resolve().parents[2]
EARLIER = "63c7401"
K = 10
STAGES: dict[str, tuple[int, Callable[[Stage], None]]] = {}


# -- running -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """What a stage works on."""

    folder: Path
    """What was packed."""
    work: Path
    """Its files."""
    dry: bool
    """On a CPU, with few images."""

    @property
    def device(self) -> str:
        """Where to compute."""
        return "cpu" if self.dry else "cuda"

    def images(
        self, n: int, labels: str = "random1"
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Pixels, true and given labels of n images; beyond those packed, they come again, mirrored."""
        packed = np.load(self.folder / "images.npz")
        files = np.split(packed["bytes"], packed["ends"][:-1])[:n]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(file.tobytes()))) for file in files])
        pixels = np.concatenate([pixels, pixels[:, :, ::-1], pixels[:, ::-1]])[:n]
        index = np.arange(n) % len(files)
        return pixels, packed["true"][index].astype(np.int64), packed[labels][index].astype(np.int64)


def stage(seconds: int) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Add a stage that takes so long at most."""

    def add(function: Callable[[Stage], None]) -> Callable[[Stage], None]:
        STAGES[function.__name__] = seconds, function
        return function

    return add


def figure(name: str, value: object) -> None:
    """Print a figure."""
    print(f"FIGURE {name} = {f'{value:,.3g}' if isinstance(value, float) and value < 1000 else value}", flush=True)


def run(folder: Path, dry: bool, seconds: float, only: list[str]) -> int:
    """Run the stages, and print all figures at the end."""
    deadline, found, failed = time.monotonic() + seconds, [], []
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(REPOSITORY), "CVCOTEACH_OFFLINE": "1"}
    environment["CVCOTEACH_CACHE_DIR"] = str(work / "cache")
    wheels = sorted((folder / "wheels").glob("*.whl"))
    if wheels and importlib.util.find_spec("cleanlab") is None:
        site = str(work / "site")
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--target", site]
        subprocess.run([*command, *map(str, wheels)], check=True)
        environment["PYTHONPATH"] += os.pathsep + site
    for name, (limit, _) in STAGES.items():
        left = deadline - time.monotonic()
        if only and name not in only:
            continue
        if left < min(limit, 20):
            failed.append(f"{name}: no time left")
            continue
        print(f"\n== {name}, up to {min(limit, left):.0f} s", flush=True)
        began = time.monotonic()
        command = [sys.executable, __file__, "stage", name, str(folder)] + ["--dry"] * dry
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        with process:
            timer = _ended_after(process, 10 * limit if dry else min(limit, left))
            assert process.stdout is not None
            for line in process.stdout:
                print(line, end="", flush=True)
                found += re.findall(r"^FIGURE (.*) = (.*)$", line)
            timer.cancel()
        print(f"-- {name}: {time.monotonic() - began:.0f} s", flush=True)
        if process.returncode:
            failed.append(f"{name}: exit status {process.returncode}")
    print("\n| figure | value |\n| --- | --- |")
    for name, value in found:
        print(f"| {name} | {value} |")
    print("\n".join(["", *(f"NOT DONE {each}" for each in failed)]), flush=True)
    return 1 if failed else 0


def _ended_after(process: subprocess.Popen[str], seconds: float) -> threading.Timer:
    """End a process and all it started after so long, unless cancelled."""
    timer = threading.Timer(seconds, lambda: os.killpg(process.pid, signal.SIGKILL))
    timer.daemon = True
    timer.start()
    return timer


# -- the stages, the most telling first --------------------------------------------------------------------------


@stage(20)
def machine(at: Stage) -> None:
    """Say what it runs on."""
    card = "none" if at.dry else torch.cuda.get_device_name()
    figure("card", card)
    figure("torch", f"{torch.__version__}, CUDA {torch.version.cuda}, Python {sys.version.split()[0]}")
    figure("CPU cores", len(os.sched_getaffinity(0)))


@stage(290)
def find(at: Stage) -> None:
    """Run find-issues of both builds on the same folder; of 50,000 images some are the same, mirrored."""
    source = write_folder(at, 300 if at.dry else 50_000, "images")
    took = {}
    for name, build in (("today's", REPOSITORY), (f"build {EARLIER}", at.folder / "earlier")):
        output = at.work / ("new-issues" if build == REPOSITORY else "old-issues")
        took[name] = command(at, build, ["find-issues", str(source), "-o", str(output), "--preset", "fast"])
        figure(f"find-issues, {name}, seconds", took[name])
        figure(f"find-issues, {name}, average precision", average_precision(output / "issues.csv"))
        timings = json.loads((output / "run.json").read_text())["timings"]
        training = sum(each["seconds"] for each in timings if each["what"].startswith("round"))
        figure(f"find-issues, {name}, seconds of training and prediction", training)
    figure(f"find-issues, faster than build {EARLIER}", took[f"build {EARLIER}"] / took["today's"])


@stage(60)
def folds(at: Stage) -> None:
    """Images a second: bare steps, eager and captured; whole trainings of 1, 2 and 5 networks at the same time."""
    from gpu_bare import bare_step

    from cvcoteach.training.batches import DeviceImages, ImageBatches
    from cvcoteach.training.compute_plan import ComputePlan
    from cvcoteach.training.loop import Training
    from cvcoteach.training.model_spec import ModelSpec
    from cvcoteach.training.models import ModelFactory
    from cvcoteach.training.normalisation import scaling_of
    from cvcoteach.training.presets import PRESETS
    from cvcoteach.training.together import run_together

    pixels, _, labels = at.images(300 if at.dry else 40_000)
    every, steps = np.arange(len(pixels)), 2 if at.dry else 300
    for model, batch in (("small", 125), ("resnet32", 128)):
        recipe = replace(PRESETS["fast"], model=ModelSpec.parse(model), batch_size=batch, least_batches=0)
        recipe = replace(recipe, epochs=3, learning_rate=0.02).for_channels(3)
        factory = ModelFactory(recipe.model)
        eager = bare_step(factory, ComputePlan(device=at.device), batch, captured=False, steps=steps)
        figure(f"{model}: bare eager step, float32, images/s", round(eager))
        plan = ComputePlan(device=at.device, dtype="bfloat16", channels_last=True, captured=True)
        bare = bare_step(factory, plan, batch, captured=True, steps=steps)
        figure(f"{model}: bare captured step, bfloat16, images/s", round(bare))
        one = 0.0
        for count in (1, 2, 5):
            if at.device == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            source = ImageBatches(DeviceImages(pixels, plan), scaling_of(pixels, every))
            trainings = [
                Training([plan.placed(factory.build(K, 3, seed=i))], source, every, labels, recipe, seed=i)
                for i in range(count)
            ]
            began = time.perf_counter()
            run_together(trainings)
            first = time.perf_counter() - began
            began = time.perf_counter()
            run_together(trainings)
            took = time.perf_counter() - began
            speed = count * len(pixels) / took
            one = one or speed
            name = f"{model}: {count} at the same time"
            figure(f"{name}, images/s", round(speed))
            figure(f"{name} ÷ bare captured step", speed / bare)
            figure(f"{name} ÷ one", speed / one)
            figure(f"{name}, seconds to capture", first - took)
            if at.device == "cuda":
                figure(f"{name}, peak memory, MiB", torch.cuda.max_memory_allocated() >> 20)


@stage(70)
def heads(at: Stage) -> None:
    """Train heads on features, on the card and on its machine's CPU."""
    from cvcoteach import HeadTrainer
    from cvcoteach.crossval.trainer import Fold

    for n, d in ((300, 32), (600, 16)) if at.dry else ((50_000, 1280), (1_000_000, 768)):
        generator = torch.Generator(at.device).manual_seed(0)
        labels = torch.randint(K, (n,), generator=generator, device=at.device)
        features = torch.randn(n, d, generator=generator, device=at.device, dtype=torch.float32)
        features += 0.2 * torch.randn(K, d, generator=generator, device=at.device)[labels]
        x, y, every = features.half().cpu().numpy(), labels.cpu().numpy(), np.arange(n)
        del features
        parts = [(every[every % 5 != k], every[every % 5 == k]) for k in range(5)]
        asked = [Fold(train, y[train], rest, k) for k, (train, rest) in enumerate(parts)]
        HeadTrainer(x[:1000, :32], K, device=at.device).fit_predict(
            every[:800], y[:800], every[800:1000], 0
        )  # warms up
        took = {}
        ways = [(at.device, True), (at.device, False), ("cpu", False)] if n < 100_000 else [(at.device, True)]
        for head in ("linear", "mlp") if n < 100_000 else ("linear",):
            for device, captured in ways:
                trainer = HeadTrainer(x, K, head, device=device, captured=captured)
                began = time.perf_counter()
                trainer.fit_predict_many(asked)
                way = f"{device}, {'captured' if captured else 'step by step'}"
                took[way] = time.perf_counter() - began
                figure(f"{head} heads, {n:,} × {d}, {way}, seconds", took[way])
            if len(ways) > 1:
                ratio = took["cpu, step by step"] / took[f"{at.device}, captured"]
                figure(f"{head} heads, {n:,} × {d}, faster than the CPU", ratio)


@stage(110)
def retrain(at: Stage) -> None:
    """Retrain on what `find` found, by both builds."""
    took = {}
    for name, build in (("today's", REPOSITORY), (f"build {EARLIER}", at.folder / "earlier")):
        issues = at.work / ("new-issues" if build == REPOSITORY else "old-issues")
        took[name] = command(at, build, ["retrain", str(issues), "-o", f"{issues}-model"])
        figure(f"retrain, {name}, seconds", took[name])
    figure(f"retrain, faster than build {EARLIER}", took[f"build {EARLIER}"] / took["today's"])


@stage(45)
def extraction(at: Stage) -> None:
    """Compute features by networks of torchvision without weights, beside the bare networks on a ready batch."""
    from gpu_bare import extraction_speeds

    pixels, _, _ = at.images(40 if at.dry else 20_000)
    for name in ("mobilenet_v3_large", "convnext_tiny"):
        bare, ours = extraction_speeds(name, pixels, at.device, at.work)
        figure(f"{name} at 128 pixels, a ready batch, images/s", round(bare))
        figure(f"{name} at 128 pixels, features onto the disk, images/s", round(ours))
        figure(f"{name} at 128 pixels, features ÷ bare", ours / bare)


@stage(120)
def checks(at: Stage) -> None:
    """Run all checks of `gpu_checks`."""
    import gpu_checks

    if gpu_checks.main(["--device", at.device] + ["--quick"] * at.dry):
        raise SystemExit(1)


@stage(60)
def networks(at: Stage) -> None:
    """Compare networks from scratch by five folds and the posterior, on the label sets that are tuned on."""
    from cvcoteach import TorchTrainer
    from cvcoteach.crossval.kfold import cross_validate
    from cvcoteach.noise_model.posterior import fit_posterior
    from cvcoteach.training.model_spec import ModelSpec
    from cvcoteach.training.presets import PRESETS

    for labels in ("random2", "aggre"):
        pixels, true, given = at.images(300 if at.dry else 20_000, labels)
        for model, epochs in (("small", 10), ("wide", 10)):
            recipe = replace(PRESETS["fast"], model=ModelSpec.parse(model), epochs=1 if at.dry else epochs)
            trainer = TorchTrainer(pixels, K, recipe, device=at.device)
            assert trainer.plan.device == at.device  # probed before the clock runs
            began = time.perf_counter()
            probs = cross_validate(trainer, given)
            took, posterior = time.perf_counter() - began, fit_posterior(given, probs)
            name = f"{model}, {epochs} epochs, {labels}"
            figure(f"{name}, five folds, seconds", took)
            figure(f"{name}, accuracy", float((probs.argmax(axis=1) == true).mean()))
            figure(f"{name}, average precision", float(average_precision_score(given != true, posterior.wrong)))


@stage(60)
def tests(at: Stage) -> None:
    """Run the tests that need a card."""
    if importlib.util.find_spec("pytest") is None:
        figure("pytest -m gpu", "no pytest here; the checks above are the same")
        return
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "tests/examples/test_gpu_checks.py",
            "-p",
            "no:cacheprovider",
        ],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
    )
    print(ran.stdout[-3000:], ran.stderr[-500:])
    figure("pytest -m gpu", (ran.stdout.strip().splitlines() or ["nothing"])[-1])


def write_folder(at: Stage, n: int, name: str) -> Path:
    """Write a folder for each given label; a file's name ends with the true one."""
    folder = at.work / name
    pixels, true, given = at.images(n)
    for k in range(K):
        (folder / str(k)).mkdir(parents=True)
    for i, (image, right, label) in enumerate(zip(pixels, true, given, strict=True)):
        Image.fromarray(image).save(folder / str(label) / f"{i:06d}_{right}.bmp")
    return folder


def command(at: Stage, build: Path, arguments: list[str]) -> float:
    """Run the command of a build; return seconds."""
    environment = os.environ | {"PYTHONPATH": os.environ["PYTHONPATH"].replace(str(REPOSITORY), str(build), 1)}
    call = [sys.executable, "-m", "cvcoteach", *arguments, "--device", at.device, "-q"]
    call += ["--epochs", "1"] if at.dry else []
    began = time.perf_counter()
    subprocess.run(call, env=environment, check=True, cwd=at.work, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def average_precision(file: Path) -> float:
    """Of a run's ranking, against the true labels in the names."""
    table = pd.read_csv(file, dtype={"path": str, "given_label": str})
    wrong = table["path"].str.extract(r"_(\d)\.bmp$")[0] != table["given_label"]
    return float(average_precision_score(wrong, -table["label_quality"]))


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pack").add_argument("folder", type=Path)
    runs = commands.add_parser("run")
    runs.add_argument("folder", type=Path)
    runs.add_argument("--dry", action="store_true")
    runs.add_argument("--seconds", type=float, default=470)
    runs.add_argument("--only", nargs="*", default=[], choices=list(STAGES))
    one = commands.add_parser("stage")
    one.add_argument("name", choices=list(STAGES))
    one.add_argument("folder", type=Path)
    one.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    folder = options.folder.resolve()
    if options.command == "pack":
        from gpu_pack import pack  # needs the archive, which is not there where the card is

        pack(folder)
        return 0
    if options.command == "run":
        return run(folder, options.dry, 3600 if options.dry else options.seconds, options.only)
    STAGES[options.name][1](Stage(folder, folder / "work", options.dry))
    return 0


if __name__ == "__main__":
    sys.exit(main())
