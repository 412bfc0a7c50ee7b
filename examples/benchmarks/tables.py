"""The measured tables of this folder's README: each is written by its own script, between two marks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

README = Path(__file__).with_name("README.md")


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table; floats with three decimals."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells) + " |"

    return "\n".join([line(header), line("---" for _ in header), *map(line, rows)])


def publish(name: str, text: str) -> None:
    """Print the text and put it between the README's marks `<!-- NAME -->` and `<!-- end -->`.

    Raises ValueError where the README has no such marks.
    """
    print(text)
    marks = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    page = README.read_text()
    if not marks.search(page):
        raise ValueError(f"{README} has no place <!-- {name} --> … <!-- end -->.")
    README.write_text(marks.sub(lambda m: m[1] + text + "\n" + m[2], page))
