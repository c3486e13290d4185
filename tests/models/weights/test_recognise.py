"""What a file is, told from its header: every family and form, what is refused by name, and files that hold no weights."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lsregen.framework.errors import CheckpointError
from lsregen.models.weights.headers import Entry, read_header
from lsregen.models.weights.key_maps import Shape
from lsregen.models.weights.recognise import NAMES, NEEDED, Recognised, recognise
from tests.models import ldm_layout as layout
from tests.models.ldm_layout import Shapes, clip_keys, prefixed, shapes

FAMILIES = tuple(layout.UNETS)
UNET = "model.diffusion_model."
LDM_TOWERS = ("cond_stage_model.", "conditioner.")


@cache
def _file(family: str, narrow: bool) -> Shapes:
    return shapes(layout.single_file(family, narrow))


def file(family: str, narrow: bool = True) -> Shapes:
    return dict(_file(family, narrow))


def without(given: Shapes, *starts: str) -> Shapes:
    return {key: shape for key, shape in given.items() if not key.startswith(starts)}


def refusal(given: Shapes) -> str:
    found = recognise(given).refusal
    assert found is not None
    return found


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "full"])
def test_families(family: str, narrow: bool) -> None:
    found = recognise(file(family, narrow))
    assert (found.family, found.form, found.refusal) == (family, "single file", None)
    assert set(found.components) == set(NEEDED[family])
    assert not found.missing
    assert not found.unknown
    assert found.prediction == (None if family == "sd2" else "eps")


@pytest.mark.parametrize(("family", "parameters"), [("sd1", 1_066_235_307), ("sd2", 1_289_952_427), ("sdxl", 3_468_837_867)])
def test_parameters_of_full_size(family: str, parameters: int) -> None:
    # That of Stable Diffusion 2 is without the last layer and the projection of its text tower, which the file has.
    components = recognise(file(family, narrow=False)).components
    assert sum(part.parameters for part in components.values()) == parameters


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("sd1", "the text tower cond_stage_model.transformer.* and no label embedding"),
        ("sd2", "the text tower cond_stage_model.model.* and no label embedding"),
        ("sdxl", "its label embedding and two text towers"),
        ("gligen", "its fusers"),
    ],
)
def test_where_the_family_was_learnt(family: str, why: str) -> None:
    assert recognise(file(family)).learnt["family"] == why


@pytest.mark.parametrize("narrow", [True, False], ids=["narrow", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_unet_without_its_text_towers(family: str, narrow: bool) -> None:
    found = recognise(without(file(family, narrow), *LDM_TOWERS))
    assert found.family == family
    assert set(found.missing) == {part for part in NEEDED[family] if part.startswith("text_encoder")}
    expected = (
        {"sd1": "convolutional projections", "sd2": "linear projections"} if narrow else {"sd1": "a context of 768 channels"}
    )
    assert found.learnt["family"] == expected.get(family, found.learnt["family"])


def test_structure_is_stronger_than_widths() -> None:
    given = file("sd2", narrow=False) | {
        key: (*shape[:-1], 768) for key, shape in file("sd2", narrow=False).items() if key.endswith("attn2.to_k.weight")
    }
    assert recognise(given).family == "sd2"
    assert recognise(without(given, *LDM_TOWERS)).learnt["family"] == "a context of 768 channels"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_bare_unet_in_either_layout(family: str) -> None:
    state = layout.unet(family).state_dict()
    for given in (state, layout.ldm_unet(state)):
        found = recognise(shapes(given))
        assert (found.family, found.form, set(found.components)) == (family, "bare", {"unet"})
        assert dict(found.components["unet"].shapes) == shapes(state)


@pytest.mark.parametrize("rename", [dict, layout.ldm_autoencoder, layout.old_autoencoder])
@pytest.mark.parametrize("prefix", ["", "first_stage_model.", "vae."])
def test_a_bare_autoencoder(rename: Callable[[Any], Any], prefix: str) -> None:
    state = layout.autoencoder().state_dict()
    found = recognise(shapes(prefixed(prefix, rename(state))) | {"model_ema.decay": (), "loss.logvar": ()})
    assert (found.family, set(found.components), found.prediction) == ("autoencoder", {"vae"}, None)
    assert dict(found.components["vae"].shapes) == shapes(state)
    assert not found.unknown
    assert found.refusal is None


def test_a_bare_text_encoder() -> None:
    state = clip_keys(layout.tower(16, 2, 12, vocabulary=32).state_dict())
    for given in (state, layout.open_clip(state), {key.removeprefix("text_model."): tensor for key, tensor in state.items()}):
        found = recognise(shapes(given))
        assert (found.family, found.form) == ("text-encoder", "bare")
        assert dict(found.components["text_encoder"].shapes) == shapes(state)


def test_sgm_layout_of_sd2_and_flat_clip_of_sd1() -> None:
    moved = {key.replace("cond_stage_model.model.", "conditioner.embedders.0.model."): s for key, s in file("sd2").items()}
    found = recognise(moved)
    assert (found.family, found.missing) == ("sd2", ())
    assert found.components["text_encoder"].shapes == recognise(file("sd2")).components["text_encoder"].shapes
    flat = {key.replace(".transformer.text_model.", ".transformer."): shape for key, shape in file("sd1").items()}
    assert recognise(flat).components["text_encoder"].shapes == recognise(file("sd1")).components["text_encoder"].shapes


def test_what_becomes_of_the_towers() -> None:
    def tower(family: str, name: str) -> tuple[set[str], bool]:
        names = recognise(file(family)).components[name].shapes
        return {key.split(".")[3] for key in names if ".layers." in key}, "text_projection.weight" in names

    assert tower("sd2", "text_encoder") == ({"0", "1"}, False)  # of three layers
    assert tower("sdxl", "text_encoder") == ({"0", "1"}, False)
    assert tower("sdxl", "text_encoder_2") == ({"0", "1", "2"}, True)


def test_missing_and_unknown_parts() -> None:
    found = recognise(without(file("sdxl"), "first_stage_model.", "conditioner.embedders.1.") | {"strange.weight": (1,)})
    assert found.family == "sdxl"
    assert found.missing == ("vae", "text_encoder_2")
    assert (found.unknown, found.ignored) == ((), ("strange.weight",))
    extra = f"{UNET}out.7.weight"
    assert recognise(file("sd1") | {extra: (1,), "model_ema.decay": (), "betas": (9,)}).unknown == (extra,)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "gligen"])
def test_what_lies_beside_the_components_changes_nothing(family: str) -> None:
    beside = {
        "bundle_emb.style.string_to_param.*": (2, 768),
        "bundle_emb.style.clip_l": (2, 768),
        "embedding_manager.embedder.x": (1,),
        "control_model.input_blocks.0.0.weight": (8, 4, 3, 3),
        "lora_unet_x.lora_up.weight": (8, 4),
    }
    alone, found = recognise(file(family)), recognise(file(family) | beside)
    assert (found.family, found.refusal, found.unknown) == (family, None, ())
    assert dict(found.components) == dict(alone.components)
    assert set(found.ignored) == set(beside)
    assert "5 keys" in found.says_ignored
    assert alone.says_ignored == ""


@pytest.mark.parametrize("key", ["lora_up.weight", "input_blocks.1.1.to_q_lora.down.weight", "motion_modules.0.weight"])
def test_what_lies_inside_of_the_unet_decides(key: str) -> None:
    assert "not supported" in refusal(file("sd1") | {f"{UNET}{key}": (4, 8)})


@pytest.mark.parametrize(
    ("family", "markers", "metadata", "expected"),
    [
        ("sd1", {}, {}, ("eps", "the rule of the family")),
        ("sd2", {}, {"modelspec.prediction_type": "v"}, ("v", "the file's metadata (modelspec.prediction_type: v)")),
        (
            "sd2",
            {},
            {"modelspec.prediction_type": "epsilon"},
            ("eps", "the file's metadata (modelspec.prediction_type: epsilon)"),
        ),
        (
            "sd2",
            {},
            {"modelspec.architecture": "stable-diffusion-v2-768-v"},
            ("v", "the file's metadata (modelspec.architecture: stable-diffusion-v2-768-v)"),
        ),
        ("sd2", {}, {"modelspec.prediction_type": "sample"}, (None, None)),
        ("sdxl", {"v_pred": (0,)}, {"modelspec.prediction_type": "epsilon"}, ("v", "the key v_pred")),
    ],
)
def test_prediction(family: str, markers: Shapes, metadata: dict[str, str], expected: tuple[str | None, str | None]) -> None:
    found = recognise(file(family) | markers, metadata)
    assert (found.prediction, found.learnt.get("prediction")) == expected
    assert not found.unknown


def test_zero_terminal_snr() -> None:
    assert recognise(file("sdxl") | {"ztsnr": (0,)}).zero_terminal_snr
    assert not recognise(file("sdxl")).zero_terminal_snr


def changed(family: str, key: str, shape: Shape) -> Shapes:
    given = file(family)
    assert key in given
    return given | {key: shape}


CONV_IN = f"{UNET}input_blocks.0.0.weight"


@pytest.mark.parametrize(
    ("channels", "message"),
    [
        (9, "an inpainting UNet (9 input channels, 4 output channels)"),
        (8, "an InstructPix2Pix UNet (8 input channels, 4 output channels)"),
        (5, "a depth-conditioned UNet (5 input channels, 4 output channels)"),
        (7, "an upscaler (7 input channels, 4 output channels)"),
        (12, "a UNet with further inputs (12 input channels, 4 output channels)"),
    ],
)
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "gligen"])
def test_other_inputs_are_refused(family: str, channels: int, message: str) -> None:
    found = recognise(changed(family, CONV_IN, (8, channels, 3, 3)))
    assert found.family == family
    assert found.refusal == f"this is {message}, which is not supported"


def refiner() -> Shapes:
    """Attention at the two middle levels of four, and one text tower, of OpenCLIP."""
    down = ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"]
    settings = {
        "block_out_channels": (8, 8, 16, 16),
        "attention_head_dim": 2,
        "transformer_layers_per_block": 1,
        "down_block_types": down,
        "up_block_types": [name.replace("Down", "Up") for name in reversed(down)],
    }
    given = shapes(prefixed(UNET, layout.ldm_unet(layout.unet("sdxl", **settings).state_dict())))
    tower = shapes(
        prefixed("conditioner.embedders.0.model.", layout.open_clip(layout.tower(16, 2, 16, vocabulary=32).state_dict()))
    )
    return given | tower


def test_the_refiner_is_refused() -> None:
    for given in (refiner(), without(refiner(), "conditioner.")):
        assert recognise(given).family == "sdxl-refiner"
        assert refusal(given) == "this is the refiner of Stable Diffusion XL, which is not supported; take the base model"


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_unclip_is_refused(family: str) -> None:
    labels = {f"{UNET}label_emb.0.{i}.{kind}": (32, 20) for i in (0, 2) for kind in ("weight", "bias")}
    for given in (file("sd2") | labels, without(file(family), *LDM_TOWERS) | labels):
        assert refusal(given) == "this is an unCLIP model (made for image variations), which is not supported"


def grounded_on_something_else() -> Shapes:
    return {key.replace("position_net.linears.", "position_net.convnext."): shape for key, shape in file("gligen").items()}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"control_model.input_blocks.0.0.weight": (8, 4, 3, 3)}, "a ControlNet"),
        ({**file("sd1"), f"{UNET}input_hint_block.0.weight": (8, 4, 3, 3)}, "a ControlNet"),
        ({"controlnet_cond_embedding.conv_in.weight": (1,), "down_blocks.0.resnets.0.conv1.weight": (1,)}, "a ControlNet"),
        ({"lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": (8, 4)}, "a LoRA"),
        ({"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": (8, 4)}, "a LoRA"),
        ({"string_to_param.*": (1, 768)}, "a textual inversion"),
        ({"model.diffusion_model.joint_blocks.0.x.weight": (1,)}, "Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.qkv.weight": (1,)}, "a transformer of the FLUX kind"),
        ({**file("sdxl"), "edm_mean": (1, 4, 1, 1)}, "EDM noise"),
        ({**file("sd1"), f"{UNET}time_embed.cond_proj.weight": (8, 256)}, "a guidance-distilled UNet"),
        ({**file("sd2"), f"{UNET}label_emb.weight": (1000, 32)}, "an upscaler"),
        (grounded_on_something_else(), "GLIGEN grounded on something else"),
        ({**grounded_on_something_else(), f"{UNET}downsample_net.conv.weight": (1,)}, "GLIGEN grounded on an image-like map"),
    ],
)
def test_what_is_known_and_not_supported(given: Shapes, message: str) -> None:
    assert message in refusal(given)
    assert "not supported" in refusal(given)


def test_nothing_known() -> None:
    with pytest.raises(CheckpointError, match=r"x\.safetensors: no UNet, autoencoder or text encoder among its 2 keys \(a, b\)"):
        recognise({"a": (1,), "b": (2,)}, where="x.safetensors")
    with pytest.raises(CheckpointError, match="its 0 keys"):
        recognise({})


def test_ambiguous_keys_name_the_file() -> None:
    twice = {"embeddings.token_embedding.weight": (4, 4), "text_model.embeddings.token_embedding.weight": (4, 4)}
    with pytest.raises(CheckpointError, match=r"^x\.safetensors: two keys stand for"):
        recognise(twice, where="x.safetensors")


def test_every_family_has_a_name() -> None:
    assert set(NAMES) == set(NEEDED)
    assert set(FAMILIES) < set(NAMES)


def test_a_header_is_read_without_its_tensors(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.bfloat16)}, path, {"modelspec.prediction_type": "v"})
    header = read_header(path)
    assert dict(header.entries) == {"a": Entry((2, 3), "F32"), "b": Entry((), "BF16")}
    assert header.metadata["modelspec.prediction_type"] == "v"
    assert header.where == str(path)
    assert header.dtypes == ("BF16", "F32")
    assert header.shapes == {"a": (2, 3), "b": ()}


def test_a_file_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(layout.single_file("sd2"), path, {"modelspec.prediction_type": "v"})
    header = read_header(path)
    found: Recognised = recognise(header.shapes, header.metadata, header.where)
    assert (found.family, found.prediction) == ("sd2", "v")


def safetensors(path: Path, dtype: torch.dtype = torch.float32) -> bytes:
    save_file({"a.weight": torch.zeros(8, 8).to(dtype)}, path)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\(0 bytes\): the file is empty; download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n",
            "a git-lfs pointer, not the file itself; run `git lfs pull`",
        ),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "a web page, not the file itself"),
        (b"\xef\xbb\xbf<html>", "a web page, not the file itself"),
        (b"PK\x03\x04" + bytes(100), r"a pickle, which may run any code .*: lsregen convert \S+model\.safetensors \S+model$"),
        *((pickle.dumps({"a": 1}, protocol), "a pickle, which may run any code") for protocol in range(2, 6)),
        (b"GGUF\x03\0\0\0" + bytes(100), "a GGUF file of quantised weights"),
        (bytes(range(256)), r"\(256 bytes\): truncated, or no safetensors file \(.+\); download it again"),
        ((4).to_bytes(8, "little") + b"[12]", "truncated, or no safetensors file"),
    ],
)
def test_files_that_are_no_weights(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_header(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    content = safetensors(path)
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(CheckpointError, match=r"truncated, or no safetensors file \(.+\); download it again"):
        read_header(path)


def test_eight_bit_floats(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors(path, torch.float8_e4m3fn)
    with pytest.raises(
        CheckpointError, match=r"1 tensors of dtype F8_E4M3 \(such as a.weight\); known are F64.*save the model again"
    ):
        read_header(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.safetensors: cannot be read \(no such file or folder\)"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_header(tmp_path)
