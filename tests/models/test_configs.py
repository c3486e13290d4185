"""Between diffusers' `config.json` and our configs: what is read, what is refused, and what names of devices mean."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
import torch

from lsregen.framework.errors import CheckpointError, ConfigError
from lsregen.framework.types import NoiseSchedule
from lsregen.models.checkpoint import read_config
from lsregen.models.configs import (
    autoencoder_config,
    autoencoder_values,
    noise_schedule,
    prediction_kind,
    sample_size,
    scheduler_values,
    unet_config,
    unet_values,
)
from lsregen.models.devices import resolve

WHERE = "unet/config.json"


def test_round_trips(oracle: Any, caplog: pytest.LogCaptureFixture) -> None:
    """What diffusers wrote is read, and what we write means the same to us and to diffusers."""
    with caplog.at_level(logging.WARNING):
        unet_read = read_config(oracle.folder / "unet")
        unet = unet_config(unet_read, WHERE)
        vae_read = read_config(oracle.folder / "vae")
        vae = autoencoder_config(vae_read, "vae")
        scheduler_read = read_config(oracle.folder / "scheduler", "scheduler_config.json")
        noise, kind = noise_schedule(scheduler_read, "scheduler"), prediction_kind(scheduler_read, "scheduler")
    assert not caplog.records
    assert unet_config(unet_values(unet, 8), WHERE) == unet
    assert autoencoder_config(autoencoder_values(vae), "vae") == vae
    assert noise_schedule(scheduler_values(noise, kind), "scheduler") == noise
    listed = (*unet.widths, *unet.attention_down, *unet.attention_up)
    assert listed == (
        *unet_read["block_out_channels"],
        *("Cross" in name for name in unet_read["down_block_types"]),
        *("Cross" in name for name in reversed(unet_read["up_block_types"])),
    )
    for read, written in ((unet_read, unet_values(unet, 8)), (vae_read, autoencoder_values(vae))):
        for key, value in written.items():
            same = [value] if not isinstance(value, list) else [value, value[0]]  # one number may stand for all levels
            assert read.get(key) in same or read.get(key) == 1, key


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"class_embed_type": "timestep"}, r"class_embed_type is 'timestep' \(supported: None\)"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
        ({"dual_cross_attention": True}, "dual_cross_attention is True"),
        ({"attention_type": "gated"}, "attention_type is 'gated'"),
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos is False"),
        ({"mid_block_type": None}, "mid_block_type is None"),
        ({"num_attention_heads": 8}, "num_attention_heads is 8"),
        ({"act_fn": "gelu", "freq_shift": 1}, "act_fn is 'gelu'.*freq_shift is 1"),
        ({"_class_name": "UNet2DModel"}, "_class_name is 'UNet2DModel'"),
        ({"down_block_types": ["AttnDownBlock2D"] * 4}, "down_block_types has 'AttnDownBlock2D'; supported are DownBlock2D"),
        ({"up_block_types": ["SimpleCrossAttnUpBlock2D"] * 4}, "up_block_types has 'SimpleCrossAttnUpBlock2D'"),
        ({"down_block_types": ["DownBlock2D"]}, "attention_down has 1 entries for 4 levels"),
        ({"attention_head_dim": [8, 8]}, "heads has 2 entries for 4 levels"),
        ({"attention_head_dim": 7}, "width 320 is not divisible by 7 heads"),
        ({"layers_per_block": [1, 2, 2, 2]}, r"layers_per_block is \[1, 2, 2, 2\]; supported is one number"),
        ({"cross_attention_dim": [768, 1024, 768, 768]}, "cross_attention_dim is"),
        ({"transformer_layers_per_block": [[1], [1], [1], [1]]}, "transformer_layers_per_block is"),
        ({"block_out_channels": None}, "block_out_channels is None; supported is a list of numbers"),
        ({"addition_embed_type": "image"}, "addition_embed_type is 'image'"),
    ],
)
def test_refused_unets(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        unet_config(values, WHERE)
    assert WHERE in str(caught.value) or "UNet config" in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"latents_mean": [0.0] * 4}, "latents_mean is"),
        ({"latents_std": [1.0] * 4}, "latents_std is"),
        ({"shift_factor": 0.1}, r"shift_factor is 0.1 \(supported: None or 0\)"),
        ({"_class_name": "AsymmetricAutoencoderKL"}, "_class_name is 'AsymmetricAutoencoderKL'"),
        (
            {"down_block_types": ["AttnDownEncoderBlock2D"]},
            "down_block_types is .*supported is DownEncoderBlock2D at each of the 1",
        ),
        ({"block_out_channels": [8, 8]}, "supported is DownEncoderBlock2D at each of the 2 levels"),
    ],
)
def test_refused_autoencoders(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        autoencoder_config(values, "vae/config.json")


def test_a_setting_that_nobody_knows_is_ignored_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        unet_config({"sparkle": 3, "_private": 1, "nothing": None}, WHERE)
    assert [record.getMessage() for record in caplog.records] == [f"{WHERE}: ignored settings that are not known: sparkle"]


def test_numbers_that_stand_for_all_levels() -> None:
    config = unet_config({"attention_head_dim": 8, "transformer_layers_per_block": 2, "layers_per_block": [3] * 4}, WHERE)
    assert (config.heads, config.depths, config.layers_per_block) == ((8,) * 4, (2,) * 4, 3)


def test_sample_sizes() -> None:
    assert sample_size({"sample_size": 96}) == (96, 96)
    assert sample_size({"sample_size": [8, 12]}) == (8, 12)
    assert sample_size({"sample_size": None}) == (64, 64)


LDM = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1, "set_alpha_to_one": False}


@pytest.mark.parametrize(
    ("values", "changes"),
    [
        ({"_class_name": "PNDMScheduler", "skip_prk_steps": True, **LDM}, {}),
        ({"_class_name": "DDIMScheduler", **LDM}, {"clip_sample": 1.0}),
        ({"_class_name": "DDIMScheduler", "clip_sample": False, **LDM}, {}),
        ({"_class_name": "DDIMScheduler", "clip_sample": True, "clip_sample_range": 2.5, **LDM}, {"clip_sample": 2.5}),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing", **LDM}, {"spacing": "trailing"}),
        ({"_class_name": "EulerDiscreteScheduler", **LDM, "set_alpha_to_one": True}, {"final_alpha_one": True}),
        ({"_class_name": "PNDMScheduler"}, {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "steps_offset": 0}),
        (
            {
                "_class_name": "DDIMScheduler",
                "clip_sample": False,
                "rescale_betas_zero_snr": True,
                "prediction_type": "v_prediction",
                **LDM,
            },
            {"zero_terminal_snr": True},
        ),
    ],
)
def test_noise_schedules(values: dict[str, Any], changes: dict[str, Any]) -> None:
    assert noise_schedule(values, "scheduler") == NoiseSchedule(**changes)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name is 'FlowMatchEulerDiscreteScheduler'"),
        ({"trained_betas": [0.1]}, "trained_betas is"),
        ({"thresholding": True}, "thresholding is True"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is true with prediction_type 'epsilon'"),
    ],
)
def test_refused_schedules(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        noise_schedule(values, "scheduler")


def test_prediction_kinds() -> None:
    assert [prediction_kind(v, "s") for v in ({}, {"prediction_type": "v_prediction"})] == ["eps", "v"]
    with pytest.raises(CheckpointError, match="prediction_type is 'sample'; supported are epsilon, v_prediction"):
        prediction_kind({"prediction_type": "sample"}, "s")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("auto", torch.float32), ("fp32", torch.float32), ("float32", torch.float32), ("fp16", torch.float16),
        ("float16", torch.float16), ("bf16", torch.bfloat16), ("bfloat16", torch.bfloat16),
    ],
)  # fmt: skip
def test_dtypes(dtype: str, expected: torch.dtype) -> None:
    assert resolve("cpu", dtype) == (torch.device("cpu"), expected)


def test_automatic_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve("auto", "auto") == (torch.device("cpu"), torch.float32)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve("auto", "auto") == (torch.device("mps"), torch.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve("auto", "auto") == (torch.device("cuda"), torch.float16)
    assert resolve("cuda:1", "bf16") == (torch.device("cuda:1"), torch.bfloat16)
    with pytest.raises(ConfigError, match="device 'cuda:2': this machine has only 2 of them, counted from 0"):
        resolve("cuda:2", "auto")


@pytest.mark.parametrize(
    ("device", "dtype", "message"),
    [
        ("cdua", "auto", r"device 'cdua': expected one of auto, cpu, cuda, mps.*did you mean 'cuda'\?"),
        ("cuda:first", "auto", "device 'cuda:first': expected"),
        ("cuda:", "auto", "device 'cuda:': expected"),
        ("auto:1", "auto", "device 'auto:1': expected"),
        ("cuda", "auto", "device 'cuda': this machine has none; use 'auto' or 'cpu'"),
        ("cpu", "fp61", r"dtype 'fp61': expected one of auto, fp32, fp16, bf16.*did you mean 'fp16'\?"),
        ("cpu", "int8", "dtype 'int8': expected"),
    ],
)
def test_refused_names(monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        resolve(device, dtype)


def test_importing_the_hook_does_not_import_torch() -> None:
    code = "import sys, lsregen.models; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
