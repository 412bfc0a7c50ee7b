"""Pack what the machine with the card needs and has not: see `gpu.py`."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
from data import load_cifar10n
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[2]
EARLIER = "63c7401"
LABELS = ("random1", "random2", "aggre")  # networks are compared by the last two, the sets that are tuned on
WHEELS = ("cleanlab", "platformdirs", "pillow")


def pack(folder: Path) -> None:
    """Write images with human labels, the earlier build, and wheels that a bare machine lacks."""
    folder.mkdir(parents=True, exist_ok=True)
    data, files = load_cifar10n(), []
    for image in data.images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=95)
        files.append(file.getvalue())
    np.savez(
        folder / "images.npz",
        bytes=np.frombuffer(b"".join(files), np.uint8),
        ends=np.cumsum([len(file) for file in files]),
        true=data.true_labels.astype(np.uint8),
        **{name: data.given[name].astype(np.uint8) for name in LABELS},
    )
    archive = subprocess.run(["git", "archive", EARLIER, "cvcoteach"], cwd=REPOSITORY, check=True, capture_output=True)
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder / "earlier", filter="data")
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (17, 27, 28)] + ["--platform=any"]
    options = ["-q", "--no-deps", "--only-binary=:all:", "--python-version=3.12", *platforms]
    pip = [sys.executable, "-m", "pip", "download", *options, "-d", str(folder / "wheels"), *WHEELS]
    subprocess.run(pip, check=True)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder}: {size / 2**20:.1f} MiB")
