"""Features brought to mean 0 and deviation 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from cvcoteach._validation import FloatArray


@dataclass(frozen=True, eq=False)
class Standardisation:
    """The statistics of some features, by which these and others like them are standardised."""

    center: FloatArray
    """(d,) mean of each feature."""
    scale: FloatArray
    """(d,) standard deviation of each feature, above 0; 1 for a constant one."""

    @classmethod
    def of(cls, features: npt.NDArray[np.floating[Any]]) -> Self:
        """Measure features (n, d)."""
        center = features.mean(axis=0, dtype=np.float64)
        scale = features.std(axis=0, dtype=np.float64)
        return cls(center, np.where(scale > 0, scale, 1.0))

    def applied(self, features: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float32]:
        """Return the features (n, d) less `center` and divided by `scale`."""
        return np.ascontiguousarray(((features - self.center) / self.scale).astype(np.float32))
