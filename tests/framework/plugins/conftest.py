"""Packages as `pip install` would leave them, in a temporary folder."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`install(name, source)` puts a package of one module in place, with its metadata; it is gone after the test."""
    monkeypatch.delenv("LSREGEN_PLUGINS", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def place(name: str, source: str, version: str = "1.2", point: str = "plugin") -> None:
        module = name.replace("-", "_").lower()
        (tmp_path / f"{module}.py").write_text(dedent(source))
        info = tmp_path / f"{module}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[lsregen]\n{point} = {module}\n")

    yield place
    for module in set(sys.modules) - before:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in str(sys.modules[module].__file__):
            del sys.modules[module]
