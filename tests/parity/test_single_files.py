"""Models from one file beside the networks that were written into it: nothing in between has been through our own names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.models import CheckpointFile
from lsregen.models.runtime.conditioning import Conditioning
from tests.models.narrow_files import FAMILIES, VOCABULARY, networks

TOLERANCE = 2e-5
SCALES = {"sdxl": 0.13025}
PROMPTS = ["a red circle", "", "a blue circle and a red circle, a blue circle"]


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@pytest.fixture(params=FAMILIES)
def pair(request: pytest.FixtureRequest, files: Path) -> tuple[str, Any, dict[str, Any]]:
    """A family, our model from its file, and the networks that are in the file."""
    model = CheckpointFile().load(files / f"{request.param}.safetensors", LoadOptions(device="cpu", dtype="fp32"))
    return request.param, model, networks(request.param, VOCABULARY)


def test_the_unet_and_the_autoencoder(pair: tuple[str, Any, dict[str, Any]]) -> None:
    family, model, theirs = pair
    z, t, context = torch.randn(2, 4, 12, 10), torch.tensor([981, 7]), torch.randn(2, 5, model.text.channels)
    pooled = torch.randn(2, model.text.pooled_channels) if family == "sdxl" else None
    sizes = torch.tensor([[96, 80, 0, 0, 96, 80]] * 2)
    added = {} if pooled is None else {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
    expected = theirs["unet"](z, t, context, **added).sample
    assert error(model.unet(z, t, context, model.added(Conditioning(context, pooled), z)), expected) <= TOLERANCE
    images, scale = torch.rand(1, 3, 96, 80), SCALES.get(family, 0.18215)
    assert error(model.encode_image(images), theirs["vae"].encode(images * 2 - 1).latent_dist.mean * scale) <= TOLERANCE
    assert error(model.autoencoder.decode(z), theirs["vae"].decode(z / scale).sample) <= TOLERANCE


def test_the_texts(pair: tuple[str, Any, dict[str, Any]]) -> None:
    family, model, theirs = pair
    towers = [theirs[name] for name in ("text_encoder", "text_encoder_2") if name in theirs]
    said: list[Any] = []
    for encoder, tower in zip(model.text.encoders, towers, strict=True):
        ids = torch.tensor(encoder._tokenize(PROMPTS)["input_ids"])
        said.append(tower(input_ids=ids, output_hidden_states=True))
    if family == "sdxl":
        context = torch.cat([one.hidden_states[-2] for one in said], dim=-1)
    elif family == "sd2":  # the layer before the last, and then the norm that comes after the last
        context = towers[0].text_model.final_layer_norm(said[0].hidden_states[-2])
    else:
        context = said[0].last_hidden_state
    told = model.text.encode(PROMPTS)
    assert error(told.context, context) <= TOLERANCE
    assert bool(model.text.encode_negatives([""]).context.any()) == (family != "sdxl")
    if family == "sdxl":
        assert error(told.pooled, said[1].text_embeds) <= TOLERANCE
    elif family.startswith("gligen"):
        assert error(model.text.encoders[0].encode(PROMPTS).pooled, said[0].pooler_output) <= TOLERANCE
