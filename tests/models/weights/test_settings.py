"""Numbers that no network is built for are refused before anything is built."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lsregen.framework import CheckpointError, LoadOptions
from lsregen.models import DiffusersFolder
from lsregen.models.weights.configs import autoencoder_config, noise_schedule, sample_size, unet_config
from lsregen.models.weights.inspect import inspect_folder
from lsregen.models.weights.settings import CHANNELS, LAYERS, LEVELS, SIDE, STEPS, Settings

HUGE, TOO_LONG = 10**12, 10**5000
Copied = Callable[[Path, str, dict[str, Any]], Path]


@pytest.mark.parametrize("value", [CHANNELS + 1, HUGE, pytest.param(TOO_LONG, id="long"), -1, 0, 1.0, True, "3", [3], math.nan])
def test_whole_numbers_have_bounds(value: Any) -> None:
    with pytest.raises(CheckpointError, match="here: width is "):
        Settings({"width": value}, "here").whole("width", 1)
    for reading in (Settings.wholes, Settings.per_level):
        with pytest.raises(CheckpointError, match="here: width is "):
            reading(Settings({"width": [value, 1]}, "here"), "width", 1, 2)  # pyright: ignore[reportArgumentType]


def test_the_bounds_themselves_are_taken() -> None:
    given = Settings({"width": CHANNELS, "widths": [CHANNELS] * LEVELS, "one": 1}, "here")
    assert (given.whole("width", 1), given.whole("one", 1)) == (CHANNELS, 1)
    assert given.wholes("widths", ()) == (CHANNELS,) * LEVELS
    with pytest.raises(CheckpointError, match="widths"):
        Settings({"widths": [1] * (LEVELS + 1)}, "here").wholes("widths", ())


@pytest.mark.parametrize("value", [pytest.param(TOO_LONG, id="long"), math.inf, -math.inf, math.nan])
def test_numbers_are_finite(value: Any) -> None:
    with pytest.raises(CheckpointError, match="scale is "):
        Settings({"scale": value}, "here").number("scale", 1.0)


@pytest.mark.parametrize(
    ("read", "key", "value"),
    [
        (unet_config, "block_out_channels", [HUGE] * 4),
        (unet_config, "layers_per_block", LAYERS + 1),
        (unet_config, "transformer_layers_per_block", 10**9),
        (unet_config, "transformer_layers_per_block", [LAYERS] * 4),  # each of them is possible, all together are not
        (unet_config, "cross_attention_dim", HUGE),
        (autoencoder_config, "layers_per_block", 10**9),
        (autoencoder_config, "block_out_channels", [HUGE]),
        (autoencoder_config, "latent_channels", HUGE),
        (sample_size, "sample_size", SIDE + 1),
        (sample_size, "sample_size", [10**9, 8]),
        (noise_schedule, "num_train_timesteps", STEPS + 1),
        (noise_schedule, "steps_offset", 1000),  # of the 1000 steps that are meant where nothing is said
    ],
)
def test_what_sizes_a_model(read: Callable[[dict[str, Any], str], Any], key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"^here: {key} "):
        read({key: value}, "here")


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("unet/config.json", {"sample_size": 10**9}),
        ("vae/config.json", {"layers_per_block": 10**9}),
        ("vae/config.json", {"latent_channels": HUGE}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**9}),
        ("text_encoder/config.json", {"hidden_size": HUGE}),
        ("text_encoder/config.json", {"vocab_size": HUGE}),
        ("text_encoder/config.json", {"max_position_embeddings": 10**10}),
        ("text_encoder/config.json", {"max_position_embeddings": 2}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": HUGE}),
    ],
)
def test_by_every_door(oracles: Any, copied: Copied, file: str, changes: dict[str, Any]) -> None:
    folder = copied(oracles("base").folder, file, changes)
    (key,) = changes
    with pytest.raises(CheckpointError) as caught:
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    assert file in str(caught.value)
    told = inspect_folder(folder)
    assert not told.loads
    assert key in str(caught.value) or key == "max_position_embeddings"
    assert file in " ".join([str(told.refusal), *told.missing])


def test_a_token_beyond_the_network(oracles: Any, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(oracles("sd1").folder, tmp_path / "copy"))
    path = folder / "tokenizer" / "vocab.json"
    words = json.loads(path.read_text())
    words["blue</w>"] = 10**6
    path.write_text(json.dumps(words))
    with pytest.raises(CheckpointError, match=r"tokenizer: numbers up to 1000000 .*vocab_size"):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    assert "1000000" in str(inspect_folder(folder).refusal)


@pytest.mark.parametrize("content", ["[" * 100_000, "{", "[]", '{"a": 1, "a": 2}', "\ufeff<html>"])
@pytest.mark.parametrize(
    "file",
    ["model_index.json", "unet/config.json", "vae/config.json", "scheduler/scheduler_config.json", "text_encoder/config.json",
     "unet/diffusion_pytorch_model.safetensors.index.json"],
)  # fmt: skip
def test_files_of_settings_that_are_none(oracles: Any, copied: Copied, file: str, content: str) -> None:
    folder = copied(oracles("base").folder, "lsregen.json", {})
    if file.endswith("index.json") and "/" in file:
        (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match=file.rpartition("/")[2]):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))


def test_settings_without_an_end(oracles: Any, copied: Copied) -> None:
    folder = copied(oracles("base").folder, "lsregen.json", {})
    for file in ("vae/config.json", "unet/diffusion_pytorch_model.safetensors", "lsregen.json"):
        (folder / file).unlink()
        (folder / file).symlink_to("/dev/zero")
        with pytest.raises(CheckpointError, match="device"):
            DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
        (folder / file).unlink()
        (folder / file).write_bytes((oracles("base").folder / file).read_bytes() if file != "lsregen.json" else b"{}")
