"""Work in other processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
from cvcoteach.data.workers import in_processes

if __name__ == "__main__":
    print(sorted(in_processes(divmod, [(n, 3) for n in range(4)], 2)))
"""


def test_workers_run_no_file_of_the_working_folder(tmp_path: Path) -> None:
    """Python starts them by -c and -m, which look for modules there before anywhere else."""
    data, code = tmp_path / "data", tmp_path / "code"
    data.mkdir()
    code.mkdir()
    for name in ("joblib", "threading"):
        (data / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').close()\nraise SystemExit\n")
    (code / "program.py").write_text(PROGRAM)
    ended = subprocess.run(
        [sys.executable, code / "program.py"], cwd=data, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "[(0, 0), (0, 1), (0, 2), (1, 0)]\n"
    assert not (tmp_path / "ran").exists()
