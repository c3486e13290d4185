"""Single files opened: their configs as diffusers would have them, their tensors one by one, and who decides the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lsregen.framework.errors import CheckpointError, LsregenError
from lsregen.framework.types import NoiseSchedule
from lsregen.models.networks.autoencoder import Autoencoder
from lsregen.models.networks.unet import UNet
from lsregen.models.weights.checkpoint import fill
from lsregen.models.weights.configs import autoencoder_config, noise_schedule, prediction_kind, unet_config
from lsregen.models.weights.recognise import recognise
from lsregen.models.weights.single_file import FileTensors, NamedTensors, open_single_file
from lsregen.models.weights.structure import Told, autoencoder_values, read_told, text_values, unet_values
from tests.models import ldm_layout as layout
from tests.models.ldm_layout import State, clip_keys, shapes
from tests.models.narrow_files import HEADS, VAE, WIDTHS, state

V_YAML = "model:\n  params:\n    parameterization: v\n    unet_config:\n      params: {num_heads: -1, num_head_channels: 32}\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for family in WIDTHS:
        metadata = {"modelspec.prediction_type": "epsilon"} if family == "sd2" else {}
        save_file(state(family), folder / f"{family}.safetensors", metadata)
    return folder


@pytest.mark.parametrize("family", list(layout.UNETS))
def test_configs_of_full_size(family: str) -> None:
    """What is read from shapes is what diffusers' own config says, where it says something else than by default."""
    network = layout.unet(family, narrow=False)
    components = recognise(shapes(layout.single_file(family, narrow=False))).components
    values = unet_values(family, "eps", components, Told())
    depth = network.config["transformer_layers_per_block"]
    assert values.pop("transformer_layers_per_block") == (
        depth if isinstance(depth, list) else [depth] * len(values["block_out_channels"])
    )
    values.pop("sample_size")
    assert {key: plain(network.config[key]) for key in values if key != "_class_name"} == {
        key: value for key, value in values.items() if key != "_class_name"
    }


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def test_an_autoencoders_config_of_full_size() -> None:
    network = layout.autoencoder(narrow=False)
    (component,) = recognise(shapes(layout.ldm_autoencoder(network.state_dict()))).components.values()
    values = autoencoder_values("sdxl", component, Told())
    assert values.pop("scaling_factor") == 0.13025
    assert values.pop("_class_name") == "AutoencoderKL"
    assert {key: plain(network.config[key]) for key in values} == values
    assert autoencoder_values("sd1", component, Told())["scaling_factor"] == 0.18215
    assert autoencoder_values("sd1", component, Told(scale=0.5))["scaling_factor"] == 0.5
    assert "scaling_factor" not in autoencoder_values("autoencoder", component, Told())


@pytest.mark.parametrize(
    ("family", "part", "expected"),
    [
        ("sd1", "text_encoder", (768, 12, 12, 3072, "quick_gelu", "CLIPTextModel")),
        ("sd2", "text_encoder", (1024, 23, 16, 4096, "gelu", "CLIPTextModel")),
        ("sdxl", "text_encoder", (768, 12, 12, 3072, "quick_gelu", "CLIPTextModel")),
        ("sdxl", "text_encoder_2", (1280, 32, 20, 5120, "gelu", "CLIPTextModelWithProjection")),
    ],
)
def test_text_towers_configs_of_full_size(family: str, part: str, expected: tuple[Any, ...]) -> None:
    component = recognise(shapes(layout.single_file(family, narrow=False))).components[part]
    values = text_values(component)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act")
    assert (*(values[key] for key in sizes), values["architectures"][0]) == expected
    assert (values["vocab_size"], values["max_position_embeddings"]) == (49408, 77)
    with torch.device("meta"):
        from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

        kind = CLIPTextModelWithProjection if expected[-1] == "CLIPTextModelWithProjection" else CLIPTextModel
        network = kind(CLIPTextConfig.from_dict(values))
    assert shapes(clip_keys(network.state_dict())) == dict(component.shapes)


@pytest.mark.parametrize("family", list(WIDTHS))
def test_networks_are_filled(files: Path, family: str) -> None:
    """Our own networks of these configs take the tensors, all of them and no others."""
    file = open_single_file(files / f"{family}.safetensors")
    where = str(file.path)
    unet, autoencoder = (
        UNet(unet_config(file.configs["unet"], where)),
        Autoencoder(autoencoder_config(file.configs["vae"], where)),
    )
    fill(unet, file.weights("unet"), where)
    fill(autoencoder, file.weights("vae"), where)
    expected = layout.ldm_unet(unet.state_dict())
    assert all(torch.equal(state(family)[f"model.diffusion_model.{key}"], tensor) for key, tensor in expected.items())
    expected = layout.ldm_autoencoder(autoencoder.state_dict())
    assert all(torch.equal(state(family)[f"first_stage_model.{key}"], tensor) for key, tensor in expected.items())
    heads = HEADS[family]
    assert unet.config.heads == (tuple(heads) if isinstance(heads, list) else (heads,) * 4)
    assert unet.config.depths == ((1, 1, 2) if family == "sdxl" else (1,) * 4)
    if family == "sdxl":
        assert (unet.config.size_channels, unet.config.added_channels) == (4, 88)
    assert prediction_kind(file.configs["scheduler"], where) == "eps"
    published = NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", "leading", steps_offset=1, final_alpha_one=False)
    assert noise_schedule(file.configs["scheduler"], where) == published


@pytest.mark.parametrize(("family", "part"), [("sd1", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "text_encoder_2")])
def test_text_towers_are_read(files: Path, family: str, part: str) -> None:
    file = open_single_file(files / f"{family}.safetensors")
    given, found = state(family), dict(file.weights(part))
    assert shapes(found) == dict(file.found.components[part].shapes)
    if part == "text_encoder_2":
        prefix = "conditioner.embedders.1.model."
        assert torch.equal(found["text_projection.weight"], given[f"{prefix}text_projection"].T)
        packed = given[f"{prefix}transformer.resblocks.2.attn.in_proj_weight"]
        thirds = [found[f"text_model.encoder.layers.2.self_attn.{part}_proj.weight"] for part in "qkv"]
        assert torch.equal(torch.cat(thirds), packed)


def test_tensors_are_read_when_asked_for(files: Path) -> None:
    file = open_single_file(files / "sd1.safetensors")
    tensors = file.weights("unet")
    assert isinstance(tensors, NamedTensors)
    assert isinstance(tensors.tensors, FileTensors)
    assert len(tensors) == len(list(tensors)) == len(file.found.components["unet"].shapes)
    assert "_file" not in vars(tensors.tensors)
    assert tensors["conv_in.weight"].shape == (32, 4, 3, 3)
    assert "_file" in vars(tensors.tensors)
    with pytest.raises(KeyError):
        tensors["input_blocks.0.0.weight"]


def test_a_bare_autoencoder(tmp_path: Path) -> None:
    path = tmp_path / "vae.safetensors"
    expected = layout.autoencoder(**VAE).state_dict()
    save_file(layout.old_autoencoder(expected), path)
    file = open_single_file(path)
    assert (file.family, file.prediction, set(file.configs)) == ("autoencoder", None, {"vae"})
    assert all(torch.equal(tensor, expected[key]) for key, tensor in file.weights("vae").items())


def linked(files: Path, folder: Path, family: str, yaml: str = "") -> Path:
    """A file in a folder of its own, with a yaml beside it if there is one."""
    path = folder / f"{family}.safetensors"
    path.hardlink_to(files / path.name)
    if yaml:
        path.with_suffix(".yaml").write_text(yaml)
    return path


def test_a_yaml_beside_the_file(files: Path, tmp_path: Path) -> None:
    file = open_single_file(path := linked(files, tmp_path, "sd2", V_YAML))
    assert (file.prediction, file.learnt["prediction"]) == ("v", str(path.with_suffix(".yaml")))  # the metadata says epsilon
    assert file.configs["unet"]["attention_head_dim"] == [2, 2, 4, 4]
    assert file.configs["unet"]["sample_size"] == 96
    assert file.configs["scheduler"]["prediction_type"] == "v_prediction"


def test_marks_of_a_zero_terminal_snr(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state("sdxl") | {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}, path)
    file = open_single_file(path)
    noise = noise_schedule(file.configs["scheduler"], "here")
    assert (file.prediction, noise) == ("v", NoiseSchedule(spacing="trailing", zero_terminal_snr=True))


def test_arguments_are_strongest(files: Path, tmp_path: Path) -> None:
    path = linked(files, tmp_path, "sd2", "model: {params: {parameterization: v}}")
    file = open_single_file(path, prediction_type="epsilon", family="sd1")
    assert (file.family, file.prediction) == ("sd1", "eps")
    assert dict(file.learnt) == {"family": "the argument family", "prediction": "the argument prediction_type"}
    assert file.configs["unet"]["attention_head_dim"] == 8
    with pytest.raises(CheckpointError, match=r"family is 'sd3'; expected one of sd1, sd2, sdxl.*did you mean"):
        open_single_file(path, family="sd3")
    with pytest.raises(CheckpointError, match=r"prediction_type is 'v'; expected one of epsilon, v_prediction"):
        open_single_file(path, prediction_type="v")


@pytest.mark.parametrize(
    ("given", "family"),
    [("sd1", "gligen"), ("sd1", "gligen-text-image"), ("sd1", "sdxl"), ("sdxl", "sd1"), ("sd1", "autoencoder")],
)
def test_a_family_that_the_weights_are_not(files: Path, given: str, family: str) -> None:
    why = {"sd1": r"Stable Diffusion 1, told by the text tower \S+", "sdxl": "Stable Diffusion XL, told by its label embedding"}
    with pytest.raises(CheckpointError, match=rf"family is '{family}', but this is {why[given]} .*take a file of it, or leave"):
        open_single_file(files / f"{given}.safetensors", family=family)


def test_sd2_must_say_what_it_predicts(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state("sd2"), path)
    with pytest.raises(CheckpointError, match=r"pass prediction_type=epsilon or v_prediction .* beside it as model\.yaml"):
        open_single_file(path)
    assert open_single_file(path, prediction_type="v_prediction").prediction == "v"


SGM = """
model:
  params:
    scale_factor: 0.2
    denoiser_config: {params: {scaling_config: {target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling}}}
    network_config: {params: {num_heads: 4}}
"""


def test_what_a_yaml_tells(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(SGM)
    assert read_told(path) == Told(str(path), prediction="v", heads=4, scale=0.2)
    path.write_text("model: {params: {linear_start: 0.001, linear_end: 0.02, timesteps: 500, first_stage_key: jpg}}")
    assert read_told(path) == Told(str(path), beta_start=0.001, beta_end=0.02, train_steps=500)
    path.write_text("other: 3")
    assert read_told(path) == Told(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: {params: {parameterization: x0}}", r"predicts 'x0'; supported are eps and v"),
        ("model: {params: {denoiser_config: {params: {scaling_config: {target: a.EDMScaling}}}}}", "predicts 'a.EDMScaling'"),
        ("model: {params: {scale_factor: big}}", "scale_factor is 'big'; expected a number above 0"),
        ("model: {params: {unet_config: {params: {num_heads: 0}}}}", "num_heads is 0; expected a number above 0"),
        ("[", "model.yaml"),
    ],
)
def test_bad_yaml(files: Path, tmp_path: Path, text: str, message: str) -> None:
    linked(files, tmp_path, "sd1", text).rename(tmp_path / "model.safetensors")
    (tmp_path / "sd1.yaml").rename(tmp_path / "model.yaml")
    with pytest.raises(LsregenError, match=message) as caught:
        open_single_file(tmp_path / "model.safetensors")
    assert "model.yaml" in str(caught.value)


def test_widths_that_do_not_divide_into_heads(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(layout.single_file("sd2"), path, {"modelspec.prediction_type": "v"})
    with pytest.raises(CheckpointError, match=r"heads of 64 channels do not divide a level of 8; say their number in a yaml"):
        open_single_file(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"cond_stage_model.stranger.weight": torch.zeros(1)},
            r"1 keys belong to nothing in Stable Diffusion 1:\n    cond_stage_model\.stranger\.weight",
        ),
        ({"model.diffusion_model.motion_modules.0.weight": torch.zeros(1)}, "this is a motion module"),
        ({"first_stage_model.encoder.conv_in.weight": torch.zeros(32)}, "damaged, a tensor from which the size"),
        ({"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(32, 9, 3, 3)}, "this is an inpainting UNet"),
    ],
)
def test_bad_files(tmp_path: Path, change: State, message: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file(state("sd1") | change, path)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_single_file(path)
    assert str(path) in str(caught.value)
