"""Where words stand in a text, whatever their case, spacing and Unicode form, and where a word begins and ends.

Two texts that look alike on a screen match: `café` may be written with one character or with two, an apostrophe may be straight
or curly, and characters that show nothing (a soft hyphen, a zero-width space) count for nothing.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache

IGNORED = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
    "\U000e0000-\U000e0fff]"
)
"""Unicode's default ignorable characters, as far as texts have them."""
SAME_SIGN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u2010": "-", "\u2011": "-"})
UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U000323af]"
)
"""Scripts that put no spaces between words: Thai, Lao, Tibetan, Burmese, Khmer, kana and Han."""
PROPOSED = 3  # at most so many of the prompt's own words, for a phrase that is not in it


@dataclass(frozen=True)
class Folded:
    """A text as it is compared. `starts` and `ends`: of each character, those in the text of the letter that it belongs to, its
    combining marks included."""

    text: str
    starts: tuple[int, ...]
    ends: tuple[int, ...]

    def between_letters(self, at: int) -> bool:
        """Whether a letter ends before this place and another begins there, rather than that one letter goes on."""
        return at in (0, len(self.text)) or self.starts[at] != self.starts[at - 1]

    def inside_word(self, at: int) -> bool:
        """Whether a word goes on at this place."""
        if at in (0, len(self.text)):
            return False
        before, after = self.letter(at - 1), self.letter(at)
        return all(_of_word(each) and not UNSPACED.match(each) for each in (before, after))

    def letter(self, at: int) -> str:
        """The first character of the letter that stands at this place; the others are its marks."""
        while at and self.starts[at - 1] == self.starts[at]:
            at -= 1
        return self.text[at]


@lru_cache(maxsize=4096)
def fold(text: str) -> Folded:
    """A text for comparison: composed (NFC), in one case, without characters that show nothing."""
    if text.isascii():
        return Folded(text.lower(), tuple(range(len(text))), tuple(range(1, len(text) + 1)))
    characters, starts, ends = list[str](), list[int](), list[int]()
    for start, end in _letters(text):
        written = unicodedata.normalize("NFC", IGNORED.sub("", text[start:end])).translate(SAME_SIGN).casefold()
        characters += written
        starts += [start] * len(written)
        ends += [end] * len(written)
    return Folded("".join(characters), tuple(starts), tuple(ends))


def _letters(text: str) -> list[tuple[int, int]]:
    """The places of a text's letters, each with its combining marks, and with what is not shown."""
    bounds, letter = [0], text[:1]
    for i, character in enumerate(text[1:], 1):
        if unicodedata.category(character)[0] == "M" or IGNORED.match(character) or _joined(letter, character):
            letter += character
        else:
            bounds.append(i)
            letter = character
    return list(zip(bounds, (*bounds[1:], len(text)), strict=True))


def _joined(letter: str, character: str) -> bool:
    """Whether a character goes on with a letter: nothing of the letter is shown yet, or the two are composed to others."""
    shown = IGNORED.sub("", letter)
    return not shown or unicodedata.normalize("NFC", shown + character) != unicodedata.normalize("NFC", shown) + character


def _of_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def is_blank(text: str) -> bool:
    """Whether nothing of a text is ever seen."""
    return not fold(text).text.strip()


def occurrences(name: str, text: str) -> list[tuple[int, int]]:
    """Where words stand in a text, in characters of the text: `[(start, end), ...]`.

    Whole words are matched: `ball` stands in `a ball, red` but not in `balls`. Scripts without spaces have no such bounds.
    """
    words, inside = fold(name).text.split(), fold(text)
    if not words:
        return []
    pattern = re.compile(r"\s+".join(map(re.escape, words)))
    found, at = list[tuple[int, int]](), 0
    while match := pattern.search(inside.text, at):
        start, end = match.span()
        fits = all(inside.between_letters(place) and not inside.inside_word(place) for place in (start, end))
        if fits:
            found.append((inside.starts[start], inside.ends[end - 1]))
        at = end if fits else start + 1
    return found


def near(name: str, text: str) -> list[str]:
    """Up to three pieces of a text that look like the words and do stand in it, best first, as the text writes them."""
    folded = fold(text)
    words = [
        (folded.starts[match.start()], folded.ends[match.end() - 1])
        for match in re.finditer(r"\w+(?:['-]?\w+)*", _letters_only(folded))
    ]
    count = len(name.split())
    slices = (
        text[words[i][0] : words[i + n - 1][1]] for n in range(max(1, count - 1), count + 2) for i in range(len(words) - n + 1)
    )
    known = {fold(piece).text: piece for piece in slices}
    close = get_close_matches(fold(name).text, list(known), n=PROPOSED, cutoff=0.6)
    return [known[key] for key in close if occurrences(known[key], text)]


def _letters_only(folded: Folded) -> str:
    """The text with each combining mark written as its letter, so that a word is a run of word characters."""
    return "".join(folded.letter(i) if unicodedata.category(c)[0] == "M" else c for i, c in enumerate(folded.text))
