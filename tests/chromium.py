"""A Chromium for tests: found or fetched."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

HOW_TO = (
    "no Chromium was found or could be fetched; `apt-get install chromium` or `playwright install chromium` brings "
    "one, or name a binary by CVCOTEACH_CHROMIUM."
)
OPTIONS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --force-color-profile=srgb"
).split()


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
