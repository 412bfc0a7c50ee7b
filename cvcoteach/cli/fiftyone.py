"""`cvcoteach fiftyone install | doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from cvcoteach._validation import InputError
from cvcoteach.cli.display import say


@click.group()
def fiftyone() -> None:
    """Set up the plugin for the FiftyOne App."""


@fiftyone.command()
@click.option("--copy", is_flag=True, help="Copy the plugin's files instead of linking to them.")
@click.option(
    "--plugins-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to put the plugin into.  [default: FiftyOne's plugin folder]",
)
def install(copy: bool, plugins_dir: Path | None) -> None:
    """Install the plugin into FiftyOne's plugin folder."""
    from cvcoteach.fiftyone import install as installing

    target = installing.install(plugins_dir or _plugins_dir(), copy=copy)
    click.echo(f"The plugin is at {target}. Start the App (or reload its page) and press “Find label issues”.")


@fiftyone.command()
def doctor() -> None:
    """Check versions, database and plugin, and say how to fix what is wrong."""
    from cvcoteach.fiftyone import install as installing

    bad = False
    for finding in installing.examine():
        bad |= finding.remedy is not None
        say(f"{'✗' if finding.remedy else '✓'} {finding.what}")
        if finding.remedy:
            say(f"  → {finding.remedy}")
    if bad:
        raise SystemExit(1)


def _plugins_dir() -> Path:
    try:
        import fiftyone as fo
    except ModuleNotFoundError:
        raise InputError('FiftyOne is not installed; run `pip install "cvcoteach[fiftyone]"`.') from None
    return Path(fo.config.plugins_dir)
