"""The panel in Chromium at 100,000 samples, beside what FiftyOne itself takes: seconds, processor seconds, memory.

    PYTHONPATH=. python examples/benchmarks/app_speed.py [N]    # five minutes on two idle cores

Needs a checkout with the test extra. Starts a database, the App's server and a browser of its own; all samples show one
image of a few bytes. Beside the panel stands one of a single line, in a plugin made for this, and beside our keys
FiftyOne's own arrow key: what these take is not ours. Figures are medians, with the slowest in brackets, and the
processor seconds of the server and of the page's main thread: until it is there, and with all that follows from it,
such as the writing of a correction. FiftyOne keeps plugins in memory, as the guide advises; its default is measured
with FIFTYONE_PLUGINS_CACHE_ENABLED=false. With 100,000 samples the table is put into the README of this folder.
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

import tables

from tests.fiftyone import mongod

N = 100_000
OPENINGS = 5
PRESSES = 20
REST = 3_000
"""Milliseconds in which the page comes to rest after a panel has opened."""
SHORT_REST = 1_000
"""Milliseconds in which the page comes to rest after a sample has opened, and the correction is written."""
LONGEST = 180
"""Seconds in which keys pressed at once must be written."""
FOLDER = Path(tempfile.mkdtemp(prefix="cvcoteach-app-speed-"))
PANELS = {"one_line": "a single line", "label_issues": "look wrong"}
"""What can be read in a panel once it is there."""
PLUGIN_OF_ONE_LINE = """
import fiftyone.operators as foo
import fiftyone.operators.types as types


class OneLine(foo.Panel):
    @property
    def config(self):
        return foo.PanelConfig(name="one_line", label="One line")

    def render(self, ctx):
        panel = types.Object()
        panel.md("a single line", name="line")
        return types.Property(panel)


def register(plugin):
    plugin.register(OneLine)
"""


class Taken(NamedTuple):
    """What something took, in seconds."""

    seconds: float
    server: float
    browser: float
    server_in_all: float
    browser_in_all: float


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
    from cvcoteach.fiftyone.work.imports import import_label_issues
    from cvcoteach.issues.from_posterior import posterior_issues
    from tests.fiftyone import browser

    load = os.getloadavg()[0]
    plugins = Path(fo.config.plugins_dir)
    install.install(plugins)
    (plugins / "one_line").mkdir()
    (plugins / "one_line" / "fiftyone.yml").write_text('name: "@benchmark/one_line"\npanels:\n  - one_line\n')
    (plugins / "one_line" / "__init__.py").write_text(PLUGIN_OF_ONE_LINE)
    given, probs = _noisy(n)
    dataset = _dataset(given, FOLDER)
    dataset.name, dataset.persistent = "speed", True
    results = import_label_issues(dataset, "ground_truth", posterior_issues(given, probs, class_names=NAMES))
    worst = results.ids[results.issues.worst_first()[0]].decode()
    rows: list[list[str]] = []
    with (
        browser.app_server(mongod.free_port(), FOLDER / "app.log") as address,
        browser.page_at(f"{address}/datasets/speed") as page,
    ):
        server = next(int(p.name) for p in Path("/proc").glob("[0-9]*") if _is_server(p, address))
        page.locator('[data-cy="looker"]').first.wait_for()
        meter = Meter(page, server)
        page.wait_for_timeout(REST)

        page.locator('[data-cy="looker"]').first.click()
        page.locator('[data-cy="modal"]').wait_for()
        page.wait_for_timeout(REST)
        _row(
            rows,
            "FiftyOne's arrow key until the next sample is open",
            [meter.key("ArrowRight") for _ in range(PRESSES)],
        )
        page.evaluate("window.__foo__.executeOperator('close_sample')")
        page.wait_for_timeout(REST)

        first = {panel: meter.opening(panel) for panel in PANELS}
        again = [{panel: meter.opening(panel) for panel in PANELS} for _ in range(OPENINGS)]  # in turns
        _row(rows, "a panel of one line, opened first", [first["one_line"]])
        _row(rows, "the panel, opened first", [first["label_issues"]])
        _row(rows, "a panel of one line, opened again", [taken["one_line"] for taken in again])
        _row(rows, "the panel, opened again", [taken["label_issues"] for taken in again])

        _open(page, "label_issues")
        page.wait_for_timeout(REST)
        before = _memory(server)
        page.evaluate("([id]) => window.__foo__.executeOperator('open_sample', {id})", [worst])
        page.get_by_text("a accept").wait_for()
        page.wait_for_timeout(REST)
        _row(rows, "a key press until the next sample is open", [meter.key("a") for _ in range(PRESSES)])
        took = _at_once(page, PRESSES, lambda: _reviewed(dataset))
        after = _memory(server)
    header = ("", "seconds", "processor: server", "page", "in all: server", "page")
    text = (
        f"{n:,} samples, {os.cpu_count()} cores; load of other programs before the run {load:.1f}. {PRESSES} keys "
        f"pressed at once are written after {took:.1f} s. The server's memory: {before:,.0f} MB, after {2 * PRESSES} "
        f"presses {after:,.0f} MB.\n\n{tables.markdown(header, rows)}"
    )
    tables.publish("app-speed", text) if n == N else print(text)


class Meter:
    """Measures what is done in the page: seconds, and processor seconds of server and page."""

    def __init__(self, page: Any, server: int) -> None:
        self._page, self._server = page, server
        self._browser = page.context.new_cdp_session(page)
        self._browser.send("Performance.enable", {"timeDomain": "threadTicks"})

    def opening(self, panel: str) -> Taken:
        """Open a panel, close it, and let the page come to rest."""
        taken = self._of(lambda page: _open(page, panel), REST)
        self._page.evaluate("name => window.__foo__.executeOperator('close_panel', {name})", panel)
        self._page.locator(f'[data-cy="panel-content-{panel}"]').wait_for(state="hidden")
        self._page.wait_for_timeout(REST)
        return taken

    def key(self, key: str) -> Taken:
        """Press a key in the open sample, until another one is open."""
        return self._of(lambda page: _press(page, key), SHORT_REST)

    def _of(self, do: Callable[[Any], float], rest: int) -> Taken:
        before = self._used()
        seconds = do(self._page)
        then = self._used()
        self._page.wait_for_timeout(rest)
        spent = [[at - was for at, was in zip(used, before, strict=True)] for used in (then, self._used())]
        return Taken(seconds, *spent[0], *spent[1])

    def _used(self) -> tuple[float, float]:
        ticks = Path(f"/proc/{self._server}/stat").read_text().rsplit(")", 1)[1].split()
        metrics = self._browser.send("Performance.getMetrics")["metrics"]
        busy = next(metric["value"] for metric in metrics if metric["name"] == "TaskDuration")
        return (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK"), busy


def _open(page: Any, name: str) -> float:
    """Open a panel; seconds until it can be read, by the page's own clock: Playwright looks every half second only."""
    return float(
        page.evaluate(
            """([name, text]) => new Promise((resolve) => {
                const began = performance.now();
                const done = () => resolve((performance.now() - began) / 1000);
                const look = () => {
                    const panel = document.querySelector(`[data-cy="panel-content-${name}"]`);
                    // drawn once the frame after it has begun
                    panel?.textContent.includes(text) ? requestAnimationFrame(done) : setTimeout(look, 5);
                };
                const params = { name, layout: "horizontal", isActive: true };
                window.__foo__.executeOperator("open_panel", params);
                look();
            })""",
            [name, PANELS[name]],
        )
    )


def _press(page: Any, key: str) -> float:
    """Press a key; seconds until another sample is open."""
    return float(
        page.evaluate(
            """(key) => new Promise((resolve) => {
                const open = () => new URLSearchParams(location.search).get("id"), here = open();
                const began = performance.now();
                document.dispatchEvent(new KeyboardEvent("keydown", { key, code: key, bubbles: true }));
                const done = () => resolve((performance.now() - began) / 1000);
                const look = () => (open() !== here ? done() : setTimeout(look, 5));
                look();
            })""",
            key,
        )
    )


def _at_once(page: Any, n: int, written: Callable[[], int]) -> float:
    """Accept n samples without waiting for anything; seconds until all are written.

    Raises RuntimeError where they are not within three minutes.
    """
    goal = written() + n
    began = time.perf_counter()
    for _ in range(n):
        page.keyboard.press("a")
    while written() < goal:
        page.wait_for_timeout(50)
        if time.perf_counter() - began > LONGEST:
            raise RuntimeError(f"{goal - written()} of {n} presses are not written")
    return time.perf_counter() - began


def _reviewed(dataset: Any) -> int:
    """Count the samples that somebody has reviewed."""
    return int(dataset._sample_collection.count_documents({"label_issues_review": "accepted"}))


def _is_server(process: Path, address: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return address.rsplit(":", 1)[1].encode() in words and any(word.endswith(b"main.py") for word in words)


def _memory(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def _row(rows: list[list[str]], what: str, taken: list[Taken]) -> None:
    """Add the medians as a row of the table."""
    seconds, *spent = map(list, zip(*taken, strict=True))
    slowest = f" ({max(seconds):.2f})" if len(seconds) > 1 else ""
    rows.append(
        [what, f"{statistics.median(seconds):.2f}{slowest}", *(f"{statistics.median(used):.2f}" for used in spent)]
    )
    print(*rows[-1], sep=" | ", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N)
