"""Which files hold a component's weights: plain or in a variant, whole or in shards, and what is refused instead."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lsregen.framework import LoadOptions
from lsregen.framework.errors import CheckpointError
from lsregen.models import DiffusersFolder
from lsregen.models.weights.checkpoint import load_weights
from lsregen.models.weights.inspect import inspect_folder
from lsregen.models.weights.weight_files import find_weights
from tests.models.ldm_layout import old_autoencoder

STEM = "diffusion_pytorch_model"


@pytest.mark.parametrize(
    ("names", "chosen", "variant"),
    [
        ([f"{STEM}.safetensors", f"{STEM}.fp16.safetensors"], f"{STEM}.safetensors", ""),
        ([f"{STEM}.non_ema.safetensors", f"{STEM}.fp16.safetensors"], f"{STEM}.fp16.safetensors", "fp16"),
        (["model.bf16.safetensors", "model.fp16.safetensors"], "model.fp16.safetensors", "fp16"),
        ([f"{STEM}.non_ema.safetensors"], f"{STEM}.non_ema.safetensors", "non_ema"),
        ([f"{STEM}.fp16.safetensors", f"{STEM}.safetensors.index.json"], f"{STEM}-00001-of-00001.safetensors", ""),
        ([f"{STEM}.safetensors.index.json", f"{STEM}.safetensors"], f"{STEM}.safetensors", ""),
        ([f"{STEM}.safetensors.index.fp16.json"], f"{STEM}-00001-of-00001.safetensors", "fp16"),
        ([f"{STEM}.fp16.safetensors.index.json"], f"{STEM}-00001-of-00001.safetensors", "fp16"),
    ],
)
def test_what_is_chosen(tmp_path: Path, names: list[str], chosen: str, variant: str) -> None:
    shard = f"{STEM}-00001-of-00001.safetensors"
    for name in (*names, shard, "pytorch_model.bin", "flax_model.msgpack"):
        (tmp_path / name).write_text(json.dumps({"weight_map": {"a": shard, "b": shard}}))
    found = find_weights(tmp_path)
    assert ([path.name for path in found.paths], found.variant) == ([chosen], variant)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, r"no diffusion_pytorch_model\.safetensors or model\.safetensors; it has nothing"),
        (
            {f"{STEM}.bin": ""},
            r"only diffusion_pytorch_model\.bin: a pickle, .*never loaded; .*: lsregen convert (\S+)/\w+\.bin \1-safetensors$",
        ),
        ({f"{STEM}-00001-of-00002.safetensors": ""}, "only shards .* without their index"),
        ({f"{STEM}.safetensors.index.json": '{"weight_map": {"a": "s-1", "b": "s-2"}}', "s-1": ""}, r"1 of 2 shards .* \(s-2\)"),
        ({f"{STEM}.safetensors.index.json": "{}"}, "weight_map is {}; expected the name of a file beside it"),
        ({f"{STEM}.safetensors.index.json": '{"weight_map": {"a": "../s"}}'}, r"weight_map is .*\.\./s.*; expected"),
        ({f"{STEM}.safetensors.index.json": "<html>"}, r"index\.json \(6 bytes\): a web page"),
        ({f"{STEM}.safetensors.index.json": ""}, "the file is empty"),
    ],
)
def test_what_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        find_weights(tmp_path)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        find_weights(tmp_path / "absent")


def test_a_key_in_two_shards(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.safetensors", "two.safetensors")]
    for path in paths:
        save_file({"weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"two\.safetensors: the key weight is in another shard too"):
        load_weights(paths)


def rename(folder: Path) -> None:
    for path in [*folder.glob("*/*.safetensors")]:
        path.rename(path.with_suffix(".fp16.safetensors"))


def shard(index: str) -> Callable[[Path], None]:
    """Splits the UNet in three files. `index`: what the name of the index ends in."""

    def split(folder: Path) -> None:
        path = folder / "unet" / f"{STEM}.safetensors"
        weights = load_file(path)
        path.unlink()
        places = {key: f"{STEM}-{n % 3 + 1:05}-of-00003.safetensors" for n, key in enumerate(weights)}
        for name in set(places.values()):
            save_file({key: weights[key] for key in weights if places[key] == name}, folder / "unet" / name)
        (folder / "unet" / f"{STEM}{index}").write_text(json.dumps({"metadata": {}, "weight_map": places}))

    return split


def old_names(folder: Path) -> None:
    path = folder / "vae" / f"{STEM}.safetensors"
    before = load_file(path)
    weights = old_autoencoder(before)
    assert weights.keys() != before.keys()
    save_file(weights, path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (rename, "took the variant fp16 of unet, vae, text_encoder, for there is no plain one"),
        (shard(".safetensors.index.json"), None),
        (shard(".safetensors.index.fp16.json"), "took the variant fp16 of unet"),
        (shard(".fp16.safetensors.index.json"), "took the variant fp16 of unet"),
        (old_names, None),
    ],
    ids=["variant", "shards", "shards of a variant", "shards of a variant, other spelling", "old names"],
)
def test_every_form_is_the_same_model(
    oracles: Any, models: Any, copied: Any, caplog: pytest.LogCaptureFixture, change: Any, told: str | None
) -> None:
    folder = copied(oracles("sd1").folder, "lsregen.json", {})
    change(folder)
    caplog.clear()  # of what the libraries say when they are first used
    with caplog.at_level(logging.WARNING):
        model: Any = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
    assert [told in record.getMessage() for record in caplog.records if told] == ([True] if told else [])
    assert len(caplog.records) == (1 if told else 0)
    found, unet = inspect_folder(folder), next(one for one in inspect_folder(folder).components if one.name == "unet")
    assert (found.family, found.loads, unet.dtypes) == ("sd1", True, ("F32",))
    assert unet.naming == ("diffusers, variant fp16" if told else "diffusers")
    parameters = {name: part["parameters"] for name, part in model.describe()["components"].items()}
    assert {one.name: one.parameters for one in found.components} == parameters
    for ours, expected in ((model.unet, models("sd1").unet), (model.autoencoder, models("sd1").autoencoder)):
        weights = expected.state_dict()
        assert all(torch.equal(tensor, weights[key]) for key, tensor in ours.state_dict().items())
