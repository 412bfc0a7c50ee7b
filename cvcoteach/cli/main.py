"""The command line: parse, call, print."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import click

from cvcoteach._validation import InputError
from cvcoteach._version import __version__
from cvcoteach.cli.fiftyone import fiftyone
from cvcoteach.cli.retrain import megapixels, predict, retrain

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def _number_or_auto(ctx: click.Context, param: click.Parameter, value: str) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no number; it takes a number from 0 on, or 'auto'.") from None


class _Group(click.Group):
    """One clear sentence for what the user can mend, exit code 1; a traceback only for our own faults."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except InputError as error:
            click.echo(f"Error: {error}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo(
                "\nStopped. What is finished is kept; the same command goes on from there:\n  "
                + shlex.join(["cvcoteach", *sys.argv[1:]]),
                err=True,
            )
            ctx.exit(1)


@click.group(cls=_Group, context_settings=_CONTEXT)
@click.version_option(__version__, prog_name="cvcoteach")
def main() -> None:
    """Find the wrong labels in an image dataset, by Iterative Noisy Cross-Validation."""
    # Threads that spin while they wait take the processor from those they wait for, once anything else runs.
    # OpenMP reads this when torch is loaded, which the commands do.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@main.command("find-issues")
@click.argument("source", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder.  [default: NAME-issues, NAME as SOURCE's]"
)
@click.option(
    "--path-column", metavar="NAME", help="Column of image paths in a CSV or Parquet.  [default: found by itself]"
)
@click.option("--label-column", metavar="NAME", help="Column of given labels.  [default: found by itself]")
@click.option(
    "--path-pattern",
    metavar="PATTERN",
    help="How a value of the path column becomes a file: 'images/{}.png'.  [default: as it stands]",
)
@click.option("--split", metavar="NAME", help="Part of an .npz with several: train, val, test.  [default: train]")
@click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Size of the largest image that is read.  [default: 268]",
)
@click.option(
    "--preset",
    default="fast",
    show_default=True,
    metavar="fast|paper|auto",
    help="paper: INCV's published settings. auto: chosen for the images and this machine.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="small, resnet32, any torchvision model, or package.module:function.  [default: the preset's]",
)
@click.option("--weights", metavar="default|none|FILE", help="Weights of the model or backbone to start from.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of each training.  [default: the preset's]")
@click.option("--learning-rate", type=float, metavar="RATE", help="The largest there is.  [default: the preset's]")
@click.option(
    "--image-size",
    type=click.IntRange(4),
    metavar="PIXELS",
    help="Side that images are scaled to.  [default: the model's]",
)
@click.option("--flip/--no-flip", default=None, help="Mirror images at random.  [default: colour images only]")
@click.option(
    "--patience", type=click.IntRange(1), metavar="EPOCHS", help="Stop a training early, by a tenth of its own part."
)
@click.option(
    "--features", type=click.Path(path_type=Path), help=".npy (n, d), one row an image: train heads on these instead."
)
@click.option(
    "--backbone",
    metavar="NAME|FILE",
    help="Train heads on frozen features of torchvision:MODEL, timm:MODEL, package.module:function, a TorchScript or "
    "torch.export file.",
)
@click.option("--finetune", is_flag=True, help="Train the --backbone itself in the folds.")
@click.option("--head", default="linear", show_default=True, metavar="linear|mlp", help="Head trained on features.")
@click.option("--rounds", type=click.IntRange(1), default=4, show_default=True, help="Rounds of INCV.")
@click.option(
    "--folds", type=click.IntRange(2), default=2, show_default=True, help="Parts the candidates are split into."
)
@click.option(
    "--remove-ratio",
    metavar="NUMBER|auto",
    callback=_number_or_auto,
    default="auto",
    show_default=True,
    help="Images dropped for each one kept.",
)
@click.option(
    "--select",
    type=click.Choice(["posterior", "agreement"]),
    default="posterior",
    show_default=True,
    help="What the final models learn from: what the posterior takes for right, or what INCV selected.",
)
@click.option(
    "--repeats",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Cross-validations of each pass of the final scoring, averaged.",
)
@click.option(
    "--passes",
    type=click.IntRange(1),
    help="Passes of the final scoring: with two or more, models learn from labels that the posterior corrected.  "
    "[default: 2 for heads, 1 for networks]",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same result (on a CPU).")
@click.option("--device", metavar="NAME", help="cuda, cuda:1, mps, cpu.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: what the process may use]")
@click.option("--precision", metavar="NAME", help="float32, bfloat16 or float16.  [default: the fastest, by a probe]")
@click.option(
    "--cache-dir", type=click.Path(path_type=Path), help="Where decoded images are kept.  [default: the user's cache]"
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def find_issues(
    source: Path,
    output: Path | None,
    path_column: str | None,
    label_column: str | None,
    path_pattern: str | None,
    split: str | None,
    max_megapixels: float | None,
    rounds: int,
    folds: int,
    device: str | None,
    threads: int | None,
    precision: str | None,
    cache_dir: Path | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find label issues in the images of SOURCE.

    SOURCE is a folder of class folders, a CSV or Parquet with a path and a label column, or an .npz with the
    arrays images and labels. Results go to the run folder; killed at any point, the same command goes on.
    """
    from cvcoteach.cli.display import Display, Quiet
    from cvcoteach.pipeline import find_issues as runs
    from cvcoteach.pipeline import report

    display = Quiet(sys.stderr) if quiet else Display(sys.stderr)
    try:
        outcome = runs.find_issues(
            source,
            output,
            runs.Settings(n_rounds=rounds, n_folds=folds, **settings),
            runs.Machine(device, threads, precision, cache_dir, megapixels(max_megapixels)),
            path_column=path_column,
            label_column=label_column,
            path_pattern=path_pattern,
            split=split,
            watcher=display,
        )
    finally:
        display.close()
    if outcome.was_done:
        display.note(f"{outcome.folder} holds this run already; nothing was computed again.")
    if as_json:
        click.echo(json.dumps({"folder": str(outcome.folder), **outcome.summary}, ensure_ascii=False))
        return
    click.echo(report.summary_text(outcome.summary))
    click.echo(f"\nResults: {outcome.folder}/issues.csv (every image, worst first)")
    click.echo(f"Next: look at the most doubtful ones, {outcome.folder}/issues.html")
    if outcome.unreadable:
        click.echo(f"Left out: {outcome.unreadable:,} unreadable images, listed in {outcome.folder}/unreadable.csv")


for command in (retrain, predict, fiftyone):
    main.add_command(command)
