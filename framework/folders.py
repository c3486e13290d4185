"""Folders of networks as transformers saves them: what each says that it holds, and loading them without bars."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast


def network_of(folder: Path) -> str:
    """The class of the network that a folder holds, by its `config.json`; empty where that does not say it."""
    try:
        return str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["architectures"][0])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


@contextmanager
def without_bars() -> Generator[None]:
    """transformers draws no bar in the block, and afterwards if it did before; its warnings are left alone."""
    from transformers.utils import logging

    says = cast("Any", logging)
    shown = says.is_progress_bar_enabled()
    says.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            says.enable_progress_bar()
