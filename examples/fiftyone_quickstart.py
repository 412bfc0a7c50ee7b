"""Find and correct the wrong labels of a folder of class folders in the FiftyOne App.

    python examples/fiftyone_quickstart.py FOLDER [--backbone NAME] [--export FOLDER]

Without a folder it uses handwritten digits with some wrong labels. Corrections stay in FiftyOne for the next call.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import fiftyone as fo
import fiftyone.operators as foo
import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from cvcoteach.fiftyone import install
from cvcoteach.fiftyone.app import texts
from cvcoteach.fiftyone.app.operators import PLUGIN, panel_beside_grid
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.work import browse, corrections, export
from cvcoteach.fiftyone.work.sources import dataset_of_source


def noisy_digits(folder: Path, share: float = 0.08) -> Path:
    """Write 1,797 real digits as class folders, a share of them in the wrong one."""
    digits, rng = load_digits(), np.random.default_rng(0)
    wrong = rng.permutation(len(digits.target))[: round(share * len(digits.target))]
    digits.target[wrong] = (digits.target[wrong] + rng.integers(1, 10, len(wrong))) % 10
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        file = folder / str(label) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(file)
    return folder


def main() -> None:
    """Read, find, look and correct, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="one folder per class, or any other source of find-issues")
    parser.add_argument("--backbone", help="train heads on its features, e.g. torchvision:resnet18")
    parser.add_argument("--export", type=Path, help="new folder for the corrected images")
    parser.add_argument("--no-app", action="store_true", help="accept every suggestion unseen")
    options = parser.parse_args()
    if options.export:
        export.check_target("imagefolder", str(options.export))  # before anything is trained

    install.install(Path(fo.config.plugins_dir))
    dataset = dataset_of_source(options.folder or noisy_digits(Path(fo.config.default_dataset_dir) / "noisy-digits"))
    print(*dataset.info["notes"], sep="\n")

    def call(name: str, **params: object) -> None:
        foo.execute_operator(f"{PLUGIN}/{name}", dataset=dataset, params=params)

    if not runs.keys(dataset):
        call("find_label_issues", label_field="ground_truth", backbone=options.backbone)
    results = runs.load(dataset)
    left = browse.left(results, browse.reviews(dataset, results))
    print(f"{len(left):,} to review" + (". The first:" if len(left) else "."))
    for sample in left.limit(5):
        given, instead = texts.card(results, int(results.rows([sample.id])[0]))
        print(f"  {sample.filename}: {given} -> {instead}, {sample[results.fields.wrong]:.0%} likely wrong")

    if not options.no_app:  # worst first, the panel beside it; in a sample: a accepts, k keeps, e excludes, u undoes
        os.environ.setdefault("FIFTYONE_PLUGINS_CACHE_ENABLED", "true")  # plugins are read once, not at every click
        print("Close the App's page to go on; what you review is saved at once.")
        fo.launch_app(dataset, view=left, spaces=panel_beside_grid()).wait(30)  # seconds, to load the page anew
    elif flagged := browse.unreviewed_flagged_ids(dataset, results):
        call("accept_suggestions", ids=flagged)
    print(f"{len(corrections.history(dataset)):,} corrections are on record.")
    if options.export:
        call("export_corrected", kind="imagefolder", to=str(options.export))


if __name__ == "__main__":
    main()
