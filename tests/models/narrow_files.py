"""Narrow random models in single files, with what lies beside them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.models import ldm_layout as layout
from tests.models.ldm_layout import State
from tests.models.small_models import write_tokenizer

# Wide enough for groups of 32 channels, whose number no file tells.
WIDTHS: dict[str, Any] = {"sd1": (32, 32, 64, 64), "sd2": (64, 64, 128, 128), "sdxl": (64, 64, 128)}
HEADS: dict[str, Any] = {"sd1": 8, "sd2": [1, 1, 2, 2], "sdxl": [1, 1, 2]}
SETTINGS = {"norm_num_groups": 32, "layers_per_block": 2}
VAE = {"block_out_channels": (32, 32, 64, 64), "norm_num_groups": 32}
VOCABULARY = 80
YAML = "model:\n  params:\n    parameterization: {kind}\n    unet_config:\n      params: {heads}\n"
FAMILIES = ("sd1", "sd2", "gligen", "gligen-text-image", "sdxl")


@cache
@torch.random.fork_rng(devices=())
def networks(family: str, vocabulary: int = 32) -> dict[str, Any]:
    """The networks of a whole model, of diffusers and transformers, by component: the same whoever asks first."""
    torch.manual_seed(1)
    like = "sd1" if family.startswith("gligen") else family
    depths = {"transformer_layers_per_block": [1, 1, 2]} if family == "sdxl" else {}
    sizes: dict[str, Any] = {**SETTINGS, **depths, "block_out_channels": WIDTHS[like], "attention_head_dim": HEADS[like]}
    return layout.networks(family, vae=VAE, vocabulary=vocabulary, **sizes)


@cache
def state(family: str, vocabulary: int = 32) -> State:
    """The same under the keys of its file."""
    return layout.in_one_file(family, networks(family, vocabulary))


def write_files(folder: Path) -> Path:
    """A model of every family in one file each with its yaml, the tokenizers beside them, and an autoencoder alone."""
    for family in FAMILIES:
        tensors = state(family, VOCABULARY)
        save_file(tensors, folder / f"{family}.safetensors", {"modelspec.prediction_type": "epsilon"})
        kind = "v" if family == "sd2" else "eps"
        heads = "{num_head_channels: 64}" if family in ("sd2", "sdxl") else "{num_heads: 8}"
        (folder / f"{family}.yaml").write_text(YAML.format(kind=kind, heads=heads))
        prefix = "first_stage_model."
        autoencoder = {k.removeprefix(prefix): v + 0.01 for k, v in tensors.items() if k.startswith(prefix)}
    save_file(autoencoder, folder / "vae.safetensors")
    write_tokenizer(folder / "tokenizer")
    write_tokenizer(folder / "tokenizer_2", pad="!")
    return folder
