"""Find and correct the wrong labels of a folder of class folders in the FiftyOne App.

    python examples/fiftyone_quickstart.py FOLDER [--export FOLDER]

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

from cvcoteach.fiftyone import install, runs
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
    """Read, find, open the App, export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="one folder a class")
    parser.add_argument("--export", type=Path, help="where the corrected images go when the App is closed")
    parser.add_argument("--no-app", action="store_true", help="find and accept everything, without looking")
    options = parser.parse_args()

    install.install(Path(fo.config.plugins_dir))
    folder = options.folder or noisy_digits(Path(tempfile.mkdtemp()))
    dataset = fo.Dataset.from_dir(folder, fo.types.ImageClassificationDirectoryTree)

    foo.execute_operator(f"{PLUGIN}/find_label_issues", dataset=dataset, params={"label_field": "ground_truth"})
    issues = runs.load(dataset).issues
    print(f"{issues.n_issues:,} of {len(issues.labels):,} labels look wrong.")

    if options.no_app:
        foo.execute_operator(f"{PLUGIN}/accept_suggestions", dataset=dataset)
    else:
        print("Open the panel “Label issues”; in a sample: a accepts, k keeps, x excludes, u undoes.")
        fo.launch_app(dataset).wait()
    if options.export:
        target = {"kind": "imagefolder", "to": str(options.export)}
        print(foo.execute_operator(f"{PLUGIN}/export_corrected", dataset=dataset, params=target).result["message"])


if __name__ == "__main__":
    main()
