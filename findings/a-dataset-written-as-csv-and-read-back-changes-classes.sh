#!/usr/bin/env bash
# Writing a dataset with a ClassLabel column as CSV or JSON lines, and reading it back with the same features.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1, pandas 3.0.0 (Python 3.11)
# Guess:     Both files hold the numbers of the classes, so both come back as they were: `to_csv` or `to_json`, then `load_dataset` with
#            `features=` of the dataset that was written.
# Behaviour: From JSON lines they do. From CSV the cells are taken for text, and text for the name of a class before it is taken for a
#            number. Eleven classes named 0 to 10 are in the order of text (0, 1, 10, 2, …), so class 10, written as number 2, comes back
#            as class 2, class 2, written as 3, as class 3, and so on: nine of eleven classes change, without a warning. Where the
#            features are cast after reading, the same CSV is right.
# Output:    names: ['0', '1', '10', '2', '3', '4', '5', '6', '7', '8', '9']
#            JSON lines: ['0', '1', '10', '2', '3', '4', '5', '6', '7', '8', '9']
#            CSV: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', '10']
#            CSV, cast after reading: ['0', '1', '10', '2', '3', '4', '5', '6', '7', '8', '9']
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 pandas==3.0.0 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
HF_HOME="$work/hf" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import datasets
from datasets import ClassLabel, Dataset, Features, load_dataset

datasets.disable_progress_bars()
names = sorted(str(number) for number in range(11))  # as the loader of image folders sorts them
features = Features({"label": ClassLabel(names=names)})
given = Dataset.from_dict({"label": list(range(11))}, features=features)
given.to_json("labels.jsonl")
given.to_csv("labels.csv")


def classes(dataset):
    return [dataset.features["label"].int2str(number) for number in dataset["label"]]


from_json = classes(load_dataset("json", data_files="labels.jsonl", features=features, split="train"))
from_csv = classes(load_dataset("csv", data_files="labels.csv", features=features, split="train"))
cast = classes(load_dataset("csv", data_files="labels.csv", split="train").cast(features))
print(f"names: {names}")
print(f"JSON lines: {from_json}")
print(f"CSV: {from_csv}")
print(f"CSV, cast after reading: {cast}")
assert classes(given) == from_json == cast == names, "the behaviour has changed"
assert from_csv == [str(number) for number in range(11)], "the behaviour has changed"
assert sum(a != b for a, b in zip(from_csv, names, strict=True)) == 9, "the behaviour has changed"
PY
