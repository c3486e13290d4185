"""What is measured: full-size networks of the published families, without weights or with random ones, and one run of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from benchmarks.outline import without_numbers
from lsregen.framework import Guidance, Layout, NoiseSchedule, Piece, Pipeline, Run, TokenTable, discover
from lsregen.models.networks.autoencoder import Autoencoder, AutoencoderConfig
from lsregen.models.networks.checkpointing import set_memory
from lsregen.models.networks.unet import UNet
from lsregen.models.runtime.conditioning import Conditioning
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.weights.configs import unet_config

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})
TOKENS = 77
CROSS_DOWN, PLAIN_DOWN, CROSS_UP, PLAIN_UP = "CrossAttnDownBlock2D", "DownBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"

# As in the `config.json` of the published weights; what is not said is the default there and here.
UNETS: Mapping[str, Mapping[str, Any]] = {
    "SD 1.5": {"cross_attention_dim": 768},
    "SDXL": {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "attention_head_dim": [5, 10, 20],
        "block_out_channels": [320, 640, 1280],
        "cross_attention_dim": 2048,
        "down_block_types": [PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN],
        "projection_class_embeddings_input_dim": 2816,
        "transformer_layers_per_block": [1, 2, 10],
        "up_block_types": [CROSS_UP, CROSS_UP, PLAIN_UP],
        "use_linear_projection": True,
    },
}

# Networks of the same build, small enough to run for real wherever the code is to be tried.
NARROW: Mapping[str, Mapping[str, Any]] = {
    "SD 1.5": {
        "attention_head_dim": 4,
        "block_out_channels": [32, 32, 64, 64],
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
    },
    "SDXL": {
        **UNETS["SDXL"],
        "attention_head_dim": [2, 4, 4],
        "block_out_channels": [16, 32, 32],
        "cross_attention_dim": 32,
        "norm_num_groups": 8,
        "transformer_layers_per_block": [1, 1, 2],
    },
}
WIDTHS, NARROW_WIDTHS = (128, 256, 512, 512), (32, 32, 32, 32)  # of autoencoders


@dataclass(frozen=True)
class Subject:
    """One network at one size. `size`: width and height in pixels. `narrow`: with few channels, to try the code."""

    family: str
    size: tuple[int, int]
    dtype: torch.dtype = torch.float32
    narrow: bool = False

    @property
    def unet(self) -> Mapping[str, Any]:
        return (NARROW if self.narrow else UNETS)[self.family]

    @property
    def latent(self) -> tuple[int, int]:
        """Height and width in latent cells."""
        return self.size[1] // 8, self.size[0] // 8

    def __str__(self) -> str:
        bits = str(self.dtype).removeprefix("torch.")
        return f"{self.family}{', narrow' if self.narrow else ''}, {self.size[0]}x{self.size[1]}, {bits}"


class Words:
    """In place of a text encoder: every word a token, every token a random vector. The texts cost nothing, as in every step."""

    def __init__(self, subject: Subject, device: torch.device) -> None:
        self.encoders: tuple[()] = ()
        self.channels: int = subject.unet["cross_attention_dim"]
        self.pooled: int | None = 1280 if subject.family == "SDXL" else None
        self.device, self.dtype = device, subject.dtype

    def tokens(self, prompt: str) -> TokenTable:
        pieces, end = [Piece(0, "<start>", 0, 0, special=True)], 0
        for index, word in enumerate(prompt.split(), start=1):
            start = prompt.index(word, end)
            end = start + len(word)
            pieces.append(Piece(index, word, start, end))
        padding = (Piece(index, "<end>", 0, 0, special=True) for index in range(len(pieces), TOKENS))
        return TokenTable(prompt, (*pieces, *padding))

    def encode(self, prompts: Sequence[str]) -> Conditioning:
        def normal(*shape: int) -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return torch.randn(len(prompts), *shape, generator=generator).to(self.device, self.dtype)

        return Conditioning(normal(TOKENS, self.channels), None if self.pooled is None else normal(self.pooled))

    encode_negatives = encode


def outlined(subject: Subject) -> LatentDiffusion:
    """The model without weights, for `outline.counted`."""
    with without_numbers():
        return _assembled(subject, torch.device("cpu"))


def with_random_weights(subject: Subject, device: torch.device) -> LatentDiffusion:
    """The model with weights drawn as PyTorch draws them; what it makes is noise, in the time that a picture takes."""
    torch.manual_seed(0)
    with device:
        return _assembled(subject, device)


@contextmanager
def made_in(dtype: torch.dtype) -> Iterator[None]:
    """Within it, modules are made in `dtype`: those without weights cannot be cast."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _assembled(subject: Subject, device: torch.device) -> LatentDiffusion:
    with made_in(subject.dtype):
        unet = UNet(unet_config(subject.unet, subject.family))
        autoencoder = Autoencoder(AutoencoderConfig(block_out_channels=NARROW_WIDTHS if subject.narrow else WIDTHS))
    for network in (unet, autoencoder):
        network.requires_grad_(False).eval()
        set_memory(network, "fast")  # as when weights are loaded
    return LatentDiffusion(
        subject.family,
        unet,
        autoencoder,
        Words(subject, device),  # pyright: ignore[reportArgumentType]
        NoiseSchedule(),
        prediction="eps",
        default_size=subject.size,
        default_cfg=7.5,
        files={},
    )


@cache
def plugins() -> Any:
    return discover(only=())


def one_run(
    model: LatentDiffusion, guidance: Any = None, *, sets: Sequence[str] = (), size: tuple[int, int] | None = None, count: int = 1
) -> tuple[Run, Guidance]:
    """A run of one batch of a prompt with two boxes, and its guidance, put together as the pipeline does it."""
    config, terms = Pipeline(model, plugins()).resolve(guidance, sets=sets)
    steps = config.sampler.schedule(model.noise_schedule, config.steps)
    prompts, layouts = (PROMPT,) * count, (LAYOUT,) * count
    cfg = model.default_cfg if config.cfg is None else config.cfg
    shape = model.latent_shape(size or model.default_size)
    generators = tuple(torch.Generator().manual_seed(seed) for seed in range(count))
    run = Run(
        model=model,
        denoiser=model.bind(prompts, ("",) * count, layouts, cfg=cfg, count=len(steps)),
        sampler=config.sampler,
        steps=steps,
        z_T=torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(model.device),
        seeds=tuple(range(count)),
        layouts=layouts,
        size=size or model.default_size,
        generators=generators,
    )
    return run, terms
