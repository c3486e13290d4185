"""From a phrase of the prompt to the tokens that carry it.

Users name words, networks attend to word pieces, and only the tokenizer's character offsets join the two reliably: counting
words goes wrong at the first comma, and at the first word that the tokenizer splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..errors import ConfigError, PhraseError
from .matching import is_blank, near, occurrences

SHOWN_PIECES = 24  # in an error; `render` shows all
CONTEXT = 20  # characters shown on each side of an occurrence


@dataclass(frozen=True)
class Piece:
    """One token: its index, its text as the tokenizer writes it, and its characters `prompt[start:end]`.

    Special tokens (start, end, padding) are in no prompt: `special` is True and `start == end`. `unknown`: the tokenizer has none
    for these characters, and this one stands in their place.
    """

    index: int
    text: str
    start: int
    end: int
    special: bool = False
    unknown: bool = False


@dataclass(frozen=True)
class TokenTable:
    """All tokens of one prompt, special tokens and padding included, in the order the network sees them.

    `truncated_from`: the character of the prompt from which on the network sees nothing, because the prompt is too long; None
    if it sees all of it.

    Raises:
        ConfigError: a model built the table wrong: indices do not count from 0, or characters lie outside of the prompt.
    """

    prompt: str
    pieces: tuple[Piece, ...]
    truncated_from: int | None = None
    _places: dict[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]], init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for i, piece in enumerate(self.pieces):
            in_prompt = 0 <= piece.start <= piece.end <= len(self.prompt)
            if piece.index != i or not in_prompt or (piece.special and piece.start != piece.end):
                place = f"position {i} of the token table of {self.prompt!r}"
                raise ConfigError(f"{piece} at {place}: expected that index, and characters inside the prompt (none if special)")

    @property
    def length(self) -> int:
        """The number of tokens, special tokens and padding included."""
        return len(self.pieces)

    @property
    def special(self) -> tuple[int, ...]:
        """The indices of the special tokens."""
        return tuple(piece.index for piece in self.pieces if piece.special)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The characters that the tokenizer has no token for, neighbours together, in the prompt's order, each once."""
        places = {i for piece in self.pieces if piece.unknown for i in range(piece.start, piece.end)}
        starts = sorted(i for i in places if i - 1 not in places)
        ends = sorted(i + 1 for i in places if i + 1 not in places)
        return tuple(dict.fromkeys(self.prompt[start:end] for start, end in zip(starts, ends, strict=True)))

    def span(self, phrase: str) -> tuple[int, ...]:
        """The indices of every piece of a phrase, in order, at least one.

        The phrase is matched on whole words, whatever its case, spacing and Unicode form (`matching.py`): `ball` is in
        `a ball, red` but not in `balls`. `circle#2` is the second circle.

        Raises:
            PhraseError: the phrase is empty, absent, ambiguous, in the cut part of the prompt, or has no tokens.
        """
        start, end = self.locate(phrase)
        if self.truncated_from is not None and end > self.truncated_from:
            raise PhraseError(
                f"phrase {phrase!r} is in the part of the prompt that the model does not see: the prompt is too long, and cut at "
                f"character {self.truncated_from}, after {_tail(self.prompt[: self.truncated_from])!r}; shorten it, or move the "
                "phrase forward"
            )
        # Overlap, not inclusion: a piece may own the space before its word.
        span = tuple(p.index for p in self.pieces if not p.special and p.start < end and p.end > start)
        if not span:
            raise PhraseError(f"phrase {phrase!r} has no tokens: the model's tokenizer drops its characters\n{self._brief()}")
        return span

    def locate(self, phrase: str) -> tuple[int, int]:
        """The characters `prompt[start:end]` of a phrase, by the rules of `span`, cut part included; found once, and kept.

        Raises:
            PhraseError: the phrase is empty, absent or ambiguous.
        """
        if phrase not in self._places:
            self._places[phrase] = self._located(phrase)
        return self._places[phrase]

    def _located(self, phrase: str) -> tuple[int, int]:
        name, number = self._numbered(phrase)
        found = occurrences(name, self.prompt)
        if is_blank(name):
            raise PhraseError(f"phrase {phrase!r} is empty; expected words of the prompt {self.prompt!r}")
        if not found:
            raise PhraseError(self._absent(name))
        if number is None and len(found) > 1:
            listed = self._listed(name, found)
            raise PhraseError(f"phrase {name!r} occurs {len(found)} times in the prompt; say which one is meant:\n{listed}")
        if number is not None and not 1 <= number <= len(found):
            listed = self._listed(name, found)
            times = "once" if len(found) == 1 else f"{len(found)} times"
            raise PhraseError(f"phrase {phrase!r}: {name!r} occurs {times} in the prompt, counted from 1:\n{listed}")
        return found[(number or 1) - 1]

    def bare(self, phrase: str) -> str:
        """What a phrase says: without the number of its occurrence, if it has one."""
        return self._numbered(phrase)[0]

    def _numbered(self, phrase: str) -> tuple[str, int | None]:
        """A phrase with single spaces, and which of its occurrences is meant, if it says so."""
        name = " ".join(phrase.split())
        numbered = re.fullmatch(r"(.*?)\s*#\s*(\d{1,9})", name)
        # A prompt may well speak of "bus #2".
        return (name, None) if numbered is None or occurrences(name, self.prompt) else (numbered[1], int(numbered[2]))

    def words(self, span: Iterable[int]) -> tuple[tuple[int, ...], ...]:
        """The pieces of a span, grouped by the words they belong to (as spaces part them); the last group is the last word."""
        groups: dict[int, list[int]] = {}
        for index in span:
            # The word a piece ends in, counted in the prompt: the space before a word may belong to its first piece.
            groups.setdefault(len(self.prompt[: self.pieces[index].end].split()), []).append(index)
        return tuple(tuple(group) for group in groups.values())

    def render(self) -> str:
        """The table as aligned text: index, piece, characters and what they read; runs of equal special tokens on one line."""
        rows = [("token", "piece", "characters", "text")]
        for run in _runs(self.pieces):
            first, last = run[0], run[-1]
            index = str(first.index) if first is last else f"{first.index}-{last.index}"
            place = "-" if first.special else f"{first.start}-{first.end}"
            read = self.prompt[first.start : first.end] + (" (unknown)" if first.unknown else "")
            rows.append((index, first.text, place, "(special)" if first.special else read))
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f"{row[0]:>{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip() for row in rows]
        if self.truncated_from is not None:
            lines.append(f"cut at character {self.truncated_from}; not seen: {self.prompt[self.truncated_from :]!r}")
        return "\n".join(lines)

    def _absent(self, name: str) -> str:
        close = near(name, self.prompt)
        hint = f"; near it: {', '.join(map(repr, close))}" if close else ""
        return f"phrase {name!r} is not in the prompt {self.prompt!r} (whole words are matched){hint}\n{self._brief()}"

    def _listed(self, name: str, found: Sequence[tuple[int, int]]) -> str:
        lines: list[str] = []
        for i, (start, end) in enumerate(found, 1):
            before, after = _tail(self.prompt[:start]), _head(self.prompt[end:])
            lines.append(f"  {name}#{i}  {before}[{self.prompt[start:end]}]{after}")
        return "\n".join(lines)

    def _brief(self) -> str:
        """The tokens that are words or parts of them, on one line."""
        own = [piece for piece in self.pieces if not piece.special]
        shown = ", ".join(f"{piece.index} {self.prompt[piece.start : piece.end].strip()}" for piece in own[:SHOWN_PIECES])
        more = f", and {len(own) - SHOWN_PIECES} more" if len(own) > SHOWN_PIECES else ""
        return f"tokens: {shown or 'none'}{more}"


def check_phrases(table: TokenTable, phrases: Iterable[str], seen: bool) -> None:
    """Whether a prompt can be drawn with these phrases: each is in it, and it is clear which words are meant.

    Args:
        seen: whether something needs their tokens, such as guidance: the model must see them too.

    Raises:
        PhraseError: one cannot be used; as `TokenTable.span` if `seen`, else as `TokenTable.locate`.
    """
    for phrase in phrases:
        if seen:
            table.span(phrase)
        else:
            table.locate(phrase)


def _runs(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Pieces one by one, but neighbouring special tokens of the same text (padding) together."""
    runs: list[list[Piece]] = []
    for piece in pieces:
        if runs and piece.special and runs[-1][0].special and runs[-1][0].text == piece.text:
            runs[-1].append(piece)
        else:
            runs.append([piece])
    return runs


def _tail(text: str) -> str:
    return text if len(text) <= CONTEXT else "..." + text[-CONTEXT:]


def _head(text: str) -> str:
    return text if len(text) <= CONTEXT else text[:CONTEXT] + "..."
