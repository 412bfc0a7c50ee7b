#!/usr/bin/env bash
# Taking a class out of a dataset by casting its column to a ClassLabel with fewer names.
#
# Versions:  datasets 5.2.0, pyarrow 26.0.1 (Python 3.11)
# Guess:     A label beyond the last name is refused, as it is where a dataset is made with these features ("Class label 2 greater than
#            configured num_classes 2").
# Behaviour: The cast succeeds, from a ClassLabel as from whole numbers, whether asked of the column or of all features: the images of the
#            class that was taken out keep a number that has no name. Nothing says so before somebody asks for the name, and then as of an
#            invalid label; a Parquet file written meanwhile holds the number and the shorter list.
# Output:    made with two names: ValueError
#            cast of a ClassLabel: [0, 1, 2] of ['cat', 'dog']
#            cast of numbers: [0, 1, 2] of ['cat', 'dog']
#            cast of all features: [0, 1, 2] of ['cat', 'dog']
#            read back from Parquet: [0, 1, 2] of ['cat', 'dog']
#            its name: ValueError
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
cd "$work"
HF_HOME="$work/hf" HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import datasets
from datasets import ClassLabel, Dataset, Features, load_dataset

datasets.disable_progress_bars()
three, two = (Features({"label": ClassLabel(names=["cat", "dog", "emu"][:n])}) for n in (3, 2))
labels = {"label": [0, 1, 2]}
named = Dataset.from_dict(labels, features=three)


def told(call):
    try:
        dataset = call()
    except Exception as error:
        return type(error).__name__
    return dataset if isinstance(dataset, str) else f"{list(dataset['label'])} of {dataset.features['label'].names}"


cast = named.cast_column("label", two["label"])
cast.to_parquet("two.parquet")
seen = {
    "made with two names": told(lambda: Dataset.from_dict(labels, features=two)),
    "cast of a ClassLabel": told(lambda: cast),
    "cast of numbers": told(lambda: Dataset.from_dict(labels).cast_column("label", two["label"])),
    "cast of all features": told(lambda: named.cast(two)),
    "read back from Parquet": told(lambda: load_dataset("parquet", data_files="two.parquet", split="train")),
    "its name": told(lambda: cast.features["label"].int2str(cast["label"][2])),
}
for what, found in seen.items():
    print(f"{what}: {found}")
kept = "[0, 1, 2] of ['cat', 'dog']"
assert list(seen.values()) == ["ValueError", kept, kept, kept, kept, "ValueError"], "the behaviour has changed"
PY
