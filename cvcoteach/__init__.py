"""Find the wrong labels in an image dataset, by Iterative Noisy Cross-Validation."""

from __future__ import annotations

__version__ = "0.1.0"
