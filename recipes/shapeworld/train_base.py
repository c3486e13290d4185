"""Train the base text-to-image model: a cross-attention UNet and its text encoder, jointly, from scratch.

    torchrun --nproc-per-node 2 -m recipes.shapeworld.train_base --folder runs/base

The rate is constant until the last `--decay` of the steps, so a run may be prolonged before it decays (a larger `--steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lsregen.models.networks.unet import UNet, UNetConfig
from recipes.shapeworld.data import captions, image_pool, to_tensor
from recipes.shapeworld.latents import CHANNELS, latent_space, noise_levels
from recipes.shapeworld.training import Learner, Ranks, Run, arguments
from recipes.shapeworld.words import LENGTH, save_tokenizer

WIDTH = 128
UNET = UNetConfig(
    in_channels=CHANNELS,
    out_channels=CHANNELS,
    widths=(64, WIDTH),
    attention_down=(False, True),
    attention_up=(False, True),
    heads=(4, 4),
    depths=(1, 1),
    context_channels=WIDTH,
    layers_per_block=1,
)
SIZES = {(64, 64): 36_000, (96, 64): 6_000, (64, 96): 6_000}  # images of each size
LEARNING_RATE = 8e-4
SNR_CAP = 5.0
CAPTION_DROP = 0.1
EMA_DECAY = 0.998


def text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return CLIPTextModel(config)


class Batches:
    """Draws a batch: mostly square images, every sixth step one of the two oblong sizes with as many pixels."""

    def __init__(self, folder: Path, tokenizer: CLIPTokenizer, batch: int) -> None:
        self.batch = batch
        self.images = {size: image_pool(folder, count, size) for size, count in SIZES.items()}
        self.ids = {
            size: tokenizer(captions(count, size), padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
            for size, count in SIZES.items()
        }
        self.empty = tokenizer("", padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids

    def draw(self, step: int, draws: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images `[b 3 H W]` and token ids `[b t]`, captions dropped at random."""
        size = ((96, 64), (64, 96))[(step // 6) % 2] if step % 6 == 5 else (64, 64)
        count = self.batch if size == (64, 64) else self.batch * 2 // 3
        picks = torch.randint(len(self.ids[size]), (count,), generator=draws)
        images = to_tensor(self.images[size][picks.sort().values.numpy()])
        ids = self.ids[size][picks.sort().values].clone()
        mirrored = torch.rand(count, generator=draws) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        ids[torch.rand(count, generator=draws) < CAPTION_DROP] = self.empty
        return images, ids


def loss_of(predict: Callable[[Tensor, Tensor], Tensor], z0: Tensor, levels: Tensor, draws: torch.Generator) -> Tensor:
    """Noise-prediction error, weighted by min(SNR, 5) / SNR (Hang et al. 2023), on timesteps stratified over the batch."""
    b = len(z0)
    t = ((torch.arange(b) + torch.rand(b, generator=draws)) / b * len(levels)).long().to(z0.device)
    alpha_bar = levels[t].reshape(-1, 1, 1, 1)
    eps = torch.randn(z0.shape, generator=draws).to(z0)
    z = alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps
    error = (predict(z, t) - eps).square().mean(dim=(1, 2, 3))  # [b]
    snr = levels[t] / (1 - levels[t])
    return (error * snr.clamp(max=SNR_CAP) / snr).mean()


def main() -> None:
    parser = arguments(__doc__, "base", steps=5000, batch=24, save_every=100)
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    if ranks.first:
        latent_space(args.images)
        for size, count in SIZES.items():
            image_pool(args.images, count, size)
        save_tokenizer(args.folder / "tokenizer")
    ranks.barrier()
    space = latent_space(args.images)
    tokenizer = CLIPTokenizer.from_pretrained(args.folder / "tokenizer")
    batches = Batches(args.images, tokenizer, args.batch)
    levels = noise_levels().to(ranks.device)

    torch.manual_seed(0)
    unet, text = UNet(UNET).to(ranks.device), text_encoder(tokenizer).to(ranks.device).train()
    learner = Learner(
        run, {"unet": unet, "text": text}, rate=LEARNING_RATE, steps=args.steps, decay=args.decay, average=EMA_DECAY
    )

    def loss_at(step: int, draws: torch.Generator) -> Tensor:
        images, ids = batches.draw(step, draws)
        context = text(ids.to(ranks.device)).last_hidden_state
        z0 = space.encode(images).to(ranks.device) * space.scale
        return loss_of(partial(unet, context=context), z0, levels, draws)

    learner.learn(2, loss_at, log=25, save=args.save_every)
    ranks.close()


if __name__ == "__main__":
    main()
