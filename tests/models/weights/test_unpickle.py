"""Pickles: their tensors are read, and nothing that they say is done."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest
import torch

from lsregen.framework.errors import CheckpointError
from lsregen.models.weights.recognise import recognise
from lsregen.models.weights.unpickle import GLIGEN_PARTS, read_pickle
from tests.models.ldm_layout import shapes, single_file

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.tensor([1, 2], dtype=torch.float16)}


def save(content: object, path: Path, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


class Calls:
    """An object whose pickle is a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.args


# What a pickle might call to make a file, and by which name it is refused.
ATTACKS: dict[str, tuple[Callable[[Path], Calls], str]] = {
    "os.system": (lambda path: Calls(os.system, f"touch {path}"), f"{os.name}.system"),
    "open": (lambda path: Calls(os.open, str(path), os.O_CREAT), f"{os.name}.open"),
    "eval": (lambda path: Calls(eval, f"open({str(path)!r}, 'w').close()"), "eval"),
    "exec": (lambda path: Calls(exec, f"open({str(path)!r}, 'w').close()"), "exec"),
    "subprocess": (lambda path: Calls(subprocess.call, ["touch", str(path)]), ".call"),  # under its old name, commands.call,
    "pathlib": (lambda path: Calls(Path.touch, path), "getattr"),
}


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("case", list(ATTACKS))
def test_an_attack_is_refused(tmp_path: Path, case: str, zipped: bool) -> None:
    made = tmp_path / "made"
    attack, name = ATTACKS[case]
    path = save({"state_dict": WEIGHTS, "attack": attack(made)}, tmp_path / "model.ckpt", zipped)
    with pytest.raises(CheckpointError, match=r"nothing was run\. Get the model as safetensors") as caught:
        read_pickle(path)
    assert str(path) in str(caught.value)
    assert name in str(caught.value)
    assert not made.exists()


@pytest.mark.parametrize("case", list(ATTACKS))
def test_the_attacks_are_real(tmp_path: Path, case: str) -> None:
    made = tmp_path / "made"
    pickle.loads(pickle.dumps(ATTACKS[case][0](made)))
    assert made.exists()


def test_a_bare_pickle_is_refused(tmp_path: Path) -> None:
    made, path = tmp_path / "made", tmp_path / "model.pt"
    for protocol in range(6):
        path.write_bytes(pickle.dumps(ATTACKS["os.system"][0](made), protocol))
        with pytest.raises(CheckpointError, match=r"model\.pt: "):
            read_pickle(path)
    assert not made.exists()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrap", [dict, OrderedDict, lambda w: {"state_dict": w, "global_step": 7}, lambda w: {"model": w}])
def test_weights_are_unwrapped(tmp_path: Path, wrap: Callable[[Any], Any], zipped: bool) -> None:
    tensors = read_pickle(save(wrap(WEIGHTS), tmp_path / "model.ckpt", zipped))
    assert set(tensors) == set(WEIGHTS)
    for key, tensor in tensors.items():
        assert tensor.dtype == WEIGHTS[key].dtype
        assert torch.equal(tensor, WEIGHTS[key])


def test_parameters_become_plain_tensors(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 2)
    tensors = read_pickle(save(dict(module.named_parameters()), tmp_path / "model.bin"))
    assert torch.equal(tensors["weight"], module.weight)
    assert not any(tensor.requires_grad for tensor in tensors.values())


def gligen() -> dict[str, Any]:
    """A checkpoint as GLIGEN's trainer writes it: four networks, the optimiser, and its settings as objects of omegaconf."""
    settings = omegaconf.OmegaConf.create(
        {"model": {"target": "ldm.UNet", "sizes": [1, 2]}, "seed": 123, "name": None, "lr": 5e-5}
    )
    return {
        "model": {"input_blocks.0.0.weight": torch.ones(2), "position_net.null_positive_feature": torch.ones(3)},
        "autoencoder": {"encoder.conv_in.weight": torch.ones(4)},
        "text_encoder": {"transformer.text_model.final_layer_norm.bias": torch.ones(5)},
        "diffusion": {"betas": torch.ones(6)},
        "opt": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 5e-5, "params": [0]}]},
        "iters": 500_000,
        "config_dict": vars(settings),
    }


def test_gligens_own_checkpoint(tmp_path: Path) -> None:
    tensors = read_pickle(save(gligen(), tmp_path / "model.bin"))
    assert {key: len(tensor) for key, tensor in tensors.items()} == {
        "model.diffusion_model.input_blocks.0.0.weight": 2,
        "model.diffusion_model.position_net.null_positive_feature": 3,
        "first_stage_model.encoder.conv_in.weight": 4,
        "cond_stage_model.transformer.text_model.final_layer_norm.bias": 5,
        "betas": 6,
    }


def test_gligens_own_checkpoint_is_recognised(tmp_path: Path) -> None:
    file = single_file("gligen")
    prefixes = {"model": "model.diffusion_model.", "autoencoder": "first_stage_model.", "text_encoder": "cond_stage_model."}
    parts = {
        part: {key.removeprefix(start): tensor for key, tensor in file.items() if key.startswith(start)}
        for part, start in prefixes.items()
    }
    tensors = read_pickle(save({**gligen(), **parts}, tmp_path / "model.bin"))
    found = recognise(shapes(tensors))
    assert (found.family, found.missing, found.unknown, found.refusal) == ("gligen", (), (), None)
    assert all(torch.equal(tensors[key], tensor) for key, tensor in file.items())


def test_a_checkpoint_that_holds_itself(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.ones(1)}
    content["state_dict"] = content["model"] = content["autoencoder"] = content
    assert set(read_pickle(save(content, tmp_path / "model.bin"))) == {"a"}
    content["text_encoder"] = content
    assert set(read_pickle(save(content, tmp_path / "model.bin"))) == {f"{start}a" for start in GLIGEN_PARTS.values() if start}


def test_settings_become_stand_ins_without_their_library(tmp_path: Path) -> None:
    path = save(
        {**gligen(), "args": argparse.Namespace(a=1), "score": np.float64(3.0), "table": np.ones(3)}, tmp_path / "model.bin"
    )
    code = (
        "import sys; sys.modules['omegaconf'] = None\n"  # importing it fails
        "from pathlib import Path\nfrom lsregen.models.weights.unpickle import read_pickle\n"
        f"print(len(read_pickle(Path({str(path)!r}))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "5\n"), done.stderr


def test_stand_ins_are_forgotten_afterwards(tmp_path: Path) -> None:
    path = save(gligen(), tmp_path / "model.bin")
    before = set(torch.serialization.get_safe_globals())
    read_pickle(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


@pytest.mark.parametrize("content", [[torch.ones(1)], {"epoch": 3, "name": "x"}, torch.ones(2), {}])
def test_no_weights(tmp_path: Path, content: object) -> None:
    with pytest.raises(
        CheckpointError, match=r"model\.bin: no weights in it, (its keys are 'epoch', 'name'|it holds a \w+); expected"
    ):
        read_pickle(save(content, tmp_path / "model.bin"))


def torch_file() -> bytes:
    file = io.BytesIO()
    torch.save(WEIGHTS, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"GGUF\x03\0\0\0", "a GGUF file"),
        (torch_file()[:-100], "truncated, or no pickle that torch wrote"),
        (torch_file()[:300], "truncated, or no pickle that torch wrote"),
        (bytes(range(256)), "no pickle that torch wrote|refused"),
    ],
)
def test_what_is_no_pickle(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_pickle(path)
    assert str(path) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.bin: cannot be read \(no such file"):
        read_pickle(tmp_path / "absent.bin")
