"""Folders of transformers, before anything of them is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from transformers.utils import logging

from lsregen.framework.hf_folders import network_of, without_bars

bars = cast("Any", logging)


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ('{"architectures": ["CLIPModel"]}', "CLIPModel"),
        ('{"architectures": []}', ""),
        ('{"architectures": null}', ""),
        ("[]", ""),
        ("{", ""),
        (None, ""),
    ],
)
def test_the_network_is_that_of_the_configuration(tmp_path: Path, text: str | None, network: str) -> None:
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    assert network_of(tmp_path) == network


@pytest.mark.parametrize("before", [True, False])
def test_there_are_no_bars_in_the_block_and_as_many_as_before_behind_it(before: bool) -> None:
    was = bars.is_progress_bar_enabled()
    switch = {True: bars.enable_progress_bar, False: bars.disable_progress_bar}
    switch[before]()
    try:
        with without_bars():
            assert not bars.is_progress_bar_enabled()
        assert bars.is_progress_bar_enabled() is before
    finally:
        switch[was]()
