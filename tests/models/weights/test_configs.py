"""Between diffusers' `config.json` and our configs: what is read, what is refused, and what names of devices mean."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lsregen.framework.errors import CheckpointError, ConfigError
from lsregen.framework.types import NoiseSchedule
from lsregen.models.runtime.devices import resolve
from lsregen.models.weights.checkpoint import read_config
from lsregen.models.weights.configs import (
    autoencoder_config,
    autoencoder_values,
    noise_schedule,
    prediction_kind,
    sample_size,
    scheduler_values,
    unet_config,
    unet_values,
)

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
        (
            {"attention_type": "gate"},
            "attention_type is 'gate'; expected one of default, gated, gated-text-image .did you mean 'gated'",
        ),
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos is False"),
        ({"mid_block_type": None}, "mid_block_type is None"),
        ({"num_attention_heads": 8}, "num_attention_heads is 8"),
        ({"act_fn": "gelu", "freq_shift": 1}, "act_fn is 'gelu'.*freq_shift is 1"),
        ({"_class_name": "UNet2DModel"}, "_class_name is 'UNet2DModel'"),
        (
            {"down_block_types": ["AttnDownBlock2D"] * 4},
            "down_block_types is .*; expected a list of 4, one per level, each one of DownBlock2D",
        ),
        ({"up_block_types": ["SimpleCrossAttnUpBlock2D"] * 4}, "up_block_types is .'SimpleCrossAttnUpBlock2D'"),
        ({"down_block_types": ["DownBlock2D"]}, r"down_block_types is \['DownBlock2D'\]; expected a list of 4"),
        ({"attention_head_dim": [8, 8]}, r"attention_head_dim is \[8, 8\]; expected a list of 4 whole numbers"),
        ({"attention_head_dim": 7}, "width 320 is not divisible by 7 heads"),
        ({"layers_per_block": [1, 2, 2, 2]}, r"layers_per_block is \[1, 2, 2, 2\]; expected one number"),
        ({"cross_attention_dim": [768, 1024, 768, 768]}, "cross_attention_dim is"),
        ({"transformer_layers_per_block": [[1], [1], [1], [1]]}, "transformer_layers_per_block is"),
        ({"block_out_channels": None}, "block_out_channels is None; expected a list of whole numbers"),
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
            "down_block_types is .*expected a list of 1, one per level, each 'DownEncoderBlock2D'",
        ),
        ({"block_out_channels": [8, 8]}, "down_block_types is .*expected a list of 2"),
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
    assert sample_size({"sample_size": 96}, WHERE) == (96, 96)
    assert sample_size({"sample_size": [8, 12]}, WHERE) == (8, 12)
    assert sample_size({"sample_size": None}, WHERE) == (64, 64)


FAULTS: list[tuple[Callable[[dict[str, Any], str], Any], str, Any, str]] = [
    (unet_config, "norm_num_groups", "32", "a whole number of at least 1"),
    (unet_config, "norm_num_groups", 0, "a whole number of at least 1"),
    (unet_config, "norm_eps", 0, "a number above 0"),
    (unet_config, "norm_eps", float("nan"), "a number above 0"),
    (unet_config, "in_channels", True, "a whole number of at least 1"),
    (unet_config, "out_channels", 4.0, "a whole number of at least 1"),
    (unet_config, "block_out_channels", 64, "a list of whole numbers of at least 1"),
    (unet_config, "block_out_channels", [], "a list of whole numbers of at least 1"),
    (unet_config, "block_out_channels", [32, -32], "a list of whole numbers of at least 1"),
    (unet_config, "attention_head_dim", 0, "a whole number of at least 1"),
    (unet_config, "cross_attention_dim", "wide", "a whole number of at least 1"),
    (unet_config, "layers_per_block", 0, "a whole number of at least 1"),
    (unet_config, "down_block_types", "CrossAttnDownBlock2D", "a list of 4, one per level"),
    (unet_config, "up_block_types", [["UpBlock2D"]] * 4, "a list of 4, one per level"),
    (unet_config, "use_linear_projection", "yes", "true or false"),
    (unet_config, "addition_embed_type", ["text_time"], "'text_time'"),
    (sample_size, "sample_size", "64", "a whole number of at least 1"),
    (sample_size, "sample_size", 0, "a whole number of at least 1"),
    (sample_size, "sample_size", [64], "a list of 2 whole numbers of at least 1"),
    (autoencoder_config, "block_out_channels", 64, "a list of whole numbers of at least 1"),
    (autoencoder_config, "norm_num_groups", 3, r"a divisor of block_out_channels \[64\]"),
    (autoencoder_config, "norm_num_groups", 0, "a whole number of at least 1"),
    (autoencoder_config, "latent_channels", "4", "a whole number of at least 1"),
    (autoencoder_config, "scaling_factor", 0, "a number above 0"),
    (autoencoder_config, "scaling_factor", float("inf"), "a number above 0"),
    (autoencoder_config, "use_quant_conv", 1, "true or false"),
    (noise_schedule, "beta_start", "x", "a number above 0"),
    (noise_schedule, "beta_start", 0.5, "them to rise between 0 and 1"),
    (noise_schedule, "beta_schedule", 3, "a text"),
    (noise_schedule, "num_train_timesteps", 1, "a whole number of at least 2"),
    (noise_schedule, "timestep_spacing", ["leading"], "a text"),
    (noise_schedule, "steps_offset", -1, "a whole number of at least 0"),
    (noise_schedule, "set_alpha_to_one", "false", "true or false"),
    (noise_schedule, "clip_sample", "false", "true or false"),
    (noise_schedule, "clip_sample_range", -1, "a number above 0"),
    (prediction_kind, "prediction_type", ["epsilon"], "one of epsilon, v_prediction"),
]


@pytest.mark.parametrize(("read", "key", "value", "expected"), FAULTS)
def test_a_wrong_value_is_named(read: Callable[[dict[str, Any], str], Any], key: str, value: Any, expected: str) -> None:
    values = {"_class_name": "DDIMScheduler", key: value} if read is noise_schedule else {key: value}
    with pytest.raises(CheckpointError, match=f"^some/file.json: {key} is {re.escape(repr(value))}( .*)?; expected {expected}"):
        read(values, "some/file.json")


def test_long_values_are_cut_in_errors() -> None:
    with pytest.raises(CheckpointError) as caught:
        unet_config({"block_out_channels": "x" * 5000}, WHERE)
    assert len(str(caught.value)) < 300


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


@pytest.mark.parametrize("writer", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
@pytest.mark.parametrize("sampler", ["DDIMScheduler", "DDPMScheduler"])
def test_spacing_that_the_file_does_not_say_is_the_samplers(tmp_path: Path, writer: str, sampler: str) -> None:
    """As in diffusers, where a DDIM made from the file of another class spaces its steps as DDIM does by default."""
    import diffusers

    values = {"_class_name": writer, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    (tmp_path / "scheduler_config.json").write_text(json.dumps(values))
    library: Any = diffusers
    written_by = getattr(library, writer).from_pretrained(tmp_path)
    assert written_by.config.timestep_spacing == "linspace"
    made = getattr(library, sampler).from_config(written_by.config)
    assert noise_schedule(values, "scheduler").spacing == made.config.timestep_spacing == "leading"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "_class_name is 'FlowMatchEulerDiscreteScheduler'"),
        ({"trained_betas": [0.1]}, "trained_betas is"),
        ({"thresholding": True}, "thresholding is True"),
        ({"beta_end": 1.5}, r"beta_start is 0\.0001 and beta_end 1\.5; expected them to rise between 0 and 1"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is true with prediction_type 'epsilon'"),
    ],
)
def test_refused_schedules(values: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        noise_schedule(values, "scheduler")


def test_prediction_kinds() -> None:
    assert [prediction_kind(v, "s") for v in ({}, {"prediction_type": "v_prediction"})] == ["eps", "v"]
    with pytest.raises(CheckpointError, match="prediction_type is 'sample'; expected one of epsilon, v_prediction"):
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
    assert resolve("auto", "auto") == (torch.device("mps", 0), torch.float32)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve("auto", "auto") == (torch.device("cuda", 0), torch.float16)
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
    ],
)
def test_refused_names(monkeypatch: pytest.MonkeyPatch, device: str, dtype: str, message: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=message):
        resolve(device, dtype)


def test_importing_the_hook_does_not_import_torch() -> None:
    code = "import sys, lsregen.models; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
