"""`cvcoteach retrain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from cvcoteach.cli import options
from cvcoteach.cli.display import say
from cvcoteach.cli.grouped import Grouped
from cvcoteach.pipeline.settings import Machine, RetrainSettings


@click.command(cls=Grouped, first="run output corrections test model epochs noise_rate exports device quiet".split())
@click.argument("source", type=options.SOURCE)
@click.option("--run", type=options.PATH, help="Run folder of find-issues, if SOURCE is the images instead.")
@click.option(
    "-o", "--output", type=options.PATH, help="Folder of the classifier.  [default: NAME-model beside the run]"
)
@options.path_column
@options.label_column
@options.path_pattern
@options.split
@options.source_format
@click.option(
    "--corrections", type=options.PATH, help="CSV with the columns path, action (accepted, kept, set, excluded), label."
)
@click.option(
    "--test",
    type=options.SOURCE,
    metavar="IMAGES|SPLIT",
    help="Images with right labels on which to compare with plain training, or a split that the run held out.",
)
@click.option("--test-split", metavar="NAME", help="Part of --test, where it has several.  [default: train]")
@click.option("--test-format", metavar="NAME", help="Format of --test.  [default: recognised]")
@click.option(
    "--mode",
    default="incv",
    show_default=True,
    type=click.Choice(["incv", "correct", "vanilla"]),
    help="What joins the clean images later: INCV's candidates; all others under corrected labels; or everything from "
    "the start.",
)
@click.option(
    "--select",
    type=click.Choice(["flags", "agreement"]),
    help="What counts as clean: what the run does not flag, or the paper's selection.  [default: flags]",
)
@click.option(
    "--preset", default="fast", show_default=True, metavar="fast|paper", help="paper: INCV's published settings."
)
@click.option(
    "--model",
    metavar="NAME",
    help="As for find-issues; backbone:NAME is fine-tuned, frozen:NAME gets heads on its features.  "
    "[default: the run's]",
)
@click.option(
    "--weights",
    metavar="default|none|FILE",
    help="Weights to start the model or backbone from.  [default: the run's]",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Epochs of both networks.  [default: as many image passes as the preset's]"
)
@options.learning_rate
@click.option(
    "--image-size",
    type=click.IntRange(4),
    metavar="PIXELS",
    help="Width and height that images are scaled to.  [default: the run's, for the same network; else the network's]",
)
@options.flip
@click.option("--noise-rate", type=float, metavar="SHARE", help="Share of wrong labels.  [default: the run's estimate]")
@options.seed
@click.option(
    "--export", "exports", multiple=True, metavar="onnx|torch.export", help="Export the classifier too; repeatable."
)
@options.machine()
@options.as_json
@options.quiet
def retrain(
    source: Path | str,
    run: Path | None,
    output: Path | None,
    path_column: str | None,
    label_column: str | None,
    path_pattern: str | None,
    split: str | None,
    format: str | None,
    corrections: Path | None,
    test: Path | str | None,
    test_split: str | None,
    test_format: str | None,
    exports: tuple[str, ...],
    machine: Machine,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a classifier that withstands the remaining label noise, by Co-teaching.

    SOURCE is a run folder of find-issues; with --run, the images of that run, if they have moved. If interrupted at any
    point, the same command resumes from the last epoch.
    """
    from cvcoteach.data.sources import Choices
    from cvcoteach.pipeline.retrain import retrain as carry_out
    from cvcoteach.pipeline.run_summary import counted
    from cvcoteach.pipeline.scores import comparison_text, figures

    with options.shown(quiet) as display:
        result = carry_out(
            run or source,
            output,
            RetrainSettings(**settings),
            machine,
            source=source if run else None,
            path_column=path_column,
            label_column=label_column,
            choices=Choices(path_pattern=path_pattern, split=split, format=format),
            corrections=corrections,
            test=test,
            test_choices=Choices(split=test_split, format=test_format),
            exports=exports,
            watcher=display,
        )
    if result.was_done:
        display.note(f"{result.folder} holds this classifier already; it was not trained again.")
    both = None if result.scores is None or result.plain_scores is None else (result.scores, result.plain_scores)
    if as_json:
        test_figures = figures(*both) if both else None
        say(json.dumps({"folder": str(result.folder), **result.summary, "test": test_figures}))
        return
    last = result.history[-1]
    clean, candidates = counted(result.summary["selected"], "image"), counted(result.summary["candidate"], "candidate")
    say(f"Trained on {clean} taken for clean and {candidates}; the two networks agree on {last.agreement:.1%}.")
    if both:
        say(comparison_text(*both, result.class_names))
    say(f"\nClassifier: {result.folder} (model.safetensors, model.json, history.csv)")
    for file in result.exported:
        say(f"Exported: {file}")
    say(f"Next: cvcoteach predict {result.folder} IMAGES")
