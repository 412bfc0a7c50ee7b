#!/usr/bin/env bash
# Out-of-sample probabilities of many images and classes lie in a .npy file and are opened with mmap_mode="r", because they do not fit
# into memory. The first thing that anybody asks of them is the most probable class of each image.
#
# Versions:  numpy 2.4.6 (Python 3.11)
# Guess:     pred_probs.argmax(axis=1) reads the file through and needs memory for its answer alone, as max(axis=1) does.
# Behaviour: argmax and argmin first copy the whole array, because it is read-only: as much memory as the file is long. Opened with
#            mmap_mode="c", whose pages may be written to, the same call copies nothing. max, sum and products copy neither.
# Output:    file: 80 MB
#            mmap_mode="r": argmax takes 80 MB, max takes 0 MB
#            mmap_mode="c": argmax takes 0 MB, max takes 0 MB
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check numpy==2.4.6 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - "$work/pred_probs.npy" <<'PY'
import sys
import tracemalloc

import numpy as np

file = sys.argv[1]
np.save(file, np.full((20_000, 1_000), 1e-3, np.float32))


def megabytes(call) -> int:
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return round(peak / 1e6)


print("file: 80 MB")
for mode, expected in (("r", 80), ("c", 0)):
    pred_probs = np.load(file, mmap_mode=mode)
    of_argmax, of_max = megabytes(lambda: pred_probs.argmax(axis=1)), megabytes(lambda: pred_probs.max(axis=1))
    print(f'mmap_mode="{mode}": argmax takes {of_argmax} MB, max takes {of_max} MB')
    assert (of_argmax, of_max) == (expected, 0), "the behaviour has changed"
PY
