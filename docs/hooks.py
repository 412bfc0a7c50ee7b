"""Files of the repository as pages of the documentation, so that nothing is written twice.

The README is the home page; the pages of `PROJECT` lie under project/. Links lead where they lead in the repository;
those to files that are no pages, such as scripts, become their names.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PROJECT = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "fiftyone_plugin/README.md",
    "examples/benchmarks/README.md",
    "examples/paper/README.md",
)
"""Pages, as paths in the repository."""
PICTURES = ("fiftyone_plugin/pictures/*.png", "examples/benchmarks/*.png")
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?!https?://|mailto:|#)([^)\s#]+)(#[^)\s]*)?\)")


def _in_site(path: str) -> str | None:
    """Return the place in the site of a file of the repository; None where it has none."""
    if path == "README.md":
        return "index.md"
    if path in PROJECT or any(Path(path).match(pattern) for pattern in PICTURES):
        return f"project/{path}"
    return path.removeprefix("docs/") if path.startswith("docs/") else None


def _in_repository(place: str) -> str:
    """Return the file of the repository at a place in the site."""
    if place == "index.md":
        return "README.md"
    return place.removeprefix("project/") if place.startswith("project/") else f"docs/{place}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures that lie outside of docs/."""
    pictures = [file.relative_to(ROOT).as_posix() for pattern in PICTURES for file in ROOT.glob(pattern)]
    for path in ("README.md", *PROJECT, *sorted(pictures)):
        place = _in_site(path)
        assert place is not None
        files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links lead to the pages of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(_in_repository(here))

    def led(link: re.Match[str]) -> str:
        image, text, target, anchor = link.groups()
        path = posixpath.normpath(posixpath.join(folder, target))
        place = _in_site(path)
        if place is None:
            return text if (ROOT / path).exists() else link[0]
        there: Any = posixpath.relpath(place, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({there}{anchor or ''})"

    return _LINK.sub(led, markdown)
