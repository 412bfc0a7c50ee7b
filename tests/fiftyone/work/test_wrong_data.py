"""Data handed over wrongly through FiftyOne ends in a note or a sentence, as through the other doors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fiftyone as fo
import numpy as np
import pytest
from PIL import Image

from cvcoteach._validation import InputError
from cvcoteach.fiftyone.store import runs
from cvcoteach.fiftyone.store.runs import FindLabelIssuesResults
from cvcoteach.fiftyone.work.find import find_label_issues
from cvcoteach.pipeline.settings import Settings

pytestmark = pytest.mark.slow

ONE_EPOCH = Settings(n_rounds=1, epochs=1)


def set_vectors(noisy: Any, vectors: Any) -> None:
    """Give each sample a vector in the field `embedding`."""
    noisy.dataset.add_sample_field("embedding", fo.VectorField)
    noisy.dataset.set_values("embedding", list(vectors))


def good_vectors(noisy: Any) -> np.ndarray:
    """Return vectors that tell the classes apart."""
    return np.eye(3)[noisy.true] * 8 + np.random.default_rng(0).normal(size=(len(noisy.true), 3))


def from_vectors(noisy: Any) -> FindLabelIssuesResults:
    """Find label issues by heads on the field `embedding`."""
    return find_label_issues(
        noisy.dataset, "ground_truth", settings=Settings(n_rounds=2, epochs=4), embeddings_field="embedding"
    )


def relabel(noisy: Any, labels: list[Any]) -> None:
    """Replace the labels' names."""
    noisy.dataset.set_values("ground_truth.label", labels)


def test_vectors_of_noise_flag_nothing_and_give_no_noise_rate(noisy: Any) -> None:
    set_vectors(noisy, np.random.default_rng(0).normal(size=(60, 8)))
    results = from_vectors(noisy)
    assert results.issues.n_issues == 0
    assert not results.issues.has_signal
    assert results.info["summary"]["noise_rate"] is None
    assert "carry no signal" in results.issues.note


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda v: [*v[:10], v[10][:2], *v[11:]], r"the vectors of 'embedding' differ in length \(2 to 3\)"),
        (lambda v: [*v[:10], np.full(3, np.nan), *v[11:]], "some vectors of 'embedding' hold NaN or infinity"),
    ],
)
def test_vectors_that_do_not_fit_are_refused(noisy: Any, spoil: Any, sentence: str) -> None:
    set_vectors(noisy, spoil(good_vectors(noisy)))
    with pytest.raises(InputError, match=sentence):
        from_vectors(noisy)
    assert runs.keys(noisy.dataset) == []


def test_missing_labels_are_left_out_and_counted(noisy: Any) -> None:
    set_vectors(noisy, good_vectors(noisy))
    noisy.dataset.set_values(
        "ground_truth", {noisy.ids[0]: None, noisy.ids[1]: fo.Classification(label=" ")}, key_field="id"
    )
    results = from_vectors(noisy)
    assert len(results.ids) == 58
    assert any("2 samples without a label" in note for note in results.info["notes"]), results.info["notes"]


def test_classes_that_differ_by_a_space_are_noted(noisy: Any) -> None:
    set_vectors(noisy, good_vectors(noisy))
    relabel(noisy, [f"{label} " if i < 6 else label for i, label in enumerate(noisy.labels())])
    notes = from_vectors(noisy).info["notes"]
    assert any("'bar '" in note for note in notes), notes


def test_a_class_called_na_is_a_class(noisy: Any) -> None:
    set_vectors(noisy, good_vectors(noisy))
    relabel(noisy, ["NA" if label == "bar" else label for label in noisy.labels()])
    assert from_vectors(noisy).issues.class_names == ("NA", "cross", "ring")


def test_ids_as_labels_are_refused(noisy: Any) -> None:
    set_vectors(noisy, good_vectors(noisy))
    relabel(noisy, [f"image {i}" for i in range(60)])
    with pytest.raises(InputError, match="each of the 60 labels in ground_truth is a different one, as ids are"):
        from_vectors(noisy)


def test_many_rare_classes_take_one_note(noisy: Any) -> None:
    set_vectors(noisy, good_vectors(noisy))
    relabel(noisy, [f"rare {i}" if i < 12 else label for i, label in enumerate(noisy.labels())])
    notes = from_vectors(noisy).info["notes"]
    assert sum("rare" in note for note in notes) == 1, notes


def rewrite(noisy: Any, image_of: Any) -> None:
    """Write other pixels into each sample's file. image_of: takes the pixels (H, W), returns what is saved."""
    for path in noisy.dataset.values("filepath"):
        pixels = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(image_of(pixels)).save(path)


def test_sixteen_bit_images_of_a_low_range_are_stretched_and_noted(noisy: Any) -> None:
    rewrite(noisy, lambda pixels: pixels.astype(np.uint16) * 16)  # 12 bits, as of a camera or a scanner
    notes = find_label_issues(noisy.dataset, "ground_truth", settings=ONE_EPOCH).info["notes"]
    assert any("0 (black) to 4,095 (white)" in note for note in notes), notes


def test_equal_images_are_said_to_teach_nothing(noisy: Any) -> None:
    rewrite(noisy, lambda pixels: np.full_like(pixels, 128))
    results = find_label_issues(noisy.dataset, "ground_truth", settings=ONE_EPOCH)
    assert any("nothing can be learned from them" in note for note in results.info["notes"])
    assert results.issues.n_issues == 0


def test_an_exploding_learning_rate_is_named(noisy: Any) -> None:
    settings = Settings(n_rounds=1, epochs=2, learning_rate=1e9)
    with pytest.raises(InputError, match=r"learning.rate"):
        find_label_issues(noisy.dataset, "ground_truth", settings=settings)


def test_unreadable_files_are_left_out_and_counted(noisy: Any) -> None:
    Path(noisy.dataset.first().filepath).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    results = find_label_issues(noisy.dataset, "ground_truth", settings=ONE_EPOCH)
    assert len(results.ids) == 59
    assert any("1 sample that could not be read was left out" in note for note in results.info["notes"])
