"""The command line: the group of all commands, and how errors end."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import click

from cvcoteach._validation import InputError
from cvcoteach._version import __version__
from cvcoteach.cli.apply import apply
from cvcoteach.cli.check import check
from cvcoteach.cli.fiftyone import fiftyone
from cvcoteach.cli.find_issues import find_issues
from cvcoteach.cli.predict import predict
from cvcoteach.cli.report import report
from cvcoteach.cli.retrain import retrain

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """One clear sentence and exit code 1 for what the user can mend; a traceback only for our own faults."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "\nInterrupted. What is finished is kept; the same command resumes from there:\n  "
                + shlex.join(["cvcoteach", *sys.argv[1:]]),
                err=True,
            )
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="cvcoteach")
def main() -> None:
    """Find the wrong labels in an image dataset, by Iterative Noisy Cross-Validation.

    Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted; of check also 3 and 4.
    """
    # Threads that spin while they wait take the processor from those they wait for, once anything else runs.
    # OpenMP reads this when torch is loaded, which the commands do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


for command in (find_issues, report, check, apply, retrain, predict, fiftyone):
    main.add_command(command)
