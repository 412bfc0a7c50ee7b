"""The command line: the group of all commands, and how errors end."""

from __future__ import annotations

import os
import shlex
import sys
from typing import Any

import click

from cvcoteach._validation import InputError, near
from cvcoteach._version import __version__
from cvcoteach._working_folder import import_elsewhere, unsearched
from cvcoteach.cli.apply import apply
from cvcoteach.cli.check import check
from cvcoteach.cli.display import plain, say
from cvcoteach.cli.fiftyone import fiftyone
from cvcoteach.cli.find_issues import find_issues
from cvcoteach.cli.list_images import list_images
from cvcoteach.cli.predict import predict
from cvcoteach.cli.report import report
from cvcoteach.cli.retrain import retrain

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

_START = """cvcoteach finds the wrong labels in an image dataset. The usual way:

  cvcoteach find-issues photos                 find them: photos/ has a folder per class; or a .csv, .parquet, .npz
  cvcoteach report photos-issues --open        look at them, review them in the browser, save corrections.csv
  cvcoteach apply photos-issues --action relabel --corrections corrections.csv --output fixed
                                               what a corrected copy would change; --write writes it
  cvcoteach retrain photos-issues --corrections corrections.csv
                                               train a classifier that the remaining wrong labels spoil less
  cvcoteach check photos-issues --max-noise 0.03
                                               hold the labels to a limit, for continuous integration

With a pretrained network (better on photographs): cvcoteach find-issues photos --backbone torchvision:resnet50
In FiftyOne: cvcoteach fiftyone install
Everything: cvcoteach --help, cvcoteach COMMAND --help"""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class _Group(click.Group):
    """One clear sentence and exit code 1 for what the user can mend; a traceback only for our own faults."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the commands that a mistyped one looks like."""
        name = args[0].replace("_", "-")
        if self.get_command(ctx, name) is None and not name.startswith("-"):
            ctx.fail(f"There is no command {args[0]!r}; {near(args[0], self.list_commands(ctx))}")
        return super().resolve_command(ctx, [name, *args[1:]])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:  # which click prints: it may name a file of somebody else, as `*` does
            said = error.format_message()
            if plain(said) == said:
                raise
            raise click.UsageError(plain(said), error.ctx) from None
        except InputError as error:
            say(f"Error: {error}", err=True)
            ctx.exit(1)
        except MemoryError as error:
            say(f"Error: there is not enough memory ({error or 'nothing is left'}).", err=True)
            ctx.exit(1)
        except BrokenPipeError:  # as with `| head`: whoever reads has seen enough, which click passes over in silence
            raise
        except OSError as error:  # of the system, not of the program: a disk, a folder that was removed meanwhile
            where = f"{error.filename}: " if error.filename else ""
            say(f"Error: {where}{error.strerror or error}.", err=True)
            ctx.exit(1)
        except EOFError as error:  # click would say no more than "Aborted!"
            say(f"Error: a file ends too early ({error or 'it was cut off'}).", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            from cvcoteach.data.sources.patterns import shown_address
            from cvcoteach.data.sources.remote import is_address

            words = [shown_address(word) if is_address(word) else word for word in sys.argv[1:]]
            say(
                "\nInterrupted. What is finished is kept; the same command resumes from there:\n  "
                + shlex.join(["cvcoteach", *words]),
                err=True,
            )
            if "ray" in sys.modules and sys.__stdout__ is not None and sys.stdout is sys.__stdout__:
                # all is put away, and Ray 2.60 may crash at the exit of a program that was interrupted as it started
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(INTERRUPTED)
            ctx.exit(INTERRUPTED)


@click.group(cls=_Group, context_settings=_CONTEXT, invoke_without_command=True)
@click.version_option(__version__, prog_name="cvcoteach")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Find the wrong labels in an image dataset, by Iterative Noisy Cross-Validation.

    Completion of commands and options by the tab key: put this into ~/.bashrc (zsh_source into ~/.zshrc):

      eval "$(_CVCOTEACH_COMPLETE=bash_source cvcoteach)"

    Exit codes: 0 done, 1 error, 2 wrong usage, 130 interrupted; of check also 3 and 4.
    """
    # Threads that spin while they wait take the processor from those they wait for, once anything else runs.
    # OpenMP reads this when torch is loaded, which the commands do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    ctx.with_resource(unsearched())
    import_elsewhere("matplotlib")  # which comes with FiftyOne
    if ctx.invoked_subcommand is None:
        click.echo(_START)


for command in (find_issues, report, check, apply, retrain, predict, list_images, fiftyone):
    main.add_command(command)
