"""From prompts to what a UNet is told besides the latents: the context that it attends to, and SDXL's pooled text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ...framework.errors import PhraseError
from ...framework.layout.tokens import TokenTable
from ..networks.text import TextEmbedding, TextEncoder

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Conditioning:
    """What a UNet is told about a batch.

    `context`: text embeddings `[b t d]`. `pooled`: the pooled text `[b p]` of SDXL, `grounding`: the tokens `[b m d]` of GLIGEN;
    None elsewhere.
    """

    context: Tensor
    pooled: Tensor | None = None
    grounding: Tensor | None = None

    def select(self, places: Sequence[int]) -> Conditioning:
        """The same for some samples, by their places in the batch."""
        index = list(places)
        return self._each(lambda name: _taken(getattr(self, name), index))

    def joined(self, other: Conditioning) -> Conditioning:
        """Both batches as one, this one first."""
        return self._each(lambda name: _joined(getattr(self, name), getattr(other, name)))

    def _each(self, make: Callable[[str], Tensor | None]) -> Conditioning:
        made = {field.name: make(field.name) for field in fields(self)}
        return Conditioning(**made)  # pyright: ignore[reportArgumentType]


def _taken(value: Tensor | None, index: list[int]) -> Tensor | None:
    return None if value is None else value[index]


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return None if first is None or second is None else torch.cat([first, second])


class Conditioner:
    """The text encoders of a model, working as one.

    One alone gives its last layer. Several give the layer before the last, joined along their channels, and the last of them the
    pooled text: that is how SDXL was trained (Podell et al. 2023, section 2.1).

    Args:
        encoders: in the order in which their channels are joined.
        zeros_for_empty: an empty negative prompt gives zeros, instead of what the encoders say of an empty text.
    """

    def __init__(self, encoders: Sequence[TextEncoder], *, zeros_for_empty: bool = False) -> None:
        self.encoders, self.zeros_for_empty = tuple(encoders), zeros_for_empty
        self.length = self.encoders[0].length
        self.channels = sum(encoder.channels for encoder in self.encoders)
        self.pooled_channels = self.encoders[-1].pooled_channels if len(self.encoders) > 1 else None

    def tokens(self, prompt: str) -> TokenTable:
        """The tokens of a prompt; one that is too long is cut, with a warning.

        A phrase's span is refused where the tokenizers of the encoders disagree on it.
        """
        first, *others = (encoder.tokens(prompt) for encoder in self.encoders)
        if (cut := first.truncated_from) is not None:
            log.warning("a prompt is too long for %d tokens; the model does not see its end: %r", self.length, prompt[cut:])
        return AgreeingTokens(first.prompt, first.pieces, first.truncated_from, tuple(others)) if others else first

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """What the UNet is told of prompts; each distinct one is encoded once."""
        distinct = list(dict.fromkeys(prompts))
        embeddings = [encoder.encode(distinct) for encoder in self.encoders]
        return self._of(embeddings).select([distinct.index(prompt) for prompt in prompts])

    def encode_negatives(self, negatives: Sequence[str]) -> Conditioning:
        """The same for negative prompts, of which empty ones may stand for nothing at all. A single space is an empty text."""
        told = self.encode(negatives)
        if not self.zeros_for_empty:
            return told
        said = torch.tensor([float(negative != "") for negative in negatives]).to(told.context)  # [b]
        pooled = None if told.pooled is None else told.pooled * said[:, None]
        return Conditioning(told.context * said[:, None, None], pooled)

    def _of(self, embeddings: Sequence[TextEmbedding]) -> Conditioning:
        if len(embeddings) == 1:
            return Conditioning(embeddings[0].last)
        return Conditioning(torch.cat([one.penultimate for one in embeddings], dim=-1), embeddings[-1].pooled)


@dataclass(frozen=True)
class AgreeingTokens(TokenTable):
    """A token table of a model with several tokenizers, whose embeddings are joined token by token.

    `others`: the tables of the others. A map of attention belongs to a phrase only where all of them place it at the same tokens.
    """

    others: tuple[TokenTable, ...] = ()

    def span(self, phrase: str) -> tuple[int, ...]:
        """As `TokenTable.span`.

        Raises:
            PhraseError: also if the tokenizers place the phrase at different tokens.
        """
        span = super().span(phrase)
        for other in self.others:
            if (found := other.span(phrase)) != span:
                raise PhraseError(
                    f"phrase {phrase!r}: the model's tokenizers place it at different tokens ({_numbers(span)}, and "
                    f"{_numbers(found)}), so no attention map belongs to it; write it, and what comes before it in the prompt "
                    f"{self.prompt!r}, in plain letters"
                )
        return span


def _numbers(span: Sequence[int]) -> str:
    return ", ".join(map(str, span))
