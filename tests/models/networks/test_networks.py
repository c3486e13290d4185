"""Our networks compute what diffusers and transformers compute, on random weights, whole and module by module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsregen.models.networks.autoencoder import Autoencoder
from lsregen.models.networks.blocks import timestep_features
from lsregen.models.networks.unet import UNet
from lsregen.models.runtime.conditioning import Conditioning
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.configs import autoencoder_config, unet_config

WHOLE = 2e-5
SINGLE = 1e-4  # for inputs of std 1e-3, where a norm's epsilon is as large as the variance


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


def faint(*shape: int) -> Tensor:
    return torch.randn(*shape) * 1e-3


@pytest.mark.parametrize("grid", [(20, 28), (9, 5)], ids=str)
def test_unet(oracle: Any, model: LatentDiffusion, grid: tuple[int, int]) -> None:
    z, t = torch.randn(2, model.latent_channels, *grid), torch.tensor([981, 7])
    context = torch.randn(2, 11, model.unet.config.context_channels)
    width = model.unet.config.pooled_channels
    pooled = None if width is None else torch.randn(2, width)
    ours = model.unet(z, t, context, model.added(Conditioning(context, pooled), z))
    assert error(ours, oracle.pipe.unet(z, t, context, **oracle.added(pooled, z)).sample) <= WHOLE


def test_autoencoder(oracle: Any, model: LatentDiffusion) -> None:
    grid = (5, 7)
    images = torch.rand(2, 3, *(side * model.factor for side in grid))
    posterior = oracle.pipe.vae.encode(images * 2 - 1).latent_dist
    mean, log_variance = model.autoencoder.moments(images * 2 - 1)
    assert error(mean, posterior.mean) <= WHOLE
    assert error(log_variance, posterior.logvar) <= WHOLE
    scale = oracle.pipe.vae.config.scaling_factor
    assert error(model.encode_image(images), posterior.mean * scale) <= WHOLE
    z = torch.randn(2, model.latent_channels, *grid)
    assert error(model.autoencoder.decode(z), oracle.pipe.vae.decode(z / scale).sample) <= WHOLE
    assert error(model.decode(z), (oracle.pipe.vae.decode(z / scale).sample / 2 + 0.5).clamp(0, 1)) <= WHOLE


def test_timestep_features() -> None:
    from diffusers.models.embeddings import get_timestep_embedding

    t = torch.tensor([0, 1, 500, 999])
    assert error(timestep_features(t, 32), get_timestep_embedding(t, 32, flip_sin_to_cos=True, downscale_freq_shift=0)) <= 1e-6


def unet_modules(ours: Any, theirs: Any) -> dict[str, tuple[Any, Any]]:
    """Calls of single modules of a UNet on faint inputs: ours and theirs."""
    widths, config = ours.config.widths, ours.config
    time, context = torch.randn(2, config.time_channels), torch.randn(2, 5, config.context_channels)
    level = config.attention_down.index(True)
    x, y, tokens = faint(2, widths[0], 6, 6), faint(2, widths[level], 6, 6), faint(2, 36, widths[level])
    our_transformer, their_transformer = ours.down_blocks[level].attentions[0], theirs.down_blocks[level].attentions[0]
    return {
        "resnet": (
            lambda: ours.down_blocks[0].resnets[0](x, time),
            lambda: theirs.down_blocks[0].resnets[0](x, time),
        ),
        "transformer": (
            lambda: our_transformer(y, context),
            lambda: their_transformer(y, encoder_hidden_states=context, return_dict=False)[0],
        ),
        "block": (
            lambda: our_transformer.transformer_blocks[0](tokens, context, (6, 6)),
            lambda: their_transformer.transformer_blocks[0](tokens, encoder_hidden_states=context),
        ),
        "norm out": (lambda: ours.conv_norm_out(x), lambda: theirs.conv_norm_out(x)),
    }


def autoencoder_modules(ours: Any, theirs: Any) -> dict[str, tuple[Any, Any]]:
    widths = ours.config.block_out_channels
    x, y = faint(2, widths[0], 8, 8), faint(2, widths[-1], 6, 6)
    return {
        "encoder block": (lambda: ours.encoder.down_blocks[0](x), lambda: theirs.encoder.down_blocks[0](x)),
        "middle": (lambda: ours.encoder.mid_block(y), lambda: theirs.encoder.mid_block(y)),
        "decoder block": (lambda: ours.decoder.up_blocks[0](y), lambda: theirs.decoder.up_blocks[0](y)),
        "norm out": (lambda: ours.decoder.conv_norm_out(x), lambda: theirs.decoder.conv_norm_out(x)),
    }


NETWORKS: list[tuple[str, Callable[[Any, Any], dict[str, tuple[Any, Any]]]]] = [
    ("unet", unet_modules),
    ("vae", autoencoder_modules),
]


@pytest.mark.parametrize(("part", "modules"), NETWORKS, ids=[part for part, _ in NETWORKS])
def test_single_modules(oracle: Any, model: LatentDiffusion, part: str, modules: Any) -> None:
    ours = model.unet if part == "unet" else model.autoencoder
    for name, (our, their) in modules(ours, getattr(oracle.pipe, part)).items():
        assert error(our(), their()) <= SINGLE, name


@pytest.mark.parametrize("part", ["unet", "vae"])
def test_every_norm_alone(oracle: Any, model: LatentDiffusion, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind others in its block a norm sees inputs that are not faint any more, and a wrong epsilon of it would not show."""
    ours, theirs = model.unet if part == "unet" else model.autoencoder, getattr(oracle.pipe, part)
    norms = {name: norm for name, norm in ours.named_modules() if isinstance(norm, nn.GroupNorm | nn.LayerNorm)}
    twins = {name: norm for name, norm in theirs.named_modules() if isinstance(norm, nn.GroupNorm | nn.LayerNorm)}
    assert norms.keys() == twins.keys()
    for name, norm in norms.items():
        x = faint(2, norm.num_channels, 6, 6) if isinstance(norm, nn.GroupNorm) else faint(2, 36, *norm.normalized_shape)
        assert error(norm(x), twins[name](x)) <= SINGLE, name
        monkeypatch.setattr(norm, "eps", {1e-5: 1e-6, 1e-6: 1e-5}[norm.eps])
        assert error(norm(x), twins[name](x)) > 10 * SINGLE, name


def test_full_size_keys_and_shapes() -> None:
    from diffusers import AutoencoderKL, UNet2DConditionModel

    with torch.device("meta"):
        pairs = [
            (UNet(unet_config({}, "no settings")), UNet2DConditionModel()),
            (Autoencoder(autoencoder_config({}, "no settings")), AutoencoderKL()),
        ]
    for ours, theirs in pairs:
        shapes = {key: tensor.shape for key, tensor in theirs.state_dict().items()}
        assert {key: tensor.shape for key, tensor in ours.state_dict().items()} == shapes
