"""A Ray that is started here is nobody else's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cvcoteach.engines import own_ray
from cvcoteach.engines.own_ray import SearchedHere, show_token, sweep

SMALL = """
import psutil, ray
from cvcoteach.engines import cluster

ray._private.utils.get_shared_memory_bytes = cluster.shared_memory = lambda: 64 * 2**20  # as Docker has it
notes = []
with cluster.RayCluster(threads=1, note=notes.append) as found:
    found.ray
    words = [word for child in psutil.Process().children(recursive=True) for word in child.cmdline()]
print(*notes, *{word for word in words if "plasma_directory" in word}, sep="\\n")
"""
WHERE = """
import os
from cvcoteach.engines.cluster import RayCluster

with RayCluster(threads=1) as cluster:
    print(cluster.ray.get(cluster.ray.remote(lambda: os.getcwd()).remote()))
print(os.getcwd())
"""
OWN = """
import pickle
from cvcoteach.engines.cluster import RayCluster
from cvcoteach.engines.packed import run_packed
from cvcoteach.training.pretrained import imported

def searched():
    import colorsys, joblib, pandas, torch
    return hasattr(colorsys, "rgb_to_hsv")

with RayCluster(threads=1, own_code=["own_net:where"]) as cluster:
    ray = cluster.ray
    call = pickle.dumps((imported("own_net:where"), ()))
    print(pickle.loads(ray.get(ray.remote(run_packed).remote(call))))
    print(ray.get(ray.remote(searched).remote()))
"""
NAMES = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token is set, and Ray is not there yet."""
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is as before afterwards
        monkeypatch.delenv(name)


def test_workers_search_the_working_folder_only_where_this_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripts").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "scripts")])
    here, scripts = str(tmp_path), str(tmp_path / "scripts")
    folders = SearchedHere()
    folders.extend([scripts, here])
    assert folders == [scripts]
    sys.path.append("")
    assert SearchedHere() == [here]


def test_no_folder_is_where_workers_are_told_to_find_trusted_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [entry] = SearchedHere(["helper:net"])
    assert not os.path.lexists(entry)
    assert entry.endswith(f":helper:net:{tmp_path}")
    with pytest.raises(OSError, match="directory"):
        os.makedirs(entry)


@pytest.mark.slow
def test_workers_import_trusted_code_of_the_working_folder_and_nothing_else_that_lies_there(tmp_path: Path) -> None:
    """Ray alone would search the folder first, and run what calls itself a plugin of torch."""
    (tmp_path / "own_net.py").write_text(
        "import own_part\n\n\ndef where():\n    import own_late\n    return own_part.__file__\n"
    )
    for name in ("own_part", "own_late"):
        (tmp_path / f"{name}.py").write_text("")
    for name in ("joblib", "pandas", "colorsys", "plugin"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w')\nload = list\n")
    (tmp_path / "plugin-1.0.dist-info").mkdir()
    (tmp_path / "plugin-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (tmp_path / "plugin-1.0.dist-info" / "entry_points.txt").write_text("[torch.backends]\nplugin = plugin:load\n")
    command = [sys.executable, "-P", "-c", OWN]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(tmp_path / "own_part.py"), "True"]
    assert [name for name in ("joblib", "pandas", "colorsys", "plugin") if (tmp_path / name).exists()] == []


@pytest.mark.slow
def test_workers_are_not_in_the_working_folder(tmp_path: Path) -> None:
    """Those of Ray Train import torch before this package could do so elsewhere."""
    ended = subprocess.run([sys.executable, "-c", WHERE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    workers, here = ended.stdout.splitlines()
    assert Path(workers).name.startswith(own_ray.TEMPORARY)
    assert here == str(tmp_path)


@pytest.mark.usefixtures("unset")
def test_what_starts_here_asks_for_a_token_that_a_cluster_elsewhere_never_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_ray, "_has_token", lambda: False)
    show_token(starts_here=True)
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    show_token(starts_here=False)
    assert not set(NAMES) & set(os.environ)


@pytest.mark.usefixtures("unset")
def test_a_way_to_authenticate_that_was_chosen_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    show_token(starts_here=True)
    assert "RAY_AUTH_TOKEN" not in os.environ
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


def test_folders_of_processes_that_are_gone_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_ray.os.path, "isdir", lambda path: path != "/tmp")
    monkeypatch.setattr(own_ray.tempfile, "gettempdir", lambda: str(tmp_path))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    folders = [tmp_path / f"{own_ray.TEMPORARY}{pid}-x" for pid in (os.getpid(), gone.pid)]
    for folder in folders:
        folder.mkdir()
    sweep()
    assert [folder.exists() for folder in folders] == [True, False]


@pytest.mark.slow
def test_arrays_that_lie_on_disk_since_shared_memory_is_small_are_told_of(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", SMALL], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    note, where = ended.stdout.splitlines()
    assert re.fullmatch(
        r"/dev/shm has 67\.1 MB free, less than the [0-9.]+ GB that Ray sets aside for arrays, which it keeps on "
        r"disk instead; that is slower\. In Docker, --shm-size=[0-9]+g gives more\.",
        note,
    )
    assert "/dev/shm" not in where


def test_shared_memory_that_is_large_enough_or_not_there_needs_no_note() -> None:
    assert own_ray.note_on_memory(1e9, 1e9) is None
    assert own_ray.note_on_memory(1e9, float("inf")) is None
