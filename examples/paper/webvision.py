"""The paper's table on mini WebVision: Inception-ResNet-v2 on the first 50 classes of the Google part.

    python examples/paper/webvision.py WEBVISION --ilsvrc ILSVRC2012_img_val --devkit ILSVRC2012_devkit_t12
    python examples/paper/webvision.py WEBVISION --estimate

WEBVISION holds info/ (train_filelist_google.txt, val_filelist.txt, synsets.txt), google/ and val_images_256/ as
published. Needs timm: pip install 'cvcoteach[timm]'. Interrupted, the same command resumes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from experiment import Lengths, Noise, Row, estimate, guarded, images_per_second, images_shown, markdown, parser
from layouts import read_ilsvrc_validation, read_synsets, read_webvision, read_webvision_validation

from cvcoteach.pipeline.settings import Machine

OUTPUT = Path("build/paper/webvision")
MODEL, SIZE = "backbone:timm:inception_resnet_v2", 299
SUPPOSED = 0.2
"""Share of wrong labels that the estimate of the time reckons with; the run estimates it itself."""
PUBLISHED = {"webvision": ("65.2", "85.3"), "ilsvrc": ("61.6", "85.0")}
"""Top-1 and top-5 accuracy, percent; Chen et al., ICML 2019."""
NAMES = {"webvision": "WebVision validation", "ilsvrc": "ILSVRC-2012 validation"}


def table(result: dict[str, Any]) -> str:
    """Return the figures of the run beside the paper's."""
    rows = []
    for name, measured in result["accuracy"].items():
        for k, published in zip(("1", "5"), PUBLISHED[name], strict=True):
            rows.append([f"{NAMES[name]}, top-{k}, %", published, f"{100 * measured[k]:.1f}"])
    rows.append(["training images", "", f"{result['images']:,}"])
    rows.append(["epochs of a fold, of Co-teaching", "", "{}, {}".format(*result["epochs"])])
    return markdown(["mini WebVision", "paper", "here"], rows)


def main() -> None:
    """Read, estimate, run."""
    args = _arguments()
    model = f"{args.model}@{args.image_size}" if args.model.startswith("backbone:") else args.model
    size = None if args.model.startswith("backbone:") else args.image_size
    lengths = Lengths(args.epochs, args.coteaching_epochs, args.rounds, model, size, args.seed)
    machine = Machine(args.device, args.threads, cache_dir=args.cache_dir)
    train, validation = (read(args.folder, args.classes) for read in (read_webvision, read_webvision_validation))
    lists = {"webvision": validation}
    if args.ilsvrc is not None:
        wanted = read_synsets(args.folder)[: args.classes]
        lists["ilsvrc"] = read_ilsvrc_validation(args.ilsvrc, wanted, args.devkit)
    shown = images_shown(len(train), Noise(SUPPOSED, args.classes), lengths)
    print(f"{len(train):,} training images, " + ", ".join(f"{len(each):,} of {name}" for name, each in lists.items()))
    print(
        estimate("mini WebVision", shown, images_per_second(lengths, args.image_size, args.classes, machine)),
        flush=True,
    )
    if args.estimate:
        return
    args.output.mkdir(parents=True, exist_ok=True)
    tests = {name: each.write(args.output / f"{name}-images.csv") for name, each in lists.items()}
    row = Row("mini WebVision", args.output, train.write(args.output / "train-images.csv"), tests, lengths)
    print(f"\n{table(row.result(machine))}", flush=True)


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, OUTPUT)
    options.add_argument("folder", type=Path, help="WebVision 1.0")
    options.add_argument("--ilsvrc", type=Path, help="validation images of ILSVRC-2012 (left out)")
    options.add_argument("--devkit", type=Path, help="ILSVRC2012_devkit_t12 (beside the images)")
    options.add_argument("--classes", type=int, default=50, help="the first so many classes (%(default)s)")
    options.add_argument("--model", default=MODEL, help="the network, as find-issues takes it (%(default)s)")
    options.add_argument("--image-size", type=int, default=SIZE, help="pixels a side (%(default)s)")
    return options.parse_args()


if __name__ == "__main__":
    guarded(main)
