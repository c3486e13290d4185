"""Whole models from single files: tokenizers from beside them, another autoencoder, other predictions, and what is refused."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from lsregen.framework import CheckpointError, ConfigError, Layout, LoadOptions, Pipeline
from lsregen.models import CheckpointFile, DiffusersFolder
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.tokenizers import SD2, find_tokenizers
from tests.models.small_models import write_tokenizer
from tests.near import near

pytestmark = pytest.mark.slow

PROMPT = "a red circle and a blue circle"


def load(path: Path, **options: Any) -> LatentDiffusion:
    model = CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32", **options))
    assert isinstance(model, LatentDiffusion)
    return model


@pytest.mark.parametrize(
    ("family", "prediction"), [("sd1", "eps"), ("sd2", "v"), ("sdxl", "eps"), ("gligen", "eps"), ("gligen-text-image", "eps")]
)
def test_a_file_makes_guided_pictures_without_any_network(
    files: Path, monkeypatch: pytest.MonkeyPatch, family: str, prediction: str
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a local model opened a socket")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    pipeline = Pipeline.load(files / f"{family}.safetensors", device="cpu", dtype="fp32")
    described = pipeline.model.describe()
    assert (described["name"], described["family"], described["prediction"]) == (family, family, prediction)
    boxes = Layout.from_boxes({"red circle": (0, 0, 0.5, 0.5), "blue circle": (0.5, 0.5, 1, 1)})
    made = [
        pipeline(PROMPT, layout=boxes, guidance=guidance, size=(64, 64), steps=2, seed=0).image
        for guidance in ("layout-guidance", None)
    ]
    assert made[0].size == (64, 64)
    assert (np.asarray(made[0]) != np.asarray(made[1])).any()


def test_every_tensor_of_a_file_arrives(files: Path) -> None:
    model, state = load(files / "sd1.safetensors"), load_file(files / "sd1.safetensors")
    assert torch.equal(model.unet.conv_in.weight, state["model.diffusion_model.input_blocks.0.0.weight"])
    counted = sum(p["parameters"] for p in model.describe()["components"].values())
    positions = sum(v.numel() for k, v in state.items() if k.endswith("position_ids"))
    assert counted == sum(v.numel() for v in state.values()) - positions


def test_another_autoencoder(files: Path) -> None:
    own, other = load(files / "sdxl.safetensors"), load(files / "sdxl.safetensors", vae=files / "vae.safetensors")
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(own.decode(z), other.decode(z))
    assert other.autoencoder.config.scaling_factor == own.autoencoder.config.scaling_factor == 0.13025
    assert list(other.describe()["components"]["vae"]["sha256"]) == ["vae.safetensors"]


@pytest.mark.parametrize(("family", "expected"), [("sdxl", torch.float32), ("sd1", torch.float16)])
def test_the_autoencoder_of_a_file_in_half_precision(files: Path, family: str, expected: torch.dtype) -> None:
    """That of SDXL overflows in fp16, and no file says whether it was mended."""
    for vae in (None, files / "vae.safetensors"):
        model = CheckpointFile().load(files / f"{family}.safetensors", LoadOptions(device="cpu", dtype="fp16", vae=vae))
        assert isinstance(model, LatentDiffusion)
        assert (model.unet.conv_in.weight.dtype, model.autoencoder.dtype) == (torch.float16, expected)


def test_another_autoencoder_and_prediction_for_a_folder(oracles: Any) -> None:
    folder = oracles("sd1").folder
    plain = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    changed = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32", vae=folder, prediction_type="v_prediction"))
    assert (plain.describe()["prediction"], changed.describe()["prediction"]) == ("eps", "v")
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert near(plain.decode(z), changed.decode(z))
    with pytest.raises(CheckpointError, match=r"'v_predicton'; expected one of .* \(did you mean 'v_prediction'\?\)"):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32", prediction_type="v_predicton"))


def test_an_autoencoder_may_be_missing_if_another_is_given(files: Path, tmp_path: Path) -> None:
    state = load_file(files / "sd1.safetensors")
    path = tmp_path / "sd1.safetensors"
    save_file({key: tensor for key, tensor in state.items() if not key.startswith("first_stage_model.")}, path)
    (tmp_path / "sd1.yaml").write_text((files / "sd1.yaml").read_text())
    write_tokenizer(tmp_path / "sd1" / "tokenizer")
    with pytest.raises(CheckpointError, match=r"without its vae; .* can be given as the vae"):
        load(path)
    assert load(path, vae=files / "vae.safetensors").factor == 8


def test_what_is_no_whole_model_says_so(files: Path) -> None:
    with pytest.raises(CheckpointError, match="an autoencoder alone, not a whole model; give it as the vae of a model"):
        load(files / "vae.safetensors")
    state, prefix = load_file(files / "sd1.safetensors"), "model.diffusion_model."
    save_file(
        {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}, files / "unet.safetensors"
    )
    with pytest.raises(CheckpointError, match="expected an autoencoder"):
        load(files / "sd1.safetensors", vae=files / "unet.safetensors")


@pytest.mark.parametrize("ending", [".ckpt", ".bin", ".pt"])
def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match=f"a pickle, .* is never loaded; .* lsregen convert {path}"):
        Pipeline.load(path)


def test_options_that_a_loader_does_not_have(files: Path) -> None:
    with pytest.raises(ConfigError, match=r"^famly: no such option for a model \(did you mean 'family'\?\)"):
        Pipeline.load(files / "sd1.safetensors", famly="sd1")
    with pytest.raises(ConfigError, match="family is no option of 'diffusers_folder'"):
        Pipeline.load("shapeworld-base", family="sd1")


def test_tokenizers_are_looked_for_beside_the_file_then_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[tuple[str, str]] = []
    cache: dict[str, str] = {}

    def look_up(repository: str, name: str) -> str | None:
        asked.append((repository, name))
        return cache.get(name)

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", look_up)
    path = tmp_path / "model.safetensors"
    with pytest.raises(
        CheckpointError, match=r"put vocab.json, merges.txt and tokenizer_config.json of stabilityai/.* into .*tokenizer$"
    ):
        find_tokenizers(path, "sd2", ["text_encoder"])
    assert {repository for repository, _ in asked} == {SD2.repository}
    write_tokenizer(tmp_path / "cached")
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        cache[f"tokenizer/{name}"] = str(tmp_path / "cached" / name)
    assert find_tokenizers(path, "sd2", ["text_encoder"]) == {"text_encoder": tmp_path / "cached"}
    write_tokenizer(tmp_path / "tokenizer")
    assert find_tokenizers(path, "sd2", ["text_encoder"]) == {"text_encoder": tmp_path / "tokenizer"}
    write_tokenizer(tmp_path / "tokenizer_2", pad="!")
    both = {"text_encoder": tmp_path / "tokenizer", "text_encoder_2": tmp_path / "tokenizer_2"}
    assert find_tokenizers(path, "sdxl", both) == both
