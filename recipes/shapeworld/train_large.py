"""Train the large text-to-image model: three times the side of the base, with the switches of Stable Diffusion XL.

    torchrun --nproc-per-node 2 -m recipes.shapeworld.train_large --folder runs/large

Two text encoders, of which the second gives the pooled text; sizes are told; the levels have unlike depths. It starts from the
base: a 24x24 grid of 8-pixel patches of a large image is nearly one of 4-pixel patches of the same image at half the size, and
the level in between is new. The rate is constant until the last `--decay` of the steps, so a run may be prolonged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from lsregen.framework import LoadOptions
from lsregen.models import EMBEDDED, DiffusersFolder
from lsregen.models.networks.unet import SIZES as SIZE_NUMBERS
from lsregen.models.networks.unet import UNet, UNetConfig, size_features
from recipes.shapeworld.data import captions, latent_pool
from recipes.shapeworld.latents import CHANNELS, LARGE_PATCH, LARGE_SIDE, LatentSpace, latent_space, noise_levels
from recipes.shapeworld.train_base import CAPTION_DROP, EMA_DECAY, WIDTH, loss_of
from recipes.shapeworld.training import Learner, Ranks, Run, arguments
from recipes.shapeworld.words import LENGTH, save_tokenizer

WIDTH_2 = 64  # of the second text encoder
LAYERS, LAYERS_2 = 3, 2  # of the text encoders; the layer before the last is what the UNet sees
SIZE_CHANNELS = 16
UNET = UNetConfig(
    in_channels=CHANNELS,
    out_channels=CHANNELS,
    widths=(64, WIDTH, WIDTH),
    attention_down=(False, True, True),
    attention_up=(False, True, True),
    heads=(4, 4, 4),
    depths=(1, 1, 2),
    context_channels=WIDTH + WIDTH_2,
    layers_per_block=1,
    linear_projection=True,
    size_channels=SIZE_CHANNELS,
    added_channels=WIDTH_2 + SIZE_NUMBERS * SIZE_CHANNELS,
)
LEARNING_RATE = 6e-4
SQUARE = (LARGE_SIDE, LARGE_SIDE)
POOLS = {SQUARE: 24_000, (240, 160): 4_000, (160, 240): 4_000}  # images of each size
COARSE, COARSE_SHARE = 3_000, 0.08  # of the square images: rendered at a third of their size, which the model is told


def text_config(tokenizer: CLIPTokenizer, width: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        projection_dim=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def text_encoders(tokenizer: CLIPTokenizer) -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    first = CLIPTextModel(text_config(tokenizer, WIDTH, LAYERS))
    return first, CLIPTextModelWithProjection(text_config(tokenizer, WIDTH_2, LAYERS_2))


@dataclass(frozen=True)
class Batch:
    """Latents `[b c h w]`, token ids `[b t]`, 1 where there is a caption `[b]`, and the six size numbers `[b 6]`."""

    z0: Tensor
    ids: Tensor
    said: Tensor
    sizes: Tensor


class Batches:
    """Draws a batch: mostly square images, a few of them coarse, every sixth step one of the two oblong sizes."""

    def __init__(self, folder: Path, space: LatentSpace, tokenizer: CLIPTokenizer, batch: int) -> None:
        self.batch = batch
        self.latents = {size: latent_pool(folder, space, count, size) for size, count in POOLS.items()}
        self.coarse = latent_pool(folder, space, COARSE, SQUARE, coarse=True)
        tokens: Any = {"padding": "max_length", "max_length": LENGTH, "return_tensors": "pt"}
        self.ids = {size: tokenizer(captions(count, size), **tokens).input_ids for size, count in POOLS.items()}
        small = (LARGE_SIDE // 3, LARGE_SIDE // 3)
        self.coarse_ids = tokenizer(captions(COARSE, small), **tokens).input_ids

    def draw(self, step: int, draws: torch.Generator) -> Batch:
        size = ((240, 160), (160, 240))[(step // 6) % 2] if step % 6 == 5 else SQUARE
        coarse = int((torch.rand(self.batch, generator=draws) < COARSE_SHARE).sum()) if size == SQUARE else 0
        parts = [self._some(self.latents[size], self.ids[size], self.batch - coarse, size, size, draws)]
        if coarse:
            small = (LARGE_SIDE // 3, LARGE_SIDE // 3)
            parts.append(self._some(self.coarse, self.coarse_ids, coarse, small, SQUARE, draws))
        z0, ids, sizes = (torch.cat(each) for each in zip(*parts, strict=True))
        said = (torch.rand(self.batch, generator=draws) >= CAPTION_DROP).float()
        # Timesteps are stratified over the places of a batch: no place may always hold the same kind.
        order = torch.randperm(self.batch, generator=draws)
        return Batch(z0[order], ids[order], said, sizes[order])

    def _some(
        self, latents: Any, ids: Tensor, count: int, original: tuple[int, int], target: tuple[int, int], draws: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        picks = torch.randint(len(ids), (count,), generator=draws).sort().values
        mirrored = torch.randint(2, (count,), generator=draws)
        z0 = torch.from_numpy(latents[picks.numpy(), mirrored.numpy()]).float()
        numbers = torch.tensor([original[1], original[0], 0, 0, target[1], target[0]]).expand(count, -1)
        return z0, ids[picks], numbers


class Captioned(nn.Module):
    """The UNet with its text encoders, as one differentiable call."""

    def __init__(self, unet: UNet, text: CLIPTextModel, text_2: CLIPTextModelWithProjection) -> None:
        super().__init__()
        self.unet, self.text, self.text_2 = unet, text, text_2

    def forward(self, z: Tensor, t: Tensor, batch: Batch) -> Tensor:
        first: Any = self.text(input_ids=batch.ids, output_hidden_states=True)
        second: Any = self.text_2(input_ids=batch.ids, output_hidden_states=True)
        context = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)  # [b t d]
        pooled = second.text_embeds * batch.said[:, None]  # an absent caption is nothing at all, as in SDXL
        added = torch.cat([pooled, size_features(batch.sizes, SIZE_CHANNELS)], dim=-1)
        return self.unet(z, t, context * batch.said[:, None, None], added)


@torch.no_grad()
def start_from(base: Any, space: LatentSpace, base_space: LatentSpace, networks: Captioned) -> None:
    """Give the networks what fits of the base model: its levels, and its text encoder's layers."""
    own = networks.unet.state_dict()
    for key, tensor in base.unet.state_dict().items():
        name = key.replace("up_blocks.1.", "up_blocks.2.").replace("up_blocks.0.", "up_blocks.1.")
        wanted = own[name]
        if "proj_in.weight" in name or "proj_out.weight" in name:
            tensor = rearrange(tensor, "o i 1 1 -> o i")
        if "attn2.to_k" in name or "attn2.to_v" in name:  # what the second encoder says counts for nothing at first
            tensor = F.pad(tensor, (0, WIDTH_2))
        wanted.copy_(tensor)
    # A large patch at half its size is a patch of the base: `between` takes scaled latents of the one to those of the other.
    whole = rearrange(torch.linalg.pinv(space.directions), "(c p q) k -> k c p q", c=3, p=LARGE_PATCH)
    halved = rearrange(F.avg_pool2d(whole, 2), "k c p q -> k (c p q)")
    between = (halved @ base_space.directions.T * base_space.scale / space.scale).T  # [base large]
    own["conv_in.weight"].copy_(torch.einsum("obhw, bl -> olhw", base.unet.conv_in.weight, between))
    back = torch.linalg.pinv(between)
    own["conv_out.weight"].copy_(torch.einsum("lb, bihw -> lihw", back, base.unet.conv_out.weight))
    own["conv_out.bias"].copy_(back @ base.unet.conv_out.bias)
    networks.unet.load_state_dict(own)
    text = {**networks.text.state_dict(), **base.text.encoders[0].network.state_dict()}
    networks.text.load_state_dict(text)


def main() -> None:
    parser = arguments(__doc__, "large", steps=3000, batch=24, save_every=50)
    parser.add_argument("--base", type=Path, default=EMBEDDED / "shapeworld-base")
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    if ranks.first:
        space = latent_space(args.images, LARGE_PATCH)
        for size, count in POOLS.items():
            latent_pool(args.images, space, count, size)
        latent_pool(args.images, space, COARSE, SQUARE, coarse=True)
        save_tokenizer(args.folder / "tokenizer")
    ranks.barrier()
    space = latent_space(args.images, LARGE_PATCH)
    tokenizer = CLIPTokenizer.from_pretrained(args.folder / "tokenizer")
    batches = Batches(args.images, space, tokenizer, args.batch)
    levels = noise_levels().to(ranks.device)

    torch.manual_seed(0)
    model = Captioned(UNet(UNET), *text_encoders(tokenizer)).train()
    base = DiffusersFolder().load(args.base, LoadOptions(device="cpu", dtype="fp32"))
    start_from(base, space, latent_space(args.images), model)
    model.to(ranks.device)
    modules = {"unet": model.unet, "text": model.text, "text_2": model.text_2}
    learner = Learner(run, modules, rate=LEARNING_RATE, steps=args.steps, decay=args.decay, average=EMA_DECAY)

    def loss_at(step: int, draws: torch.Generator) -> Tensor:
        batch = Batch(*(part.to(ranks.device) for part in vars(batches.draw(step, draws)).values()))
        return loss_of(lambda z, t: model(z, t, batch), batch.z0, levels, draws)

    learner.learn(6, loss_at, log=25, save=args.save_every)
    ranks.close()


if __name__ == "__main__":
    main()
