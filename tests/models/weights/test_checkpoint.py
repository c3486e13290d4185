"""Strict loading, and files that are something else than they should be: one clear error each."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lsregen.framework import LoadOptions
from lsregen.framework.errors import CheckpointError
from lsregen.framework.hashes import file_hash
from lsregen.models import DiffusersFolder
from lsregen.models.weights.checkpoint import fill, load_weights, read_config, save_component
from lsregen.models.weights.weight_files import find_weights


def tensors(count: int = 2) -> dict[str, torch.Tensor]:
    return {f"{i}.weight": torch.randn(4, 4) for i in range(count)}


def network(count: int = 2) -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(*(nn.Linear(4, 4, bias=False) for _ in range(count)))


def test_fill_assigns_casts_and_freezes() -> None:
    weights, module = tensors(), network()
    fill(module, weights, "here", dtype=torch.float16)
    for key, tensor in module.state_dict().items():
        assert tensor.dtype == torch.float16
        assert torch.equal(tensor, weights[key].half())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert not module.training


@pytest.mark.same_request  # weights at odd offsets are copies
def test_fill_does_not_copy_what_fits() -> None:
    weights, module = tensors(), network()
    fill(module, weights, "here", dtype=torch.float32, device=torch.device("cpu"))
    assert module.state_dict()["0.weight"].data_ptr() == weights["0.weight"].data_ptr()


def test_fill_lists_every_problem_at_once() -> None:
    weights = {f"{i}.weight": torch.randn(4, 4) for i in range(3)} | {"0.weight": torch.randn(4, 5), "extra.bias": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        fill(network(20), weights, "some/file.safetensors")
    message = str(caught.value)
    assert "some/file.safetensors" in message
    assert "17 missing, 1 unexpected, 1 of another shape" in message
    assert "0.weight [4, 5], expected [4, 4]" in message
    assert "extra.bias" in message
    assert "12.weight" in message  # the tenth that is missing
    assert "13.weight" not in message
    assert "and 7 more" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.bool])
def test_fill_refuses_quantised_weights(dtype: torch.dtype) -> None:
    weights = tensors() | {"1.weight": torch.ones(4, 4, dtype=dtype)}
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=rf"^here: 1\.weight is {name}, expected floating point; .*take a file in fp32"):
        fill(network(), weights, "here", dtype=torch.float16)
    weights = dict.fromkeys(weights, torch.ones(4, 4, dtype=dtype))
    with pytest.raises(CheckpointError, match=rf"0\.weight is {name}, expected floating point, and 1 more;"):
        fill(network(), weights, "here")


def test_fill_keeps_whole_numbers_where_they_belong() -> None:
    with torch.device("meta"):
        module = nn.BatchNorm1d(2)
    weights = {"num_batches_tracked": torch.tensor(3), **{f"running_{name}": torch.ones(2) for name in ("mean", "var")}}
    fill(module, weights | {"weight": torch.ones(2), "bias": torch.ones(2)}, "here", dtype=torch.float16)
    assert module.state_dict()["num_batches_tracked"].dtype == torch.int64


def write(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def valid(path: Path) -> None:
    save_file(tensors(), path)


def cut(share: float) -> Callable[[Path], None]:
    def cutter(path: Path) -> None:
        valid(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return cutter


def padded(path: Path) -> None:
    valid(path)
    path.write_bytes(path.read_bytes() + b"more")


def eight_bits(path: Path) -> None:
    save_file({"weight": torch.zeros(4).to(torch.float8_e4m3fn)}, path)


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty": (write(b""), r"\(0 bytes\): the file is empty"),
    "git-lfs pointer": (write(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), "git-lfs pointer.*git lfs pull"),
    "web page": (write(b"\n<!DOCTYPE html><html><body>Sign in</body></html>"), "a web page"),
    "pickle": (write(b"PK\x03\x04" + b"\0" * 100), "a pickle, which may run any code"),
    "cut in its header": (cut(0.3), "truncated, or no safetensors file"),
    "cut in its tensors": (cut(0.9), "truncated, or no safetensors file"),
    "too long": (padded, "truncated, or no safetensors file"),
    "noise": (write(bytes(range(256))), "no safetensors file"),
    "a header of no tensors": (write((4).to_bytes(8, "little") + b"[12]"), "no safetensors file"),
    "eight-bit floats": (eight_bits, r"1 tensors of dtype F8_E4M3 \(such as weight\); known are F64"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_weights(tmp_path: Path, case: str) -> None:
    make, message = BAD[case]
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights([path])
    assert str(path) in str(caught.value)
    if case != "eight-bit floats":
        assert f"({path.stat().st_size:,} bytes)" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html></html>", "a web page"),
        (b"{'single': 1}", "not readable as JSON"),
        (b"\xff\xfe\x00", "not readable as JSON"),
        (b"[1, 2]", "expected a JSON object, found a list"),
    ],
)
def test_bad_configs(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_config(tmp_path)


def test_missing_configs(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"config\.json: no such file; .*it has other\.txt"):
        read_config(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        read_config(tmp_path / "absent")


def test_saving_and_hashing(tmp_path: Path) -> None:
    weights = tensors() | {"positions": torch.arange(3)}
    save_component(tmp_path / "unet", {"b": 1, "a": None}, weights, "diffusion_pytorch_model", torch.float16)
    loaded = load_weights(find_weights(tmp_path / "unet").paths)
    assert {key: tensor.dtype for key, tensor in loaded.tensors.items()} == {
        "0.weight": torch.float16, "1.weight": torch.float16, "positions": torch.int64,
    }  # fmt: skip
    assert read_config(tmp_path / "unet") == {"a": None, "b": 1}
    (path,) = loaded.files
    assert path.stat().st_mode & 0o044 == 0o044  # others may read an installed model
    before = file_hash(path)
    assert before == file_hash(path)
    path.write_bytes(b"changed")
    assert file_hash(path) != before


def spoil(folder: Path, part: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    (path,) = (folder / part).glob("*.safetensors")
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


@pytest.mark.parametrize(
    ("part", "key"),
    [("unet", "mid_block.resnets.0.norm1.weight"), ("vae", "decoder.conv_in.bias"), ("text_encoder", "final_layer_norm.bias")],
)
def test_a_folder_is_loaded_strictly(oracles: Any, copied: Any, part: str, key: str) -> None:
    folder = copied(oracles("base").folder, "lsregen.json", {})
    spoil(folder, part, lambda weights: weights.update({"stray": weights.pop(next(k for k in weights if k.endswith(key)))}))
    with pytest.raises(CheckpointError, match=rf"{part}.*1 missing, 1 unexpected, 0 of another shape(.|\n)*{key}(.|\n)*stray"):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))


@pytest.mark.parametrize(
    ("remove", "message"),
    [
        ("model_index.json", "no model folder of diffusers; expected a folder with model_index.json"),
        ("unet/config.json", r"unet/config\.json: no such file"),
        ("scheduler/scheduler_config.json", r"scheduler_config\.json: no such file"),
        ("vae/diffusion_pytorch_model.safetensors", "vae: no diffusion_pytorch_model.safetensors"),
        ("text_encoder/model.safetensors", "text_encoder: no diffusion_pytorch_model.safetensors or model.safetensors"),
        ("tokenizer/tokenizer.json", "tokenizer: no tokenizer; expected tokenizer.json, or vocab.json and merges.txt"),
    ],
)
def test_incomplete_folders(oracles: Any, copied: Any, remove: str, message: str) -> None:
    folder = copied(oracles("base").folder, "lsregen.json", {})
    (folder / remove).unlink()
    with pytest.raises(CheckpointError, match=message):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))


def test_recognition_and_names(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("one", "two", "unfinished"):
        (home / name).mkdir(parents=True)
    for name in ("one", "two"):
        (home / name / "model_index.json").write_text(json.dumps({}))
    loader = DiffusersFolder(home)
    assert loader.embedded == {"one": home / "one", "two": home / "two"}
    assert loader.recognises(home / "one")
    assert not loader.recognises(home / "unfinished")
    assert not loader.recognises(home / "one" / "model_index.json")
    assert not loader.recognises(tmp_path / "absent")


def test_a_folder_that_may_not_be_read(oracles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = oracles("base").folder

    ask = os.stat

    def forbidden(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{folder}{os.sep}"):
            raise PermissionError(13, "Permission denied", str(path))
        return ask(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", forbidden)
        assert DiffusersFolder().recognises(folder)
        with pytest.raises(CheckpointError, match=r"/base: .*model_index\.json \(Permission denied\)"):
            DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
