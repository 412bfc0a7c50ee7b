"""A small dataset in each format that sources are read from, and what reads it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from cvcoteach.data.images import load_images
from cvcoteach.data.sources import read_source, read_unlabelled
from tests.data.sources import test_cifar as cifar
from tests.data.sources import test_mnist as mnist
from tests.data.sources import test_tfrecord as tfrecord
from tests.data.sources import test_webdataset as webdataset
from tests.data.sources.test_annotation_tools import cvat, datumaro, image, item
from tests.data.sources.test_annotations import coco, saved, task

NAMES = tuple(f"{name}.png" for name in "abcdef")
LABELS = ("cat", "dog") * 3


def read_as(name: str) -> Callable[[Path], Any]:
    """Return what reads a file or folder of that name beside the one that was spoiled, pixels and all."""

    def read(folder: Path) -> None:
        source = read_source(folder / name)
        assert len(source.labels) == len(source.paths)
        load_images(source, 6)
        read_unlabelled(folder / name)

    return read


def made(root: Path) -> Mapping[str, Callable[[Path], Any]]:
    """Make the files below `root`; return what reads each, by its name there, given the folder that it is in."""
    pictures = root / "tools"
    pictures.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("L", (6, 6), 30 * number).save(pictures / name)
    pairs = list(zip(NAMES, LABELS, strict=True))
    (pictures / "cvat.xml").write_text(cvat(*(image(name, label) for name, label in pairs)))
    saved(pictures / "datumaro.json", datumaro(*(item(name[0], i % 2) for i, name in enumerate(NAMES))))
    saved(pictures / "studio.json", [task(name, [label]) for name, label in pairs])
    saved(pictures / "coco.json", coco())
    saved(pictures / "fiftyone.json", {"classes": ["cat", "dog"], "labels": {n[0]: i % 2 for i, n in enumerate(NAMES)}})
    lines = "".join(f'{{"file_name": "{name}", "label": "{label}"}}\n' for name, label in pairs)
    (pictures / "lines.jsonl").write_text(lines)
    table = pd.DataFrame(pairs, columns=["path", "label"])
    table.to_parquet(pictures / "table.parquet")
    one_hot = pd.DataFrame({"path": NAMES, "cat": [1, 0] * 3, "dog": [0, 1] * 3})
    one_hot.to_csv(pictures / "one_hot.csv", index=False)
    (root / "embedded").mkdir()
    encoded = [{"bytes": _png(30 * number), "path": None} for number in range(6)]
    pq.write_table(pa.table({"image": encoded, "label": list(LABELS)}), root / "embedded" / "x.parquet")
    tfrecord.write(root / "records" / "x.tfrecord", image__class__text=("byte", tfrecord.text))
    webdataset.write(root / "shards", n=6, per_shard=9, cls=lambda i: i % 3)
    mnist.write(root / "idx")
    cifar.ten(root / "cifar-10-batches-py")
    of_tools = ("cvat.xml", "datumaro.json", "studio.json", "coco.json", "fiftyone.json", "lines.jsonl")
    of_tables = ("table.parquet", "one_hot.csv")
    return {
        **{f"tools/{name}": read_as(name) for name in (*of_tools, *of_tables)},
        "embedded/x.parquet": read_as("x.parquet"),
        "records/x.tfrecord": read_as("x.tfrecord"),
        "shards/shard-000.tar": read_as("."),
        "idx/train-images-idx3-ubyte": read_as("."),
        "idx/train-labels-idx1-ubyte": read_as("."),
        "cifar-10-batches-py/data_batch_1": read_as("."),
        "cifar-10-batches-py/batches.meta": read_as("."),
    }


def _png(gray: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 6), gray, np.uint8)).save(file, "PNG")
    return file.getvalue()
