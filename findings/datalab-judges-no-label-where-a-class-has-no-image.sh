#!/usr/bin/env bash
# The label check of cleanlab's Datalab where the model knows a class that no image has, such as after a class was cleaned away.
#
# Versions:  cleanlab 2.9.0, datasets 5.2.0, numpy 2.4.6 (Python 3.11)
# Guess:     Datalab asks find_label_issues, which takes labels that lack a class, so both flag the same ten wrong labels of 200; if it
#            cannot, it raises. How the labels are stored, as a dict or as a Dataset with a ClassLabel, makes no difference.
# Behaviour: find_label_issues flags the ten. Datalab over a dict raises nothing: it prints one line about the length of an index, goes
#            on with its other checks, and has no column of label issues afterwards. Over a Dataset whose ClassLabel names all three
#            classes it flags the ten.
# Output:    find_label_issues: 10
#            Datalab, dict of numbers: no label issues in get_issues(), which has is_near_duplicate_issue; said: Error in label: Length of
#                values (2) does not match length of index (3)
#            Datalab, Dataset with ClassLabel: 10
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check "cleanlab[datalab]==2.9.0" datasets==5.2.0 numpy==2.4.6 \
    2>"$work/pip.log" || { cat "$work/pip.log" >&2; exit 2; }
HF_HOME="$work/hf" "$work/venv/bin/python" -W ignore - <<'PY'
import contextlib
import io

import numpy as np
from cleanlab import Datalab
from cleanlab.filter import find_label_issues
from datasets import ClassLabel, Dataset, Features

rng = np.random.default_rng(0)
true = np.repeat([0, 1], 100)  # of cat, dog and fox nothing is a fox
probs = np.full((200, 3), 0.04) + rng.uniform(0, 0.01, (200, 3))
probs[np.arange(200), true] = 0.9
probs /= probs.sum(axis=1, keepdims=True)
labels = true.copy()
labels[::20] = 1 - labels[::20]
features = rng.normal(size=(200, 8))

found = int(find_label_issues(labels, probs).sum())
print("find_label_issues:", found)
assert found == 10, "the behaviour has changed"

kinds = {
    "dict of numbers": {"label": labels},
    "Dataset with ClassLabel": Dataset.from_dict(
        {"label": labels.tolist()}, features=Features({"label": ClassLabel(names=["cat", "dog", "fox"])})
    ),
}
for kind, data in kinds.items():
    said = io.StringIO()
    lab = Datalab(data, label_name="label")
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        lab.find_issues(pred_probs=probs, features=features, issue_types={"label": {}, "near_duplicate": {}})
    columns = lab.get_issues().columns
    if "is_label_issue" in columns:
        print(f"Datalab, {kind}:", int(lab.get_issues("label")["is_label_issue"].sum()))
    else:
        (line,) = (line for line in said.getvalue().splitlines() if line.startswith("Error in label"))
        beside = ", ".join(name for name in columns if name.startswith("is_"))
        print(f"Datalab, {kind}: no label issues in get_issues(), which has {beside}; said: {line}")
    judged = "is_label_issue" in columns
    assert judged == (kind != "dict of numbers"), "the behaviour has changed"
    assert not judged or int(lab.get_issues("label")["is_label_issue"].sum()) == 10, "the behaviour has changed"
PY
