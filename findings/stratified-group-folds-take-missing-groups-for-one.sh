#!/usr/bin/env bash
# Patients keep images of one person on one side of a fold; a third of the images name no patient. Where do they go?
#
# Versions:  scikit-learn 1.9.1, numpy 2.4.6 (Python 3.11)
# Guess:     StratifiedGroupKFold refuses groups that hold NaN, as GroupKFold does, or takes each image without a group as one of
#            its own.
# Behaviour: GroupKFold raises ValueError, and StratifiedGroupKFold takes all of them for one group, without a word: 133 of 400 images
#            land in one fold, shuffled or not. That fold is three times as large as the others, and the models that judge those images
#            never saw one of their kind.
# Output:    GroupKFold: Input groups contains NaN.
#            StratifiedGroupKFold, shuffle=False: images without a patient by fold [0, 0, 0, 0, 133], all images [53, 53, 54, 56, 184]
#            StratifiedGroupKFold, shuffle=True: images without a patient by fold [0, 0, 0, 0, 133], all images [59, 59, 60, 60, 162]
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - <<'PY'
import numpy as np
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

rows = np.arange(400)
labels, patient = rows % 4, (rows // 5).astype(float)  # 80 patients with five images each
missing = rows % 3 == 1
patient[missing] = np.nan
try:
    next(GroupKFold(5).split(rows, labels, patient))
except ValueError as error:
    print("GroupKFold:", error)
else:
    raise SystemExit("the behaviour has changed: GroupKFold accepts them")
for shuffle in (False, True):
    folds = StratifiedGroupKFold(5, shuffle=shuffle, random_state=0 if shuffle else None)
    held_out = [test for _, test in folds.split(rows, labels, patient)]
    held_out.sort(key=len)
    of_none = [int(missing[test].sum()) for test in held_out]
    print(f"StratifiedGroupKFold, shuffle={shuffle}: images without a patient by fold {of_none}, all images {list(map(len, held_out))}")
    assert of_none == [0, 0, 0, 0, int(missing.sum())], "the behaviour has changed"
PY
