"""`cvcoteach predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import say
from cvcoteach.cli.grouped import Grouped
from cvcoteach.pipeline.settings import Machine


@click.command(cls=Grouped, first=("output", "path_column", "label_column", "quiet"))
@click.argument("model", type=options.PATH)
@click.argument("source", type=options.SOURCE)
@click.option(
    "-o", "--output", type=options.PATH, help="CSV to write.  [default: NAME-predictions.csv, NAME being SOURCE's]"
)
@options.path_column
@options.label_column
@options.path_pattern
@options.split
@options.source_format
@click.option("--ignore-labels", is_flag=True, help="Treat SOURCE as images without labels.")
@options.machine(precision=False)
@options.quiet
def predict(
    model: Path,
    source: Path | str,
    output: Path | None,
    machine: Machine,
    quiet: bool,
    **choices: Any,
) -> None:
    """Predict the classes of the images of SOURCE with the classifier in the folder MODEL, and write a CSV.

    SOURCE is anything that find-issues takes, a folder of images without labels, or one image.
    """
    from cvcoteach.pipeline.predict import predict as carry_out
    from cvcoteach.pipeline.run_summary import counted

    with options.shown(quiet) as display:
        result = carry_out(model, source, output, machine, watcher=display, **choices)
    if result.accuracy is not None:
        say(f"{result.accuracy:.1%} of the predictions are the given label.")
    if result.unreadable:
        empty = "its row is empty" if result.unreadable == 1 else "their rows are empty"
        say(f"{counted(result.unreadable, 'image')} cannot be read; {empty}.")
    say(f"Predictions: {result.file} ({counted(len(result.table), 'image')})")
