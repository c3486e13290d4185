"""Small files of another kind, which are named by their keys."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lsregen.framework import CheckpointError, ConfigError, Pipeline
from lsregen.models.weights.inspect import inspect_file
from lsregen.models.weights.other_kinds import EMBEDDING, LORA, kind_of
from lsregen.models.weights.recognise import NAMES, recognise
from tests.models import ldm_layout as layout

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
UNDERSCORED = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
LORAS = [
    f"{UNDERSCORED}.lora_down.weight",
    f"{UNDERSCORED}.alpha.lora_up.weight",
    f"{UNDERSCORED}.hada_w1_a",
    f"{UNDERSCORED}.lokr_w1",
    f"{UNDERSCORED}.diff",
    f"{UNDERSCORED}.on_input",
    f"unet.{TO_Q}.lora_A.weight",
    f"base_model.model.unet.{TO_Q}.lora_B.default.weight",
    f"unet.{TO_Q}.lora.down.weight",
    f"unet.{TO_Q.removesuffix('to_q')}processor.to_q_lora.down.weight",
    f"{TO_Q.removesuffix('to_q')}processor.to_k_lora.up.weight",
    "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
    "text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
    "lora_te_text_model_encoder_layers_0_mlp_fc1.dora_scale",
    f"lycoris_{TO_Q.replace('.', '_')}.w1",
    f"model.diffusion_model.{TO_Q}.diff_b",
]


@pytest.mark.parametrize("key", LORAS)
def test_a_lora_in_every_naming(key: str) -> None:
    assert recognise({key: (4, 32), "second.weight": (1,)}).refusal == f"this is {LORA}, which is not supported"


@pytest.mark.parametrize(
    "shapes",
    [
        {"emb_params": (4, 12)},
        {"clip_l": (2, 12), "clip_g": (2, 16)},
        {"<my-cat>": (768,)},
        {"string_to_param.*": (2, 12)},
        {"a-word": (3, 1024)},
    ],
)
def test_words_for_a_prompt(shapes: dict[str, tuple[int, ...]]) -> None:
    assert recognise(shapes).refusal == f"this is {EMBEDDING}, which is not supported"


def test_models_are_of_no_other_kind() -> None:
    for family in ("sd1", "sd2", "sdxl", "gligen", "gligen-text-image"):
        assert kind_of(layout.shapes(layout.single_file(family, narrow=False))) is None
        assert family in NAMES


def test_they_are_named_by_every_door(tmp_path: Path) -> None:
    """A file, its pickle, and the pickle that keeps an embedding among other things."""
    save_file({LORAS[9]: torch.zeros(4, 32)}, tmp_path / "lora.safetensors")
    torch.save({LORAS[9]: torch.zeros(4, 32)}, tmp_path / "lora.pt")
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(2, 12)}, "name": "cat"}, tmp_path / "cat.pt")
    assert LORA in str(inspect_file(tmp_path / "lora.safetensors").refusal)
    assert LORA in str(inspect_file(tmp_path / "lora.pt").refusal)
    with pytest.raises(CheckpointError, match="a textual inversion"):
        inspect_file(tmp_path / "cat.pt")
    with pytest.raises(CheckpointError, match="a LoRA"):
        Pipeline.load(tmp_path / "lora.safetensors")


ONNX = b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:" + bytes(100)


@pytest.mark.parametrize("ending", [".gguf", ".onnx", ".zip", "", ".safetensors", ".ckpt", ".bin"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"GGUF\x03\0\0\0" + bytes(100), "GGUF"),
        (ONNX, "ONNX"),
        (b"\x1f\x8b\x08" + bytes(100), "archive"),
        (b"\x89PNG\r\n", "picture"),
    ],
)
def test_the_first_bytes_tell_whatever_the_ending(tmp_path: Path, content: bytes, ending: str, said: str) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    with pytest.raises((CheckpointError, ConfigError), match=said) as caught:
        Pipeline.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [1, 2, 3, 9])
@pytest.mark.parametrize("beginning", [ONNX, b"PK\x03\x04\0\0\0\0\0", (100).to_bytes(8, "little") + b"{"])
def test_a_file_that_ends_within_its_first_bytes(tmp_path: Path, beginning: bytes, length: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(beginning[:length])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        inspect_file(path)


def test_a_very_long_key_is_shown_short(tmp_path: Path) -> None:
    save_file({"x" * 5000: torch.zeros(3, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="among its 1 keys") as caught:
        inspect_file(tmp_path / "model.safetensors")
    assert len(str(caught.value)) < 600


def test_a_zip_that_holds_no_weights(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("model.safetensors", b"x")
    with pytest.raises(CheckpointError, match="archive; unpack it"):
        Pipeline.load(tmp_path / "model.ckpt")


@pytest.mark.parametrize("ending", ["", ".ckpt", ".model", ".gguf"])
def test_weights_are_read_whatever_the_ending(files: Path, tmp_path: Path, ending: str) -> None:
    (tmp_path / f"model{ending}").symlink_to(files / "sd1.safetensors")
    (tmp_path / "tokenizer").symlink_to(files / "tokenizer")
    model = Pipeline.load(tmp_path / f"model{ending}", device="cpu", dtype="fp32").model
    assert model.describe()["family"] == "sd1"
    torch.save({"state_dict": {"a.weight": torch.zeros(1)}}, tmp_path / "pickled")
    with pytest.raises(CheckpointError, match="a pickle, which may run any code"):
        Pipeline.load(tmp_path / "pickled")
