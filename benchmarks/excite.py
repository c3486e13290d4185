"""A guided step of SD 1.5 as diffusers' Attend-and-Excite pipeline makes it, by its own functions, beside ours.

Its pipeline takes the gradients of a batch one image after another, and denoises the batch in one pass; ours takes one gradient
pass for the batch. Both make the first update of a step, without refinements.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from benchmarks.clock import Timing, alternating, quotient
from benchmarks.records import Row
from benchmarks.reference import network, published
from benchmarks.step import one_step
from benchmarks.subjects import LAYOUT, Subject, made_in, one_run, with_random_weights
from lsregen.framework import drained
from lsregen.models.runtime.latent_diffusion import LatentDiffusion

PRESET = "attend-and-excite"
ONE_UPDATE = ("guidance.semantic.refine={}",)
LOSS, GRADIENT, FASTER = 1e-4, 1e-4, 1.0  # goals: relative differences in fp32, and our time as a part of theirs
LARGE = 2.0**16  # so strong an update hides the latent that it is subtracted from, and leaves the digits of the gradient
GIB = 2**30


class Excite:
    """diffusers' UNet with the weights of ours, and the parts of the pipeline that a step of a batch of `count` images needs."""

    def __init__(self, subject: Subject, model: LatentDiffusion, count: int) -> None:
        run, _ = one_run(model, count=count)
        self.dtype, self.z, self.t = subject.dtype, run.z_T, run.steps[0].t
        self.told, self.unconditional = run.denoiser.conditional, run.denoiser.unconditional  # pyright: ignore
        with torch.device("meta"), made_in(subject.dtype):
            unet = network(subject)
        unet.load_state_dict(model.unet.state_dict(), strict=True, assign=True)
        self.unet = unet.requires_grad_(True)  # as in a pipeline that was loaded
        self.indices = [run.denoiser.tokens[0].span(phrase)[-1] for phrase in LAYOUT.phrases]
        self.pipeline = published().StableDiffusionAttendAndExcitePipeline
        store = published().AttentionStore([side // 4 for side in subject.latent])
        parts = SimpleNamespace(unet=self.unet, attention_store=store)
        parts._compute_max_attention_per_index = self.pipeline._compute_max_attention_per_index
        self.parts = parts
        self.pipeline.register_attention_control(parts)

    def updated(self, sample: int, size: float) -> tuple[Tensor, Tensor]:
        """The loss of one image, and its latent `[1 c h w]` after an update of a size."""
        z = self.z[sample : sample + 1].to(self.dtype).clone().detach().requires_grad_()
        with torch.enable_grad():
            self.unet(z, self.t, encoder_hidden_states=self.told.context[sample : sample + 1])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of PyTorch's, about the way the pipeline makes its kernel
                peaks = self.pipeline._aggregate_and_get_max_attention_per_token(self.parts, self.indices)
            loss = self.pipeline._compute_loss(peaks)
            moved = self.pipeline._update_latent(z, loss, size)
        return loss.detach(), moved.detach()

    def step(self) -> Tensor:
        """The guided noise of the batch after an update of every image."""
        z = torch.cat([self.updated(sample, 20.0)[1] for sample in range(len(self.z))])
        both = torch.cat([self.unconditional.context, self.told.context])
        with torch.no_grad():
            uncond, cond = self.unet(torch.cat([z, z]), self.t, encoder_hidden_states=both).sample.chunk(2)
        self.parts.attention_store.reset()
        return uncond + 7.5 * (cond - uncond)


def apart(subject: Subject, device: torch.device) -> list[Row]:
    """How far our loss and our gradient are from those of the pipeline, for one image."""
    model = with_random_weights(subject, device)
    theirs = Excite(subject, model, 1)
    run, terms = one_run(model, PRESET, sets=(*ONE_UPDATE, f"guidance.semantic.gamma={LARGE}"))
    pull, step = drained(terms.start(run)), run.steps[0]
    with torch.no_grad():
        ours = (run.z_T - drained(pull.before(run.z_T, step))) / pull.log[0].strength
    loss, moved = theirs.updated(0, LARGE)
    gradient = (theirs.z - moved) / LARGE
    value = abs(float(loss) - pull.log[0].energy[0]) / float(loss)
    return [
        Row(str(subject), f"loss of {PRESET} against diffusers' pipeline, relative", value, goal=LOSS),
        Row(str(subject), f"gradient of {PRESET} against diffusers' pipeline, relative", relative(ours, gradient), goal=GRADIENT),
    ]


def rows(subject: Subject, device: torch.device, count: int, repeats: int) -> list[Row]:
    """The time and the memory of a step of a batch, ours and theirs."""
    model = with_random_weights(subject, device)
    ours, there = f"{PRESET}, batch {count}", f"{PRESET} of diffusers, batch {count}"
    work: dict[str, Callable[[], object]] = {
        ours: one_step(model, PRESET, ONE_UPDATE, count=count),
        there: Excite(subject, model, count).step,
    }
    timings = alternating(work, repeats, device)
    found = timed(str(subject), timings)
    ratio = quotient(timings[ours], timings[there])
    return [*found, Row(str(subject), f"{ours} / diffusers' step", ratio, goal=FASTER)]


def timed(subject: str, timings: dict[str, Timing]) -> list[Row]:
    """Medians, and the memory where it was measured."""
    found = [Row(subject, f"{name} step", timing.median, "s", of=tuple(timing.seconds)) for name, timing in timings.items()]
    return found + memory(subject, timings)


def memory(subject: str, timings: dict[str, Timing]) -> list[Row]:
    """The most that was allocated, weights and all."""
    return [
        Row(subject, f"{name} step, most that was allocated", timing.allocated / GIB, "GiB")
        for name, timing in timings.items()
        if timing.allocated
    ]


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())
