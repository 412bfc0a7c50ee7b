"""WebDataset shards, file by file as they were, but for the labels that changed and the samples left out."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from cvcoteach._files import folder_written_whole, replacing
from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source, webdataset
from cvcoteach.data.sources.tar_files import Entry
from cvcoteach.data.writers.copy import Copy, check_link


def recognises(source: Source) -> bool:
    """Return whether a source is a tar, or a folder of them."""
    return source.array is None and webdataset.recognises(source.location)


def check(copy: Copy, destination: Path) -> None:
    """Raise InputError unless the name of the copy ends as the source's does."""
    location = copy.source.location
    if not location.is_dir() and _packing(destination) != _packing(location):
        raise InputError(f"{destination} is to be a copy of {location.name}; let its name end as that one does.")


def write(copy: Copy, destination: Path, on_image: Callable[[int, int], None]) -> None:
    """Write all shards under their names.

    Raises InputError where a shard has changed since it was read.
    """
    location = copy.source.location
    shards, samples = webdataset.samples_of(location, copy.choices)
    key, labels = webdataset.labels_of(samples, copy.choices.label_column, location)
    if tuple(sample.name for sample in samples) != copy.source.paths:
        raise InputError(f"{location.name} does not hold the samples as they were read; it has changed since.")
    row_of = {(sample.shard, sample.key): row for row, sample in enumerate(samples)}

    def content_of(shard: Path, entry: tarfile.TarInfo, data: bytes) -> bytes | None:
        """Return what a file of a shard holds in the copy; None for one that is left out."""
        stem, extension = webdataset.key_and_extension(entry.name)
        row = row_of.get((shard.name, stem))
        if row is None or (copy.kept[row] and copy.donors[row] == row):
            return data
        if not copy.kept[row]:
            return None
        return _relabelled(data, extension, key, labels[copy.donors[row]])

    if location.is_dir():
        for each in location.iterdir():
            check_link(each, location)
        with folder_written_whole(destination) as partial:
            for other in sorted(location.iterdir()):  # what describes the shards comes along
                if other not in shards and other.is_file():
                    shutil.copy2(other, partial / other.name)
            for shard in shards:
                with open(partial / shard.name, "wb") as part:
                    _copy_shard(shard, part, content_of)
    else:
        with replacing(destination) as file:
            _copy_shard(location, file, content_of)
    n = int(copy.kept.sum())
    on_image(n, n)


def _copy_shard(
    shard: Path, file: IO[bytes], content_of: Callable[[Path, tarfile.TarInfo, bytes], bytes | None]
) -> None:
    mode: Any = f"w|{_packing(shard)}"
    with (
        tarfile.open(shard, "r:*", tarinfo=Entry) as old,
        tarfile.open(fileobj=file, mode=mode, format=tarfile.PAX_FORMAT) as new,
    ):
        while (entry := old.next()) is not None:
            if not entry.isfile() or (opened := old.extractfile(entry)) is None:
                new.addfile(entry)
                continue
            content = content_of(shard, entry, opened.read())
            if content is not None:
                entry.size = len(content)
                entry.pax_headers = {k: v for k, v in entry.pax_headers.items() if k != "size"}
                new.addfile(entry, io.BytesIO(content))


def _packing(file: Path) -> str:
    return "gz" if file.name.lower().endswith((".gz", ".tgz")) else ""


def _relabelled(content: bytes, extension: str, key: str, label: Any) -> bytes:
    """Return what lies beside an image with another label in it; all else stays."""
    if extension == key.lower() and extension != "json":
        return str(label).encode()
    record = json.loads(content) if extension == "json" else None
    if not isinstance(record, dict) or key not in record:
        return content
    return json.dumps({**record, key: label}, ensure_ascii=False).encode()
