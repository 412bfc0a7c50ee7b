"""No file of the working folder is run, whatever it is called."""

from __future__ import annotations

import _imp
import functools
import os
import subprocess
import sys
import threading
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from cvcoteach._working_folder import inside, unsearched
from cvcoteach.cli.main import main
from cvcoteach.training.pretrained import imported, of_working_folder

WHERE = """
import os, sys

from cvcoteach._working_folder import import_elsewhere

import_elsewhere("torch")
import_elsewhere("torch")
import importlib.util
assert importlib.util.find_spec("torch") is not None  # as other packages ask
seen = []
sys.addaudithook(lambda event, arguments: seen.append(os.getcwd()) if event == "ctypes.dlopen" else None)
import torch

print(torch.__spec__.loader is torch.__loader__, type(torch.__loader__).__name__, os.getcwd(), *{*seen})
"""

LOADED = """
import os, sys

import cvcoteach

seen = []
sys.addaudithook(lambda event, arguments: seen.append(os.getcwd()) if event == "ctypes.dlopen" else None)
import torch

print(*{*seen})
"""

CLEANLAB = """
import multiprocessing
from types import SimpleNamespace

if __name__ == "__main__":
    import cleanlab.filter
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    from cvcoteach.cleanlab.cleanlearning import CleanLearning
    from cvcoteach.cleanlab.filter import find_label_issues

    multiprocessing.set_start_method("spawn")  # as on macOS and Windows
    cleanlab.filter.platform = SimpleNamespace(system=lambda: "Darwin")
    labels = np.arange(60) % 3
    probs = np.full((60, 3), 0.1)
    probs[np.arange(60), labels] = 0.8
    options = {"filter_by": "prune_by_noise_rate", "n_jobs": 2}
    print(find_label_issues(labels, probs, **options).sum())
    learner = CleanLearning(LogisticRegression(), find_label_issues_kwargs=options)
    print(learner.find_label_issues(probs, labels, pred_probs=probs)["is_label_issue"].sum())
"""

FOLLOWED = """
from cvcoteach.cli.main import main

main([], standalone_mode=False)
import matplotlib

print("savefig.dpi", matplotlib.rcParams["savefig.dpi"])
"""


def test_python_searches_elsewhere_as_long_as_anybody_needs_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with unsearched():
            entered.set()
            left.wait(10)

    other = threading.Thread(target=first)
    other.start()
    entered.wait(10)
    with unsearched():
        left.set()
        other.join()
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert "PYTHONSAFEPATH" not in os.environ
    monkeypatch.setenv("PYTHONSAFEPATH", "yes")
    with unsearched(), unsearched():
        pass
    assert os.environ["PYTHONSAFEPATH"] == "yes"


def test_a_command_starts_no_process_that_searches_the_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    seen = []
    probe = click.Command("probe", callback=lambda: seen.append(os.environ["PYTHONSAFEPATH"]))
    monkeypatch.setitem(main.commands, "probe", probe)
    assert CliRunner().invoke(main, ["probe"]).exit_code == 0
    assert seen == ["1"]
    assert "PYTHONSAFEPATH" not in os.environ


def test_torch_is_imported_in_another_folder(tmp_path: Path) -> None:
    """One of its libraries looks for `libcuda.so.1` in the working folder first (nvidia-cusparselt-cu13 0.8.1)."""
    ended = subprocess.run([sys.executable, "-c", WHERE], cwd=tmp_path, capture_output=True, text=True, check=True)
    same, loader, here, *while_loading = ended.stdout.split()
    assert (same, loader, here) == ("True", "SourceFileLoader", str(tmp_path))
    assert while_loading == [os.sep]


def test_who_calls_from_python_has_torch_imported_in_another_folder_too(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", LOADED], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [os.sep]


def test_processes_of_cleanlab_do_not_search_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    (tmp_path / "script.py").write_text(CLEANLAB)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "multiprocessing.py").write_text("open('ran', 'w').close()\n")
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, cwd=tmp_path / "data", stdout=subprocess.PIPE, text=True) as process:
        try:
            found, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert not (tmp_path / "data" / "ran").exists()
    assert found.split() == ["0", "0"]


def test_settings_of_matplotlib_in_the_working_folder_are_not_followed(tmp_path: Path) -> None:
    """It comes with FiftyOne; they may name a module to import."""
    (tmp_path / "matplotlibrc").write_text("savefig.dpi: 17\n")
    command = [sys.executable, "-c", FOLLOWED]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "savefig.dpi figure"


def test_threads_inside_of_other_folders_leave_the_process_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    entered, left = threading.Event(), threading.Event()

    def other() -> None:
        with inside(tmp_path / "one"):
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with inside(tmp_path / "two"):
        assert Path.cwd() == tmp_path / "two"
        left.set()
        thread.join()
        assert Path.cwd() == tmp_path / "two"
    assert Path.cwd() == tmp_path
    with inside(tmp_path / "one"), inside(tmp_path / "gone"):
        assert Path.cwd() == tmp_path / "one"
    assert Path.cwd() == tmp_path


def test_an_installed_module_comes_before_a_file_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("colorsys", "only_here"):
        (tmp_path / f"{name}.py").write_text("rgb_to_hsv = 'a file of the working folder'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    (tmp_path / "uu_extra.py").write_text("")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "with_extra.py").write_text(
        "try:\n    import uu_extra\nexcept ImportError:\n    uu_extra = 'not there'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    path = [*sys.path]
    assert imported("with_extra:uu_extra") == "not there"  # what it imports itself is not taken from there
    assert callable(imported("colorsys:rgb_to_hsv"))
    assert imported("only_here:rgb_to_hsv") == "a file of the working folder"
    assert sys.path == path


def test_what_a_trusted_file_imports_is_found_beside_it_but_not_what_an_installed_module_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_helper.py").write_text(
        "import own_blocks, lacks_extra\nfound = own_blocks.found, lacks_extra.found\n"
    )
    (tmp_path / "own_blocks.py").write_text("found = 'beside it'\n")
    (tmp_path / "no_extra.py").write_text("raise AssertionError('this is run')\n")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "lacks_extra.py").write_text(
        "try:\n    import no_extra\nexcept ImportError:\n    found = 'not there'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert imported("own_helper:found") == ("beside it", "not there")


def test_what_a_trusted_function_imports_when_it_is_called_is_found_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late_helper.py").write_text(
        "def found():\n    import late_blocks, lacks_late\n\n    return late_blocks.found, lacks_late.found\n"
    )
    (tmp_path / "late_blocks.py").write_text("found = 'beside it'\n")
    (tmp_path / "no_late_extra.py").write_text("raise AssertionError('this is run')\n")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "lacks_late.py").write_text(
        "try:\n    import no_late_extra\nexcept ImportError:\n    found = 'not there'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    found = imported("late_helper:found")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "late_blocks.py").write_text("found = 'in the working folder of now'\n")
    monkeypatch.chdir(tmp_path / "data")
    assert found() == ("beside it", "not there")
    n_searched = len(sys.meta_path)
    imported("late_helper:found")
    assert len(sys.meta_path) == n_searched


def test_what_a_module_in_c_lacks_is_not_taken_from_there_where_a_trusted_file_imports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a module has no frame that would show who imports."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "imports_c.py").write_text(
        "try:\n    import in_c\nexcept ImportError as error:\n    found = error.name\n"
    )
    (tmp_path / "no_such_part.py").write_text("raise AssertionError('this is run')\n")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / f"in_c{EXTENSION_SUFFIXES[0]}").write_bytes(b"")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    monkeypatch.setattr(_imp, "create_dynamic", functools.partial(__import__, "no_such_part"))  # what its code does
    assert imported("imports_c:found") == "no_such_part"


def test_a_module_of_the_working_folder_is_known_for_that_once_it_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of a later Ray are told where to find it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lies_here.py").write_text("found = 1\n")
    assert of_working_folder("lies_here:found")
    assert imported("lies_here:found") == 1
    assert of_working_folder("lies_here:found")
    assert imported("colorsys:rgb_to_hsv")
    assert not of_working_folder("colorsys:rgb_to_hsv")


def test_what_an_installed_module_lacks_is_not_taken_from_there_whatever_that_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_module.py").write_text("import importlib_lacking\nfound = importlib_lacking.found\n")
    (tmp_path / "no_such_extra.py").write_text("raise AssertionError('this is run')\n")
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "importlib_lacking.py").write_text(
        "try:\n    import no_such_extra\nexcept ImportError:\n    found = 'not there'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert imported("own_module:found") == "not there"
