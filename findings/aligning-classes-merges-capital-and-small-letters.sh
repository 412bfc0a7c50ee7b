#!/usr/bin/env bash
# Handwritten letters, capital and small ones as classes of their own. A model numbers the same names in another order: the dataset
# is brought into the model's order.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1 (Python 3.11)
# Guess:     Dataset.align_labels_with_mapping changes the numbers, and each image keeps its class name.
# Behaviour: Names are compared without their case. All images of "a" and "A" get the number of whichever comes last in the mapping,
#            and so do "b" and "B", without a word; both names stay in the features, one of them with no image. With {"A": 0, "B": 1,
#            "a": 2, "b": 3} half of the labels are wrong, with the small letters first the other half.
# Output:    before: {'A': 2, 'B': 3, 'a': 4, 'b': 5}
#            capitals first: {'a': 6, 'b': 8}, classes ['A', 'B', 'a', 'b']
#            small letters first: {'A': 6, 'B': 8}, classes ['a', 'b', 'A', 'B']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
HF_HOME="$work/hf" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1 "$work/venv/bin/python" - <<'PY'
from collections import Counter

from datasets import ClassLabel, Dataset, Features

names, counts = ["b", "a", "B", "A"], {"A": 2, "B": 3, "a": 4, "b": 5}
letters = Dataset.from_dict(
    {"label": [names.index(name) for name, count in counts.items() for _ in range(count)]},
    features=Features({"label": ClassLabel(names=names)}),
)


def by_name(dataset: Dataset) -> dict[str, int]:
    name_of = dataset.features["label"].int2str
    return dict(sorted(Counter(map(name_of, dataset["label"])).items()))


print("before:", by_name(letters))
for what, order, merged in (
    ("capitals first", ["A", "B", "a", "b"], {"a": 6, "b": 8}),
    ("small letters first", ["a", "b", "A", "B"], {"A": 6, "B": 8}),
):
    mapping = {name: number for number, name in enumerate(order)}
    aligned = letters.align_labels_with_mapping(mapping, "label")
    print(f"{what}: {by_name(aligned)}, classes {aligned.features['label'].names}")
    assert by_name(aligned) == merged and aligned.features["label"].names == order, "the behaviour has changed"
PY
