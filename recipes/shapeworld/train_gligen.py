"""Train the GLIGEN model: the base model with fusers and a position net, on captions, phrases and boxes.

    torchrun --nproc-per-node 2 -m recipes.shapeworld.train_gligen --folder runs/gligen

Published GLIGEN freezes the model that it grounds and learns from its error alone. In a model as small as this one the picture's
tokens do not know where they are, gates that start at zero stay there, and nothing is learnt. Three things help: the gates start
half open before outputs of zero, which changes nothing at first; the whole UNet learns, all but the text encoder; and, until the
rate decays, half of the fusers' heads are told where to look: inside a box at its token, outside at none of them. The weights run
in GLIGEN's published form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from lsregen.evaluation.shapeworld import sample_scene
from lsregen.evaluation.shapeworld.geometry import SHAPES
from lsregen.evaluation.shapeworld.scene import COLOURS
from lsregen.framework import LoadOptions
from lsregen.models import EMBEDDED, DiffusersFolder
from lsregen.models.networks.gligen import GatedSelfAttention
from lsregen.models.networks.text import TextEncoder
from lsregen.models.networks.unet import UNet
from lsregen.models.runtime.grounding import SLOTS
from recipes.shapeworld.data import captions, image_pool, to_tensor
from recipes.shapeworld.latents import latent_space, noise_levels
from recipes.shapeworld.train_base import EMA_DECAY, SIZES, SNR_CAP, UNET
from recipes.shapeworld.training import Learner, Ranks, Run, arguments

GLIGEN = replace(UNET, grounded="text")
LEARNING_RATE = 6e-4
GATE = 0.5
LAYOUT_CAP = 10.0
TOLD_HEADS, TOLD_WEIGHT = 2, 0.05  # of the fusers' heads, that are told where to look
# Shares of the samples: without a caption; of these, without boxes too; with a caption but without boxes.
NO_CAPTION, NEITHER, NO_BOXES = 0.3, 0.33, 0.1
OBJECTS = 3

PHRASES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)


@dataclass(frozen=True)
class Boxes:
    """What stands where in many images: `[n 3 4]` boxes, `[n 3]` numbers of phrases, `[n 3]` whether there is an object."""

    boxes: Tensor
    phrases: Tensor
    there: Tensor

    @classmethod
    def of(cls, count: int, size: tuple[int, int]) -> Boxes:
        boxes, phrases = torch.zeros(count, OBJECTS, 4), torch.zeros(count, OBJECTS, dtype=torch.long)
        there = torch.zeros(count, OBJECTS)
        for i in range(count):
            scene = sample_scene(i, split="train", size=size)
            for j, (box, phrase) in enumerate(zip(scene.boxes, scene.phrases, strict=True)):
                boxes[i, j], phrases[i, j], there[i, j] = torch.tensor(box), PHRASES.index(phrase), 1
        return cls(boxes, phrases, there)

    def select(self, picks: Tensor) -> Boxes:
        return Boxes(self.boxes[picks].clone(), self.phrases[picks], self.there[picks].clone())


class Batches:
    """Draws a batch: mostly square images, every sixth step one of the two oblong sizes with as many pixels."""

    def __init__(self, folder: Path, text: TextEncoder, batch: int) -> None:
        self.batch = batch
        self.images = {size: image_pool(folder, count, size) for size, count in SIZES.items()}
        self.boxes = {size: Boxes.of(count, size) for size, count in SIZES.items()}
        tokens: Any = {"padding": "max_length", "max_length": text.length, "return_tensors": "pt"}
        self.ids = {size: text.tokenizer(captions(count, size), **tokens).input_ids for size, count in SIZES.items()}
        self.empty = text.tokenizer("", **tokens).input_ids

    def draw(self, step: int, draws: torch.Generator) -> tuple[Tensor, Tensor, Boxes]:
        """Images `[b 3 H W]`, token ids `[b t]` and boxes, captions and boxes dropped at random."""
        size = ((96, 64), (64, 96))[(step // 6) % 2] if step % 6 == 5 else (64, 64)
        count = self.batch if size == (64, 64) else self.batch * 2 // 3
        picks = torch.randint(len(self.ids[size]), (count,), generator=draws).sort().values
        images, ids = to_tensor(self.images[size][picks.numpy()]), self.ids[size][picks].clone()
        boxes = self.boxes[size].select(picks)
        mirrored = torch.rand(count, generator=draws) < 0.5
        images[mirrored] = images[mirrored].flip(-1)
        left, top, right, bottom = boxes.boxes[mirrored].unbind(-1)
        boxes.boxes[mirrored] = torch.stack([1 - right, top, 1 - left, bottom], dim=-1)
        silent, bare = torch.rand(count, generator=draws) < NO_CAPTION, torch.rand(count, generator=draws)
        ids[silent] = self.empty
        boxes.there[bare < torch.where(silent, NEITHER, NO_BOXES)] = 0
        return images, ids, boxes


class Grounded(nn.Module):
    """The UNet with its position net, as one differentiable call. `phrases` `[n d]`: the embeddings of all phrases.

    What the fusers' attentions were given in the last call is kept, for `astray`.
    """

    def __init__(self, unet: UNet, phrases: Tensor) -> None:
        super().__init__()
        self.unet = unet
        self.phrases = phrases
        self.fusers = [module for module in unet.modules() if isinstance(module, GatedSelfAttention)]
        self.seen: dict[int, Tensor] = {}
        for i, fuser in enumerate(self.fusers):
            fuser.attn.register_forward_pre_hook(lambda _, given, i=i: self.seen.update({i: given[0]}))

    def forward(self, z: Tensor, t: Tensor, context: Tensor, boxes: Boxes) -> Tensor:
        b = len(z)
        places, there = torch.zeros(b, SLOTS, 4), torch.zeros(b, SLOTS)
        names = torch.zeros(b, SLOTS, self.phrases.shape[-1])
        places[:, :OBJECTS], there[:, :OBJECTS], names[:, :OBJECTS] = boxes.boxes, boxes.there, self.phrases[boxes.phrases]
        assert self.unet.position_net is not None
        tokens = self.unet.position_net(places.to(z), there.to(z), names.to(z))
        return self.unet(z, t, context, grounding=tokens)

    def astray(self, grid: tuple[int, int], boxes: Boxes) -> Tensor:
        """How far the first heads of the fusers were from looking where they are told to, in the last call (a mean of -log p)."""
        h, w = grid
        y, x = torch.meshgrid((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w, indexing="ij")
        x, y = x.flatten()[None, :, None].to(self.phrases), y.flatten()[None, :, None].to(self.phrases)  # [1 p 1]
        left, top, right, bottom = boxes.boxes.to(self.phrases)[:, None].unbind(-1)  # [b 1 k]
        inside = (x > left) * (x < right) * (y > top) * (y < bottom) * boxes.there.to(self.phrases)[:, None]  # [b p k]
        total = torch.zeros((), device=inside.device)
        for i, fuser in enumerate(self.fusers):
            given, attn = self.seen[i], fuser.attn
            q, k = (rearrange(to(given), "b p (heads d) -> b heads p d", heads=attn.heads) for to in (attn.to_q, attn.to_k))
            logits = q[:, :TOLD_HEADS, : h * w] @ k[:, :TOLD_HEADS].mT / q.shape[-1] ** 0.5
            looks = logits.softmax(-1).mean(1)[..., h * w : h * w + OBJECTS]  # [b p k]
            at_own = (looks * inside).sum(-1)
            at_any = (looks * boxes.there.to(looks)[:, None]).sum(-1)
            some = inside.amax(-1)
            right_mass = some * at_own + (1 - some) * (1 - at_any)
            total = total - right_mass.clamp(min=1e-3).log().mean()
        return total / len(self.fusers)


def weights_of(levels: Tensor) -> Tensor:
    """The weight of the noise-prediction error at each level: as in `train_base`, and more where the layout is decided.

    There is little signal in a very noisy latent, so the error of the noise hardly depends on the layout; the error of the clean
    latent is that over the signal-to-noise ratio, of which the square root is taken here.
    """
    snr = levels / (1 - levels)
    return snr.clamp(max=SNR_CAP) / snr * snr.rsqrt().clamp(min=1, max=LAYOUT_CAP)


def losses_of(
    model: Grounded, context: Tensor, z0: Tensor, boxes: Boxes, levels: Tensor, draws: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The weighted error on timesteps stratified over the batch, and how far the fusers look astray."""
    b = len(z0)
    t = ((torch.arange(b) + torch.rand(b, generator=draws)) / b * len(levels)).long().to(z0.device)
    alpha_bar = levels[t].reshape(-1, 1, 1, 1)
    eps = torch.randn(z0.shape, generator=draws).to(z0)
    z = alpha_bar.sqrt() * z0 + (1 - alpha_bar).sqrt() * eps
    error = (model(z, t, context, boxes) - eps).square().mean(dim=(1, 2, 3))  # [b]
    return (error * weights_of(levels)[t]).mean(), model.astray((z0.shape[-2] // 2, z0.shape[-1] // 2), boxes)


def told(step: int, steps: int, decay: float) -> float:
    """The weight of being told where to look: 1, then linearly to 0 over the first half of the decay."""
    start, length = (1 - decay) * steps, 0.5 * decay * steps
    return 1.0 - min(1.0, max(0.0, (step - start) / max(1.0, length)))


def start_from(base: UNet) -> UNet:
    """The grounded UNet that computes what the base does."""
    unet = UNet(GLIGEN)
    unet.load_state_dict(base.state_dict(), strict=False)
    for module in unet.modules():
        if isinstance(module, GatedSelfAttention):
            for gate, out in ((module.alpha_attn, module.attn.to_out[0]), (module.alpha_dense, module.ff.net[2])):
                nn.init.constant_(gate, GATE)
                nn.init.zeros_(out.weight)  # pyright: ignore[reportArgumentType]
                nn.init.zeros_(out.bias)  # pyright: ignore[reportArgumentType]
    return unet


def main() -> None:
    parser = arguments(__doc__, "gligen", steps=7000, batch=24, save_every=100)
    parser.add_argument("--base", type=Path, default=EMBEDDED / "shapeworld-base")
    args = parser.parse_args()

    ranks = Ranks()
    run = Run(args.folder, ranks)
    space = latent_space(args.images)
    model: Any = DiffusersFolder().load(args.base, LoadOptions(device="cpu", dtype="fp32"))
    text: TextEncoder = model.text.encoders[0]
    batches = Batches(args.images, text, args.batch)
    levels = noise_levels().to(ranks.device)

    torch.manual_seed(0)
    unet = start_from(model.unet).to(ranks.device)
    grounded = Grounded(unet, text.encode(PHRASES).pooled.to(ranks.device))
    encoder = text.network.to(ranks.device)
    learner = Learner(run, {"unet": unet}, rate=LEARNING_RATE, steps=args.steps, decay=args.decay, average=EMA_DECAY)

    def loss_at(step: int, draws: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        images, ids, boxes = batches.draw(step, draws)
        with torch.no_grad():
            context = encoder(input_ids=ids.to(ranks.device)).last_hidden_state
        z0 = space.encode(images).to(ranks.device) * space.scale
        loss, astray = losses_of(grounded, context, z0, boxes, levels, draws)
        gates = torch.stack([fuser.alpha_attn.tanh() for fuser in grounded.fusers])
        whole = loss + TOLD_WEIGHT * told(step, args.steps, args.decay) * astray
        return whole, {"loss": loss, "astray": astray, "gates": gates}

    learner.learn(5, loss_at, log=25, save=args.save_every)
    ranks.close()


if __name__ == "__main__":
    main()
