"""The text encoder: a CLIP tokenizer and text tower of `transformers`, filled by our own strict loader, never from a network."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..framework.errors import CheckpointError
from ..framework.tokens import Piece, TokenTable
from .checkpoint import fill, load_weights, read_config
from .settings import Settings

log = logging.getLogger(__name__)

PREFIX = "text_model."
KIND = "clip_text_model"
SIZES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
)  # fmt: skip


class TextEncoder:
    """Prompts to the embeddings that a UNet attends to, and to the tokens that they belong to.

    `length`: the tokens of every prompt, special tokens and padding included; `channels`: the width of an embedding.
    """

    def __init__(self, tokenizer: Any, network: nn.Module, *, length: int, channels: int) -> None:
        self.tokenizer, self.network, self.length, self.channels = tokenizer, network, length, channels

    def tokens(self, prompt: str) -> TokenTable:
        """The tokens as the network sees them; a prompt that is too long is cut, with a warning."""
        encoding = self._tokenize([prompt]).encodings[0]
        pieces = tuple(
            Piece(index, text, 0 if special else start, 0 if special else end, bool(special))
            for index, (text, (start, end), special) in enumerate(
                zip(encoding.tokens, encoding.offsets, encoding.special_tokens_mask, strict=True)
            )
        )
        cut = _first_character(encoding.overflowing[0]) if encoding.overflowing else None
        if cut is not None:
            log.warning("the prompt is too long for %d tokens; the model does not see its end: %r", self.length, prompt[cut:])
        return TokenTable(prompt, pieces, cut)

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embeddings `[b t d]` of prompts, in the network's dtype: its last hidden state, after the final norm."""
        ids = torch.tensor(self._tokenize(prompts)["input_ids"], device=next(self.network.parameters()).device)
        return self.network(input_ids=ids).last_hidden_state

    def _tokenize(self, prompts: Sequence[str]) -> Any:
        return self.tokenizer(list(prompts), padding="max_length", truncation=True, max_length=self.length)


def load_text_encoder(
    tokenizer: Path, encoder: Path, device: torch.device, dtype: torch.dtype
) -> tuple[TextEncoder, tuple[Path, ...]]:
    """A text encoder from the folders `tokenizer` and `text_encoder` of a model, and the files of its weights.

    Raises:
        CheckpointError: files are missing, broken, or of another kind of text encoder.
    """
    config, network = _network(encoder)
    weights = load_weights(encoder)
    fill(network, text_keys(weights.tensors, network.state_dict()), weights.where, device=device, dtype=dtype)
    _restore_positions(network, device)
    tokens = load_tokenizer(tokenizer)
    length = min(tokens.model_max_length, config.max_position_embeddings)
    if len(tokens) > config.vocab_size:
        raise CheckpointError(f"{tokenizer}: {len(tokens)} tokens, but the text encoder beside it knows {config.vocab_size}")
    return TextEncoder(tokens, network, length=length, channels=config.hidden_size), weights.files


def _network(encoder: Path) -> tuple[Any, nn.Module]:
    """The text tower that a `config.json` describes, on the meta device, and its config."""
    import transformers

    library: Any = transformers
    values, where = read_config(encoder), str(encoder / "config.json")
    given = Settings(values, where)
    given.text("model_type", KIND, (KIND,))
    sizes = {key: given.whole(key, 64) for key in SIZES if key in given}
    if sizes.get("hidden_size", 0) % sizes.get("num_attention_heads", 1):
        heads = sizes["num_attention_heads"]
        raise CheckpointError(
            f"{where}: num_attention_heads is {heads}; expected a divisor of hidden_size {sizes['hidden_size']}"
        )
    try:
        config: Any = library.CLIPTextConfig.from_dict(values)
        with torch.device("meta"):
            return config, library.CLIPTextModel(config)
    except Exception as error:  # transformers checks its other settings in its own ways, by version
        said = " ".join(str(error).split())
        raise CheckpointError(f"{where}: no CLIP text encoder can be built from it ({type(error).__name__}: {said})") from None


def load_tokenizer(folder: Path) -> Any:
    """The fast CLIP tokenizer of a folder: from `tokenizer.json`, or from `vocab.json` and `merges.txt`."""
    import transformers

    library: Any = transformers
    if not (folder / "tokenizer.json").is_file() and not all((folder / n).is_file() for n in ("vocab.json", "merges.txt")):
        raise CheckpointError(f"{folder}: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt")
    try:
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
    wanted = PREFIX if any(key.startswith(PREFIX) for key in expected) else ""
    named = {wanted + key.removeprefix(PREFIX): tensor for key, tensor in weights.items()}
    # A table of 0, 1, 2, ... that older versions saved among the weights.
    return {key: tensor for key, tensor in named.items() if not key.endswith("embeddings.position_ids")}


def _restore_positions(network: nn.Module, device: torch.device) -> None:
    """Make the buffers that are in no checkpoint, which a network built on the meta device lacks."""
    for module in network.modules():
        if "position_ids" in module._buffers:  # pyright: ignore[reportPrivateUsage]
            count = module.get_buffer("position_ids").shape[-1]
            module.register_buffer("position_ids", torch.arange(count, device=device)[None], persistent=False)


def _first_character(encoding: Any) -> int:
    """Where in the prompt the tokens of an encoding begin."""
    return next(start for (start, _), special in zip(encoding.offsets, encoding.special_tokens_mask, strict=True) if not special)
