"""`cvcoteach check`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import say


@click.command()
@click.argument("run", type=options.PATH)
@click.option(
    "--max-noise",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Largest share of wrong labels, such as 0.03.",
)
@click.option("--max-issues", type=click.IntRange(0), metavar="N", help="Most flagged labels that nobody has reviewed.")
@click.option(
    "--min-precision", type=click.FloatRange(0, 1, min_open=True), metavar="SHARE", help="Least precision of the flags."
)
@click.option("--corrections", type=options.PATH, metavar="FILE", help="Reviews to reckon with, as for apply.")
@click.option("--summary", type=options.PATH, metavar="FILE", help="Append a summary in Markdown, for a pull request.")
@options.max_unpacked
@options.as_json
def check(
    run: Path,
    max_noise: float | None,
    max_issues: int | None,
    min_precision: float | None,
    corrections: Path | None,
    summary: Path | None,
    as_json: bool,
) -> None:
    """Hold RUN against limits, as a gate in continuous integration.

    Exit codes: 0 all limits hold, 3 one is broken, 4 undecided: the 90 % interval contains a limit, and the answer says
    how many reviews would decide.
    """
    from cvcoteach._validation import InputError
    from cvcoteach.pipeline.check import EXIT_CODES, Limits
    from cvcoteach.pipeline.check import check as hold

    result = hold(run, Limits(max_noise, max_issues, min_precision), corrections=corrections)
    if summary is not None:
        try:
            with open(summary, "a", encoding="utf-8") as file:
                file.write(result.as_markdown())
        except OSError as error:
            raise InputError(f"{summary} could not be written: {error.strerror}.") from error
    say(json.dumps(result.as_record()) if as_json else result.as_text())
    click.get_current_context().exit(EXIT_CODES[result.outcome])
