"""HEIC, which Pillow reads where the package pillow-heif is installed."""

from __future__ import annotations

from functools import cache

_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"])


def is_heif(data: bytes) -> bool:
    """Return whether a file begins as HEIC does; AVIF, which Pillow reads itself, has other brands."""
    return data[4:8] == b"ftyp" and data[8:12] in _BRANDS and b"avif" not in data[8:64]


@cache
def register() -> bool:
    """Teach Pillow to read HEIC; return whether it does now."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True
