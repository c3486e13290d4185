"""Prompts to tokens and embeddings: what transformers computes, loaded by our own loader."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from lsregen.framework.errors import CheckpointError, PhraseError
from lsregen.models.latent_diffusion import LatentDiffusion
from lsregen.models.text import load_tokenizer, text_keys

LONG = "a red circle and a blue circle and a red circle and a blue circle"


def test_embeddings(oracle: Any, model: LatentDiffusion) -> None:
    prompts = ["a red circle", "", LONG, "a Blue,  circle!"]
    pipe = oracle.pipe
    ids = pipe.tokenizer(prompts, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
    theirs = pipe.text_encoder(ids).last_hidden_state
    ours = model.text.encode(prompts)
    assert ours.shape == (4, 16, model.text.channels)
    assert (ours - theirs).abs().max() <= 2e-5
    assert not ours.requires_grad


def test_tokens(model: LatentDiffusion) -> None:
    table = model.tokens("a red  Circle, blue")
    read = [table.prompt[piece.start : piece.end] for piece in table.pieces if not piece.special]
    assert read == ["a", "red", "Circ", "le", ",", "blue"]
    assert table.length == 16
    assert table.special == (0, *range(7, 16))
    assert table.span("circle") == (3, 4)
    assert table.truncated_from is None
    assert model.tokens("").special == tuple(range(16))


def test_a_prompt_that_is_too_long(base: LatentDiffusion, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = base.tokens(LONG)
    # Start, 14 pieces with 3 circles among them, end.
    assert table.length == 16
    assert table.truncated_from is not None
    lost = LONG[table.truncated_from :]
    assert lost == "and a blue circle"
    assert repr(lost) in caplog.text
    assert "too long for 16 tokens" in caplog.text
    assert len(table.span("circle#2")) == 2
    with pytest.raises(PhraseError, match="does not see"):
        table.span("circle#4")


def test_a_short_prompt_warns_of_nothing(base: LatentDiffusion, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        base.tokens("a red circle")
    assert not caplog.records


def test_keys_with_and_without_a_prefix() -> None:
    with_prefix = {f"text_model.{key}": torch.zeros(1) for key in ("final.weight", "embeddings.position_ids")}
    without = {"final.weight": torch.zeros(1)}
    for weights in (with_prefix, without):
        assert list(text_keys(weights, {"final.weight": torch.zeros(1)})) == ["final.weight"]
        assert list(text_keys(weights, {"text_model.final.weight": torch.zeros(1)})) == ["text_model.final.weight"]


def test_positions_are_real_tensors(model: LatentDiffusion) -> None:
    assert not any(buffer.is_meta for buffer in model.text.network.buffers())


def test_a_broken_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(CheckpointError, match="the tokenizer cannot be read"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_of_another_model(oracles: Any, copied: Any) -> None:
    from lsregen.models import DiffusersFolder

    folder = copied(oracles("base").folder, "text_encoder/config.json", {"vocab_size": 20})
    with pytest.raises(CheckpointError, match=r"token_embedding\.weight|tokens, but the text encoder"):
        DiffusersFolder().load(folder, device="cpu", dtype="fp32")
