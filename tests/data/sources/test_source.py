"""A part of a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cvcoteach.data.sources import read_source
from tests.data.sources.files import pets as pets
from tests.data.sources.files import save, touch


def test_a_subset_keeps_the_numbers_of_the_classes(tmp_path: Path) -> None:
    source = read_source(touch(tmp_path, "a/1.jpg", "b/2.jpg", "c/3.jpg"))
    for which in (np.array([False, False, True]), [2]):
        part = source.subset(which)
        assert part.paths == ("c/3.jpg",)
        assert part.labels.tolist() == [2]
        assert part.class_names == ("a", "b", "c")
        assert part.files == (str(tmp_path / "c/3.jpg"),)


def test_a_subset_of_an_npz_takes_its_images_along(tmp_path: Path) -> None:
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4)
    part = read_source(save(tmp_path, images=images, labels=np.array([0, 1]))).subset([1])
    assert part.paths == ("x.npz#1",)
    assert part.array is not None
    np.testing.assert_array_equal(part.array, images[1:])
