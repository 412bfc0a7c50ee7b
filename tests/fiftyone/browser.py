"""A real Chromium at a real App: found or fetched, each story with a server, a page and a database look of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fiftyone.server

HOW_TO = (
    "no Chromium was found or could be fetched; `apt-get install chromium` or `playwright install chromium` brings "
    "one, or name a binary by CVCOTEACH_CHROMIUM."
)
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --force-color-profile=srgb"
).split()
ELSEWHERE = re.compile(r"^(https?|wss?)://(?!127\.0\.0\.1[:/])")
PATIENCE = 240_000  # ms; a busy machine is slow, not wrong


class NoChromiumError(RuntimeError):
    """There is none, and none could be had."""


def find_chromium() -> str:
    """A binary that starts: named, on the path, Playwright's own, or fetched by Playwright, else by apt-get."""
    named = os.environ.get("CVCOTEACH_CHROMIUM")
    for name in (named, "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)) and _starts(found):
            return found
    own = _playwrights_own()
    if _starts(own) or (_quietly(sys.executable, "-m", "playwright", "install", "chromium") and _starts(own)):
        return own
    apt = ["apt-get"] if os.geteuid() == 0 else ["sudo", "-n", "apt-get"]
    if shutil.which("apt-get") and _quietly(*apt, "update", "-q") and _quietly(*apt, "install", "-q", "-y", "chromium"):
        found = shutil.which("chromium")
        if found and _starts(found):
            return found
    raise NoChromiumError(HOW_TO)


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


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/fiftyone", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _playwrights_own() -> str:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        return playwright.chromium.executable_path


def _starts(binary: str) -> bool:
    """It may be missing, or lack libraries of the system."""
    return _quietly(binary, "--version")


def _quietly(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=900).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
