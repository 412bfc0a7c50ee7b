"""cleanlab's own tests of `find_label_issues`, with ours in its place.

    git clone --branch v2.9.0 https://github.com/cleanlab/cleanlab
    python examples/benchmarks/cleanlab_tests.py cleanlab

Takes a checkout, or an archive that holds the `tests` folder (the sdist on PyPI does not). Runs every test file
that calls `filter.find_label_issues`, once as it is and once with `cvcoteach.find_label_issues` put wherever the
installed cleanlab and the tests refer to it. Each test has to end the same way. Files that need a package which is
not installed are named and left out. Ends with 1 where a test ends differently.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

# what a test file imports beyond cleanlab's own requirements
FILES = {
    "test_filter_count.py": (),
    "test_classification.py": (),
    "test_multilabel_classification.py": (),
    "test_rank.py": (),
    "test_dataset.py": ("requests",),
    "test_token_classification.py": (),
    "test_segmentation.py": ("matplotlib",),
    "test_object_detection.py": ("matplotlib",),
    "datalab/issue_manager/test_label.py": ("datasets",),
    "datalab/issue_manager/multilabel/test_label.py": ("datasets",),
}
OUTCOMES, SWAP = "CLEANLAB_TESTS_OUTCOMES", "CLEANLAB_TESTS_SWAP"


def pytest_configure(config: Any) -> None:
    """As a pytest plugin: put ours in the place of cleanlab's, in all modules that hold it."""
    if os.environ.get(SWAP) != "yes":
        return
    import cleanlab.filter

    import cvcoteach.cleanlab.filter

    theirs = cleanlab.filter.find_label_issues

    @functools.wraps(theirs)
    def ours(*args: Any, **kwargs: Any) -> Any:
        cleanlab.filter.find_label_issues = theirs  # ours asks cleanlab, not itself
        try:
            return cvcoteach.cleanlab.filter.find_label_issues(*args, **kwargs)
        finally:
            cleanlab.filter.find_label_issues = ours
            ours.calls += 1

    ours.calls = 0
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if hasattr(module, "__dict__") else ():
            if value is theirs and not module.__name__.startswith("cvcoteach"):
                setattr(module, name, ours)


class Record:
    """Writes how each test ended."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_collectreport(self, report: Any) -> None:
        if report.outcome != "passed":
            self.outcomes[report.nodeid] = f"collection {report.outcome}"

    def pytest_sessionfinish(self) -> None:
        import cleanlab.filter

        calls = getattr(cleanlab.filter.find_label_issues, "calls", 0)
        Path(os.environ[OUTCOMES]).write_text(json.dumps({"outcomes": self.outcomes, "calls": calls}))


def pytest_cmdline_main(config: Any) -> None:
    """As a pytest plugin: record the outcomes."""
    config.pluginmanager.register(Record())


def run(tests: Path, files: list[str], swap: bool) -> tuple[dict[str, str], int]:
    """How each test ended, by its id, and how often ours was called."""
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder, "outcomes.json")
        here = Path(__file__).resolve()
        path = os.pathsep.join([str(here.parent), str(here.parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {OUTCOMES: str(outcomes), SWAP: "yes" if swap else "no", "PYTHONPATH": path}
        command = [sys.executable, "-c", "import sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"]
        command += [
            "-q",
            "--continue-on-collection-errors",
            "-p",
            here.stem,
            "-p",
            "no:cacheprovider",
            "-c",
            str(tests.parent / "pyproject.toml"),
            *files,
        ]
        # not from the root of the checkout: its cleanlab would stand before the installed one
        result = subprocess.run(command, cwd=tests, env=environment, capture_output=True, text=True)
        if not outcomes.exists():
            sys.exit(f"pytest did not run:\n{result.stdout}\n{result.stderr}")
        content = json.loads(outcomes.read_text())
        return content["outcomes"], content["calls"]


def main() -> int:
    """Run both, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path, help="checkout of cleanlab, or an archive of one")
    path = parser.parse_args().path.resolve()
    with tempfile.TemporaryDirectory() as folder:
        if path.is_file():
            with tarfile.open(path) as archive:
                archive.extractall(folder, filter="data")
            path = next(Path(folder).iterdir())
        tests = path / "tests"
        if not tests.is_dir():
            sys.exit(f"{path} holds no tests folder; a checkout of github.com/cleanlab/cleanlab does.")
        files = []
        for file, needs in FILES.items():
            missing = [package for package in needs if importlib.util.find_spec(package) is None]
            if missing:
                print(f"left out: {file} needs {', '.join(missing)}")
            elif (tests / file).exists():
                files.append(file)
        theirs, _ = run(tests, files, swap=False)
        ours, calls = run(tests, files, swap=True)
    print(f"{'':12}{'cleanlab':>10}{'cvcoteach':>11}")
    counts = Counter(theirs.values()), Counter(ours.values())
    for outcome in sorted(counts[0] | counts[1]):
        print(f"{outcome:12}{counts[0][outcome]:10}{counts[1][outcome]:11}")
    differing = sorted(test for test in theirs | ours if theirs.get(test) != ours.get(test))
    for test in differing:
        print(f"differs: {test}: {theirs.get(test, 'missing')} with cleanlab's, {ours.get(test, 'missing')} with ours")
    print(f"calls of ours: {calls}")
    return bool(differing) or not counts[1]["passed"] or not calls


if __name__ == "__main__":
    sys.exit(main())
