"""`lsregen inspect` and `lsregen convert`, as a person sees them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from lsregen.apps.cli import cli
from lsregen.models import EMBEDDED

BASE = EMBEDDED / "shapeworld-base"
Call = Callable[..., Result]


def call(*args: Any) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args], prog_name="lsregen")


def test_an_embedded_model() -> None:
    result = call("inspect", "shapeworld-base")
    assert result.exit_code == 0
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines()[1:]}
    assert lines["form"] == "a folder of diffusers"
    assert lines["family"] == "sd1: Stable Diffusion 1 (by the structure in unet/config.json)"
    assert lines["prediction"] == "epsilon (by scheduler/scheduler_config.json)"
    assert lines["unet"] == "3,988,680 parameters F16 in the names of diffusers"
    assert lines["loads"] == f"with lsregen generate --model {BASE}"
    told = json.loads(call("inspect", BASE, "--json").stdout)
    assert told["loads"] is True
    assert [part["parameters"] for part in told["components"]] == [3_988_680, 776_195, 417_664]


def test_an_autoencoder_in_a_pickle_is_converted(tmp_path: Path) -> None:
    weights = load_file(BASE / "vae" / "diffusion_pytorch_model.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "vae.pt")
    told = call("inspect", tmp_path / "vae.pt")
    assert "a pickle, read without running what is in it" in told.stdout
    assert "not loaded" in told.stdout
    result = call("convert", tmp_path / "vae.pt", tmp_path / "vae")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path / 'vae'}\n", "")
    assert load_file(tmp_path / "vae" / "diffusion_pytorch_model.safetensors").keys() == weights.keys()


def test_what_cannot_be_inspected_or_converted(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    for args, message in (
        (("inspect", "shapeworld-bas"), "neither a model that ships with lsregen"),
        (("inspect", tmp_path / "a.safetensors"), "no UNet, autoencoder or text encoder among its 1 keys (a)"),
        (
            ("convert", tmp_path / "b.ckpt", tmp_path / "b"),
            "no such file or folder; expected a file of weights, such as model.ckpt, or a folder of",
        ),
        (("convert", BASE, tmp_path / "b"), "its weights are safetensors already; there is nothing to convert"),
        (("convert", BASE, tmp_path / "b", "--family", "sd1"), "family is 'sd1', but a folder of diffusers says itself"),
        (("convert", BASE / "vae", tmp_path / "b"), f"(AutoencoderKL), not a whole model; the whole model is {BASE}"),
        (("convert", tmp_path / "a.safetensors", tmp_path / "b"), "no UNet, autoencoder or text encoder"),
    ):
        result = call(*args)
        assert result.exit_code == 2
        assert message in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "b").exists()
