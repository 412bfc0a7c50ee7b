"""Pickles of dicts, lists, text, numbers and arrays of numbers, read without running anything that they name."""

from __future__ import annotations

import io
import pickle
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cvcoteach._validation import InputError

_TYPE = re.compile(r"[<>=|]?[?biufS]\d{0,4}")
"""Numbers, and bytes of one length."""
_ORDERS = ("<", ">", "=", "|")


class _Known:
    """Something that a pickle may name, in place of the real one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        """Return what the real one would, of the few arguments that make plain values."""
        raise pickle.UnpicklingError(f"{self.name} is not callable")


class _Encode(_Known):
    """Bytes as Python 3 writes them for Python 2."""

    def __call__(self, *arguments: Any) -> bytes:
        text, encoding = arguments
        if not isinstance(text, str) or encoding != "latin1":
            raise pickle.UnpicklingError("it encodes text")
        return text.encode("latin1")


class _Type:
    """A type of numbers; numpy's own could be told to be anything, lengths and pointers included."""

    def __init__(self, code: object) -> None:
        code = code.decode("latin1") if isinstance(code, bytes) else code
        if not isinstance(code, str) or not _TYPE.fullmatch(code):
            raise pickle.UnpicklingError("it holds arrays of something other than numbers")
        self.dtype = np.dtype(code)

    def set(self, state: Any) -> None:
        """Take the order of bytes from numpy's state; nothing else of it."""
        order: Any = state[1].decode("latin1") if isinstance(state[1], bytes) else state[1]
        if order not in _ORDERS:
            raise pickle.UnpicklingError("it holds arrays of an unknown order of bytes")
        self.dtype = self.dtype.newbyteorder(order)


class _MakeType(_Known):
    def __call__(self, *arguments: Any) -> _Type:
        return _Type(arguments[0])


class _MakeArray(_Known):
    """An empty array, which its state fills; numpy's own takes a shape, and memory, of any size."""

    def __call__(self, *arguments: Any) -> np.ndarray:
        kind, shape, _ = arguments
        if getattr(kind, "name", "") != "numpy.ndarray" or shape != (0,):
            raise pickle.UnpicklingError("it builds something other than an array")
        return np.ndarray((0,), np.uint8)


def _fill(array: np.ndarray, state: Any) -> None:
    """Set shape, type and content of an array."""
    _, shape, kind, in_columns, content = state
    if not isinstance(kind, _Type) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("it holds arrays of something other than numbers")
    filled: Any = (1, shape, kind.dtype, bool(in_columns), content)
    array.__setstate__(filled)


def _refused(unpickler: Any) -> None:
    raise pickle.UnpicklingError("it holds something other than dicts, lists, text, numbers and arrays")


_UNPICKLER: Any = pickle._Unpickler
"""The unpickler in Python: that in C keeps memory for as many values as a file says it has, and takes any keys."""

_CODES = (
    "MARK STOP POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT "
    "STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES "
    "BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT GET BINGET LONG_BINGET "
    "PUT BINPUT LONG_BINPUT MEMOIZE PROTO FRAME GLOBAL STACK_GLOBAL"
)
"""What is read as Python's own unpickler does; besides it, dicts are filled, arrays are made and nothing else."""


class _Unpickler(_UNPICKLER):  # type: ignore[misc]
    _KNOWN: ClassVar[dict[tuple[str, str], _Known]] = {
        ("numpy.core.multiarray", "_reconstruct"): _MakeArray("numpy._reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"): _MakeArray("numpy._reconstruct"),
        ("numpy", "ndarray"): _Known("numpy.ndarray"),
        ("numpy", "dtype"): _MakeType("numpy.dtype"),
        ("_codecs", "encode"): _Encode("_codecs.encode"),
    }

    dispatch: ClassVar[dict[int, Any]] = dict.fromkeys(range(256), _refused) | {
        code: _UNPICKLER.dispatch[code] for code in (getattr(pickle, name)[0] for name in _CODES.split())
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for one of the few things that may be named. Raises UnpicklingError for any other."""
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which could run code")
        return self._KNOWN[module, name]

    def load_setitems(self) -> None:
        """Fill a dict; its keys are text or numbers, since those of tuples may nest without end."""
        items = self.pop_mark()
        self._set(items)

    def load_setitem(self) -> None:
        """Fill a dict with one item."""
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_dict(self) -> None:
        """Make a dict of items."""
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or not all(type(key) in (str, bytes, int) for key in items[::2]):
            _refused(self)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key] = value

    def load_reduce(self) -> None:
        """Call what stands for something that is known."""
        arguments = self.stack.pop()
        function = self.stack[-1]
        if not isinstance(function, _Known) or not isinstance(arguments, tuple):
            _refused(self)
        self.stack[-1] = function(*arguments)

    def load_build(self) -> None:
        """Fill an array or its type."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Type):
            target.set(state)
        elif type(target) is np.ndarray:
            _fill(target, state)
        else:
            _refused(self)

    dispatch[pickle.SETITEMS[0]] = load_setitems
    dispatch[pickle.SETITEM[0]] = load_setitem
    dispatch[pickle.DICT[0]] = load_dict
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.BUILD[0]] = load_build


def unpickled(file: Path, what: str) -> dict[Any, Any]:
    """Return the dict that a pickle holds, text of Python 2 as bytes.

    Args:
        file: A pickle.
        what: What it should be, for messages: "a batch of CIFAR".

    Raises:
        InputError: for what is no pickle, could run code, or holds anything but dicts, lists, text, numbers and arrays.
    """
    try:
        # all of it at once: a file may say that it is longer than it is, and memory would be taken for that
        content = _Unpickler(io.BytesIO(file.read_bytes()), encoding="bytes").load()
    except Exception as error:  # a broken pickle makes the machine behind it raise anything
        raise InputError(f"{file} cannot be read as {what} ({error or type(error).__name__}).") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} holds a {type(content).__name__}, not the dict of {what}.")
    return content
