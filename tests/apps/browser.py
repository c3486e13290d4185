"""A headless Chromium, where there is one."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def browser(downloads: Path) -> Generator[Any, None, None]:
    """A context of pages that reach no network and save what they download.

    The test is skipped where there is no Chromium.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no Chromium on this machine ({', '.join(NAMES)})")
    from playwright.sync_api import sync_playwright

    flags = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
    ]  # fmt: skip
    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=flags, downloads_path=downloads)
        context = chromium.new_context(offline=True, accept_downloads=True, viewport={"width": 1280, "height": 900})
        context.set_default_timeout(60_000)  # a busy machine is no fault of the page
        yield context
        chromium.close()
