"""float16 as float32: the same values as numpy's conversion, of whatever kind."""

from __future__ import annotations

import numpy as np

from cvcoteach.data.halves import singles

EVERY = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
FINITE = EVERY[np.isfinite(EVERY)]


def test_every_finite_float16_keeps_its_value_and_sign() -> None:
    found = singles(FINITE)
    assert found.dtype == np.float32
    assert (found == FINITE.astype(np.float32)).all()
    assert (np.signbit(found) == np.signbit(FINITE)).all()


def test_the_order_of_bytes_and_other_types_do_not_matter() -> None:
    for rows in (FINITE.astype(">f2"), FINITE[::-2], FINITE.astype(np.float64), np.arange(5)):
        assert (singles(rows) == rows.astype(np.float32)).all()
    kept = np.ones(3, np.float32)
    assert singles(kept) is kept
