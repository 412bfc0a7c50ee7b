#!/usr/bin/env bash
# From a row per image and annotator to a column per annotator, then to consensus labels.
#
# Versions:  cleanlab 2.9.0, numpy 2.4.6, pandas 3.0.0 (Python 3.11)
# Guess:     cleanlab.multiannotator.convert_long_to_wide_dataset keeps the images in the order in which the table names them first. With
#            pred_probs in that order, get_label_quality_multiannotator finds the consensus.
# Behaviour: The rows are sorted by the text of the image's name: img0, img1, img10, img100, img101, …. pred_probs are taken by position,
#            so nearly every image is judged by the probabilities of another. The result carries the names of the images and looks
#            plausible, and nothing warns; but none of the careful annotator's 15 wrong labels is among their 15 worst, and the
#            consensus is worse than the probabilities. With whole numbers for names, in ascending order, nothing moves.
# Output:    rows: img0, img1, img10, img100, img101, ...; 198 of 200 have moved
#            probabilities in the order of the images: consensus right 86%, wrong labels among the 15 worst: 0
#            probabilities by the index of the table: consensus right 100%, wrong labels among the 15 worst: 15
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check cleanlab==2.9.0 numpy==2.4.6 pandas==3.0.0 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - <<'PY'
import numpy as np
import pandas as pd
from cleanlab.multiannotator import convert_long_to_wide_dataset, get_label_quality_multiannotator

n = 200
rng = np.random.default_rng(0)
true = rng.integers(0, 3, n)
pred_probs = np.full((n, 3), 0.05)
pred_probs[np.arange(n), true] = 0.9
long = pd.DataFrame(
    [
        {"task": f"img{i}", "annotator": annotator, "label": true[i] if rng.random() > noise else rng.integers(0, 3)}
        for i in range(n)
        for annotator, noise in (("careful", 0.1), ("hasty", 0.4), ("guesses", 0.8))
    ]
)
wide = convert_long_to_wide_dataset(long)
position = wide.index.str.slice(3).astype(int)
moved = (position != np.arange(n)).sum()
assert moved == 198, "the behaviour has changed"
print(f"rows: {', '.join(wide.index[:5])}, ...; {moved} of {n} have moved")
wrong = (wide["careful"] != true[position]).to_numpy()
for what, order, expected in (
    ("in the order of the images", np.arange(n), (0.86, 0)),
    ("by the index of the table", position, (1, 15)),
):
    result = get_label_quality_multiannotator(wide, pred_probs[order], verbose=False)
    consensus = (result["label_quality"]["consensus_label"] == true[position]).mean()
    worst = result["detailed_label_quality"]["quality_annotator_careful"].to_numpy().argsort(kind="stable")[: wrong.sum()]
    print(f"probabilities {what}: consensus right {consensus:.0%}, wrong labels among the {len(worst)} worst: {wrong[worst].sum()}")
    assert (round(consensus, 2), wrong[worst].sum()) == expected, "the behaviour has changed"
PY
