#!/usr/bin/env bash
# Probabilities from a loader of timm, labels from torchvision's ImageFolder, both of the same folder.
#
# Versions:  timm 1.0.31, torch 2.14.1, torchvision 0.29.1 (Python 3.11)
# Guess:     Both sort class folders and files by name and take the first folder for the class, so that row i is one image in both and
#            column k one class.
# Behaviour: torchvision sorts by characters, timm as people do (2 before 10, case ignored). With the folders 0 to 10, or with Zebra beside
#            ant, the columns of a model that was trained through timm are other classes than torchvision's numbers say. Where the
#            classes agree, the files 2.png and 10.png of a class change places, so that a wrong label is found on another image than
#            the one that has it. And of cat/young and dog/young timm makes one class, young, where torchvision sees cat and dog.
# Output:    0 to 10: 2 of 11 classes have the same number
#            Zebra, ant: torchvision Zebra 0, ant 1; timm ant 0, Zebra 1
#            files: torchvision 1.png, 10.png, 2.png; timm 1.png, 2.png, 10.png
#            subfolders: torchvision cat 0, dog 1; timm old 0, young 1
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check timm==1.0.31 torch==2.14.1 torchvision==0.29.1 \
    2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - "$work" <<'PY'
import sys
from pathlib import Path

from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder


def both(name, files):
    root = Path(sys.argv[1], name)
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(root / file)
    return ImageFolder(str(root)), create_dataset("folder", str(root))


def text(numbers):
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


vision, timm = both("numbers", [f"{c}/1.png" for c in range(11)])
same = sum(timm.reader.class_to_idx[c] == number for c, number in vision.class_to_idx.items())
print(f"0 to 10: {same} of 11 classes have the same number")
assert same == 2, "the behaviour has changed"

vision, timm = both("case", ["Zebra/1.png", "ant/1.png"])
print(f"Zebra, ant: torchvision {text(vision.class_to_idx)}; timm {text(timm.reader.class_to_idx)}")
assert vision.class_to_idx == {"Zebra": 0, "ant": 1}, "the behaviour has changed"
assert timm.reader.class_to_idx == {"ant": 0, "Zebra": 1}, "the behaviour has changed"

vision, timm = both("files", ["cat/1.png", "cat/2.png", "cat/10.png"])
order = [Path(file).name for file, _ in vision.samples]
print(f"files: torchvision {', '.join(order)}; timm {', '.join(timm.filenames(basename=True))}")
assert order == ["1.png", "10.png", "2.png"], "the behaviour has changed"
assert timm.filenames(basename=True) == ["1.png", "2.png", "10.png"], "the behaviour has changed"

vision, timm = both("subfolders", [f"{c}/{age}/1.png" for c in ("cat", "dog") for age in ("young", "old")])
print(f"subfolders: torchvision {text(vision.class_to_idx)}; timm {text(timm.reader.class_to_idx)}")
assert vision.class_to_idx == {"cat": 0, "dog": 1}, "the behaviour has changed"
assert timm.reader.class_to_idx == {"old": 0, "young": 1}, "the behaviour has changed"
PY
