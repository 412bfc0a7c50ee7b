#!/usr/bin/env bash
# A grey PNG of 16 bits, as X-rays and microscopes make them, on its way into a network by torchvision.
#
# Versions:  torchvision 0.29.1, torch 2.14.1, Pillow 13.0.0 (Python 3.11)
# Guess:     All ways give the same image in [0, 1]: the loader of ImageFolder loses the lower eight bits, and ToTensor, decode_image and
#            transforms.v2 scale by the largest value that the file can hold.
# Behaviour: Three ways, three images. The loader of ImageFolder clips: whatever is brighter than 255 of 65,535 becomes white, so that of a
#            ramp from black to white all but one in 256 pixels are white. ToTensor on the open file does not scale, as it does for 8
#            bits, and puts the numbers into int16, in which the brighter half is negative. Only decode_image and transforms.v2 give the
#            image, once asked for floats. Nothing warns.
# Output:    loader of ImageFolder: 99.6 % of the pixels are white
#            ToTensor: torch.int16 from -32761 to 32759
#            decode_image, to_dtype: from 0.00 to 1.00, mean 0.50
#            to_image, to_dtype: from 0.00 to 1.00, mean 0.50
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 pillow==13.0.0 numpy \
    2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - "$work/ramp.png" <<'PY'
import sys

import numpy as np
import torch
from PIL import Image
from torchvision.datasets.folder import default_loader
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import ToTensor
from torchvision.transforms.v2.functional import to_dtype, to_image

file = sys.argv[1]
Image.fromarray(np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)).save(file)


def scaled(image):
    values = to_dtype(image, torch.float32, scale=True)
    return f"from {values.min():.2f} to {values.max():.2f}, mean {values.mean():.2f}"


plain = ToTensor()(Image.open(file))
seen = {
    "loader of ImageFolder": f"{np.mean(np.asarray(default_loader(file)) == 255):.1%} of the pixels are white".replace("%", " %"),
    "ToTensor": f"{plain.dtype} from {plain.min()} to {plain.max()}",
    "decode_image, to_dtype": scaled(decode_image(file, ImageReadMode.RGB)),
    "to_image, to_dtype": scaled(to_image(Image.open(file))),
}
for way, found in seen.items():
    print(f"{way}: {found}")
whole = "from 0.00 to 1.00, mean 0.50"
assert list(seen.values()) == [
    "99.6 % of the pixels are white",
    "torch.int16 from -32761 to 32759",
    whole,
    whole,
], "the behaviour has changed"
PY
