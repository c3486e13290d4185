"""A headless Chromium, where there is one.

Its tests are skipped where it or what drives it is missing, unless they must not be: with LSREGEN_REQUIRE_BROWSER set to anything
but 0, or else with CI, they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


SHAPES = """() => [...document.querySelectorAll(".shot")].filter(one => one.offsetParent && one.querySelector("img")).map(one => {
    const image = one.querySelector("img"), at = image.getBoundingClientRect(), boxes = one.querySelector("svg");
    const over = getComputedStyle(boxes).display === "none" ? at : boxes.getBoundingClientRect();
    return {
        own: image.naturalWidth / image.naturalHeight, shown: at.width / at.height,
        apart: Math.max(...["left", "top", "width", "height"].map(side => Math.abs(at[side] - over[side]))),
    };
})"""
"""Of each picture that is seen: its proportions, those that it is shown in, and how far its boxes' frame is off it in pixels."""


def required() -> bool:
    """Whether a machine without a browser is a fault."""
    return os.environ.get("LSREGEN_REQUIRE_BROWSER", os.environ.get("CI", "")) not in ("", "0", "false")


def missing(why: str) -> None:
    """Skip the test, or fail it; the reason says how to mend it."""
    if required():
        pytest.fail(f"{why}; unset LSREGEN_REQUIRE_BROWSER, or set it to 0, to go without", pytrace=False)
    pytest.skip(why)


@contextmanager
def browser(downloads: Path) -> Generator[Any, None, None]:
    """A context of pages that reach no network and save what they download; see the beginning of this file."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        missing(f"no Chromium on this machine ({', '.join(NAMES)})")
    try:
        driven: Any = import_module("playwright.sync_api")
    except ImportError:
        missing("no playwright, which drives a Chromium: pip install playwright")
        raise
    flags = [
        "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync",
    ]  # fmt: skip
    with driven.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=found, args=flags, downloads_path=downloads)
        context = chromium.new_context(offline=True, accept_downloads=True, viewport={"width": 1280, "height": 900})
        context.set_default_timeout(60_000)  # a busy machine is no fault of the page
        yield context
        chromium.close()
