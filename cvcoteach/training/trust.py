"""Code from outside: it runs only where the user named it, never because a file did."""

from __future__ import annotations

import os
import re
import shlex
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from cvcoteach._validation import InputError

_LIBRARIES = re.compile(r"(torchvision|timm|package):[\w.-]+")
"""Models of torchvision, timm and packages that hold weights; timm also takes addresses on the web and folders, which
hold another colon."""


def runs_code(backbone: str) -> bool:
    """Return whether loading a backbone runs code from outside this package, torchvision, timm and `packaged`."""
    return _LIBRARIES.fullmatch(backbone) is None


def names_function(name: str) -> bool:
    """Return whether a name has the form "package.module:function"; a file that is called so is `./…`."""
    module, colon, function = name.partition(":")
    return bool(colon) and all(part.isidentifier() for part in (*module.split("."), function))


def is_trusted(name: str, trusted: Collection[str]) -> bool:
    """Return whether `name` is among `trusted`: as it is written there, or as the same file."""
    if name in trusted:
        return True
    if names_function(name) or not os.path.exists(name):
        return False
    return os.path.realpath(name) in (os.path.realpath(file) for file in trusted if not names_function(file))


def check_trusted(name: str, trusted: Collection[str], asked_by: str | None = None) -> None:
    """Refuse code that the user did not name.

    Args:
        name: "package.module:function", the path of an exported file, or a model of timm by its address.
        trusted: What the user named.
        asked_by: The file that asks for it; None: the user's own setting does.

    Raises:
        InputError: `name` is not among `trusted`.
    """
    if is_trusted(name, trusted):
        return
    asks = "" if asked_by is None else f"{asked_by} asks for {name!r}: "
    is_file = os.path.isfile(name) and not names_function(name)
    what = "loading this file runs code that it holds" if is_file else "this is code from outside cvcoteach"
    subject = f"{name!r} is not trusted: " if asked_by is None else ""
    raise InputError(f"{asks}{subject}{what}; if you trust it, add --trust {shlex.quote(name)}.")


_FORCED, _FORBIDDEN = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
_one_at_a_time = threading.RLock()


@contextmanager
def weights_only() -> Iterator[None]:
    """Let `torch.load` read nothing but tensors and plain values, whatever a library asks of it."""
    with _one_at_a_time:  # the environment belongs to all threads
        before = {name: os.environ.pop(name, None) for name in (_FORCED, _FORBIDDEN)}
        os.environ[_FORCED] = "1"
        try:
            yield
        finally:
            del os.environ[_FORCED]
            os.environ.update({name: value for name, value in before.items() if value is not None})
