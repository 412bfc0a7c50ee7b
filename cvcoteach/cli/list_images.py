"""`cvcoteach list`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import plain, say
from cvcoteach.cli.grouped import Grouped


@click.command("list", cls=Grouped, first=("output", "path_column", "label_column", "quiet"))
@click.argument("source", type=options.SOURCE)
@click.option("-o", "--output", type=options.PATH, metavar="FILE", help="CSV to write.  [default: standard output]")
@options.path_column
@options.label_column
@options.path_pattern
@options.split
@options.split_column
@options.group_column
@options.annotator_column
@options.annotator_columns
@options.source_format
@options.max_megapixels
@options.max_unpacked
@options.cache_dir
@options.quiet
def list_images(
    source: Path,
    output: Path | None,
    max_megapixels: float | None,
    quiet: bool,
    **choices: Any,
) -> None:
    """List the images of SOURCE with their labels, as a CSV, in the order in which find-issues reads them.

    Row i of a .npy that find-issues takes with --features belongs to row i of this list. Images that cannot be read are
    left out, here and there. The columns: path, as in issues.csv; label; file, where the image lies if it is a file of
    its own.
    """
    from cvcoteach._csv import check_output, csv_text, write_csv
    from cvcoteach.data.sources import Choices
    from cvcoteach.pipeline.listing import list_images as carry_out
    from cvcoteach.pipeline.run_summary import counted

    if output is not None:
        check_output(output, source, lambda header: header == ["path", "label", "file"], "list")
    with options.shown(quiet) as display:
        listing = carry_out(source, Choices(**choices), max_pixels=options.pixels(max_megapixels), watcher=display)
        for path, reason in listing.unreadable.items():
            display.note(f"left out: {path}: {reason}.")
    if output is None:
        click.echo(plain(csv_text(listing.table)), nl=False)
        return
    write_csv(output, listing.table)
    say(f"{counted(len(listing.table), 'image')} listed in {output}")
