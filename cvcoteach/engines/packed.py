"""A call that travels as bytes: arrays that Ray itself hands over may not be written to, those unpacked here may."""

from __future__ import annotations

import pickle


def run_packed(call: bytes) -> bytes:
    """Return the pickled result of a pickled call: a function and its arguments."""
    function, arguments = pickle.loads(call)
    return pickle.dumps(function(*arguments))
