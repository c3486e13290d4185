"""Fonts for phrases: Pillow's own for ASCII, else one of the machine's that has the characters, else the phrase's number."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias, cast

from PIL import ImageFont

Font: TypeAlias = ImageFont.FreeTypeFont

CANDIDATES = (
    "DejaVuSans.ttf",
    "NotoSans-Regular.ttf",
    "NotoSansCJK-Regular.ttc",
    "NotoSansThai-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf",
    "NotoSansArabic-Regular.ttf",
    "wqy-microhei.ttc",
    "FreeSans.ttf",
    "unifont.otf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "AppleSDGothicNeo.ttc",
    "Arial Unicode.ttf",
    "arial.ttf",
    "msyh.ttc",
    "msgothic.ttc",
    "malgun.ttf",
    "Nirmala.ttf",
    "LeelawUI.ttf",
)
"""Files of widespread fonts of Linux, macOS and Windows; Pillow looks for them where the system keeps its fonts."""
NO_CHARACTER = "\U0010fffe"  # Unicode gives it to nobody: every font draws what it draws for characters that it does not have


@dataclass(frozen=True)
class Lettering:
    """A phrase as it is drawn: its text, or its number where no font has its characters."""

    text: str
    font: Font


@cache
def font(size: int) -> Font:
    """Pillow's own font, which has the letters of ASCII."""
    return cast("Font", ImageFont.load_default(size))


def lettering(phrase: str, number: int, size: int) -> Lettering:
    """How to draw a phrase, `number` in its layout (from 1), in letters of `size` pixels; warns where it cannot be drawn."""
    if covers(font(size), phrase):
        return Lettering(phrase, font(size))
    for name in CANDIDATES:
        found = _installed(name, size)
        if found is not None and covers(found, phrase):
            return Lettering(phrase, found)
    _warn(phrase, number)
    return Lettering(f"phrase {number}", font(size))


def covers(with_font: Font, text: str) -> bool:
    """Whether a font has every character of a text."""
    return text.isascii() or all(_has(with_font, character) for character in set(text) if not character.isspace())


@cache
def _has(with_font: Font, character: str) -> bool:
    drawn, none = (cast("Any", with_font.getmask(each)) for each in (character, NO_CHARACTER))
    return (drawn.size, bytes(drawn)) != (none.size, bytes(none))


@cache
def _installed(name: str, size: int) -> Font | None:
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@cache
def _warn(phrase: str, number: int) -> None:
    logging.getLogger(__name__).warning(
        "no font of this machine has the characters of %r, so images call it 'phrase %d'; install one that has them (Noto Sans)",
        phrase,
        number,
    )
