"""Write a corrected copy of a run's images with a record of every change, and take recorded changes back."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from cvcoteach._csv import csv_text, write_csv
from cvcoteach._files import check_regular, write_json
from cvcoteach._json import parsed
from cvcoteach._progress import Progress, Silent, Watcher
from cvcoteach._validation import InputError
from cvcoteach._version import __version__
from cvcoteach.data.sources import read_source
from cvcoteach.data.writers import (
    Copy,
    check_destination,
    fingerprint,
    is_copy,
    names_in_copy,
    replace_copy,
    write_copy,
)
from cvcoteach.data.writers.columns import pattern_from
from cvcoteach.data.writers.copy import check_link
from cvcoteach.data.writers.folder import bring_back, move, place_in
from cvcoteach.pipeline.apply_plan import EXCLUDED, RELABELLED, Plan
from cvcoteach.pipeline.run_source import choices_in, reading_record
from cvcoteach.pipeline.run_summary import MOST_CONFUSIONS, counted

RECORD = ".changes.json"
_FORMAT = 1
_OF_ONE_CALL = {"when", "id"}


@dataclass(frozen=True)
class Written:
    """A corrected copy."""

    destination: Path
    """The folder, table or .npz."""
    record: Path
    """Every change; `undo` takes it."""
    notes: tuple[str, ...]
    """Sentences about how to read the copy."""


@dataclass(frozen=True)
class Undone:
    """What an undo did, or would do."""

    destination: Path
    """The copy."""
    n_changes: int
    """Changes taken back."""
    n_left: int
    """Changes left alone, because the file is no longer where they put it, or something is in its way."""


def record_of(destination: Path) -> Path:
    """Return where the changes of a copy are recorded: beside it."""
    return destination.with_name(destination.name + RECORD)


def check(plan: Plan, destination: Path) -> None:
    """Raise InputError where the copy cannot be written there."""
    record = record_of(destination)
    if _began(plan, destination) is not None:
        return
    check_destination(plan.copy, destination)
    source = plan.copy.source
    of_table = plan.copy.choices.split is not None and source.array is None and source.location.is_file()
    if of_table and destination.parent.resolve() != source.root.resolve():
        raise InputError(
            f"{source.location.name} keeps the rows of its other splits, which name files beside it: name a "
            f"place in {source.root}."
        )
    if record.exists() and _read(record)["state"] != "writing":
        raise InputError(f"{record} already exists, the record of another copy; delete it or name another place.")


def write(plan: Plan, destination: Path, watcher: Watcher | None = None) -> Written:
    """Write the corrected copy in the source's own format, and the record of every change beside it.

    Args:
        plan: What changes.
        destination: Must not exist; an empty folder is allowed for a folder, and a copy by the same plan whose call was
            killed before its record was finished.
        watcher: Follows the copying.

    Raises:
        InputError: It cannot be written, or the source has changed meanwhile; nothing is left behind.
    """
    check(plan, destination)
    record, copy = record_of(destination), plan.copy
    record.parent.mkdir(parents=True, exist_ok=True)
    began = _began(plan, destination)
    if began is not None:
        if not is_copy(copy, destination):
            raise InputError(f"{destination} already exists; name another place.")
        return _finished(plan, destination, began)
    content = _record(plan, destination)
    write_json(record, {**content, "state": "writing"})  # before the copy: a copy without a record could not be undone
    try:
        write_copy(copy, destination, _told(watcher or Silent()))
    except BaseException:
        if _id_of(record) == content["id"]:  # else another call is at work on the same
            record.unlink(missing_ok=True)
        raise
    return _finished(plan, destination, content)


def _finished(plan: Plan, destination: Path, content: dict[str, Any]) -> Written:
    record = record_of(destination)
    write_json(
        record, {**content, "state": "done", "copy_digest": fingerprint(destination, of_names=content["folders"])}
    )
    pattern = pattern_from(plan.copy, destination)
    notes = () if pattern is None else (f"The copy is read with --path-pattern {pattern!r}.",)
    return Written(destination, record, notes)


def _began(plan: Plan, destination: Path) -> dict[str, Any] | None:
    """Return the record of a copy by this plan that appeared, but whose call was killed then; None for none."""
    record = record_of(destination)
    there = destination.is_file() or (destination.is_dir() and any(destination.iterdir()))
    if not there or not record.exists():
        return None
    content, wanted = _read(record), json.loads(json.dumps(_record(plan, destination)))
    same = {*content} == {*wanted} and all(content[name] == wanted[name] for name in {*wanted} - _OF_ONE_CALL)
    return content if same and content["state"] == "writing" else None


def write_list(plan: Plan, file: Path | None) -> str:
    """Return the changes as a corrections CSV, and write it to a file, if one is named.

    Raises InputError where the file exists or cannot be written.
    """
    table = plan.corrections()
    if file is not None:
        if file.exists():
            raise InputError(f"{file} already exists; name another place.")
        write_csv(file, table)
    return csv_text(table)


def plan_text(plan: Plan, written: bool) -> str:
    """Return what changes, or has changed, as lines of text."""
    figures, changes = plan.summary, plan.changes
    would = "" if written else "Would "
    verbs = ("Relabelled", "excluded") if written else ("relabel", "exclude")
    images = counted(len(plan.copy.source), "image")
    lines = [
        f"{would}{verbs[0]} {figures['n_relabelled']:,} and {verbs[1]} {figures['n_excluded']:,} of {images}"
        + (f"; {figures['n_reviewed']:,} of these by review." if figures["n_reviewed"] else ".")
    ]
    if figures["expected_mistakes"] is not None:
        n = len(changes) - plan.summary["n_reviewed"]
        lines.append(f"About {figures['expected_mistakes']:.0f} of {counted(n, 'change')} without review may be wrong.")
    if figures["n_left"]:
        one = figures["n_left"] == 1
        lines.append(
            f"{counted(figures['n_left'], 'flagged label')} {'stays' if one else 'stay'}: the given class is more "
            "probable than any other one."
        )
    relabelled = changes[changes["action"] == RELABELLED]
    pairs = Counter(zip(relabelled["old"], relabelled["new"], strict=True))
    lines += [f"  {old} -> {new}  ({n:,})" for (old, new), n in pairs.most_common(MOST_CONFUSIONS)]
    if len(pairs) > MOST_CONFUSIONS:
        lines.append(f"  and {counted(len(pairs) - MOST_CONFUSIONS, 'other pair')} of classes")
    return "\n".join(lines)


def undo(record: Path, *, dry_run: bool = False) -> Undone:
    """Take back every change of a corrected copy: labels as they were, excluded images back in.

    In class folders, files that were moved or replaced since are left alone. A copy of another format is written again
    from its source; it must not have changed since, nor the source. A copy whose record was not finished, because apply
    was killed then, is taken back as well, since copies appear as a whole; whether it changed since is not known then.

    Args:
        record: What `write` left beside the copy.
        dry_run: Whether to count only.

    Raises:
        InputError: It is no such record, names files outside of the copy, was undone already, or the copy or its source
            has changed or is gone.
    """
    content = _read(record)
    if content["state"] == "undone":
        raise InputError(f"the changes in {record.name} were taken back already, on {content.get('undone')}.")
    destination = record.with_name(record.name.removesuffix(RECORD))
    if destination.is_symlink():
        raise InputError(f"{destination} is a link, and no copy that apply wrote; nothing was changed.")
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        raise InputError(f"{destination}, the copy that {record.name} is about, is not there.")
    if content.get("folders", destination.is_dir()):
        done, left = _undo_in_folder(content, destination, dry_run)
    else:
        done, left = _undo_file(content, destination, dry_run), 0
    if not dry_run:
        write_json(record, {**content, "state": "undone", "undone": _now()})
    return Undone(destination, done, left)


def _undo_in_folder(content: dict[str, Any], destination: Path, dry_run: bool) -> tuple[int, int]:
    done = left = 0
    changes = [(change.get("file", ""), change.get("file_in_copy")) for change in reversed(content["changes"])]
    for name in [name for pair in changes for name in pair if name is not None]:
        place_in(destination, name)  # all of them before anything is changed
    for name in [old for old, new in changes if not new]:
        check_link(Path(content["root"], name), destination)
    for old, new in changes:
        if (destination / old).is_file() and (new is None or not (destination / new).exists()):
            done += 1  # by an undo that was interrupted
        elif dry_run:
            possible = (destination / new).is_file() if new else Path(content["root"], old).is_file()
            done, left = done + possible, left + (not possible)
        else:
            root = Path(content["root"])
            moved = move(destination, new, old) if new else bring_back(root / old, destination, old)
            done, left = done + moved, left + (not moved)
    return done, left


def _undo_file(content: dict[str, Any], destination: Path, dry_run: bool) -> int:
    source, choices = Path(content["source"]), choices_in(content["reading"], record_of(destination))
    if destination.is_file() and source.is_file() and fingerprint(source) == content.get("source_digest"):
        data = read_source(source, **asdict(choices))
        whole = Copy(data, choices, data.labels, np.ones(len(data), np.bool_))
        if fingerprint(destination) != content.get("copy_digest") and is_copy(whole, destination):
            return len(content["changes"])  # by an undo that was interrupted
    for file, digest, what in ((destination, "copy_digest", "copy"), (source, "source_digest", "source")):
        if not file.exists():
            raise InputError(f"{file}, the {what} of the record, is not there; nothing was changed.")
        finished = digest in content or content["state"] != "writing"  # else the copy had just appeared
        if finished and fingerprint(file) != content.get(digest):
            raise InputError(f"{file} has changed since; taking the changes back would lose that, nothing was changed.")
    if not dry_run:
        data = read_source(source, **asdict(choices))
        whole = Copy(data, choices, data.labels, np.ones(len(data), np.bool_))
        replace_copy(whole, destination)
    return len(content["changes"])


def _record(plan: Plan, destination: Path) -> dict[str, Any]:
    copy, settings = plan.copy, plan.settings
    names = names_in_copy(copy)
    files = copy.source.paths if copy.source.file_names is None else copy.source.file_names
    changes = []
    for change in plan.changes.to_dict("records"):
        row, probability = change.pop("row"), change["probability"]
        change["probability"] = None if math.isnan(probability) else round(probability, 6)
        if names is not None:
            gone = change["action"] == EXCLUDED
            change |= {"file": files[row], "file_in_copy": None if gone else names[row]}
        changes.append(change)
    return {
        "format": _FORMAT,
        "state": "writing",
        "when": _now(),
        "id": uuid4().hex,
        "version": __version__,
        "run": str(plan.run.results.folder.absolute()),
        "source": str(copy.source.location),
        "root": str(copy.source.root),
        "reading": reading_record(copy.choices),
        "destination": str(destination.absolute()),
        "action": settings.action,
        "min_probability": settings.min_probability,
        "corrections": None if settings.corrections is None else str(settings.corrections.absolute()),
        "summary": plan.summary,
        "folders": names is not None,
        "source_digest": fingerprint(copy.source.location) if names is None else None,
        "changes": changes,
    }


def _read(record: Path) -> dict[str, Any]:
    other = InputError(f"{record} is no record of changes; apply writes one beside the copy, NAME{RECORD}.")
    check_regular(record)
    try:
        content = parsed(record.read_text(encoding="utf-8"))
        known = content["format"]
        fits = all(isinstance(content[name], str) for name in ("state", "source", "root"))
        fits &= isinstance(content["reading"], dict) and isinstance(content["changes"], list)
        for change in content["changes"]:
            fits &= isinstance(change.get("file", ""), str) and isinstance(change.get("file_in_copy"), str | None)
    except FileNotFoundError:
        raise InputError(f"{record} does not exist; apply writes it beside the copy, NAME{RECORD}.") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise other from None
    if not fits or known != _FORMAT or not record.name.endswith(RECORD):
        raise other
    return dict(content)


def _id_of(record: Path) -> str | None:
    try:
        return _read(record).get("id")
    except InputError:
        return None


def _told(watcher: Watcher) -> Callable[[int, int], None]:
    def tell(done: int, to_do: int) -> None:
        finished = counted(done, "image") if done == to_do else ""
        watcher.progress(Progress("copying images", done, max(to_do, 1), f"{done:,} of {to_do:,}", finished))

    return tell


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
