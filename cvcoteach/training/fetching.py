"""Published weights of torchvision, fetched into torch's own cache: in time, or not at all."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

import torch

from cvcoteach._files import written_whole
from cvcoteach._validation import InputError
from cvcoteach.training.pretrained import oneline, published_weights

OFFLINE_VARIABLE = "CVCOTEACH_OFFLINE"
"""Environment variable that, set to anything but 0, keeps the preset auto from fetching weights."""

_CHUNK = 1 << 18


class Patience(NamedTuple):
    """How long to wait for weights, seconds."""

    answer: float = 5.0
    """For the server to answer, and to go on."""
    whole: float = 60.0
    """For the whole file."""


PATIENCE = Patience()


def fetch_in_time(model: str, patience: Patience = PATIENCE) -> None:
    """Put the published weights of a network of torchvision into torch's cache, unless they are there.

    Raises:
        InputError: There are none, or they could not be fetched in time; nothing of them is left behind.
    """
    weights = published_weights(model)
    if weights is None:
        raise InputError(f"torchvision has no weights for {model}.")
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if file.exists():
        return
    if os.environ.get(OFFLINE_VARIABLE, "0") not in ("", "0"):
        raise InputError(f"the weights of {model} are not here, and {OFFLINE_VARIABLE} keeps them from being fetched.")
    fetching = _Fetching(weights.url, file, patience)
    # a thread, since nothing bounds how long a name is looked up
    thread = threading.Thread(target=fetching.run, daemon=True)
    thread.start()
    thread.join(patience.answer)
    if fetching.answered:
        thread.join(patience.whole)
    fetching.given_up = True
    if not file.exists():
        why = fetching.error or ("they came too slowly" if fetching.answered else "no answer")
        raise InputError(f"the weights of {model} could not be fetched in time ({why}).")


class _Fetching:
    """A file on its way, whose last part of the name is the beginning of its SHA-256, as in all of torchvision's."""

    def __init__(self, url: str, file: Path, patience: Patience) -> None:
        self._url, self._file, self._patience = url, file, patience
        self.answered = False
        self.given_up = False
        self.error: str | None = None

    def run(self) -> None:
        """Fetch it; `error` says why it could not be."""
        try:
            self._fetch()
        except _GivenUpError:
            pass
        except Exception as error:  # the connection, a proxy or the disk may raise anything
            self.error = oneline(error)

    def _fetch(self) -> None:
        wanted, found = self._file.stem.rpartition("-")[2], hashlib.sha256()
        with urlopen(Request(self._url, headers={"User-Agent": "cvcoteach"}), timeout=self._patience.answer) as answer:
            self.answered, began = True, time.monotonic()
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(self._file) as whole:
                while chunk := answer.read(_CHUNK):
                    if self.given_up or time.monotonic() - began > self._patience.whole:
                        raise _GivenUpError
                    found.update(chunk)
                    whole.write(chunk)
                if not found.hexdigest().startswith(wanted):
                    raise ValueError("the file that came is damaged")


class _GivenUpError(Exception):
    """Raised to leave nothing behind of a file that comes too slowly."""
