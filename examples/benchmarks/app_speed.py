"""The panel in Chromium at 100,000 samples: seconds until it is there, per key press, and the server's memory.

    PYTHONPATH=. python examples/benchmarks/app_speed.py [N]    # five minutes on two idle cores

Needs a checkout with the test extra. Starts a database, the App's server and a browser of its own; all samples show one
image of a few bytes. Figures are medians, with the slowest in brackets, and the processor seconds of the server and of
the page's main thread, which other work on the machine hardly changes. FiftyOne keeps plugins in memory, as the guide
advises; FIFTYONE_PLUGINS_CACHE_ENABLED=false measures its default.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.fiftyone import mongod

OPENINGS = 5
PRESSES = 40
REST = 3_000
"""Milliseconds in which the page comes to rest."""
FOLDER = Path(tempfile.mkdtemp(prefix="cvcoteach-app-speed-"))


class Taken(NamedTuple):
    """What something took, in seconds."""

    seconds: float
    server: float
    browser: float


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
    os.environ.setdefault("FIFTYONE_PLUGINS_CACHE_ENABLED", "true")
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
        meter = Meter(page, server)
        page.wait_for_timeout(REST)
        _say("the panel, opened first", [meter.of(_open)])
        _say("the panel, opened again", [meter.of(_open) for _ in range(OPENINGS)])
        before = _memory(server)
        results = runs.load(fo.load_dataset("speed"))
        worst = results.ids[results.issues.worst_first()[0]].decode()
        page.evaluate("([id]) => window.__foo__.executeOperator('open_sample', {id})", [worst])
        page.locator('[data-cy="modal"]').wait_for()
        page.wait_for_timeout(REST)
        _say("a key press until the next sample is open", [meter.of(_press) for _ in range(PRESSES)])
        print(f"load of the last minute: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
        print(f"the server's memory: {before:,.0f} MB, {_memory(server):,.0f} MB after {PRESSES} presses")


class Meter:
    """Measures what is done in the page: seconds, and processor seconds of server and page."""

    def __init__(self, page: Any, server: int) -> None:
        self._page, self._server = page, server
        self._browser = page.context.new_cdp_session(page)
        self._browser.send("Performance.enable", {"timeDomain": "threadTicks"})

    def of(self, do: Callable[[Any], float]) -> Taken:
        """Close the panel where `do` opens it, let the page come to rest, and measure."""
        panel = self._page.locator('[data-cy="panel-content-label_issues"]')
        if do is _open and panel.count():
            self._page.evaluate("window.__foo__.executeOperator('close_panel', {name: 'label_issues'})")
            panel.wait_for(state="hidden")
            self._page.wait_for_timeout(REST)
        before = self._used()
        seconds = do(self._page)
        server, browser = (after - was for after, was in zip(self._used(), before, strict=True))
        return Taken(seconds, server, browser)

    def _used(self) -> tuple[float, float]:
        ticks = Path(f"/proc/{self._server}/stat").read_text().rsplit(")", 1)[1].split()
        metrics = self._browser.send("Performance.getMetrics")["metrics"]
        busy = next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), busy


def _open(page: Any) -> float:
    """Open the panel; seconds until its headline is there."""
    panel = page.locator('[data-cy="panel-content-label_issues"]')
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


def _say(what: str, taken: list[Taken]) -> None:
    seconds, server, browser = map(list, zip(*taken, strict=True))
    print(
        f"{what}: {statistics.median(seconds):.2f} s ({max(seconds):.2f}); processor: server "
        f"{statistics.median(server):.2f} s, page {statistics.median(browser):.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
