#!/usr/bin/env bash
# Two annotators disagree; who wins the tie?
#
# Versions:  cleanlab 2.9.0, numpy 2.4.6, pandas 3.0.0 (Python 3.11)
# Guess:     Without pred_probs, cleanlab.multiannotator.get_majority_vote_label gives a tie to the class that is more frequent
#            overall. Its documentation says so ("selecting the class with highest frequency").
# Behaviour: The tie goes to the class that is LESS frequent overall. Of 100 images 80 are labeled class 0 by both annotators, 10
#            class 1 by both, and on 10 they disagree: all 10 become class 1, whichever annotator said so. With rare classes, the
#            consensus labels get more of them than either annotator gave in agreement.
# Output:    ties: 0 to the frequent class, 10 to the rare one
#            columns swapped: 0 to the frequent class, 10 to the rare one
#            votes swapped: 0 to the frequent class, 10 to the rare one
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check cleanlab==2.9.0 numpy==2.4.6 pandas==3.0.0 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - <<'PY'
import numpy as np
import pandas as pd
from cleanlab.multiannotator import get_majority_vote_label

agreed, tied = [0] * 80 + [1] * 10, 10
one, other = agreed + [0] * tied, agreed + [1] * tied
for what, votes in (
    ("ties", {"A": one, "B": other}),
    ("columns swapped", {"B": other, "A": one}),
    ("votes swapped", {"A": other, "B": one}),
):
    frequent, rare = np.bincount(get_majority_vote_label(pd.DataFrame(votes))[-tied:], minlength=2)
    print(f"{what}: {frequent} to the frequent class, {rare} to the rare one")
    assert (frequent, rare) == (0, tied), "the behaviour has changed"
PY
