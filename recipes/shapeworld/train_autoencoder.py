"""Train an autoencoder: its encoder to the fixed latent space (see latents.py), its decoder back to images.

    torchrun --nproc-per-node 1 -m recipes.shapeworld.train_autoencoder --folder runs/autoencoder
    torchrun --nproc-per-node 1 -m recipes.shapeworld.train_autoencoder --folder runs/autoencoder-large --patch 8

The one of the large model learns from crops of its images: nothing in it looks farther.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lsregen.models.networks.autoencoder import Autoencoder, AutoencoderConfig
from recipes.shapeworld.data import image_pool, to_tensor
from recipes.shapeworld.latents import CHANNELS, LARGE_PATCH, LARGE_SIDE, PATCH, SIDE, latent_space
from recipes.shapeworld.training import Learner, Ranks, Run, arguments

SHARED = AutoencoderConfig(
    latent_channels=CHANNELS,
    layers_per_block=1,
    norm_num_groups=8,
    mid_block_add_attention=False,
    scaling_factor=1.0,  # the latent space's own factor is written at export
)
CONFIGS = {
    PATCH: replace(SHARED, block_out_channels=(24, 48, 64)),
    LARGE_PATCH: replace(SHARED, block_out_channels=(16, 24, 48, 64)),
}
# By patch: how many images of which side, and the side of the crops that are seen at once.
IMAGES = {PATCH: (36_000, SIDE, SIDE), LARGE_PATCH: (4_096, LARGE_SIDE, LARGE_SIDE // 2)}
LEARNING_RATE = 2e-3
LATENT_NOISE = 0.05
ANCHOR_WEIGHT = 2.0


def main() -> None:
    parser = arguments(__doc__, "autoencoder", steps=2400, batch=8)
    parser.add_argument("--patch", type=int, choices=tuple(CONFIGS), default=PATCH, help="its factor")
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    count, side, crop = IMAGES[args.patch]
    if ranks.first:
        image_pool(args.images, count, (side, side))
        latent_space(args.images, args.patch)
    ranks.barrier()
    pool, space = image_pool(args.images, count, (side, side)), latent_space(args.images, args.patch)

    torch.manual_seed(0)
    model = Autoencoder(CONFIGS[args.patch]).to(ranks.device)
    learner = Learner(run, {"model": model}, rate=LEARNING_RATE, steps=args.steps, warmup=100, weight_decay=0.0)

    def loss_at(step: int, draws: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        images = to_tensor(pool[torch.randint(len(pool), (args.batch,), generator=draws).sort().values.numpy()])
        top, left = (args.patch * torch.randint((side - crop) // args.patch + 1, (2,), generator=draws)).tolist()
        images = images[..., top : top + crop, left : left + crop]
        if torch.rand((), generator=draws) < 0.5:
            images = images.flip(-1)
        true = space.encode(images)  # [b c h w]
        noise = torch.randn(true.shape, generator=draws) * torch.rand((args.batch, 1, 1, 1), generator=draws) * LATENT_NOISE
        images, true, noise = images.to(ranks.device), true.to(ranks.device), noise.to(ranks.device)

        latent, log_variance = model.moments(images)
        # Half of the batch is decoded from the encoder's latents, half from the ones that the base model is trained on.
        half = args.batch // 2
        error = model.decode(torch.cat([latent[:half], true[half:]]) + noise) - images
        anchor = F.mse_loss(latent, true)
        spread = (log_variance + 6).square().mean()  # the posterior's width is not used; keep it narrow and finite
        loss = error.abs().mean() + 4 * error.square().mean() + ANCHOR_WEIGHT * anchor + 1e-4 * spread
        return loss, {"loss": loss, "psnr": 10 * torch.log10(4 / error.square().mean()), "anchor": anchor}

    learner.learn(1, loss_at, save=100)
    ranks.close()


if __name__ == "__main__":
    main()
