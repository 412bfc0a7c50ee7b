"""`cvcoteach retrain`."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
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
    help="Images with right labels on which to compare with plain training, with and without what is flagged; or a "
    "split that the run held out.",
)
@click.option("--test-split", metavar="NAME", help="Part of --test, where it has several.  [default: all but train]")
@click.option("--test-format", metavar="NAME", help="Format of --test.  [default: recognised]")
@click.option(
    "--mode",
    type=click.Choice(["posterior", "incv", "correct", "vanilla", "paper"]),
    help="posterior: every image, as the classes that the run takes it for. By Co-teaching: incv, what is not flagged, "
    "later with the flagged; correct, with these under corrected labels; vanilla, everything from the start; paper, "
    "what INCV selected by agreement, to the letter.  [default: posterior for heads on features, else incv]",
)
@click.option(
    "--select",
    type=click.Choice(["flags", "agreement"]),
    help="What Co-teaching takes for clean: what the run does not flag, or the paper's selection.  [default: flags]",
)
@click.option(
    "--preset",
    default="fast",
    show_default=True,
    **options.one_of("fast|paper"),
    help="paper: INCV's published settings.",
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
    "--export",
    "exports",
    multiple=True,
    **options.one_of("onnx|torch.export"),
    help="Export the classifier too; repeatable.",
)
@click.option(
    "--recheck",
    is_flag=True,
    help="Judge all labels of the run again, by five more pairs of networks, each without a fifth of the images.",
)
@options.machine(engine=True)
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
    recheck: bool,
    machine: Machine,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a classifier that withstands the remaining label noise.

    SOURCE is a run folder of find-issues; with --run, the images of that run, if they have moved. If interrupted at any
    point, the same command resumes from the last epoch.
    """
    from cvcoteach.data.sources import Choices
    from cvcoteach.pipeline.recheck import recheck_text
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
            recheck=recheck,
            watcher=display,
        )
    if result.was_done:
        display.note(f"{result.folder} holds this classifier already; it was not trained again.")
    if as_json:
        test_figures = None if result.compared is None else figures(result.compared)
        calibration = None if result.calibration is None else asdict(result.calibration)
        again = (
            None if result.rechecked is None else {"folder": str(result.rechecked.folder), **result.rechecked.summary}
        )
        figures_of = {"calibration": calibration, "test": test_figures, "recheck": again}
        say(json.dumps({"folder": str(result.folder), **result.summary, **figures_of}))
        return
    images = counted(result.summary["selected"], "image")
    if result.summary["mode"] != "posterior":
        images += f" taken for clean and {counted(result.summary['candidate'], 'candidate')}"
    say(f"Trained on {images}; the two networks agree on {result.history[-1].agreement:.1%}.")
    if result.compared is not None:
        say(comparison_text(result.compared, result.class_names))
    elif result.calibration is not None:
        known = result.calibration
        say(
            f"An estimate, since no --test was given: {known.accuracy:.1%} of its predictions are right "
            f"({known.low:.1%} to {known.high:.1%}), by {known.n_images:,} held-out images whose classes are known by "
            "the run's posterior only."
        )
    if result.rechecked is not None:
        say(recheck_text(result.rechecked))
    say(f"\nClassifier: {result.folder} (model.safetensors, model.json, history.csv)")
    for file in result.exported:
        say(f"Exported: {file}")
    say(f"Next: cvcoteach predict {shlex.quote(str(result.folder))} IMAGES")
