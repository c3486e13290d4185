"""What is said of a model without loading it is what loading it says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lsregen.framework import CheckpointError, LoadOptions
from lsregen.models import CheckpointFile, DiffusersFolder
from lsregen.models.weights.inspect import inspect_file, inspect_folder
from tests.models.ldm_layout import State
from tests.models.narrow_files import state

VAE, UNET, TOWER = "first_stage_model.", "model.diffusion_model.", "cond_stage_model.transformer.text_model."


def model_file(files: Path, folder: Path, tensors: State) -> Path:
    """A file of these tensors, with tokenizers beside it."""
    path = folder / "model.safetensors"
    save_file(tensors, path)
    for name in ("tokenizer", "tokenizer_2"):
        (folder / name).symlink_to(files / name)
    return path


def of_sd1(files: Path) -> State:
    return load_file(files / "sd1.safetensors")


def refused(path: Path, **options: Any) -> str:
    """What loading says, which inspecting says as well."""
    with pytest.raises(CheckpointError) as caught:
        CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32", **options))
    said, told = str(caught.value), inspect_file(path)
    assert not told.loads
    assert told.refusal == said
    return said


def test_a_whole_file(files: Path, tmp_path: Path) -> None:
    assert inspect_file(model_file(files, tmp_path, of_sd1(files))).loads


def test_zero_terminal_snr_without_v(files: Path, tmp_path: Path) -> None:
    tensors = load_file(files / "sdxl.safetensors") | {"ztsnr": torch.zeros(1)}
    path = model_file(files, tmp_path, tensors)
    said = refused(path)
    assert "key ztsnr" in said
    assert "--prediction-type v_prediction" in said
    assert "rescale" not in said
    model: Any = CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32", prediction_type="v_prediction"))
    assert (model.prediction, model.noise_schedule.zero_terminal_snr) == ("v", True)


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_half_an_autoencoder(files: Path, tmp_path: Path, half: str) -> None:
    tensors = {key: tensor for key, tensor in of_sd1(files).items() if not key.startswith(f"{VAE}{half}.")}
    path = model_file(files, tmp_path, tensors)
    assert f"no {half}" in refused(path)
    # its own is not looked at
    CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32", vae=files / "vae.safetensors"))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({f"{UNET}input_blocks.1.0.in_layers.0.weight": torch.zeros(0)}, "down_blocks.0.resnets.0.norm1.weight"),
        ({f"{VAE}decoder.up.0.block.0.conv1.bias": torch.zeros(3)}, "conv1.bias"),
        ({f"{TOWER}encoder.layers.0.mlp.fc2.bias": torch.zeros(0)}, "mlp.fc2.bias"),
        ({f"{UNET}input_blocks.0.0.weight": torch.zeros(0)}, "damaged"),
    ],
)
def test_a_tensor_of_another_shape(files: Path, tmp_path: Path, change: State, named: str) -> None:
    tensors = of_sd1(files)
    assert change.keys() < tensors.keys()
    path = model_file(files, tmp_path, tensors | change)
    told = inspect_file(path)
    with pytest.raises(CheckpointError, match=named):
        CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32"))
    assert not told.loads
    assert named in str(told.refusal)
    if next(iter(change)).startswith(VAE):
        CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32", vae=files / "vae.safetensors"))


def test_a_missing_tensor(files: Path, tmp_path: Path) -> None:
    tensors = of_sd1(files)
    del tensors[f"{UNET}out.2.bias"]
    told = inspect_file(model_file(files, tmp_path, tensors))
    assert not told.loads
    assert "conv_out.bias" in str(told.refusal)


def test_quantised_weights(files: Path, tmp_path: Path) -> None:
    key = f"{UNET}out.2.weight"
    path = model_file(files, tmp_path, of_sd1(files) | {key: torch.zeros(4, 32, 3, 3, dtype=torch.int8)})
    told = inspect_file(path)
    assert not told.loads
    assert "quantised" in str(told.refusal)
    with pytest.raises(CheckpointError, match="quantised"):
        CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32"))


def test_only_what_is_nearly_whole_is_called_so(files: Path, tmp_path: Path) -> None:
    whole = of_sd1(files)
    path = tmp_path / "few.safetensors"
    save_file({key: whole[key] for key in (f"{UNET}input_blocks.0.0.weight", f"{TOWER}embeddings.token_embedding.weight")}, path)
    assert "damaged" not in refused(path)
    assert "download" not in str(inspect_file(path).refusal)
    del whole[f"{UNET}input_blocks.0.0.weight"]
    assert "damaged" in refused(model_file(files, tmp_path, whole))


def test_a_text_tower_of_unknown_heads(files: Path, tmp_path: Path) -> None:
    """As of a UNet: what nothing says is not guessed."""
    from tests.models import ldm_layout as layout

    tower = layout.clip_keys(layout.tower(48, 2, vocabulary=80).state_dict())
    others = {key: tensor for key, tensor in state("sd1", 80).items() if not key.startswith("cond_stage_model.")}
    path = model_file(files, tmp_path, others | layout.prefixed("cond_stage_model.transformer.", tower))
    assert "text tower of 48" in refused(path)
    path.with_suffix(".yaml").write_text("model: {params: {cond_stage_config: {params: {num_heads: 3}}}}")
    told = inspect_file(path)
    assert "width 48" in str(told.refusal)  # beside a UNet that takes texts of 64
    from lsregen.models.weights.single_file import open_single_file

    assert open_single_file(path).configs["text_encoder"]["num_attention_heads"] == 3


@pytest.mark.parametrize(
    ("part", "key"),
    [("unet", "conv_out.bias"), ("vae", "decoder.conv_out.bias"), ("text_encoder", "text_model.final_layer_norm.bias")],
)
def test_a_folder_whose_weights_do_not_fit(oracles: Any, tmp_path: Path, part: str, key: str) -> None:
    folder = Path(shutil.copytree(oracles("sd1").folder, tmp_path / "copy"))
    assert inspect_folder(folder).loads
    (path,) = (folder / part).glob("*.safetensors")
    tensors = load_file(path)
    assert key in tensors
    save_file(tensors | {key: torch.zeros(0)}, path)
    with pytest.raises(CheckpointError) as caught:
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    assert key.removeprefix("text_model.") in str(caught.value)
    assert key.removeprefix("text_model.") in str(inspect_folder(folder).refusal)


def test_a_folder_down_to_no_signal_without_v(oracles: Any, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(oracles("sd1").folder, tmp_path / "copy"))
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "rescale_betas_zero_snr": True}))
    with pytest.raises(CheckpointError, match="prediction_type=v_prediction") as caught:
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    assert inspect_folder(folder).refusal == str(caught.value)
