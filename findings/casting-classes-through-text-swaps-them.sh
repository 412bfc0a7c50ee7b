#!/usr/bin/env bash
# Bringing the classes of a ClassLabel column into another order, by way of text.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1 (Python 3.11)
# Guess:     Cast to Value("string"), the column holds the names of the classes; cast from there to a ClassLabel with the same names
#            in another order, each image keeps its class under its new number.
# Behaviour: The text is the number of the class ("0"), not its name. The second cast takes text that is no name for a number, so "0" becomes
#            whichever class is listed first now: every cat is a dog and every dog a cat, without a warning. With names in the old
#            order nothing moves, so it seems to work. `align_labels_with_mapping` is what goes by the names.
# Output:    before: ['cat', 'cat', 'dog']
#            as text: ['0', '0', '1']
#            through text: ['dog', 'dog', 'cat']
#            align_labels_with_mapping: ['cat', 'cat', 'dog']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
HF_HOME="$work/hf" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import datasets
from datasets import ClassLabel, Dataset, Features, Value

datasets.disable_progress_bars()


def names(dataset):
    return [dataset.features["label"].int2str(number) for number in dataset["label"]]


given = Dataset.from_dict({"label": [0, 0, 1]}, features=Features({"label": ClassLabel(names=["cat", "dog"])}))
text = given.cast_column("label", Value("string"))
through_text = text.cast_column("label", ClassLabel(names=["dog", "cat"]))
aligned = given.align_labels_with_mapping({"dog": 0, "cat": 1}, "label")
print(f"before: {names(given)}")
print(f"as text: {text['label'][:]}")
print(f"through text: {names(through_text)}")
print(f"align_labels_with_mapping: {names(aligned)}")
assert text["label"][:] == ["0", "0", "1"], "the behaviour has changed"
assert names(through_text) == ["dog", "dog", "cat"], "the behaviour has changed"
assert names(aligned) == names(given), "the behaviour has changed"
PY
