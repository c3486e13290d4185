"""Phrases are drawn so that they can be read, in every script."""

from __future__ import annotations

import logging

import pytest

from lsregen.apps.generating import fonts
from lsregen.apps.generating.fonts import covers, font, lettering


def test_what_pillows_font_lacks_is_seen() -> None:
    assert covers(font(18), "a red circle")
    assert not covers(font(18), "черный кот")
    assert not covers(font(18), "a 猫")


def test_a_font_of_the_machine_is_taken_where_it_has_the_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "covers", lambda with_font, text: with_font is found)
    found = font(19)
    monkeypatch.setattr(fonts, "_installed", lambda name, size: found if name == fonts.CANDIDATES[1] else None)
    assert lettering("черный кот", 1, 18) == fonts.Lettering("черный кот", found)


def test_a_phrase_that_no_font_has_is_called_by_its_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda name, size: None)
    with caplog.at_level(logging.WARNING):
        written = lettering("黑色的猫", 2, 18)
    assert (written.text, written.font) == ("phrase 2", font(18))
    assert "黑色的猫" in caplog.text
