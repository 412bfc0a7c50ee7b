"""Options that several commands share, each written once."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from cvcoteach.cli.display import Display, Quiet
from cvcoteach.data.unpacking import unpack_limit
from cvcoteach.pipeline.settings import ENGINES, PRECISIONS, Machine

Command = Callable[..., Any]

PATH = click.Path(path_type=Path)


class _SourceType(click.Path):
    """A path, or an address such as `s3://bucket/photos`, which stays text: a path has no two slashes together."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a path or an address."""
        return value if isinstance(value, str) and "://" in value else super().convert(value, param, ctx)


SOURCE = _SourceType(path_type=Path)
"""Images, wherever they are."""

path_column = click.option(
    "--path-column", metavar="NAME", help="Column of image paths in a table.  [default: auto-detected]"
)
label_column = click.option(
    "--label-column", metavar="NAME", help="Column of labels in a table.  [default: auto-detected]"
)
path_pattern = click.option(
    "--path-pattern",
    metavar="PATTERN",
    help="File of a value {} in the path column, such as 'images/{}.png'.  [default: the value itself]",
)
split = click.option(
    "--split",
    metavar="NAME",
    help="The one split to read of a source with several, such as train, val or test.  [default: all]",
)
split_column = click.option(
    "--split-column",
    metavar="NAME",
    help="Column of splits in a table, such as train and test: models learn from train alone, and judge all images.  "
    "[default: auto-detected]",
)
source_format = click.option(
    "--format", metavar="NAME", help="Format of the source, such as coco; see docs/formats.md.  [default: recognised]"
)
group_column = click.option(
    "--group-column",
    metavar="NAME",
    help="Column of groups, such as patients or videos: no model judges an image of a group that it trained on.",
)
annotator_column = click.option(
    "--annotator-column",
    metavar="NAME",
    help="Column of who gave a label, in a table with a row per image and annotator: each counts by how good it is.",
)
annotator_columns = click.option(
    "--annotator-columns",
    metavar="A,B,…",
    help="Columns of labels, one per annotator; some may be empty.",
)
learning_rate = click.option(
    "--learning-rate", type=float, metavar="RATE", help="Peak learning rate.  [default: the preset's]"
)
flip = click.option("--flip/--no-flip", default=None, help="Mirror images at random.  [default: colour images only]")
seed = click.option(
    "--seed",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Random seed; on a CPU, the same one repeats the result with the same --threads and --precision.",
)


def one_of(names: str) -> dict[str, Any]:
    """Return what shows names such as "linear|mlp" in the help and gives them to the tab key; the command checks."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        return [name for name in names.split("|") if name.startswith(incomplete)]

    return {"metavar": names, "shell_complete": complete}


as_json = click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on standard output.")
quiet = click.option("-q", "--quiet", is_flag=True, help="Show no progress, only notes.")


_ALL = 2.0**62
"""More than there can be."""


def _finite(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is not a number.")
    return value


def _unpacking(ctx: click.Context, param: click.Parameter, value: float | None) -> None:
    if (finite := _finite(ctx, param, value)) is not None:
        ctx.with_resource(unpack_limit(round(min(finite * 1e9, _ALL))))


_DEVICE = click.option("--device", metavar="NAME", help="cuda, cuda:1, mps or cpu.  [default: the fastest available]")
_THREADS = click.option(
    "--threads", type=click.IntRange(1), help="CPU threads.  [default: all that the process may use]"
)
_PRECISION = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What networks compute in.  [default: the fastest, by a short probe]",
)
_DETERMINISTIC = click.option(
    "--deterministic",
    is_flag=True,
    help="On a GPU, compute convolutions only by algorithms that repeat to the bit.  [default: where they cost less "
    "than 5 %]",
)
cache_dir = click.option(
    "--cache-dir", type=PATH, help="Where decoded images and features are kept.  [default: the user's cache]"
)
max_megapixels = click.option(
    "--max-megapixels",
    type=click.FloatRange(min=0, min_open=True),
    callback=_finite,
    metavar="NUMBER",
    help="Largest image to read.  [default: 268]",
)
max_unpacked = click.option(
    "--max-unpacked",
    type=click.FloatRange(min=0, min_open=True),
    callback=_unpacking,
    expose_value=False,
    metavar="GB",
    help="Most that a small packed file may unpack to: an array, a table, a shard, weights.  [default: 1.07]",
)
_TRUST = click.option(
    "--trust",
    "trusted",
    multiple=True,
    metavar="NAME|FILE",
    help="Let this code run: a package.module:function, or the code in a TorchScript or torch.export file; repeatable.",
)


_ENGINE = click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="serial",
    show_default=True,
    help="What computes: this process, or tasks of Ray on all GPUs of this machine or a cluster; see docs/scale.md.",
)
_RAY_ADDRESS = click.option(
    "--ray-address",
    metavar="HOST:PORT|auto",
    help="Ray cluster to join; auto on one of its nodes.  [default: Ray is started on this machine]",
)
_TASK_GPUS = click.option(
    "--task-gpus",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    help="GPUs of each Ray task; a fraction lets several tasks share one.",
)
_WORKERS_PER_FOLD = click.option(
    "--workers-per-fold",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Ray tasks that train each network together, where a single GPU does not hold its batches.",
)


def pixels(megapixels: float | None) -> int | None:
    """Return a number of megapixels in pixels, None for None."""
    return None if megapixels is None else max(1, round(min(megapixels * 1_000_000, _ALL)))


def machine(*, precision: bool = True, engine: bool = False) -> Callable[[Command], Command]:
    """Add the options that say where to compute; the command gets them as one `machine`."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def gathered(*, max_megapixels: float | None, **given: Any) -> Any:
            own = {field.name: given.pop(field.name) for field in fields(Machine) if field.name in given}
            return command(machine=Machine(**own, max_pixels=pixels(max_megapixels)), **given)

        result: Command = gathered
        engines = [_WORKERS_PER_FOLD, _TASK_GPUS, _RAY_ADDRESS, _ENGINE] if engine else []
        precisions = [_DETERMINISTIC, _PRECISION] if precision else []
        for option in (_TRUST, max_unpacked, max_megapixels, cache_dir, *engines, *precisions, _THREADS, _DEVICE):
            result = option(result)
        return result

    return decorate


@contextmanager
def shown(quiet: bool) -> Iterator[Display]:
    """Give a watcher that shows notes and progress on standard error, or nothing; leave no moving line behind."""
    display = Quiet(sys.stderr) if quiet else Display(sys.stderr)
    try:
        yield display
    finally:
        display.close()
