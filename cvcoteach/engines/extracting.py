"""What runs in the processes of Ray where features are computed."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cvcoteach.engines.placed import Placed
from cvcoteach.training.backbones import Backbone, load_backbone
from cvcoteach.training.devices import choose_device, set_threads
from cvcoteach.training.extraction import Extractor


class ExtractingWorker:
    """An actor with a backbone over the images of one dataset."""

    def __init__(self, backbone: Sent, array: Placed, device: str, threads: int) -> None:
        """Take the backbone, pixels (n, H, W, C) uint8, and what to compute with."""
        self._backbone, self._array, self._device, self._threads = backbone, array, device, threads
        self._extractor: Extractor | None = None

    def ready(self) -> int:
        """Return the number of images per batch, once the worker can compute."""
        if self._extractor is None:
            set_threads(self._threads)
            self._extractor = Extractor(self._backbone.load(), self._array.open(), choose_device(self._device))
        return self._extractor.batch_size

    def features(self, start: int, stop: int) -> npt.NDArray[np.float16]:
        """Return features (stop - start, d) float16 of these images.

        Raises:
            InputError: The backbone does not take the images.
        """
        assert self._extractor is not None
        return np.concatenate(list(self._extractor.features(start, stop)))


@dataclass(frozen=True)
class Sent:
    """A backbone on its way to another process."""

    backbone: Backbone | tuple[str, int]
    """With its network; of an exported file name and size."""
    suffix: str = ""
    """Of the file, if it is one."""
    content: bytes = b""
    """Of the file, if it is one."""

    @classmethod
    def of(cls, backbone: Backbone) -> Sent:
        """Pack a backbone, on the CPU."""
        if backbone.trainable:
            return cls(backbone.copied())
        file = Path(backbone.name)
        return cls((backbone.name, backbone.size), file.suffix, file.read_bytes())

    def load(self) -> Backbone:
        """Unpack the backbone."""
        if isinstance(self.backbone, Backbone):
            return self.backbone
        name, size = self.backbone
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / f"backbone{self.suffix}"
            file.write_bytes(self.content)
            return replace(load_backbone(str(file), size=size, trusted=(str(file),)), name=name)
