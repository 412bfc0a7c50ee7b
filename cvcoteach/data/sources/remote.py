"""Addresses (`s3://`, `https://`, `zip://`, `hf://`) -> a copy in the cache, brought up to date at each call."""

from __future__ import annotations

import logging
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import filelock

from cvcoteach import _working_folder
from cvcoteach._files import FULL, digest, in_bytes, leads_out, read_text, write_json
from cvcoteach._json import parsed
from cvcoteach._validation import InputError
from cvcoteach.data.cache_folder import CACHE_VARIABLE, cache_folder
from cvcoteach.data.sources.patterns import (
    expanded,
    folder_name,
    is_pattern,
    is_wild,
    matched,
    shown_address,
    together,
)

_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+(://|::)")
_HUB = re.compile(
    r"hf://(?P<name>(?!datasets/|models/|spaces/|buckets/)[\w.-]+(?:/[\w.-]+)?)(?:/(?P<config>[\w.-]+))?/?"
)
_TABLES = frozenset([".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".lst", ".json", ".xml"])
"""Files that name images beside them: their whole folder is copied."""
_WEB = ("http://", "https://")
_REFERENCES = re.compile(r"(^|::)reference(://|::|$)")
"""A file of references names other addresses, and may hold templates, which fsspec runs."""
_ODD_PASSWORD = re.compile(r"(?<!file)(?<!zip)(?<!tar)://(?!arn:)[^/@\s:]*:(?!\d+(/|$))[^@]*/.*@")
_HADOOP = re.compile(r"(^|::)(arrow_)?hdfs://")
"""pyarrow looks for Hadoop's library in the working folder, too, which may be one of data (pyarrow 25)."""
_PLAIN_DATASETS = 4
"""The first version of `datasets` that runs no code of the dataset."""
_REFUSED = (401, 403, 407, 429, 500, 502, 503, 504)
"""Answers of a server that has, or may have, what was asked for."""
_AT_ONCE = 256
"""Files fetched in one call, which file systems on the network do side by side."""
_LIST = "files.json"


def is_address(source: object) -> bool:
    """Return whether a source is an address, not a path."""
    return isinstance(source, str) and _ADDRESS.match(source) is not None


def at_hand(source: str | Path, cache_dir: str | Path | None = None) -> Path:
    """Return the path of a source: of an address, that of its copy in the cache, in which what has changed is new.

    Args:
        source: a path, which is returned as it is; a pattern of names of Parquet files or shards, such as `data/*.tar`
            or `data/{000..009}.tar`, which becomes a folder of links to them in the cache; an address that fsspec
            knows, with or without such a pattern; or `hf://OWNER/NAME[/CONFIG]`, a dataset of Hugging Face's hub. A
            table of paths is copied with all that lies in its folder.
        cache_dir: where the copy is; None: the environment's cache, else the user's.

    Raises:
        InputError: with one sentence, where it cannot be reached, or there is no room.
    """
    if not is_address(source) and not is_pattern(source):
        return Path(source)
    address = str(source)
    # what follows the / would be shown, and what comes before it taken for the port
    if any(map(_ODD_PASSWORD.search, address.split("::"))):
        raise InputError("the password in the address holds a /, which is written as %2F there.")
    shown = shown_address(address)
    if any(_REFERENCES.search(each) for each in expanded(address)):
        raise InputError(f"{shown} is a file of references to other addresses, which are not followed; name those.")
    home = cache_folder(cache_dir) / "remote" / digest(address)[:24]
    try:
        if not is_address(source):
            return matched(source, cache_dir)
        home.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(home / ".lock"):
            if found := _HUB.fullmatch(address):
                return _from_hub(found["name"], found["config"], home)
            return _from_file_system(address, shown, home)
    except OSError as error:
        full = error.errno in FULL
        raise InputError(
            f"{shown} cannot be copied into {home} ({'the disk is full' if full else error.strerror or error}); "
            f"{CACHE_VARIABLE} names another folder."
        ) from error


def inside(source: object, folder: str) -> str:
    """Return the address of a folder in what an address names; empty for a path."""
    if not isinstance(source, str) or not is_address(source):
        return ""
    first, chain, rest = shown_address(source).partition("::")
    return f"{first if first.endswith('/') else first + '/'}{folder}{chain}{rest}"


def zip_address(file: Path) -> str:
    """Return the address of what a .zip holds: of the one folder in it, as most archives have, or of all."""
    try:
        with zipfile.ZipFile(file) as archive:
            places = {name.partition("/")[::2] for name in archive.namelist()}
    except (OSError, ValueError, zipfile.BadZipFile):
        places = set()
    tops = {top for top, _ in places if top != "__MACOSX" and not top.startswith(".")}
    folders = {top for top, rest in places if rest}
    return f"zip://{next(iter(tops)) if len(tops) == 1 and tops <= folders else ''}::{file}"


# -- file systems --


def _from_file_system(address: str, shown: str, home: Path) -> Path:
    with _reached(shown):
        import fsspec
        from fsspec.implementations.local import LocalFileSystem

        addresses = expanded(address)
        with _working_folder.inside(os.sep) if _HADOOP.search(addresses[0]) else nullcontext():
            system, root = fsspec.core.url_to_fs(addresses[0])
        if isinstance(system, LocalFileSystem):
            local = fsspec.core.url_to_fs(address)[1]
            return matched(local, home.parent.parent) if is_pattern(local) else Path(root)
        system.invalidate_cache()
        wild = is_wild(root, web=address.startswith(_WEB))
        if wild or len(addresses) > 1:
            found = _matching(system, [fsspec.core.url_to_fs(each)[1] for each in addresses], shown)
            if len(found) > 1:
                files = dict(zip(together(list(found), shown), found.items(), strict=True))
                target = home / folder_name(_without_user(root))
                _bring(system, files, target, shown)
                return target
            root = next(iter(found))
        listed = _listed(system, root, address)
    if not listed.files:
        raise InputError(f"{shown} holds no files.")
    target = home / (_plain(PurePosixPath(_without_user(listed.base)).name) or _plain(_archive(address)) or "data")
    _bring(system, _relative(listed, shown), target, shown)
    return target / listed.inside


def _matching(system: Any, roots: Sequence[str], shown: str) -> dict[str, Mapping[str, Any]]:
    """Return the files that names and patterns stand for, and what is known about each."""
    result: dict[str, Mapping[str, Any]] = {}
    for root in roots:
        if not is_wild(root, web=root.startswith(_WEB)):
            result[root] = _about(system, root)
            continue
        if root.startswith(_WEB):
            raise InputError(f"{shown} is a pattern on the web, which cannot be listed; name each, as in {{000..009}}.")
        found = {path: about for path, about in system.glob(root, detail=True).items() if about.get("type") == "file"}
        if not found:
            raise InputError(f"{shown} matches no file.")
        result |= dict(sorted(found.items()))
    return result


def _about(system: Any, path: str) -> Mapping[str, Any]:
    try:
        return dict(system.info(path))
    except FileNotFoundError:
        raise InputError(f"{shown_address(path)} does not exist.") from None


@contextmanager
def _reached(shown: str) -> Iterator[None]:
    """Turn whatever a file system raises into one sentence: each raises what its own libraries do."""
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{shown} takes a package that is not there ({error}): pip install 'cvcoteach[remote]'."
        ) from error
    except FileNotFoundError as error:
        # of the web fsspec says so of a server, too, that does not answer, or not to us
        cause = error.__cause__
        if isinstance(cause, OSError) or getattr(cause, "status", 404) in _REFUSED:
            raise InputError(_unreachable(shown, cause or error)) from error
        raise InputError(f"{shown} does not exist.") from None
    except OSError as error:
        if error.errno in FULL:
            raise
        raise InputError(_unreachable(shown, error)) from error
    except Exception as error:
        raise InputError(_unreachable(shown, error)) from error


def _unreachable(shown: str, error: BaseException) -> str:
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{shown} cannot be reached ({shown_address(said)}); look at the address, the network and your access."


def _archive(address: str) -> str:
    """Return the name of the archive that an address ends in: `photos` of `zip://::/data/photos.zip`."""
    return PurePosixPath(address.rsplit("::", 1)[-1].split("?")[0]).stem


def _without_user(path: str) -> str:
    """Return where a file is without user and password: what the copy is called stands in run folders."""
    return re.sub(r"^(\w+://)?[^/]*@", r"\1", path)


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]", "_", name).lstrip(".")


class _Listed(NamedTuple):
    """What is copied of a file system."""

    base: str
    """The folder."""
    files: Mapping[str, Mapping[str, Any]]
    """Its files, and what is known about each."""
    inside: str
    """The one that was named, relative to the folder; empty for the folder itself."""


def _listed(system: Any, root: str, address: str) -> _Listed:
    about = system.info(root)
    if about.get("type") == "directory":
        if address.startswith(_WEB):
            raise InputError(f"{shown_address(address)} is a folder on the web, which cannot be listed; name a file.")
        return _Listed(root.strip("/"), system.find(root, detail=True), "")
    folder, _, name = root.split("?")[0].rpartition("/")
    files = {root: about}
    if os.path.splitext(name)[1].lower() in _TABLES and not address.startswith(_WEB):
        files = system.find(folder, detail=True)
    return _Listed(folder.strip("/"), files, name)


def _relative(listed: _Listed, shown: str) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """Return the files by their name in the copy. Raises InputError for a name that leads out of it."""
    result = {}
    for path, about in listed.files.items():
        name = path.split("?")[0].strip("/").removeprefix(listed.base).strip("/")
        if not name or ".." in name.split("/") or "\0" in name or "\\" in name or (os.name == "nt" and ":" in name):
            raise InputError(
                f"{shown} holds the file {shown_address(path)!r}, whose name leads out of it; nothing is copied."
            )
        result[name] = (path, about)
    return result


def _bring(system: Any, files: Mapping[str, tuple[str, Mapping[str, Any]]], target: Path, shown: str) -> None:
    """Bring the copy up to date: fetch what is new or has changed, remove what is gone."""
    home = target.parent
    target.mkdir(exist_ok=True)
    known = _known(home)
    keys = {inside: _key(about) for inside, (_, about) in files.items()}
    missing = [inside for inside, key in keys.items() if known.get(inside) != key or not (target / inside).is_file()]
    needed = sum(int(files[inside][1].get("size") or 0) for inside in missing)
    free = shutil.disk_usage(home).free
    if needed > free:
        raise InputError(
            f"{shown} takes {in_bytes(needed)}, but {home} has {in_bytes(free)} free; {CACHE_VARIABLE} names another "
            "folder."
        )
    _check_links(target)
    for inside in known.keys() - keys.keys():
        if leads_out(inside):  # no record of ours
            continue
        with suppress(OSError):
            (target / inside).unlink()
            for folder in list((target / inside).parents)[: inside.count("/")]:
                folder.rmdir()  # until one is not empty
    partial = home / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    done = {inside: key for inside, key in known.items() if keys.get(inside) == key}
    try:
        for start in range(0, len(missing), _AT_ONCE):
            batch = missing[start : start + _AT_ONCE]
            waiting = [str(partial / str(number)) for number in range(len(batch))]
            with _reached(shown):
                system.get([files[inside][0] for inside in batch], waiting)
            for inside, file in zip(batch, waiting, strict=True):
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target / inside)
                done[inside] = keys[inside]
    finally:
        write_json(home / _LIST, {"address": shown, "files": done})
        shutil.rmtree(partial, ignore_errors=True)


def _check_links(target: Path) -> None:
    """Raise InputError where the copy, or a folder in it, is a link: what is written there would land elsewhere."""
    folders = (os.path.join(where, name) for where, names, _ in os.walk(target) for name in names)
    linked = next((each for each in (str(target), *folders) if os.path.islink(each)), None)
    if linked is not None:
        raise InputError(f"{linked} is a link, which no copy of ours holds; nothing is copied. Remove it.")


def _key(about: Mapping[str, Any]) -> str:
    """Return what tells whether a file has changed: all that its file system says about it."""
    return digest(repr(sorted((str(field), str(value)) for field, value in about.items())))


def _known(home: Path) -> dict[str, str]:
    try:
        files = parsed(read_text(home / _LIST))["files"]
        return {str(name): str(key) for name, key in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


# -- Hugging Face's hub --


def _from_hub(name: str, config: str | None, home: Path) -> Path:
    """Return a dataset of the hub, saved to disk in the cache; saved again where it has changed."""
    shown = f"hf://{name}"
    with _reached(shown):
        import datasets

        if int(datasets.__version__.split(".")[0]) < _PLAIN_DATASETS:
            raise InputError(
                f"{shown} takes the package datasets, {_PLAIN_DATASETS}.0 or later: earlier ones may run code of the "
                "dataset."
            )
        if name in getattr(datasets.packaged_modules, "_PACKAGED_DATASETS_MODULES", {}) or os.path.exists(name):
            raise InputError(
                f"{shown} would be read from the working folder, not from the hub: {name} is a file or folder there, "
                "or a format of the package datasets; name files without hf://."
            )
        with _without_warnings("huggingface_hub"):  # one for each time that it tries again
            loaded = datasets.load_dataset(name, config) if config else datasets.load_dataset(name)
    prints = {split: str(part._fingerprint) for split, part in loaded.items()}
    folder = home / (name.split("/")[-1] + (f"-{config}" if config else ""))
    if (folder / "dataset_dict.json").is_file() and _known(home) == prints:
        return folder
    partial = home / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    with _reached(shown):
        loaded.save_to_disk(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)
    write_json(home / _LIST, {"address": shown, "files": prints})
    return folder


@contextmanager
def _without_warnings(library: str) -> Iterator[None]:
    """Let a library log errors alone."""
    logger = logging.getLogger(library)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
