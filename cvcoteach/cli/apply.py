"""`cvcoteach apply`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import plain, say
from cvcoteach.cli.grouped import Grouped

if TYPE_CHECKING:
    from cvcoteach.pipeline.apply_plan import Action, Plan


@click.command(cls=Grouped, first=("action", "output", "corrections", "min_probability", "write", "undo"))
@click.argument("run", type=options.PATH, required=False)
@click.option(
    "--action",
    type=click.Choice(["relabel", "exclude", "reviews", "list"]),
    help="relabel: give doubtful labels the suggested class. exclude: leave their images out. reviews: only what "
    "--corrections says. list: print what relabel would do as a corrections CSV.",
)
@click.option(
    "-o",
    "--output",
    type=options.PATH,
    metavar="DEST",
    help="The copy: a folder or file that is not there yet, of the source's format.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Change labels whose suggestion is right (to exclude: that are wrong) with at least this probability.  "
    "[default: the flagged ones]",
)
@click.option(
    "--corrections",
    type=options.PATH,
    metavar="FILE",
    help="Reviews, which overrule the run: a CSV of the report, of FiftyOne, or with the columns path, action, label.",
)
@click.option("--write", is_flag=True, help="Write the copy; without it, only say what would change.")
@click.option("--allow-empty-classes", is_flag=True, help="Let a class lose all its images.")
@click.option(
    "--held-out",
    is_flag=True,
    help="Change images of splits that models did not learn from, such as test, too; without it only reviews do.",
)
@click.option("--undo", type=options.PATH, metavar="RECORD", help="Take back the changes of DEST.changes.json instead.")
@click.option("--source", type=options.SOURCE, help="Images of the run, if they have moved.")
@options.path_column
@options.label_column
@options.path_pattern
@options.split
@options.source_format
@options.max_unpacked
@options.as_json
@options.quiet
def apply(
    run: Path | None,
    action: Action | None,
    output: Path | None,
    min_probability: float | None,
    corrections: Path | None,
    write: bool,
    allow_empty_classes: bool,
    held_out: bool,
    undo: Path | None,
    source: Path | str | None,
    path_column: str | None,
    label_column: str | None,
    path_pattern: str | None,
    split: str | None,
    format: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write a corrected copy of the images of RUN, in their own format; the originals stay as they are.

    Without --write, only say what would change. DEST.changes.json records every change; --undo takes them back.
    """
    from cvcoteach.data.sources import Choices
    from cvcoteach.pipeline import apply as work
    from cvcoteach.pipeline.apply_plan import ApplySettings, plan

    if undo is not None:
        if run is not None or action is not None or output is not None:
            raise click.UsageError("--undo takes back what a record says; it goes without RUN, --action and --output.")
        _undo(undo, write, as_json)
        return
    if run is None or action is None:
        raise click.UsageError("name the run and an --action: relabel, exclude, reviews or list.")
    if action == "list" and write:
        raise click.UsageError("--action list writes no copy; leave out --write, or take another --action.")
    if action != "list" and output is None:
        raise click.UsageError("name the copy to write: --output DEST.")
    settings = ApplySettings(action, min_probability, corrections, allow_empty_classes, held_out)
    choices = Choices(
        path_column=path_column, label_column=label_column, path_pattern=path_pattern, split=split, format=format
    )
    with options.shown(quiet) as display:
        planned = plan(run, settings, source=source, choices=choices)
        for sentence in planned.notes:
            display.note(sentence)
        if output is None or action == "list":
            _list(planned, output)
            return
        work.check(planned, output)
        written = work.write(planned, output, display) if write else None
    if as_json:
        record = None if written is None else str(written.record)
        say(json.dumps({**planned.summary, "output": str(output), "written": write, "record": record}))
        return
    say(work.plan_text(planned, written is not None))
    if written is None:
        say(f"Nothing was written; --write writes the copy to {output}.")
        return
    say(f"\nCorrected copy: {written.destination}")
    back = f"cvcoteach apply --undo {shlex.quote(str(written.record))} --write"
    say(f"Every change: {written.record} ({back} takes them back)")
    for note in written.notes:
        say(note)


def _list(planned: Plan, output: Path | None) -> None:
    from cvcoteach.pipeline.apply import write_list
    from cvcoteach.pipeline.run_summary import counted

    text = write_list(planned, output)
    if output is None:
        click.echo(plain(text), nl=False)
    else:
        say(f"{counted(len(planned.changes), 'change')} listed in {output}")


def _undo(record: Path, write: bool, as_json: bool) -> None:
    from cvcoteach.pipeline import apply as work
    from cvcoteach.pipeline.run_summary import counted

    undone = work.undo(record, dry_run=not write)
    if as_json:
        figures = {"n_changes": undone.n_changes, "n_left": undone.n_left, "written": write}
        say(json.dumps({"output": str(undone.destination), **figures}))
        return
    changes = counted(undone.n_changes, "change")
    were = "was" if undone.n_changes == 1 else "were"
    say(f"{changes} in {undone.destination} {were if write else 'would be'} taken back.")
    if undone.n_left:
        say(f"{counted(undone.n_left, 'change')} left alone: the file is not where it was put, or another is there.")
    if not write:
        say("Nothing was written; --write does it.")
