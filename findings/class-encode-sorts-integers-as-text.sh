#!/usr/bin/env bash
# Encoding a column of whole-number labels as ClassLabel.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1 (Python 3.11)
# Guess:     Dataset.class_encode_column("label") on integer labels 0..10 leaves the integers as they are; at worst it numbers them in
#            ascending order, which is the same.
# Behaviour: The values are turned into text first and sorted as text: the names are '0', '1', '10', '2', …, so that label 2 becomes 3, 9
#            becomes 10, and 10 becomes 2. Only 0 and 1 keep their number. Probabilities of a model that was trained on the integers then
#            belong to other columns than the encoded labels say. Up to ten classes (0..9) nothing moves, so small tests do not show it.
# Output:    ten classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
#            eleven classes: [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2]
#            names: ['0', '1', '10', '2', '3', '4', '5', '6', '7', '8', '9']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
HF_HOME="$work/hf" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import datasets

datasets.disable_progress_bars()
for name, k, expected in (
    ("ten", 10, list(range(10))),
    ("eleven", 11, [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2]),
):
    encoded = datasets.Dataset.from_dict({"label": list(range(k))}).class_encode_column("label")
    print(f"{name} classes: {encoded['label'][:]}")
    assert encoded["label"][:] == expected, "the behaviour has changed"
print(f"names: {encoded.features['label'].names}")
PY
