"""Find and correct the wrong labels of a folder of class folders in the FiftyOne App.

    python examples/fiftyone_quickstart.py FOLDER [--backbone NAME] [--export FOLDER]

Without a folder it takes scikit-learn's handwritten digits and writes some of them under a wrong name.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from PIL import Image

from cvcoteach.fiftyone import browse, corrections, install, runs
from cvcoteach.fiftyone.operators import PLUGIN


def noisy_digits(folder: Path, share: float = 0.08) -> Path:
    """1,797 real digits as class folders, a share of them in the wrong one."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rng = np.random.default_rng(0)
    given = digits.target.copy()
    wrong = rng.permutation(len(given))[: round(share * len(given))]
    given[wrong] = (given[wrong] + rng.integers(1, 10, len(wrong))) % 10
    for number, (image, label) in enumerate(zip(digits.images, given, strict=True)):
        file = folder / str(label) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(file)
    return folder


def main() -> None:
    """Read, find, look and correct, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="one folder a class")
    parser.add_argument("--backbone", help="train heads on its features, such as torchvision:resnet18")
    parser.add_argument("--export", type=Path, help="where the corrected images go in the end")
    parser.add_argument("--no-app", action="store_true", help="accept every suggestion without looking")
    options = parser.parse_args()

    install.install(Path(fo.config.plugins_dir))
    folder = options.folder or noisy_digits(Path(tempfile.mkdtemp()))
    dataset = fo.Dataset.from_dir(str(folder), fo.types.ImageClassificationDirectoryTree)

    def call(name: str, **params: object) -> None:
        foo.execute_operator(f"{PLUGIN}/{name}", dataset=dataset, params=params)

    call("find_label_issues", label_field="ground_truth", backbone=options.backbone)
    results = runs.load(dataset)
    issues = results.issues
    print("The most doubtful:")
    for sample, row in zip(browse.flagged(results).limit(5), issues.worst_first(), strict=False):
        given, suggested = (issues.class_names[k] for k in (issues.labels[row], issues.suggested[row]))
        print(f"  {Path(sample.filepath).name}: {given} -> {suggested}, wrong with {issues.wrong[row]:.0%}")

    if options.no_app:
        call("accept_suggestions")
    else:
        print("Open the panel “Label issues”; in a sample: a accepts, k keeps, e excludes, u undoes.")
        fo.launch_app(dataset).wait()
    print(f"{len(corrections.history(dataset)):,} corrections are on record.")
    if options.export:
        call("export_corrected", kind="imagefolder", to=str(options.export))


if __name__ == "__main__":
    main()
