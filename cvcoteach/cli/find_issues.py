"""`cvcoteach find-issues`."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any, Literal

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import say
from cvcoteach.cli.grouped import Grouped
from cvcoteach.pipeline.settings import Machine, Settings


def _number_or_auto(ctx: click.Context, param: click.Parameter, value: str) -> float | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        return float(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a number; it takes a number from 0 on, or 'auto'.") from None


_FIRST = (
    "output path_column label_column backbone features preset flag_for corrections device quiet"  # in this order
).split()


@click.command("find-issues", cls=Grouped, first=_FIRST)
@click.argument("source", type=options.SOURCE)
@click.option("-o", "--output", type=options.PATH, help="Run folder.  [default: NAME-issues, NAME being SOURCE's]")
@options.path_column
@options.label_column
@options.path_pattern
@options.split
@options.split_column
@options.annotator_column
@options.annotator_columns
@options.group_column
@options.source_format
@click.option(
    "--preset",
    default="auto",
    show_default=True,
    **options.one_of("auto|fast|paper"),
    help="auto: for photographs, heads on a pretrained network's features, otherwise a small network from scratch. "
    "fast: that network for all images. paper: INCV's published settings.",
)
@click.option(
    "--model",
    metavar="NAME",
    help="small, wide, resnet32, any torchvision model, or package.module:function.  [default: the preset's]",
)
@click.option("--weights", metavar="default|none|FILE", help="Weights to start the model or backbone from.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of each training.  [default: the preset's]")
@options.learning_rate
@click.option(
    "--image-size",
    type=click.IntRange(4),
    metavar="PIXELS",
    help="Width and height that images are scaled to.  [default: the model's]",
)
@options.flip
@click.option(
    "--patience",
    type=click.IntRange(1),
    metavar="EPOCHS",
    help="Stop after this many epochs without improvement on a held-out 10 % of the fold.  [default: never]",
)
@click.option(
    "--features",
    type=options.PATH,
    metavar="FILE",
    help="Train heads on these features instead: a .npy (n, d), its rows in the order of cvcoteach list, or an .npz "
    "with features and paths.",
)
@click.option(
    "--backbone",
    metavar="NAME|FILE",
    help="Train heads on frozen features of torchvision:MODEL, timm:MODEL, package:efficientnet_lite0, "
    "package.module:function, a TorchScript or torch.export file.",
)
@click.option("--finetune", is_flag=True, help="Train the --backbone itself in the folds.")
@click.option(
    "--also-from-scratch/--features-only",
    default=None,
    help="Judge by small networks from scratch too, beside heads on features, and fuse both.  [default: where preset "
    "auto has time for it]",
)
@click.option(
    "--head", default="linear", show_default=True, help="Head to train on features.", **options.one_of("linear|mlp")
)
@click.option(
    "--select",
    type=click.Choice(["posterior", "agreement"]),
    help="What each round learns from: labels that are probably right by the posterior of the rounds before, or, as "
    "published, images on which model and label agreed, all others being flagged.  [default: posterior; agreement with "
    "preset paper]",
)
@click.option(
    "--rounds",
    "n_rounds",
    type=click.IntRange(1),
    help="Rounds; 2 take about half the time.  [default: 3; 4 with agreement]",
)
@click.option(
    "--folds",
    "n_folds",
    type=click.IntRange(2),
    help="Folds of every round.  [default: 2 in round 1 and 5 later; 2 with agreement]",
)
@click.option(
    "--remove-ratio",
    metavar="NUMBER|auto",
    callback=_number_or_auto,
    default="auto",
    show_default=True,
    help="Images that agreement drops for each one it selects, at most.",
)
@click.option(
    "--bind-near-copies/--no-bind-near-copies",
    default=True,
    help="Keep near copies of an image, such as frames of a burst or a picture saved anew, in one fold, as exact ones "
    "always are.  [default: bind]",
)
@click.option(
    "--flag-for",
    type=click.Choice(["f1", "precision", "recall"]),
    default="f1",
    show_default=True,
    help="What flags are good at: the best expected F1, or an expected precision or recall of 90 %.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Flag every label that is wrong with at least this probability instead.",
)
@click.option(
    "--corrections",
    type=options.PATH,
    metavar="FILE",
    help="CSV of decisions, as the report and FiftyOne save them; labels that somebody kept or chose are not flagged.",
)
@click.option(
    "--fresh",
    "again",
    flag_value="fresh",
    help="Start over in a new folder, NAME-issues-2 and so on, even if nothing has changed.",
)
@click.option(
    "--replace",
    "again",
    flag_value="replace",
    help="Overwrite the run of other images, labels or settings that is in the run folder.",
)
@options.seed
@options.machine(engine=True)
@options.as_json
@options.quiet
def find_issues(
    source: Path | str,
    output: Path | None,
    path_column: str | None,
    label_column: str | None,
    path_pattern: str | None,
    split: str | None,
    split_column: str | None,
    annotator_column: str | None,
    annotator_columns: str | None,
    group_column: str | None,
    corrections: Path | None,
    again: Literal["fresh", "replace"] | None,
    format: str | None,
    machine: Machine,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Find label issues in the images of SOURCE.

    SOURCE is a folder of class folders, a CSV or Parquet with a path and a label column, an .npz with the arrays
    images and labels, a dataset of Hugging Face, MNIST, CIFAR, WebDataset, TFRecord, Label Studio, CVAT, COCO, Datumaro
    or FiftyOne, or the address of one, such as s3://bucket/photos.
    Results go to the run folder. If interrupted at any point, the same command resumes; after labels were fixed or
    images added, it goes on in a new folder beside the earlier one and says what has changed.
    """
    from cvcoteach.noise_model.posterior import NO_SIGNAL
    from cvcoteach.pipeline.earlier_runs import difference_text
    from cvcoteach.pipeline.find_issues import find_issues as carry_out
    from cvcoteach.pipeline.run_summary import counted, summary_text

    with options.shown(quiet) as display:
        results = carry_out(
            source,
            output,
            Settings(**settings),
            machine,
            path_column=path_column,
            label_column=label_column,
            path_pattern=path_pattern,
            split=split,
            split_column=split_column,
            annotator_column=annotator_column,
            annotator_columns=annotator_columns,
            group_column=group_column,
            again=again or "continue",
            corrections=corrections,
            format=format,
            watcher=display,
        )
    if results.was_done:
        display.note(f"{results.folder} holds this run already; nothing was computed again.")
    if as_json:
        say(json.dumps({"folder": str(results.folder), **results.summary}, ensure_ascii=False))
        return
    say(summary_text(results.summary))
    if not results.summary["has_signal"]:
        say(f"Why: {results.found.note.removeprefix(f'{NO_SIGNAL}: ')}")
    if results.summary.get("n_reviewed"):
        say(f"{counted(results.summary['n_reviewed'], 'label')} that somebody kept or chose left unflagged.")
    if "since" in results.summary:
        say(difference_text(results.summary["since"]))
    say(f"\nResults: {results.folder}/issues.csv (every image, worst first)")
    say(f"Report: {results.folder}/issues.html (look at the most doubtful ones, and review them there)")
    if results.summary["n_issues"]:
        actions = "--action list says what would change, --action relabel makes a copy"
        say(f"Next: cvcoteach apply {shlex.quote(str(results.folder))} {actions}")
    elif results.summary["has_signal"]:
        say(f"Next: cvcoteach retrain {shlex.quote(str(results.folder))} trains a classifier")
    if results.summary.get("n_contradictions"):
        near = results.summary.get("n_near_contradictions", 0)
        kinds = ["Copies"] * (results.summary["n_contradictions"] > near) + ["Near copies"] * bool(near)
        say(f"{' and '.join(kinds).capitalize()} of one image with different labels come first in issues.csv.")
    if "annotators" in results.summary:
        say(f"Every annotator: {results.folder}/annotators.csv")
    if results.unreadable:
        left_out = counted(len(results.unreadable), "unreadable image")
        say(f"Left out: {left_out}, listed in {results.folder}/unreadable.csv")
