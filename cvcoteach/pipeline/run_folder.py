"""A run <-> one folder. Every fold's result is written there at once, so that a killed run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from types import NoneType
from typing import Any

import filelock

from cvcoteach._files import (
    check_regular,
    held_by,
    read_array,
    sign,
    sweep_partials,
    unsign,
    write_array,
    write_json,
)
from cvcoteach._json import parsed
from cvcoteach._validation import InputError
from cvcoteach.crossval.trainer import FoldKey
from cvcoteach.noise_model.top_probs import Answer
from cvcoteach.pipeline.result_arrays import from_saved, to_save

FORMAT = 1

Json = dict[str, Any]

RESULTS = ("issues.csv", "issues.html", "probabilities.npz", "unreadable.csv", "annotators.csv")
"""Files of a finished run beside run.json and the folds."""

_LOCK = ".lock"
_KINDS: dict[str, tuple[type, ...]] = {
    "identity": (dict,),
    "state": (str,),
    "source": (str,),
    "reading": (dict,),
    "images": (dict,),
    "images.count": (int,),
    "weights": (str, NoneType),
    "chosen": (dict, NoneType),
    "timings": (list,),
    "rounds": (list,),
    "summary": (dict,),
    "table": (str, NoneType),
    **{f"summary.n_{what}": (int,) for what in ("images", "classes", "issues", "probably_wrong", "worth_a_look")},
    "summary.has_signal": (bool,),
    "summary.noise_rate": (int, float, NoneType),
    "summary.flag_for": (str,),
    "summary.expected_precision": (dict, NoneType),
    "summary.expected_recall": (dict, NoneType),
    "summary.note": (str,),
    "summary.mode": (str,),
    "summary.selected": (int,),
    "summary.candidate": (int,),
    "summary.confusions": (list,),
    "identity.backbone": (str,),
    "identity.image_size": (int,),
    "identity.weights_digest": (str,),
    "identity.recipe": (dict,),
    "identity.recipe.model": (str,),
    "identity.recipe.weights": (str, NoneType),
    "identity.recipe.flip": (bool, NoneType),
}
"""What fields of run.json are, where they are there."""


class OtherRunError(InputError):
    """Raised where a folder belongs to a run of other images, labels or settings."""


class FoldFiles(MutableMapping[FoldKey, Answer]):
    """Maps the finished folds of a run to their .npy files; `IterativeCV.run(finished=…)` reads and fills it."""

    def __init__(self, folder: Path, run: Path | None = None) -> None:
        """Use `folder`, which is created when the first fold is written; in the folder `run`, None: beside it."""
        self.folder, self._run = folder, run or folder.parent
        self._whole: set[FoldKey] = set()  # those whose checksum was right

    def _file(self, key: FoldKey) -> Path:
        return self.folder / f"round-{key[0]}-fold-{key[1]}.npy"

    def __getitem__(self, key: FoldKey) -> Answer:
        """Return the probabilities of one fold. Raises KeyError where it has not finished, or its file is damaged."""
        try:
            return from_saved(read_array(self._file(key)))
        except (OSError, ValueError):  # DamagedError is one
            raise KeyError(key) from None

    def __setitem__(self, key: FoldKey, value: Answer) -> None:
        # one by one: a run folder that was removed meanwhile is not made anew
        for part in reversed(self.folder.relative_to(self._run).parents[:-1]):
            (self._run / part).mkdir(exist_ok=True)
        self.folder.mkdir(exist_ok=True)
        write_array(self._file(key), to_save(value))
        self._whole.add(key)

    def __delitem__(self, key: FoldKey) -> None:
        try:
            self._file(key).unlink()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, tuple):
            return False
        key = FoldKey(*key)
        if key not in self._whole or not self._file(key).exists():
            try:
                self[key]
            except KeyError:  # a fold that is not whole is trained again
                self._whole.discard(key)
                return False
            self._whole.add(key)
        return True

    def __iter__(self) -> Iterator[FoldKey]:
        for file in sorted(self.folder.glob("round-*-fold-*.npy")):
            _, number, _, fold = file.stem.split("-")
            if number.isdecimal() and fold.isdecimal() and (key := FoldKey(int(number), int(fold))) in self:
                yield key

    def __len__(self) -> int:
        return sum(1 for _ in self)


class RunFolder:
    """Holds one run: `run.json`, the finished folds, and what the caller writes beside them.

    `with RunFolder.open(path, identity) as run:` creates it, or resumes what is there, and locks it meanwhile.
    """

    def __init__(self, path: Path, record: Json) -> None:
        """Use `open` or `read`."""
        self.path = path
        self.record = record
        self.folds = FoldFiles(path / "folds")
        self.second_folds = FoldFiles(path / "folds" / "second", path)  # of a second view
        self._lock: filelock.BaseFileLock | None = None

    @classmethod
    def open(cls, path: Path, identity: Mapping[str, Any], *, replace: bool | None = None) -> RunFolder:
        """Begin a run at `path`, or resume the one that is there.

        Args:
            path: the folder; created if need be.
            identity: everything that decides the result (settings, seed, fingerprints of labels and images), as JSON.
            replace: whether a run of other images, labels or settings is overwritten; files that no run wrote stay.
                None: no, and nobody could have said so.

        Raises:
            OtherRunError: where the folder holds a run of other images, labels or settings; it stays as it is.
            InputError: where the folder holds other files, or another process works in it; it stays as it is.
        """
        wanted = json.loads(json.dumps(identity))
        if path.exists() and not path.is_dir():
            raise InputError(f"{path} is a file; the output is a folder.")
        file = path / "run.json"
        if not file.exists() and path.is_dir() and any(not p.name.startswith(".") for p in path.iterdir()):
            raise InputError(f"{path} is not empty and holds no run of cvcoteach; choose another output folder.")
        if replace and (path / "model.json").exists():
            raise InputError(
                f"{path} holds a classifier, which is not replaced by a run; choose another output folder."
            )
        linked = next((place for place in (path / "folds", path / "folds" / "second") if place.is_symlink()), None)
        if linked is not None:
            raise InputError(f"{linked} is a link; a run writes its folds into its own folder.")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{path} could not be created: {error.strerror}.") from error
        lock = filelock.FileLock(path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise InputError(
                f"another process is at work in {path} ({held_by(path / _LOCK)}); wait for it, or choose another "
                "output folder."
            ) from None
        except OSError as error:
            _refuse_removed(path, error)
            raise InputError(f"{path} could not be written: {error.strerror}.") from error
        try:
            for folder in (path, path / "folds", path / "folds" / "second"):
                sweep_partials(folder)
            run = cls(path, _read(file)) if file.exists() else None
            if run is not None and replace and run.record["identity"] != wanted:
                run._remove_results()
            elif run is not None and run._has_results:
                _refuse_other(path, run.record["identity"], wanted, " replace that run," if replace is False else "")
            if run is None or run.record["identity"] != wanted:
                run = cls(path, {"format": FORMAT, "state": "running", "identity": wanted})
                run.save()
        except BaseException as error:
            lock.release()
            _refuse_removed(path, error)
            raise
        run._lock = lock
        sign(path / _LOCK)
        return run

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Return the run at `path`, for reading. Raises InputError where there is none."""
        if not (path / "run.json").exists():
            raise InputError(f"{path} holds no run of cvcoteach (no run.json).")
        return cls(path, _read(path / "run.json"))

    @property
    def done(self) -> bool:
        """Whether the run has finished."""
        return self.record["state"] == "done"

    @property
    def _has_results(self) -> bool:
        """Whether anything would be lost with the folder: a run that failed at once holds run.json alone."""
        beside = (entry for entry in self.path.iterdir() if not entry.name.startswith("."))
        return self.done or any(entry.name != "run.json" for entry in beside)

    def _remove_results(self) -> None:
        self.save(state="running")  # killed from here on, it is an unfinished run with fewer folds
        for name in RESULTS:
            (self.path / name).unlink(missing_ok=True)
        for folds in (self.folds, self.second_folds):
            for key in [*folds]:
                del folds[key]

    def needed(self, name: str) -> Any:
        """Return a field of run.json that a finished run has. Raises InputError where it is not there."""
        if name not in self.record:
            raise InputError(f"{self.path / 'run.json'} is damaged: it has no {name}.")
        return self.record[name]

    def save(self, **changes: Any) -> None:
        """Write the changes into run.json, atomically."""
        self.record = {**self.record, **changes}
        write_json(self.path / "run.json", self.record)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._lock is not None:
            unsign(self.path / _LOCK)
            self._lock.release()
        _refuse_removed(self.path, error)


def _refuse_removed(path: Path, error: BaseException | None) -> None:
    """Raise InputError where an error came of a run folder that is gone."""
    if isinstance(error, OSError | RuntimeError) and not path.is_dir():
        raise InputError(
            f"{path} was removed while the run was going on, and what it held is lost; the same command starts again."
        ) from error


def _read(file: Path) -> Json:
    check_regular(file)
    try:
        record = parsed(file.read_text(encoding="utf-8"))
        known = record["format"]
        record["identity"], record["state"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged: {error}.") from error
    for name, kinds in _KINDS.items():
        *outer, last = name.split(".")
        inside: Any = record
        for key in outer:
            inside = inside.get(key, {})
        if last in inside and not isinstance(inside[last], kinds):
            raise InputError(f"{file} is damaged: its {name} is {inside[last]!r}.")
    if known != FORMAT:
        raise InputError(f"{file} has format {known}; this version of cvcoteach reads format {FORMAT}.")
    return dict(record)


def _refuse_other(path: Path, there: Json, wanted: Json, instead: str) -> None:
    # what was asked for before what was read: a setting may change labels and paths too
    for name in sorted(there.keys() | wanted.keys(), key=lambda name: (name.endswith("_digest"), name)):
        old, new = there.get(name), wanted.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            name = next(key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key))
            old, new = old.get(name), new.get(name)
        what = "folds by round" if name == "folds" else name.replace("_", " ")
        if name.endswith("_digest"):
            how = f"its {what.removesuffix(' digest')} have changed since"
        else:
            verb = "are" if name.endswith("s") else "is"
            how = f"its {what} {verb} {old!r}, {'here there is none' if new is None else f'not {new!r}'}"
            if old is None:
                how = f"it has no {what}, which {verb} {new!r} here"
        raise OtherRunError(
            f"{path} belongs to another run: {how}. Choose another output folder,{instead} or repeat the earlier "
            "call to resume it."
        )
