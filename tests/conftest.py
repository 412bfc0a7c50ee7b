"""What all tests share."""

from __future__ import annotations

import os

# One thread a process, before torch is loaded: two busy OpenMP programs on two cores are ten times slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No test depends on a hub of weights.
os.environ.setdefault("CVCOTEACH_OFFLINE", "1")
