"""Labels that several annotators gave the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.sparse import csr_array

from cvcoteach._validation import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Annotations:
    """One label per image and annotator, as far as there is one; r in all, of n images."""

    annotators: tuple[str, ...]
    """(A,) names."""
    n_images: int
    """n."""
    image: IntArray
    """(r,) 0..n-1."""
    annotator: IntArray
    """(r,) 0..A-1."""
    label: IntArray
    """(r,) 0..K-1."""

    @staticmethod
    def of_parts(parts: Sequence[Annotations]) -> Annotations:
        """Return the annotations of all images of several parts, in order; an annotator is known by name."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.annotators))
        number = {name: k for k, name in enumerate(names)}
        before = np.cumsum([0, *[part.n_images for part in parts]])
        own = [np.array([number[name] for name in part.annotators], np.int64) for part in parts]
        return Annotations(
            names,
            int(before[-1]),
            np.concatenate([part.image + start for part, start in zip(parts, before, strict=False)]),
            np.concatenate([numbers[part.annotator] for part, numbers in zip(parts, own, strict=True)]),
            np.concatenate([part.label for part in parts]),
        )

    def described(self) -> str:
        """Return how many labels there are, and by how many annotators: "60 labels by 3 annotators"."""
        labels, who = len(self.label), len(self.annotators)
        return f"{labels:,} label{'' if labels == 1 else 's'} by {who:,} annotator{'' if who == 1 else 's'}"

    def weighed(self, n_classes: int, weights: FloatArray) -> csr_array:
        """Return for each image the sum of the weights (A,) of the annotators that gave each class, (n, K)."""
        shape = (self.n_images, n_classes)
        return csr_array((weights[self.annotator], (self.image, self.label)), shape=shape)

    def majority(self, n_classes: int) -> IntArray:
        """Return the class (n,) that most annotators gave; of several the one that was given first."""
        cells, first, votes = np.unique(self.image * n_classes + self.label, return_index=True, return_counts=True)
        order = np.lexsort((first, -votes, cells // n_classes))
        image = cells[order] // n_classes
        best = order[np.flatnonzero(np.diff(image, prepend=-1))]
        result = np.zeros(self.n_images, np.int64)
        result[cells[best] // n_classes] = cells[best] % n_classes
        return result

    def per_image(self) -> IntArray:
        """Return how many annotators labelled each image, (n,)."""
        return np.bincount(self.image, minlength=self.n_images)

    def agreement(self, labels: IntArray) -> FloatArray:
        """Return the share (n,) of the annotators of each image that gave the label, in [0, 1]."""
        same = np.bincount(self.image, self.label == labels[self.image], minlength=self.n_images)
        return same / np.maximum(self.per_image(), 1)

    def relabelled(self, numbers: IntArray) -> Annotations:
        """Return the same with other numbers (K,) for the classes."""
        return replace(self, label=numbers[self.label])

    def subset(self, rows: IntArray) -> Annotations:
        """Return the annotations of some images, (m,) indices, each once."""
        place = np.full(self.n_images, -1)
        place[rows] = np.arange(len(rows))
        kept = place[self.image] >= 0
        return Annotations(self.annotators, len(rows), place[self.image[kept]], self.annotator[kept], self.label[kept])
