"""Folders of networks as transformers saves them: what each says that it holds, and loading them without bars."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from .errors import LsregenError
from .files import read_json

MOST_SETTINGS = 2**26  # bytes of a config.json, the vocabulary of which may be inside


def network_of(folder: Path) -> str:
    """The class of the network that a folder holds, by its `config.json`; empty where that does not say it."""
    try:
        return str(read_json(folder / "config.json", "the settings of a network", most=MOST_SETTINGS)["architectures"][0])
    except (LsregenError, LookupError, TypeError):
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
