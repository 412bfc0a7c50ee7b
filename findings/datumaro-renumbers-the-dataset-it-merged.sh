#!/usr/bin/env bash
# Merging a dataset into two others that list the same classes in another order.
#
# Versions:  datumaro 1.13.12 (Python 3.11)
# Guess:     HLOps.merge with the policy "union" goes by the names of the classes and returns a new dataset; those that it was given stay
#            as they are, so that one of them can be merged again, with another dataset, or exported.
# Behaviour: The merged labels are right, but the labels of the second dataset are renumbered where they lie, and its list of classes is
#            not. From then on every dog of it is a cat and every cat a dog, in an export too; merged a second time, the result is
#            wrong, a third time right again. Nothing warns. The policy "intersect" and Dataset.update leave their sources alone.
# Output:    given: a cat, b dog
#            after intersect: a cat, b dog
#            after update: a cat, b dog
#            union: a cat, b dog
#            the source after it: a dog, b cat
#            exported and imported: a dog, b cat
#            union again: a dog, b cat
#            union a third time: a cat, b dog
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check datumaro==1.13.12 2>"$work/pip.log" ||
    { cat "$work/pip.log" >&2; exit 2; }
"$work/venv/bin/python" - "$work" <<'PY'
import sys

import numpy as np
from datumaro.components.annotation import AnnotationType, Label
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.hl_ops import HLOps
from datumaro.components.media import Image

RIGHT, SWAPPED = {"a": "cat", "b": "dog"}, {"a": "dog", "b": "cat"}


def dataset(classes, labels):
    media = Image.from_numpy(np.zeros((4, 4, 3), np.uint8))
    items = [
        DatasetItem(id=name, subset="train", media=media, annotations=[Label(classes.index(label))]) for name, label in labels.items()
    ]
    return Dataset.from_iterable(items, categories=classes)


def merged(policy, source):
    return HLOps.merge(dataset(["cat", "dog"], {"other": "cat"}), source, merge_policy=policy)


def check(what, found, expected):
    names = found.categories()[AnnotationType.label]
    labels = {each.id: names[each.annotations[0].label].name for each in found if each.id != "other"}
    print(f"{what}: " + ", ".join(f"{name} {label}" for name, label in sorted(labels.items())))
    assert labels == expected, "the behaviour has changed"


source = dataset(["dog", "cat"], RIGHT)
check("given", source, RIGHT)
merged("intersect", source)
check("after intersect", source, RIGHT)
dataset(["cat", "dog"], {"other": "cat"}).update(source)
check("after update", source, RIGHT)
check("union", merged("union", source), RIGHT)
check("the source after it", source, SWAPPED)
source.export(f"{sys.argv[1]}/exported", "datumaro")
check("exported and imported", Dataset.import_from(f"{sys.argv[1]}/exported", "datumaro"), SWAPPED)
check("union again", merged("union", source), SWAPPED)
check("union a third time", merged("union", source), RIGHT)
PY
