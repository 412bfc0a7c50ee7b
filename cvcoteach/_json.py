"""JSON that others wrote: whatever is wrong with it is a ValueError."""

from __future__ import annotations

import json
import re
from typing import Any

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Half of a letter, as two of which JSON writes a rare one; alone it is no text, and cannot be written."""


def parsed(text: str | bytes) -> Any:
    """Return what JSON says. Raises ValueError for anything else, also for lists within lists without end."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def parsed_text(text: str | bytes) -> Any:
    """Return what JSON says, all its texts Unicode. Raises ValueError for anything else."""
    if isinstance(text, bytes):
        text = text.decode("utf-8-sig")  # whose error is a ValueError
    content = parsed(text)
    if _HALF.search(text):
        try:
            json.dumps(content, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("it holds half of a letter, such as \\ud800, which is no text") from None
    return content
