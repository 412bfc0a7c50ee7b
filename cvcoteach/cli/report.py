"""`cvcoteach report`."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import plain, say

if TYPE_CHECKING:
    from cvcoteach.pipeline.page.report import Format


@click.command()
@click.argument("run", type=options.PATH)
@click.option("--html", type=options.PATH, metavar="FILE", help="Page to write.  [default: RUN/issues.html]")
@click.option("--open", "open_", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["html", "markdown", "json"]),
    default="html",
    show_default=True,
    help="html writes a page; markdown and json go to standard output.",
)
@click.option(
    "--corrections", type=options.PATH, metavar="FILE", help="Reviews to show and to reckon with, as for apply."
)
@click.option(
    "--blind",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    default=0.0,
    help="Share of the images that are drawn at random and shown without the suggestion; precision and recall are "
    "measured from them.",
)
@click.option(
    "--pictures", type=click.IntRange(0), default=400, show_default=True, help="Pictures in the page, at most."
)
@options.max_unpacked
@options.quiet
def report(
    run: Path,
    html: Path | None,
    open_: bool,
    format_: Format,
    corrections: Path | None,
    blind: float,
    pictures: int,
    quiet: bool,
) -> None:
    """Show what was found in RUN: one page with the doubtful images, to look at, to review in the browser, to send.

    Decisions made in the page are saved as a CSV that apply, retrain and report take with --corrections.
    """
    from cvcoteach._files import replacing
    from cvcoteach._validation import InputError
    from cvcoteach.pipeline.page.report import PAGE, ReportSettings, is_page
    from cvcoteach.pipeline.page.report import report as make

    if format_ != "html" and (html is not None or open_):
        raise click.UsageError("--html and --open go with --format html.")
    file = html or run / PAGE
    if html is not None and html.is_file() and not is_page(html):
        raise InputError(f"{html} exists and is not a web page; name another file.")
    with options.shown(quiet) as display:
        text = make(run, ReportSettings(format_, pictures, blind, corrections), display)
    if format_ != "html":
        click.echo(plain(text), nl=False)
        return
    if file.is_dir() or not file.parent.is_dir():
        raise InputError(f"{file} cannot be written; --html takes a file in a folder that exists.")
    with replacing(file) as out:
        out.write(text.encode("utf-8", "replace"))
    say(f"Report: {file}")
    if open_:
        webbrowser.open(file.absolute().as_uri())
