"""What a classifier is retrained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cvcoteach._validation import InputError
from cvcoteach.data.sources import Source
from cvcoteach.pipeline.retraining_set import numbers_of


def test_labels_are_numbered_as_the_model_numbers_its_classes() -> None:
    here = Path("shapes")
    source = Source(here, here, ("0", "1", "2"), np.array([0, 1, 0]), ("cat", "dog"))
    assert numbers_of(source, ("ant", "dog", "cat"), "shapes").tolist() == [2, 1, 2]
    with pytest.raises(InputError, match="shapes has the class 'dog', which the model lacks; "):
        numbers_of(source, ("ant", "cat"), "shapes")
