"""A bound model: classifier-free guidance, predictions, latents and images, and whole trajectories beside diffusers."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.framework.errors import CheckpointError, ConfigError
from lsregen.framework.hashes import file_hash
from lsregen.framework.sampling.taps import Taps
from lsregen.framework.types import NoiseSchedule, Prediction, Step
from lsregen.models import DiffusersFolder
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.checkpoint import save_component, write_config
from lsregen.models.weights.configs import autoencoder_values, scheduler_values, unet_values
from lsregen.samplers.ddim import DDIM
from tests.near import PARITY, TRAJECTORY, near, relative

TEXT_TIME = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 68,
}
PROMPTS, NEGATIVES = ("a red circle", "a blue circle and a red circle"), ("blue", "")


def latents(model: LatentDiffusion, count: int = 2) -> Tensor:
    return torch.randn(count, model.latent_channels, 8, 4)


def test_classifier_free_guidance(oracle: Any, model: LatentDiffusion, step: Step) -> None:
    z, negatives = latents(model), ("blue", " ")  # a space is an empty text to every family
    without, towards = (oracle.unet(z, step, prompts) for prompts in (negatives, PROMPTS))
    from_raw = Prediction.from_v if oracle.name == "sd2" else Prediction.from_eps
    for cfg in (1.0, 4.0):
        prediction = model.bind(PROMPTS, negatives, (), cfg=cfg, count=10).predict(z, step)
        expected = from_raw(z, without + cfg * (towards - without), step)
        for ours, theirs in ((prediction.eps, expected.eps), (prediction.z0, expected.z0)):
            assert ours.dtype == torch.float32
            assert not ours.requires_grad
            assert near(ours, theirs)


@pytest.mark.parametrize(("name", "cfg"), [("base", 1.0), ("base", 4.0), ("sd2", 4.0)])
def test_a_known_conditional_branch_is_not_run_again(models: Any, step: Step, name: str, cfg: float) -> None:
    model = models(name)
    denoiser, z = model.bind(PROMPTS, NEGATIVES, (), cfg=cfg, count=10), latents(model)
    plain = denoiser.predict(z, step)
    view = denoiser.observe(z.requires_grad_(), step, Taps((), full=True))
    batches: list[int] = []
    handle = model.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    try:
        reused = denoiser.predict(z, step, Prediction(view.eps.detach(), view.z0.detach()))
        assert batches == ([] if cfg == 1 else [2])
        denoiser.predict(z, step)
        assert batches[-1] == (2 if cfg == 1 else 4)
    finally:
        handle.remove()
    assert (reused.eps - plain.eps).abs().max() <= 2e-5
    assert (reused.z0 - plain.z0).abs().max() <= 2e-5


def test_samples_do_not_mix(base: LatentDiffusion, step: Step) -> None:
    z = latents(base)
    both = base.bind(PROMPTS, NEGATIVES, (), cfg=4.0, count=10).predict(z, step).eps
    for i in range(2):
        alone = base.bind(PROMPTS[i : i + 1], NEGATIVES[i : i + 1], (), cfg=4.0, count=10).predict(z[i : i + 1], step).eps
        assert (alone - both[i : i + 1]).abs().max() <= 1e-5


def test_the_clean_latent_is_clipped_when_the_schedule_says_so(
    base: LatentDiffusion, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser, z = base.bind(PROMPTS, (), (), cfg=2.0, count=10), latents(base)
    plain = denoiser.predict(z, step)
    monkeypatch.setattr(base, "noise_schedule", NoiseSchedule(clip_sample=0.5))
    clipped = denoiser.predict(z, step)
    assert near(clipped.z0, plain.z0.clamp(-0.5, 0.5))
    assert near(clipped.eps, plain.eps)


@pytest.mark.parametrize(("dtype", "share"), [("fp16", 0.02), ("bf16", 0.1)])
def test_half_precision(oracles: Any, base: LatentDiffusion, step: Step, dtype: str, share: float) -> None:
    half = DiffusersFolder().load(oracles("base").folder, LoadOptions(device="cpu", dtype=dtype))
    z = latents(base, 1).requires_grad_()
    close, exact = (m.bind(PROMPTS[:1], NEGATIVES[:1], (), cfg=4.0, count=10).predict(z, step) for m in (half, base))
    assert close.eps.dtype == torch.float32
    assert relative(close.eps, exact.eps) <= share
    (grad,) = torch.autograd.grad(half.decode(z).sum(), z)
    assert grad.dtype == torch.float32
    assert half.describe()["dtype"] == {"fp16": "float16", "bf16": "bfloat16"}[dtype]


def walk(model: LatentDiffusion, z: Tensor, prompt: str, count: int) -> Tensor:
    denoiser, sampler = model.bind([prompt] * len(z), (), (), cfg=4.0, count=count), DDIM()
    for step in sampler.schedule(model.noise_schedule, count):
        z = sampler.step(z, denoiser.predict(z, step), step, None)
    return z


def their_walk(pipe: Any, model: LatentDiffusion, z: Tensor, prompt: str, count: int) -> Tensor:
    height, width = (side * model.factor for side in z.shape[-2:])
    return pipe(
        [prompt] * len(z),
        height=height,
        width=width,
        latents=z,
        num_inference_steps=count,
        guidance_scale=4.0,
        output_type="latent",
    ).images


def test_trajectory_of_a_model_that_predicts_v(oracles: Any, models: Any) -> None:
    model = models("sd2")
    z = latents(model, 1)
    ours, theirs = walk(model, z, "a red circle", 6), their_walk(oracles("sd2").pipe, model, z, "a red circle", 6)
    assert relative(ours, theirs) <= TRAJECTORY


def test_diffusers_loads_a_folder_that_we_write(base: LatentDiffusion, oracles: Any, tmp_path: Path) -> None:
    import diffusers

    source, stem = oracles("base").folder, "diffusion_pytorch_model"
    save_component(tmp_path / "unet", unet_values(base.unet.config, 16), base.unet.state_dict(), stem, torch.float16)
    coder = base.autoencoder
    save_component(tmp_path / "vae", autoencoder_values(coder.config), coder.state_dict(), stem, torch.float16)
    write_config(tmp_path / "scheduler", scheduler_values(base.noise_schedule, "eps"), "scheduler_config.json")
    write_config(tmp_path, {"cfg": 3.0}, "lsregen.json")
    for name in ("tokenizer", "text_encoder", "model_index.json"):
        (tmp_path / name).symlink_to(source / name)
    model = DiffusersFolder().load(tmp_path, LoadOptions(device="cpu", dtype="fp32"))
    assert isinstance(model, LatentDiffusion)
    assert (model.default_size, model.default_cfg, model.factor) == ((64, 64), 3.0, 4)
    assert model.noise_schedule == base.noise_schedule
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    z = latents(model, 1)
    theirs = their_walk(pipe, model, z, "a red circle", 20)
    assert relative(walk(model, z, "a red circle", 20), theirs) <= TRAJECTORY


def test_what_a_report_records(oracle: Any, model: LatentDiffusion) -> None:
    described = model.describe()
    assert (described["name"], described["dtype"]) == (oracle.name, "float32")
    assert described["family"] == ("sd1" if oracle.name == "base" else oracle.name)
    assert set(described["components"]) == {"unet", "vae", "text_encoder"} | ({"text_encoder_2"} & {*oracle.pipe.components})
    for part in described["components"]:
        theirs = getattr(oracle.pipe, part)
        component = described["components"][part]
        assert component["parameters"] == sum(p.numel() for p in theirs.parameters())
        ((file, digest),) = component["sha256"].items()
        assert digest == file_hash(oracle.folder / part / file)
        assert len(digest) == 64


def test_defaults_of_families(oracles: Any, models: Any, copied: Any) -> None:
    assert {name: (models(name).default_size, models(name).default_cfg) for name in ("sd1", "sd2", "sdxl")} == {
        "sd1": ((64, 64), 7.5),
        "sd2": ((16, 16), 7.5),
        "sdxl": ((32, 32), 5.0),
    }
    folder = copied(oracles("sdxl").folder, "lsregen.json", {"cfg": 3})
    assert DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32")).default_cfg == 3.0


@pytest.mark.parametrize(
    ("name", "changes", "dtype", "expected"),
    [
        ("sdxl", {}, "fp16", torch.float32),
        ("sdxl", {"force_upcast": False}, "fp16", torch.float16),
        ("sdxl", {}, "bf16", torch.bfloat16),
        ("sd1", {}, "fp16", torch.float16),
    ],
)
def test_the_autoencoder_of_sdxl_overflows_in_fp16(
    oracles: Any, models: Any, copied: Any, name: str, changes: dict[str, Any], dtype: str, expected: torch.dtype
) -> None:
    folder = copied(oracles(name).folder, "vae/config.json", changes)
    model: Any = DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype=dtype))
    assert model.unet.conv_in.weight.dtype != torch.float32
    assert {parameter.dtype for parameter in model.autoencoder.parameters()} == {expected}
    z = latents(model)
    images = model.decode(z)
    assert images.dtype == torch.float32
    assert (images - models(name).decode(z)).abs().max() <= (PARITY if expected == torch.float32 else 0.1)
    encoded = model.encode_image(images)
    assert {parameter.dtype for parameter in model.autoencoder.parameters()} == {expected}
    assert near(encoded, model.autoencoder.float().encode(images * 2 - 1))  # pictures are encoded in fp32 always


def test_families_that_are_refused(oracles: Any, copied: Any) -> None:
    folder = copied(oracles("sdxl").folder, "model_index.json", {"text_encoder": [None, None], "tokenizer": [None, None]})
    with pytest.raises(CheckpointError, match="this is the refiner of Stable Diffusion XL, which is not supported"):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "text_encoder_2/config.json",
            {"projection_dim": 24},
            "takes pooled texts of width 20, its text encoder's are of width 24",
        ),
        ("tokenizer_2/tokenizer_config.json", {"model_max_length": 12}, "its text encoders take 12 and 16 tokens"),
        ("model_index.json", {"tokenizer_2": [None, None]}, "component tokenizer_2 .* is None; supported is CLIPTokenizer"),
        ("model_index.json", {"force_zeros_for_empty_prompt": 1}, "force_zeros_for_empty_prompt is 1; expected true or false"),
        ("unet/config.json", {"addition_embed_type": None}, "no second text encoder is expected by its UNet, and it has 2"),
    ],
)
def test_parts_of_sdxl_that_do_not_fit(oracles: Any, copied: Any, file: str, changes: dict[str, Any], message: str) -> None:
    folder = copied(oracles("sdxl").folder, file, changes)
    with pytest.raises(CheckpointError, match=message):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))


def test_sizes(base: LatentDiffusion) -> None:
    assert base.default_size == (32, 32)
    assert base.default_cfg == 7.5
    assert base.latent_shape((64, 32)) == (8, 8, 16)
    with pytest.raises(ConfigError, match=r"size 66x31: .* multiples of 4; the nearest is 64x32"):
        base.latent_shape((66, 31))
    with pytest.raises(ConfigError, match="the nearest is 4x4"):
        base.latent_shape((1, -8))
    with pytest.raises(ConfigError, match="size 30x32"):
        base.encode_image(torch.rand(1, 3, 32, 30))


def test_decode_stays_in_range_and_keeps_the_gradient(base: LatentDiffusion) -> None:
    z = (3 * latents(base)).requires_grad_()
    images = base.decode(z)
    assert images.shape == (2, 3, 32, 16)
    assert images.min() >= 0
    assert images.max() <= 1
    (grad,) = torch.autograd.grad(images.sum(), z)
    assert grad.abs().max() > 0
    with torch.no_grad():
        assert not base.decode(z).requires_grad


@pytest.mark.parametrize(
    ("prompts", "negatives", "cfg", "message"),
    [
        (["  "], (), 4.0, "prompt .* is empty"),
        (["a", ""], (), 4.0, "prompt .* is empty"),
        ([], (), 4.0, "prompt .* is empty"),
        (["a", "red"], ("blue",), 4.0, "1 negative prompts for 2 prompts"),
        (["a"], (), float("nan"), "cfg nan"),
        (["a"], (), -1.0, "cfg -1.0"),
    ],
)
def test_what_cannot_be_bound(base: LatentDiffusion, prompts: list[str], negatives: Any, cfg: float, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        base.bind(prompts, negatives, (), cfg=cfg, count=10)


def test_a_local_folder_opens_no_socket(oracles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    oracles("sd1").load()


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (
            "unet/config.json",
            {"in_channels": 13},
            r"unet/config\.json: this is an inpainting UNet, with 13 channels in and 8 out",
        ),
        ("unet/config.json", {"in_channels": 16, "out_channels": 16}, "a UNet of other inputs and outputs, with 16 channels in"),
        ("unet/config.json", {"cross_attention_dim": 40}, "texts of width 40, its text encoder's are of width 32"),
        ("unet/config.json", TEXT_TIME, "a second text encoder is expected by its UNet, and it has 1"),
        ("model_index.json", {"text_encoder_3": ["transformers", "T5"]}, r"component text_encoder_3 \(T5\), .* not supported"),
        (
            "model_index.json",
            {"vae": ["diffusers", "AutoencoderTiny"]},
            "component vae .* AutoencoderTiny; supported is AutoencoderKL",
        ),
        ("model_index.json", {"unet": [None, None]}, "component unet .* is None; supported is UNet2DConditionModel"),
        ("text_encoder/config.json", {"model_type": "t5"}, "model_type is 't5'; expected 'clip_text_model'"),
        (
            "text_encoder/config.json",
            {"hidden_size": "a"},
            r"text_encoder/config\.json: hidden_size is 'a'; expected a whole number",
        ),
        ("text_encoder/config.json", {"hidden_size": 0}, "hidden_size is 0; expected a whole number of at least 1"),
        (
            "text_encoder/config.json",
            {"num_attention_heads": 5},
            "num_attention_heads is 5; expected a divisor of hidden_size 32",
        ),
        ("text_encoder/config.json", {"hidden_act": "gulu"}, r"config\.json: no CLIP text encoder can be built from it \(.*gulu"),
        ("tokenizer/tokenizer_config.json", {"model_max_length": 0}, "model_max_length is 0; expected a whole number above 0"),
        ("unet/config.json", {"sample_size": "64"}, r"unet/config\.json: sample_size is '64'; expected a whole number"),
        ("lsregen.json", {"cfg": "much"}, "cfg is 'much'"),
        ("lsregen.json", {"cfg": True}, "cfg is True; expected a number"),
    ],
)
def test_folders_that_do_not_fit(oracles: Any, copied: Any, file: str, changes: dict[str, Any], message: str) -> None:
    folder = copied(oracles("base").folder, file, changes)
    with pytest.raises(CheckpointError, match=message):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32"))
