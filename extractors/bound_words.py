"""Where every word of the prompt looks, and which words belong together: modifiers to their noun, and both to nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import ClassVar, TypeAlias

import torch
from einops import rearrange
from torch import Tensor

from ..framework.config.options import check_options, option
from ..framework.errors import ConfigError, PhraseError
from ..framework.layout.regions import Layout
from ..framework.layout.tokens import TokenTable
from ..framework.protocols import Run
from ..framework.sampling.taps import TapPoint, select_layers
from ..framework.types import Features, Maps, Needs, TapRequest, View
from .cross_attention import Layers, mean_of_equal_grids

Span: TypeAlias = tuple[int, ...]
Relation: TypeAlias = tuple[int, int, int]
# Words before a noun that say nothing of what it looks like.
ARTICLES = frozenset(("a", "an", "the"))
NUMERALS = frozenset(
    ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "both", "several", "many")
)


@dataclass(frozen=True)
class BoundWords:
    """Cross-attention probabilities `[b 1 pieces h w]` of all words of each prompt, heads averaged, one tensor for each grid.

    A binding is a noun with its modifiers (Rassin et al. 2023, section 3). Without `pairs` every phrase of a layout is one: its
    last word is the noun, those before it are the modifiers, articles and numerals apart; a phrase of one word binds nothing, and
    counts among the other words. The relations say that a noun and its modifiers agree, and that both differ from all words
    outside of their binding. A sample without phrases has no words, and so nothing to be pulled by. There is no target.

    Raises:
        ConfigError: a layer selector is missing; while preparing, no sample has a binding.
        PhraseError: while preparing, none of a sample's phrases has a modifier, or a word is not in its prompt.
    """

    kind: ClassVar[str] = "attention"

    layers: Layers = option(("grid:coarsest",), "layer selectors, as of cross_attention")
    pairs: tuple[tuple[str, str], ...] = option((), "modifier and noun, such as [red, circle]; none: from the layout's phrases")

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def needs(self) -> Needs:
        return Needs(taps=(TapRequest("cross_probs", tuple(self.layers)),))

    def prepare(self, run: Run, raster: str) -> BoundWordsState:
        points = [TapPoint(layer.name, "cross_probs") for layer in select_layers(run.denoiser.layers, self.layers)]
        tables = run.denoiser.tokens
        samples = [self._bindings(table, layout) for table, layout in zip(tables, run.layouts, strict=True)]
        if not any(samples):
            raise ConfigError(
                "no sample binds a modifier to a noun; give phrases such as 'red circle' (--phrase 'red circle'), or pairs"
            )
        others = [_others(table, bound) for table, bound in zip(tables, samples, strict=True)]
        return BoundWordsState.build(points, samples, others, run.layouts, run.z_T.device)

    def current(self, view: View, state: BoundWordsState) -> Features:
        maps = mean_of_equal_grids([view[point].mean(dim=1, keepdim=True) for point in state.points])
        picked = tuple(state.pick(m) for m in maps)
        return Features(picked, self.kind, state.present, state.group, relations=state.relations, layouts=state.layouts)

    def target(self, view: View, state: BoundWordsState) -> Features | None:
        return None

    def _bindings(self, table: TokenTable, layout: Layout) -> list[list[Span]]:
        """The pieces of each binding's words, the noun first."""
        if self.pairs:
            spans = self._spans(table)
            nouns = dict.fromkeys(noun for _, noun in self.pairs)
            return [[spans[n], *(spans[m] for m, noun in self.pairs if noun == n)] for n in nouns]
        found: list[list[Span]] = []
        for phrase in layout.phrases:
            *before, noun = table.words(table.span(phrase))
            modifiers = [span for span in before if _modifies(_text(table, span))]
            if modifiers:
                found.append([noun, *modifiers])
        if layout.phrases and not found:
            listed = ", ".join(map(repr, layout.phrases))
            raise PhraseError(
                f"phrase {listed} in the prompt {table.prompt!r}: no modifier stands before the noun (articles and numerals are "
                "none), so there is nothing to bind; give phrases such as 'red circle', or bound_words' pairs: [[red, circle]]"
            )
        return found

    def _spans(self, table: TokenTable) -> dict[str, Span]:
        """The pieces of every word of `pairs`.

        Raises:
            PhraseError: of every word that cannot be found in the prompt.
        """
        found: dict[str, Span] = {}
        faults: list[str] = []
        for word in dict.fromkeys(word for pair in self.pairs for word in pair):
            try:
                found[word] = table.span(word)
            except PhraseError as error:
                faults += f"bound_words' pairs: {error}".split("\n")
        if faults:  # what they all say of the prompt's tokens is said once, at the end
            raise PhraseError("\n".join(sorted(dict.fromkeys(faults), key=lambda line: line.startswith("tokens: "))))
        return found


def _text(table: TokenTable, span: Span) -> str:
    return table.prompt[table.pieces[span[0]].start : table.pieces[span[-1]].end].strip(" ,.;:").casefold()


def _modifies(word: str) -> bool:
    return word not in ARTICLES | NUMERALS and not re.fullmatch(r"\W*|\d+", word)


def _others(table: TokenTable, bound: Sequence[Sequence[Span]]) -> list[Span]:
    """The pieces outside of every binding, one by one, special tokens left out; none where nothing is bound."""
    taken = {piece for binding in bound for span in binding for piece in span}
    return [(p.index,) for p in table.pieces if not p.special and p.index not in taken] if bound else []


@dataclass
class BoundWordsState:
    """What one run fixes. Words have the same number in every sample: word `j` of binding `i`, then the others; a sample may lack
    some. `index`, `present` and `group` are `[b pieces]`: token, whether there is one, and its word."""

    points: list[TapPoint]
    index: Tensor
    present: Tensor
    group: Tensor
    relations: tuple[Relation, ...]
    layouts: tuple[Layout, ...]

    @classmethod
    def build(
        cls,
        points: list[TapPoint],
        samples: Sequence[Sequence[Sequence[Span]]],
        others: Sequence[Sequence[Span]],
        layouts: tuple[Layout, ...],
        device: torch.device,
    ) -> BoundWordsState:
        sizes = [max((len(bound[i]) for bound in samples if i < len(bound)), default=0) for i in range(max(map(len, samples)))]
        first = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        rows = [
            [(piece, first[i] + j) for i, binding in enumerate(bound) for j, span in enumerate(binding) for piece in span]
            + [(piece, first[-1] + j) for j, span in enumerate(rest) for piece in span]
            for bound, rest in zip(samples, others, strict=True)
        ]
        longest = max(map(len, rows))
        padded = [row + [(0, 0)] * (longest - len(row)) for row in rows]
        index, group = torch.tensor(padded, device=device).unbind(dim=-1)
        present = torch.tensor([[j < len(row) for j in range(longest)] for row in rows], device=device)
        count = first[-1] + max(map(len, others))
        return cls(points, index, present, group, _relations(first, count), layouts)

    def pick(self, maps: Maps) -> Maps:
        """The words' maps `[b 1 pieces h w]` out of all tokens'."""
        samples = torch.arange(len(maps), device=maps.device)[:, None]
        return rearrange(maps[samples, :, self.index], "b pieces n h w -> b n pieces h w")


def _relations(first: Sequence[int], count: int) -> tuple[Relation, ...]:
    """A noun (the first word of its binding) agrees with its modifiers; words of a binding differ from all outside of it."""
    binding = [sum(start <= word for start in first[1:]) for word in range(count)]
    bound = len(first) - 1
    agree = [(word, first[binding[word]], 1) for word in range(first[-1]) if word not in first]
    differ = [(a, b, -1) for a, b in combinations(range(count), 2) if binding[a] != binding[b] and binding[a] < bound]
    return (*agree, *differ)
