"""Frozen features of all images, computed once and kept on disk; a stopped computation resumes."""

from __future__ import annotations

import errno
import hashlib
import json
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from cvcoteach._files import FULL, locked
from cvcoteach._validation import InputError
from cvcoteach.data.cache_folder import CACHE_VARIABLE, cache_folder
from cvcoteach.training.backbones import Backbone, pooled, scaled
from cvcoteach.training.batches import DeviceImages, check_pixels
from cvcoteach.training.compute_plan import ComputePlan
from cvcoteach.training.devices import choose_device, choose_threads, out_of_memory, set_threads
from cvcoteach.training.feature_cache import FeatureFile
from cvcoteach.training.known_features import Digests, KnownFeatures, digests_of
from cvcoteach.training.normalisation import Scaling, normalise

OnFeatures = Callable[[int, int, float], None]
"""Called with the number of images done, the number of all images, and images per second."""

Elsewhere = Callable[[Sequence[range]], Generator[npt.NDArray[np.float16]]]
"""Stretches of images, in order -> features (b, d) of all of them, piece by piece; no piece is of two stretches."""

_VERSION = 1
_BATCH = {"cpu": 64, "mps": 128, "cuda": 256}


def extract_features(
    backbone: Backbone,
    pixels: npt.NDArray[np.uint8],
    content_key: str,
    *,
    device: str | None = None,
    threads: int | None = None,
    cache_dir: Path | None = None,
    progress: OnFeatures | None = None,
    note: Callable[[str], None] | None = None,
    elsewhere: Elsewhere | None = None,
) -> npt.NDArray[np.float16]:
    """Return features (n, d) float16 of all images, memory-mapped from the cache.

    The same content, weights and size are computed once, of an image as of a dataset; a stopped computation resumes.

    Args:
        backbone: The network that computes them.
        pixels: (n, H, W, C) uint8, C 1 or 3; they are scaled to the backbone's size.
        content_key: Identifies the images, as `Images.content_key` does.
        device: Such as "cuda"; None: the best available.
        threads: CPU threads; None: as many as the process may use.
        cache_dir: None: CVCOTEACH_CACHE_DIR from the environment, else the user's cache folder.
        progress: Called after each batch.
        note: Called with a sentence where another process computes the same features, which is waited for.
        elsewhere: Computes them in other processes; None: this one does.

    Raises:
        InputError: The backbone does not take the images or returns a number that is not finite, or the cache cannot
            be written or has no room.
    """
    array = check_pixels(pixels)
    root = cache_folder(cache_dir)
    what = {
        "version": _VERSION,
        "content": content_key,
        "n": len(array),
        "weights": backbone.digest,
        "preprocessing": [backbone.size, *backbone.mean, *backbone.std, backbone.interpolation],
    }
    key = _name(what)
    of_an_image = {name: what[name] for name in ("version", "weights", "preprocessing")}
    family = _name(of_an_image | {"shape": array.shape[1:]})
    home = root / "features"
    try:
        home.mkdir(parents=True, exist_ok=True)
        file = FeatureFile(home, key, family)
        with locked(file.lock, note):
            features = file.open()
            if features is None:
                if elsewhere is None:
                    set_threads(choose_threads(threads))
                    elsewhere = Extractor(backbone, array, choose_device(device)).stretches
                _compute(elsewhere, digests_of(array, choose_threads(threads)), file, progress)
                features = file.open()
            if features is None:
                raise OSError(errno.EIO, "features vanished while they were computed")
            return features
    except OSError as error:
        if error.errno in FULL:
            raise InputError(
                f"the disk of the cache folder {root} is full; make room, or name another folder in {CACHE_VARIABLE}, "
                "and repeat the same call: it goes on from here."
            ) from error
        raise InputError(
            f"the cache folder {root} cannot be used ({error.strerror or error}); {CACHE_VARIABLE} names another one."
        ) from error


class Extractor:
    """A backbone over the images of one dataset, on a device."""

    def __init__(self, backbone: Backbone, pixels: npt.NDArray[np.uint8], device: torch.device) -> None:
        """Move the backbone to the device. pixels: (n, H, W, C) uint8."""
        self._backbone = backbone
        self.n = len(pixels)
        on_gpu = device.type == "cuda"
        half = "bfloat16" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
        # on a CPU, float32 in channels-last order is the fast path; bfloat16 took three times as long
        self.plan = ComputePlan(
            device=str(device), dtype=half if on_gpu else "float32", channels_last=True, resident=False
        )
        self.batch_size = _BATCH.get(device.type, 64)
        self._network: nn.Module = backbone.network.to(device)
        if backbone.trainable:
            self._network.to(memory_format=torch.channels_last)
        self._images = DeviceImages(pixels, self.plan)
        self._scaling = Scaling(backbone.mean, backbone.std)

    def prepared(self, raw: Tensor) -> Tensor:
        """Scale and normalise uint8 (b, H, W, C) to float32 (b, 3, size, size), channels last."""
        size, mode = self._backbone.size, self._backbone.interpolation
        if raw.shape[1:3] == (size, size):
            images = normalise(raw, self._scaling, self.plan.memory_format)
        elif (
            raw.device.type == "cpu"
        ):  # there, bytes are scaled thirty times as fast as floats, with the result of Pillow
            bytes_ = scaled(raw.permute(0, 3, 1, 2), size, mode)
            images = normalise(bytes_.permute(0, 2, 3, 1), self._scaling, self.plan.memory_format)
        else:
            images = scaled(normalise(raw, self._scaling, self.plan.memory_format), size, mode)
        return images.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)

    def stretches(self, of: Sequence[range]) -> Generator[npt.NDArray[np.float16]]:
        """Yield features (b, d) of stretches of images, batch by batch."""
        for stretch in of:
            yield from self.features(stretch.start, stretch.stop)

    @torch.inference_mode()
    def features(self, start: int, stop: int) -> Generator[npt.NDArray[np.float16]]:
        """Yield features (b, d) of the images start..stop-1, batch by batch."""
        rows = [np.arange(at, min(at + self.batch_size, stop)) for at in range(start, stop, self.batch_size)]
        # a GPU has the next batch to compute before the features of the last one are fetched and written
        ahead = 1 if self.plan.torch_device.type == "cuda" else 0
        underway: deque[tuple[Fetched, int]] = deque()
        for batch, raw in zip(rows, self._images.batches(rows), strict=True):
            underway.append((Fetched(self._computed(self.prepared(raw))), int(batch[0])))
            if len(underway) > ahead:
                yield self._finite(*underway.popleft())
        for fetched, first in underway:
            yield self._finite(fetched, first)

    def _computed(self, images: Tensor) -> Tensor:
        """Return features (b, d) of prepared images, of a part at a time where memory runs out."""
        try:
            return self._computed_at_once(images)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
        if len(images) == 1:
            raise InputError(f"{self.plan.device} has too little memory to compute {self._backbone.name} on one image.")
        return torch.cat([self._computed(part) for part in images.chunk(2)])

    def _computed_at_once(self, images: Tensor) -> Tensor:
        name, size = self._backbone.name, self._backbone.size
        try:
            with self.plan.autocast():
                output = self._network(images)
        except (RuntimeError, ValueError, AssertionError, TypeError, AttributeError) as error:
            if out_of_memory(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise InputError(
                f"{name} does not take {len(images)} images of {size}×{size} pixels ({lines[-1].rstrip('.')}); "
                "set another size with --image-size."
            ) from error
        return pooled(output).clamp(-65504, 65504).to(torch.float16)

    def _finite(self, fetched: Fetched, first: int) -> npt.NDArray[np.float16]:
        features = fetched.array()
        if not np.isfinite(features).all():
            row = first + int(np.argmin(np.isfinite(features).all(axis=1)))
            raise InputError(f"{self._backbone.name} returns a number that is not finite for image {row}.")
        return features


class Fetched:
    """Features on their way from the device."""

    def __init__(self, features: Tensor) -> None:
        """Start to copy features (b, d) of any device; the call returns at once."""
        self._there: torch.cuda.Event | None = None
        if features.is_cuda:
            self._host = torch.empty(features.shape, dtype=features.dtype, pin_memory=True)
            self._host.copy_(features, non_blocking=True)
            self._there = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._there.record(torch.cuda.current_stream(features.device))
        else:
            self._host = features.cpu()

    def array(self) -> npt.NDArray[np.float16]:
        """Wait for the features (b, d), and return them."""
        if self._there is not None:
            self._there.synchronize()
        return self._host.numpy()


def _name(what: Mapping[str, object]) -> str:
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=16).hexdigest()


def _compute(compute: Elsewhere, images: Digests, file: FeatureFile, progress: OnFeatures | None) -> None:
    """Compute the features of images that are not there yet; those of other datasets' images are taken over."""
    n = len(images)
    known = KnownFeatures.among(images, file.relatives())
    d, parts = known.width or file.width(), None
    if d is None:  # a single image tells
        parts = compute([range(1), range(n)])
        d = next(parts).shape[1]
    with file.begin((n, d)) as building:
        began, already = time.perf_counter(), building.done
        stretches = known.unknown(building.done)
        parts = parts or compute(stretches)

        def told() -> None:
            if progress is not None:
                seconds = max(time.perf_counter() - began, 1e-9)
                progress(building.done, n, (building.done - already) / seconds)

        def take_known(stop: int) -> None:
            for features in known.between(building.done, stop):
                building.add(features)
                told()

        with closing(parts):
            for stretch in stretches:
                take_known(stretch.start)
                while building.done < stretch.stop:
                    building.add(next(parts))
                    told()
        take_known(n)
    file.publish((n, d), images)
