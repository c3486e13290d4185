"""The text encoder: a CLIP tokenizer and text tower of `transformers`, filled by our own strict loader, never from a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ...framework.errors import CheckpointError
from ...framework.files import is_file
from ...framework.layout.tokens import Piece, TokenTable
from ..weights.checkpoint import Weights, check_shapes, fill, renamed
from ..weights.headers import read_json
from ..weights.key_maps import Shape, clip_map
from ..weights.settings import CHANNELS, LAYERS, WORDS, Settings, Values
from ..weights.tokenizers import ALL, lacking

PREFIX = "text_model."
PROJECTION = "text_projection."
KIND = "clip_text_model"
SIZES = MappingProxyType(
    {
        "vocab_size": WORDS,
        "hidden_size": CHANNELS,
        "intermediate_size": 8 * CHANNELS,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": CHANNELS,
        "max_position_embeddings": CHANNELS,
        "projection_dim": CHANNELS,
    }
)
"""The sizes of a text tower, and the largest that each may be."""
SHORTEST = 3  # tokens of a text: the start, one of the text, and the end


@dataclass(frozen=True, eq=False)
class TextEmbedding:
    """What a text tower says of prompts, in its dtype.

    `last`, `penultimate`: `[b t d]`, the last layer after the final norm, and the layer before it without. `pooled`: `[b p]`, the
    last layer at the end token, after the final norm and the tower's projection if it has one.
    """

    last: Tensor
    penultimate: Tensor
    pooled: Tensor


class TextEncoder:
    """Prompts to embeddings, and to the tokens that they belong to.

    `length`: the tokens of every prompt, special tokens and padding included; `channels`, `pooled_channels`: widths.
    """

    def __init__(self, tokenizer: Any, network: nn.Module, *, length: int, channels: int, pooled_channels: int) -> None:
        self.tokenizer, self.network, self.length = tokenizer, network, length
        self.channels, self.pooled_channels = channels, pooled_channels

    def tokens(self, prompt: str) -> TokenTable:
        """The tokens as the network sees them; a prompt that is too long is cut."""
        encoding = self._tokenize([prompt]).encodings[0]
        pieces = tuple(
            Piece(index, text, 0, 0, special=True)
            if special
            else Piece(index, text, start, end, unknown=self._unknown(prompt[start:end], text))
            for index, (text, (start, end), special) in enumerate(
                zip(encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
            )
        )
        cut = _first_character(encoding.overflowing[0]) if encoding.overflowing else None
        return TokenTable(prompt, pieces, cut)

    def _unknown(self, characters: str, text: str) -> bool:
        """Whether a piece stands for characters without a token; who writes that piece's own name means it."""
        return text == self.tokenizer.unk_token != characters

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> TextEmbedding:
        """Embeddings of prompts."""
        ids = torch.tensor(self._tokenize(prompts)["input_ids"], device=next(self.network.parameters()).device)
        out = self.network(input_ids=ids, output_hidden_states=True, return_dict=True)
        pooled = out.text_embeds if "text_embeds" in out else out.pooler_output
        return TextEmbedding(out.last_hidden_state, out.hidden_states[-2], pooled)

    def _tokenize(self, prompts: Sequence[str]) -> Any:
        return self.tokenizer(list(prompts), padding="max_length", truncation=True, max_length=self.length)


def build_text_encoder(values: Values, where: str, tokenizer: Path, *, projection: bool) -> TextEncoder:
    """A text encoder without its weights, on the meta device; `fill_text_encoder` makes it whole.

    Args:
        values: its `config.json`; `where`: that file, for the messages.
        tokenizer: the folder of its tokenizer.
        projection: whether the pooled embedding is projected.

    Raises:
        CheckpointError: another kind of text encoder, settings that do not fit together, or a broken tokenizer.
    """
    config, network = _network(values, where, projection)
    tokens = load_tokenizer(tokenizer)
    highest = max(tokens.get_vocab().values(), default=0)
    if highest >= config.vocab_size:
        raise CheckpointError(
            f"{tokenizer}: numbers up to {highest} for its {len(tokens)} tokens, but the text encoder beside it knows "
            f"{config.vocab_size}, counted from 0 (vocab_size in {where}); take the tokenizer that belongs to it"
        )
    length = min(tokens.model_max_length, config.max_position_embeddings)
    if length < SHORTEST:
        raise CheckpointError(f"{tokenizer}, {where}: texts of {length} tokens; expected at least {SHORTEST}, with start and end")
    width = config.hidden_size
    return TextEncoder(
        tokens,
        network,
        length=length,
        channels=width,
        pooled_channels=config.projection_dim if projection else width,
    )


def fill_text_encoder(encoder: TextEncoder, weights: Weights, device: torch.device, dtype: torch.dtype) -> None:
    """Give a text encoder its weights. Raises as `checkpoint.fill`."""
    network = encoder.network
    fill(network, text_keys(weights.tensors, network.state_dict()), weights.where, device=device, dtype=dtype)
    restore_positions(network, device)


def check_text_encoder(encoder: TextEncoder, shapes: Mapping[str, Shape], where: str) -> None:
    """Whether tensors of these shapes are what a text encoder needs. Raises as `checkpoint.check_shapes`."""
    expected = encoder.network.state_dict()
    keys = clip_map(shapes, projection=any(key.startswith(PROJECTION) for key in expected))
    given = {**keys.shapes(shapes), **{key: shapes[key] for key in keys.unknown}}
    prefix = "" if any(key.startswith(PREFIX) for key in expected) else PREFIX
    check_shapes(encoder.network, {key.removeprefix(prefix): shape for key, shape in given.items()}, where)


def _network(values: Values, where: str, projection: bool) -> tuple[Any, nn.Module]:
    """The text tower that a `config.json` describes, on the meta device, and its config."""
    import transformers

    library: Any = transformers
    given = Settings(values, where)
    given.text("model_type", KIND, (KIND,))
    sizes = {key: given.whole(key, 64, high=most) for key, most in SIZES.items() if key in given}
    if sizes.get("hidden_size", 0) % sizes.get("num_attention_heads", 1):
        heads = sizes["num_attention_heads"]
        raise CheckpointError(
            f"{where}: num_attention_heads is {heads}; expected a divisor of hidden_size {sizes['hidden_size']}"
        )
    # Before the meta device is entered: transformers imports a model when it is first named, and older torch computes on import.
    model: Any = library.CLIPTextModelWithProjection if projection else library.CLIPTextModel
    try:
        config: Any = library.CLIPTextConfig.from_dict(dict(values))
        with torch.device("meta"):
            return config, model(config)
    except Exception as error:  # transformers checks its other settings in its own ways, by version
        said = " ".join(str(error).split())
        raise CheckpointError(f"{where}: no CLIP text encoder can be built from it ({type(error).__name__}: {said})") from None


def load_tokenizer(folder: Path) -> Any:
    """The fast CLIP tokenizer of a folder: from `tokenizer.json`, or from `vocab.json` and `merges.txt`."""
    import transformers

    library: Any = transformers
    if lacks := lacking(folder):
        raise CheckpointError(f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt (it lacks {lacks})")
    try:
        for name in ALL:
            if is_file(folder / name) and name.endswith(".json"):
                read_json(folder / name)  # whose errors are for people, and which reads no more than a limit
        tokenizer: Any = library.CLIPTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # tokenizers raises bare exceptions on broken files
        raise CheckpointError(f"{folder}: the tokenizer cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(tokenizer.model_max_length, int) or tokenizer.model_max_length < 1:
        given = tokenizer.model_max_length
        raise CheckpointError(
            f"{folder / 'tokenizer_config.json'}: model_max_length is {given!r}; expected a whole number above 0"
        )
    return tokenizer


def text_keys(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A text tower's weights under the keys of the installed `transformers`, which has written them with and without a prefix."""
    named = renamed(weights, clip_map(weights, projection=any(key.startswith(PROJECTION) for key in expected)))
    prefixed = any(key.startswith(PREFIX) for key in expected)
    return named if prefixed else {key.removeprefix(PREFIX): tensor for key, tensor in named.items()}


def restore_positions(network: nn.Module, device: torch.device) -> None:
    """Make the buffers that are in no checkpoint, which a network built on the meta device lacks."""
    for module in network.modules():
        if "position_ids" in module._buffers:  # pyright: ignore[reportPrivateUsage]
            count = module.get_buffer("position_ids").shape[-1]
            module.register_buffer("position_ids", torch.arange(count, device=device)[None], persistent=False)


def _first_character(encoding: Any) -> int:
    """Where in the prompt the tokens of an encoding begin."""
    return next(start for (start, _), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special)
