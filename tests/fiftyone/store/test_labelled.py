"""The samples that can be checked, read in bulk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvcoteach.fiftyone.store.labelled import read_labels


def test_samples_without_label_or_file_are_left_out_and_counted(noisy: Any) -> None:
    ids = noisy.ids
    sample = noisy.dataset[ids[0]]
    sample["ground_truth"] = None
    sample.save()
    Path(noisy.dataset[ids[1]].filepath).unlink()
    data = read_labels(noisy.dataset, "ground_truth")
    assert [sample_id.decode() for sample_id in data.ids] == ids[2:]
    assert data.notes == ["1 sample without a label was left out.", "1 sample whose file is missing was left out."]
