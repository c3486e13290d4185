"""A machine without a browser: its tests are skipped and say why, and fail where a browser must be."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from _pytest.outcomes import Failed, Skipped

from tests.apps.browser import browser


def without_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


def without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)


@pytest.mark.parametrize(
    ("take", "said"), [(without_chromium, "no Chromium on this machine"), (without_a_driver, "no playwright, which drives")]
)
@pytest.mark.parametrize(
    ("named", "ci", "outcome"),
    [("1", None, Failed), (None, "true", Failed), ("0", "true", Skipped), ("", "true", Skipped), (None, None, Skipped)],
)
def test_a_browser_that_is_missing(
    take: object,
    said: str,
    named: str | None,
    ci: str | None,
    outcome: type[BaseException],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("LSREGEN_REQUIRE_BROWSER", named), ("CI", ci)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert callable(take)
    take(monkeypatch)
    with pytest.raises(outcome, match=said), browser(tmp_path):
        raise AssertionError("there is no browser")
