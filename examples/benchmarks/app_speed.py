"""The panel in Chromium at 100,000 samples: seconds until it is there, per key press, and the server's memory.

    PYTHONPATH=. python examples/benchmarks/app_speed.py [N]    # five minutes on two idle cores

Needs a checkout with the test extra. Starts a database, the App's server and a browser of its own; all samples show one
image of a few bytes. Figures are medians, with the slowest in brackets.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fiftyone import mongod

OPENINGS = 5
PRESSES = 40
FOLDER = Path(tempfile.mkdtemp(prefix="cvcoteach-app-speed-"))


def main(n: int) -> None:
    """Make the dataset, measure, print."""
    port = mongod.free_port()
    os.environ |= {
        "FIFTYONE_DATABASE_URI": f"mongodb://127.0.0.1:{port}",
        "FIFTYONE_DATABASE_NAME": "speed",
        "FIFTYONE_DO_NOT_TRACK": "true",
        "FIFTYONE_PLUGINS_DIR": str(FOLDER / "plugins"),
        "FIFTYONE_CONFIG_PATH": str(FOLDER / "config.json"),
        "FIFTYONE_APP_CONFIG_PATH": str(FOLDER / "app_config.json"),
    }
    (FOLDER / "plugins").mkdir()
    with mongod.running_mongod(mongod.find_mongod(), FOLDER, port):
        _measure(n)


def _measure(n: int) -> None:
    import fiftyone as fo  # where to look for its database is known only now
    from fiftyone_scale import NAMES, _dataset, _noisy

    from cvcoteach.fiftyone import install
    from cvcoteach.fiftyone.store import runs
    from cvcoteach.fiftyone.work.imports import import_label_issues
    from cvcoteach.issues.from_posterior import posterior_issues
    from tests.fiftyone import browser

    install.install(Path(fo.config.plugins_dir))
    given, probs = _noisy(n)
    dataset = _dataset(given, FOLDER)
    dataset.name, dataset.persistent = "speed", True
    import_label_issues(dataset, "ground_truth", posterior_issues(given, probs, class_names=NAMES))
    with (
        browser.app_server(mongod.free_port(), FOLDER / "app.log") as address,
        browser.page_at(f"{address}/datasets/speed") as page,
    ):
        server = next(int(p.name) for p in Path("/proc").glob("[0-9]*") if _is_server(p, address))
        page.locator('[data-cy="looker"]').first.wait_for()
        opened = [_open(page) for _ in range(OPENINGS)]
        _say("the panel, opened first, s", opened[:1])
        _say("the panel, opened again, s", opened[1:])
        before = _memory(server)
        results = runs.load(fo.load_dataset("speed"))
        worst = results.ids[results.issues.worst_first()[0]].decode()
        page.evaluate("([id]) => window.__foo__.executeOperator('open_sample', {id})", [worst])
        page.locator('[data-cy="modal"]').wait_for()
        page.wait_for_timeout(3000)
        _say("a key press until the next sample is open, s", [_press(page) for _ in range(PRESSES)])
        print(f"the server's memory: {before:,.0f} MB, {_memory(server):,.0f} MB after {PRESSES} presses")


def _open(page: Any) -> float:
    """Close the panel, then open it; seconds until its headline is there."""
    panel = page.locator('[data-cy="panel-content-label_issues"]')
    if panel.count():
        page.evaluate("window.__foo__.executeOperator('close_panel', {name: 'label_issues'})")
        panel.wait_for(state="hidden")
    began = time.perf_counter()
    page.evaluate(
        "window.__foo__.executeOperator('open_panel', {name: 'label_issues', layout: 'horizontal', isActive: true})"
    )
    panel.get_by_text("look wrong").first.wait_for()
    return time.perf_counter() - began


def _press(page: Any) -> float:
    """Accept the open sample; seconds until another one is open."""
    return float(
        page.evaluate(
            """() => new Promise((resolve) => {
                const open = () => new URLSearchParams(location.search).get("id"), here = open();
                const began = performance.now();
                window.dispatchEvent(new KeyboardEvent("keydown", { key: "a" }));
                const done = () => resolve((performance.now() - began) / 1000);
                const look = () => (open() !== here ? done() : setTimeout(look, 5));
                look();
            })"""
        )
    )


def _is_server(process: Path, address: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return address.rsplit(":", 1)[1].encode() in words and any(word.endswith(b"main.py") for word in words)


def _memory(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def _say(what: str, seconds: list[float]) -> None:
    print(f"{what}: {statistics.median(seconds):.2f} ({max(seconds):.2f})", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
