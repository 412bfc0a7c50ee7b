#!/usr/bin/env bash
# Exporting a dataset in Datumaro's own format, with images, and importing it again.
#
# Versions:  datumaro 1.13.12 (Python 3.11)
# Guess:     Items have ids of their own, so each gets a file of its own, or the export fails where two would share one: "cat/1" in the
#            file cat/1.png and "cat_1" in cat_1.png, as the export to CVAT's format does.
# Behaviour: The slash becomes an underscore, and both are written to cat_1.png: the later picture over the earlier, without a warning.
#            Imported again, there are two items with two labels and one picture. Folders and flat names together, as in a dataset
#            that was merged from two, lose images so.
# Output:    files: ['cat_1.png']
#            cat/1: cat, gray 200
#            cat_1: statue, gray 200
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datumaro==1.13.12 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - "$work/exported" <<'PY'
import os
import sys

import numpy as np
from datumaro.components.annotation import AnnotationType, Label
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image


def item(name, gray, label):
    picture = Image.from_numpy(np.full((4, 4, 3), gray, np.uint8), ext=".png")
    return DatasetItem(id=name, subset="train", media=picture, annotations=[Label(label)])


folder = sys.argv[1]
dataset = Dataset.from_iterable([item("cat/1", 10, 0), item("cat_1", 200, 1)], categories=["cat", "statue"])
dataset.export(folder, "datumaro", save_media=True)
files = sorted(os.listdir(os.path.join(folder, "images", "train")))
print(f"files: {files}")
back = Dataset.import_from(folder, "datumaro")
names = back.categories()[AnnotationType.label]
found = {each.id: (names[each.annotations[0].label].name, int(each.media.data[0, 0, 0])) for each in back}
for name, (label, gray) in found.items():
    print(f"{name}: {label}, gray {gray}")
assert files == ["cat_1.png"], "the behaviour has changed"
assert found == {"cat/1": ("cat", 200), "cat_1": ("statue", 200)}, "the behaviour has changed"
PY
