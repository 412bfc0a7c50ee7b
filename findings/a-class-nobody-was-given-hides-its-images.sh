#!/usr/bin/env bash
# Label issues where the model knows a class that no label has, such as a zero-shot model's.
#
# Versions:  cleanlab 2.9.0, numpy 2.4.6 (Python 3.11)
# Guess:     Forty of 300 images belong to a class that nobody was given; the model gives it 96 % there. They are the plainest of issues,
#            and cleanlab flags them all; whether one of the 40 has the right label changes nothing but that one.
# Behaviour: Without a label of that class six of the seven filters flag none of the 40, since a class without labels has no threshold of
#            confidence and no share in the confident joint; only predicted_neq_given flags them. As soon as one image has that label,
#            the same filters flag the other 39.
# Output:    labels of the class: 0, flagged of the others: prune_by_noise_rate 0, prune_by_class 0, both 0, confident_learning 0,
#                low_self_confidence 0, low_normalized_margin 0, predicted_neq_given 40
#            labels of the class: 1, flagged of the others: prune_by_noise_rate 39, prune_by_class 39, both 39, confident_learning 39,
#                low_self_confidence 39, low_normalized_margin 39, predicted_neq_given 39
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check cleanlab==2.9.0 numpy==2.4.6 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
from cleanlab.filter import find_label_issues

FILTERS = (
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "low_self_confidence",
    "low_normalized_margin",
    "predicted_neq_given",
)
true = np.repeat([0, 1, 2], [130, 130, 40])
probs = np.full((300, 3), 0.02)
probs[np.arange(300), true] = 0.96
for n_given in (0, 1):
    labels = true.copy()
    labels[260 + n_given :] = np.random.default_rng(0).integers(0, 2, 40 - n_given)
    found = {name: int(find_label_issues(labels, probs, filter_by=name)[labels != true].sum()) for name in FILTERS}
    print(f"labels of the class: {n_given}, flagged of the others:", ", ".join(f"{k} {v}" for k, v in found.items()))
    expected = {name: 39 if n_given else 0 for name in FILTERS} | {"predicted_neq_given": 40 - n_given}
    assert found == expected, "the behaviour has changed"
PY
