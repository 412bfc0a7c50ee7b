"""A table for notebooks: plain HTML in which names are text."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

_STYLE = "text-align:left;vertical-align:middle;padding:2px 10px 2px 0"


def table_html(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    pictures: Sequence[bytes | None] | None = None,
) -> str:
    """Return a title and a table.

    Args:
        title: One line above the table.
        head: Names of the columns.
        rows: Text of the cells.
        pictures: JPEG or PNG bytes of a picture for each row, in a column of its own before the others.
    """
    columns = ["", *head] if pictures is not None else list(head)
    lines = ["".join(f'<th style="{_STYLE}">{html.escape(name)}</th>' for name in columns)]
    for number, row in enumerate(rows):
        cells = [f'<td style="{_STYLE}">{html.escape(value)}</td>' for value in row]
        if pictures is not None:
            cells.insert(0, f'<td style="{_STYLE}">{_image(pictures[number])}</td>')
        lines.append("".join(cells))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<div><p>{html.escape(title)}</p><table>{body}</table></div>"


def _image(picture: bytes | None) -> str:
    if picture is None:
        return ""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f'<img alt="" width="64" height="64" src="data:image/{kind};base64,{base64.b64encode(picture).decode()}">'
