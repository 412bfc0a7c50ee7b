"""A real Chromium at a real App: found or fetched, each story with a server, a page and a database look of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import fiftyone.server

from tests.chromium import OPTIONS, find_chromium

ELSEWHERE = re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1[:/])")
PATIENCE = 240_000  # ms; a busy machine is slow, not wrong


@contextmanager
def app_server(port: int, log: Path) -> Iterator[str]:
    """The App's server as a process; its address, once it answers."""
    main = Path(fiftyone.server.__file__).with_name("main.py")  # importing it would make a server of this process
    environment = {**os.environ, "CVCOTEACH_USER": "story"}
    with open(log, "w") as out:
        server = subprocess.Popen(
            [sys.executable, str(main), "--port", str(port), "--address", "127.0.0.1"],
            stdout=out, stderr=subprocess.STDOUT, env=environment, cwd=main.parent,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until(lambda: server.poll() is not None or _answers(address), "the App's server answers")
            assert server.poll() is None, f"the App's server stopped: {log.read_text()[-2000:]}"
            yield address
        finally:
            server.terminate()
            try:
                server.wait(timeout=30)
            except subprocess.TimeoutExpired:
                server.kill()


@contextmanager
def page_at(address: str) -> Iterator[Any]:
    """A page of 1280 x 800 that can reach nothing but this machine."""
    from playwright.sync_api import sync_playwright

    binary = find_chromium()  # asks Playwright for its own, which is possible only once at a time
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=OPTIONS)
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme="dark")
        context.set_default_timeout(PATIENCE)
        context.route(ELSEWHERE, lambda route: route.abort())
        page = context.new_page()
        page.add_init_script("window.addEventListener('error', e => (window.__errors ||= []).push(String(e.message)))")
        page.add_locator_handler(  # a promotion comes a moment after the page and covers the panel
            page.get_by_role("button", name="Dismiss"),
            lambda button: button.evaluate("it => it.click()"),
            no_wait_after=True,
        )
        page.goto(address)
        try:
            yield page
        finally:
            browser.close()


def wait_until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE / 1000) -> Any:
    """The first true answer of `condition`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:.0f} s it is still not so that {what}")


def open_sample(page: Any, sample_id: str) -> None:
    """Open a sample in the modal; again, where a page that is still at work lost the request."""
    from playwright.sync_api import TimeoutError as TooLate

    shown = page.locator('[data-cy="modal"]').get_by_text(sample_id, exact=True)

    def opened() -> bool:
        page.evaluate("([id]) => window.__foo__.executeOperator('open_sample', {id})", [sample_id])
        with suppress(TooLate):
            shown.wait_for(timeout=20_000)
        return bool(shown.is_visible())

    wait_until(opened, f"sample {sample_id} is open")


def box(element: Any) -> Any:
    """Where an element stands, once it stays there: the grid replaces its tiles while it is drawn."""

    def resting() -> Any:
        before = element.bounding_box()
        time.sleep(0.2)
        return before if before == element.bounding_box() else None

    return wait_until(resting, "the element has a place on the page")


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/fiftyone", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def kill_server(port: int) -> None:
    """Kill the App's server at once."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(port).encode() in words and any(word.endswith(b"main.py") for word in words):
            os.kill(int(process.name), signal.SIGKILL)
