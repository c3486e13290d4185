"""Folders of pickles written again with safetensors: the same model, nothing run, nothing half done left."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from lsregen.apps.cli import cli
from lsregen.framework import CheckpointError, LoadOptions, Pipeline
from lsregen.models import CheckpointFile, DiffusersFolder
from lsregen.models.weights.convert import convert_file, convert_folder
from lsregen.models.weights.inspect import inspect_file, inspect_folder
from tests.models.weights.test_unpickle import ATTACKS

Pickled = Callable[..., Path]


def whole(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> None:
    torch.save(dict(tensors), folder / f"{stem}.bin")


def sharded(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> None:
    places = {key: f"{stem}-{n % 2 + 1:05}-of-00002.bin" for n, key in enumerate(tensors)}
    for name in set(places.values()):
        torch.save({key: tensor for key, tensor in tensors.items() if places[key] == name}, folder / name)
    (folder / f"{stem}.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def variants(folder: Path, stem: str, tensors: Mapping[str, Tensor]) -> None:
    torch.save({key: tensor + 1 for key, tensor in tensors.items()}, folder / f"{stem}.non_ema.bin")
    torch.save(dict(tensors), folder / f"{stem}.fp16.bin")


@pytest.fixture
def pickled(oracles: Any, tmp_path: Path) -> Pickled:
    """Makes a folder of a family with the weights of some components in pickles."""

    def make(family: str, write: Callable[..., None] = whole, parts: tuple[str, ...] = ("unet", "vae", "text_encoder")) -> Path:
        folder = Path(shutil.copytree(oracles(family).folder, tmp_path / "old"))
        for part in parts:
            (path,) = (folder / part).glob("*.safetensors")
            tensors = load_file(path)
            path.unlink()
            write(folder / part, "pytorch_model" if path.stem == "model" else path.stem, tensors)
        return folder

    return make


def load(folder: Path) -> Any:
    return DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))


def assert_same(ours: Any, expected: Any) -> None:
    pairs = [(ours.unet, expected.unet), (ours.autoencoder, expected.autoencoder)]
    pairs += [(a.network, b.network) for a, b in zip(ours.text.encoders, expected.text.encoders, strict=True)]
    for found, wanted in pairs:
        weights = wanted.state_dict()
        assert found.state_dict().keys() == weights.keys()
        assert all(torch.equal(tensor, weights[key]) for key, tensor in found.state_dict().items())


@pytest.mark.parametrize(
    ("family", "write", "parts"),
    [
        ("base", whole, ("unet", "vae", "text_encoder")),
        ("base", sharded, ("unet", "vae", "text_encoder")),
        ("base", variants, ("unet", "vae", "text_encoder")),
        ("sd1", whole, ("text_encoder",)),
        ("sdxl", whole, ("unet", "vae", "text_encoder", "text_encoder_2")),
        ("gligen", whole, ("unet",)),
    ],
)
def test_the_same_model_comes_out(models: Any, pickled: Pickled, tmp_path: Path, family: str, write: Any, parts: Any) -> None:
    folder = pickled(family, write, parts)
    with pytest.raises(CheckpointError, match=rf"\.bin.*a pickle, .*: lsregen convert {folder} {folder}-safetensors$"):
        Pipeline.load(folder)
    result = CliRunner().invoke(cli, ["convert", str(folder), str(tmp_path / "new")], prog_name="lsregen")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{tmp_path / 'new'}\n", "")
    assert_same(load(tmp_path / "new"), models(family))
    assert not list((tmp_path / "new").rglob("*.bin"))


def test_diffusers_loads_what_comes_out(pickled: Pickled, models: Any, tmp_path: Path) -> None:
    import diffusers

    folder = pickled("base")
    index = json.loads((folder / "model_index.json").read_text())
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    (folder / "model_index.json").write_text(json.dumps({**index, **checker}))
    (folder / "lsregen.json").write_text('{"cfg": 3.0}')
    convert_folder(folder, tmp_path / "new", prediction_type="v_prediction")
    pipe: Any = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "new")
    assert pipe.scheduler.config.prediction_type == "v_prediction"
    unet = models("base").unet.state_dict()
    assert all(torch.equal(tensor, unet[key]) for key, tensor in pipe.unet.state_dict().items())
    assert load(tmp_path / "new").default_cfg == 3.0


@pytest.mark.parametrize("case", ["os.system", "eval"])
def test_nothing_in_a_folder_is_run(pickled: Pickled, tmp_path: Path, case: str) -> None:
    folder, made = pickled("base"), tmp_path / "made"
    attack, name = ATTACKS[case]
    torch.save({"weight": torch.ones(1), "attack": attack(made)}, folder / "text_encoder" / "pytorch_model.bin")
    with pytest.raises(
        CheckpointError, match=rf"text_encoder/pytorch_model\.bin: refused, it calls for .*{name}.*nothing was run"
    ):
        convert_folder(folder, tmp_path / "new")
    with pytest.raises(CheckpointError, match="a pickle"):
        load(folder)
    assert not made.exists()
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_converted(pickled: Pickled, oracles: Any, tmp_path: Path) -> None:
    folder = pickled("base", sharded)
    with pytest.raises(CheckpointError, match="prediction_type is 'v'; expected one of epsilon, v_prediction"):
        convert_folder(folder, tmp_path / "new", prediction_type="v")
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match=r"1 of 2 shards are missing \(diffusion_pytorch_model-00002-of-00002\.bin\)"):
        convert_folder(folder, tmp_path / "new")
    (folder / "unet" / "diffusion_pytorch_model.bin.index.json").unlink()
    for path in (folder / "unet").glob("*.bin"):
        path.unlink()
    with pytest.raises(CheckpointError, match=r"unet: no weights in safetensors or in a \.bin; it has config\.json"):
        convert_folder(folder, tmp_path / "new")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="no tokenizer; expected"):
        convert_folder(folder, tmp_path / "new")
    with pytest.raises(CheckpointError, match="exists already, and would be overwritten"):
        convert_folder(folder, folder)
    with pytest.raises(CheckpointError, match="its weights are safetensors already"):
        convert_folder(oracles("base").folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_pickle_by_another_name_is_told_and_converted(files: Path, tmp_path: Path) -> None:
    """What the refusal of a file says to run does run."""
    path = tmp_path / "model.safetensors"
    torch.save({"state_dict": load_file(files / "sd1.safetensors")}, path)
    (tmp_path / "tokenizer").symlink_to(files / "tokenizer")
    command = f"lsregen convert {path} {tmp_path / 'model'}"
    with pytest.raises(CheckpointError, match=f"a pickle, .*: {command}$"):
        CheckpointFile().load(path, LoadOptions(device="cpu", dtype="fp32"))
    assert command in str(inspect_file(path).refusal)
    assert convert_file(path, tmp_path / "model") == ()
    assert inspect_folder(tmp_path / "model").loads


def test_the_pickle_of_an_autoencoder_is_refused_with_what_converts_it(pickled: Pickled, oracles: Any, tmp_path: Path) -> None:
    folder, alone = pickled("sd1"), tmp_path / "vae"
    shutil.copytree(folder / "vae", alone)
    out = tmp_path / "vae-safetensors"
    with pytest.raises(CheckpointError, match=f": lsregen convert {alone}/diffusion_pytorch_model.bin {out}$"):
        DiffusersFolder().load(oracles("sd1").folder, LoadOptions(device="cpu", dtype="fp32", vae=alone))
    assert convert_file(alone / "diffusion_pytorch_model.bin", out) == ()
