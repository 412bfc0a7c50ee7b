"""The commands retrain and predict: parse, call, print."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path)


def megapixels(millions: float | None) -> int | None:
    """Return that many million pixels."""
    return None if millions is None else max(1, round(millions * 1_000_000))


@click.command()
@click.argument("source", type=_FILE)
@click.option("--run", type=_FILE, help="Run folder of find-issues, where SOURCE names the images instead.")
@click.option("-o", "--output", type=_FILE, help="Folder of the classifier.  [default: NAME-model beside the run]")
@click.option("--path-column", metavar="NAME", help="Column of image paths in a table.  [default: found by itself]")
@click.option("--label-column", metavar="NAME", help="Column of labels in a table.  [default: found by itself]")
@click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Size of the largest image that is read.  [default: 268]",
)
@click.option("--corrections", type=_FILE, help="CSV: path, action (accepted, kept, set, excluded), label.")
@click.option("--test", type=_FILE, help="Images with right labels, to compare with plain training on.")
@click.option(
    "--mode",
    default="incv",
    show_default=True,
    type=click.Choice(["incv", "correct", "vanilla"]),
    help="What joins what counts as clean: candidates; all others under corrected labels; everything from the start.",
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
    help="Weights of the model or backbone to start from.  [default: the run's]",
)
@click.option(
    "--epochs", type=click.IntRange(1), help="Epochs of both networks.  [default: as many image passes as the preset's]"
)
@click.option("--learning-rate", type=float, metavar="RATE", help="The largest there is.  [default: the preset's]")
@click.option(
    "--image-size",
    type=click.IntRange(4),
    metavar="PIXELS",
    help="Side of the images.  [default: the run's, of the same network; else the network's]",
)
@click.option("--flip/--no-flip", default=None, help="Mirror images at random.  [default: colour images only]")
@click.option("--noise-rate", type=float, metavar="SHARE", help="Share of wrong labels.  [default: the run's estimate]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Same seed, same result (on a CPU).")
@click.option("--export", "exports", multiple=True, metavar="onnx|torch.export", help="Write that too; repeatable.")
@click.option("--device", metavar="NAME", help="cuda, cuda:1, mps, cpu.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: what the process may use]")
@click.option("--precision", metavar="NAME", help="float32, bfloat16 or float16.  [default: the fastest, by a probe]")
@click.option("--cache-dir", type=_FILE, help="Where decoded images are kept.  [default: the user's cache]")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def retrain(
    source: Path,
    run: Path | None,
    output: Path | None,
    path_column: str | None,
    label_column: str | None,
    corrections: Path | None,
    test: Path | None,
    exports: tuple[str, ...],
    device: str | None,
    threads: int | None,
    precision: str | None,
    cache_dir: Path | None,
    max_megapixels: float | None,
    as_json: bool,
    quiet: bool,
    **settings: Any,
) -> None:
    """Train a classifier that the remaining label noise cannot spoil, by Co-teaching.

    SOURCE is a run folder of find-issues; with --run, the images of that run, where they have moved. Killed at any
    point, the same command goes on from the last epoch.
    """
    from cvcoteach.cli.display import Display, Quiet
    from cvcoteach.pipeline.retrain import retrain as carry_out
    from cvcoteach.pipeline.retrain_task import RetrainSettings
    from cvcoteach.pipeline.scores import comparison_text, figures
    from cvcoteach.pipeline.settings import Machine

    display = Quiet(sys.stderr) if quiet else Display(sys.stderr)
    try:
        result = carry_out(
            run or source,
            output,
            RetrainSettings(**settings),
            Machine(device, threads, precision, cache_dir, megapixels(max_megapixels)),
            source=source if run else None,
            path_column=path_column,
            label_column=label_column,
            corrections=corrections,
            test=test,
            exports=exports,
            watcher=display,
        )
    finally:
        display.close()
    if result.was_done:
        display.note(f"{result.folder} holds this classifier already; it was not trained again.")
    both = None if result.scores is None or result.plain_scores is None else (result.scores, result.plain_scores)
    if as_json:
        test_figures = figures(*both) if both else None
        click.echo(json.dumps({"folder": str(result.folder), **result.summary, "test": test_figures}))
        return
    last = result.history[-1]
    click.echo(
        f"Trained on {result.summary['selected']:,} images taken for clean and {result.summary['candidate']:,} "
        f"candidates; the two networks agree on {last.agreement:.1%}."
    )
    if both:
        click.echo(comparison_text(*both, result.class_names))
    click.echo(f"\nClassifier: {result.folder} (model.safetensors, model.json, history.csv)")
    for file in result.exported:
        click.echo(f"Exported: {file}")
    click.echo(f"Next: cvcoteach predict {result.folder} IMAGES")


@click.command()
@click.argument("model", type=_FILE)
@click.argument("source", type=_FILE)
@click.option("-o", "--output", type=_FILE, help="The CSV.  [default: NAME-predictions.csv, NAME as SOURCE's]")
@click.option("--path-column", metavar="NAME", help="Column of image paths in a table.  [default: found by itself]")
@click.option("--label-column", metavar="NAME", help="Column of labels in a table.  [default: found by itself]")
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
@click.option("--ignore-labels", is_flag=True, help="Take SOURCE for images without labels.")
@click.option("--model", "trusted", metavar="NAME", help="Your own package.module:function that MODEL was built with.")
@click.option("--device", metavar="NAME", help="cuda, cuda:1, mps, cpu.  [default: the best there is]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads.  [default: what the process may use]")
@click.option("--cache-dir", type=_FILE, help="Where decoded images are kept.  [default: the user's cache]")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
def predict(
    model: Path,
    source: Path,
    output: Path | None,
    device: str | None,
    threads: int | None,
    cache_dir: Path | None,
    max_megapixels: float | None,
    quiet: bool,
    **options: Any,
) -> None:
    """Predict the classes of the images of SOURCE with the classifier in the folder MODEL; writes a CSV.

    SOURCE is anything that find-issues takes, a folder of images without labels, or one image.
    """
    from cvcoteach.cli.display import Display, Quiet
    from cvcoteach.pipeline.predict import predict as carry_out
    from cvcoteach.pipeline.settings import Machine

    display = Quiet(sys.stderr) if quiet else Display(sys.stderr)
    try:
        result = carry_out(
            model,
            source,
            output,
            Machine(device, threads, None, cache_dir, megapixels(max_megapixels)),
            watcher=display,
            **options,
        )
    finally:
        display.close()
    if result.accuracy is not None:
        click.echo(f"{result.accuracy:.1%} of the predictions are the given label.")
    if result.unreadable:
        click.echo(f"{result.unreadable:,} images cannot be read; their rows are empty.")
    click.echo(f"Predictions: {result.file} ({len(result.table):,} images)")
