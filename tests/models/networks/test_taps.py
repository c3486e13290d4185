"""What a pass records, that recording changes nothing, and that a pass that stops early is the beginning of a full one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.framework.errors import ConfigError
from lsregen.framework.sampling.taps import TAP_KINDS, TapPoint, Taps
from lsregen.framework.types import Step
from lsregen.models import DiffusersFolder
from lsregen.models.networks.checkpointing import MEMORY, set_memory
from lsregen.models.networks.transformer import TransformerBlock
from lsregen.models.runtime.latent_diffusion import BoundDenoiser, LatentDiffusion
from tests.near import near

PROMPTS = ("a red circle and a blue circle", "red")


class Explicit:
    """An attention processor of diffusers that computes probabilities explicitly, and keeps them."""

    def __init__(self, name: str, kept: dict[str, Tensor]) -> None:
        self.name, self.kept = name, kept

    def __call__(self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: Any) -> Tensor:
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        q, k, v = (
            attn.head_to_batch_dim(projection(x))
            for projection, x in ((attn.to_q, hidden_states), (attn.to_k, source), (attn.to_v, source))
        )
        probs = self.kept[self.name] = attn.get_attention_scores(q, k)
        return attn.to_out[0](attn.batch_to_head_dim(probs @ v))


def explicit_pass(oracle: Any, z: Tensor, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """The output and all attention probabilities `[(b heads) p t]` of diffusers' UNet, by the path of the attention."""
    unet = oracle.pipe.unet
    kept: dict[str, Tensor] = {}
    before = unet.attn_processors
    names = {path: path.removesuffix(".processor") for path in before}
    unet.set_attn_processor({path: Explicit(name, kept) for path, name in names.items()})
    try:
        return oracle.unet(z, step, PROMPTS), kept
    finally:
        unet.set_attn_processor(before)


def points(model: LatentDiffusion, *kinds: str) -> list[TapPoint]:
    return [TapPoint(layer.name, kind) for layer in model.unet.layers for kind in kinds]


def latents(model: LatentDiffusion, grid: tuple[int, int] = (8, 12)) -> Tensor:
    return torch.randn(2, model.latent_channels, *grid)


def bound(model: LatentDiffusion, cfg: float = 4.0) -> BoundDenoiser:
    return model.bind(PROMPTS, (), (), cfg=cfg, count=10)


def energy(maps: dict[str, Tensor]) -> Tensor:
    """Something that depends on where the first words look. `maps`: `[b heads t h w]`."""
    left = {name: m[:, :, 1:4, :, : m.shape[-1] // 2].sum() / m[:, :, 1:4].sum() for name, m in maps.items()}
    return sum(((1 - share) ** 2 for share in left.values()), torch.zeros(()))


def test_recording_changes_nothing(model: LatentDiffusion, step: Step) -> None:
    """Every tap point alone, at its block, on what reaches the block in a pass; then all of them at once, in a whole pass."""
    z, told, t = latents(model), bound(model).conditional, torch.full((2,), step.t)
    context, added = told.context, model.added(told, z)
    inputs: dict[str, tuple[Any, ...]] = {}
    blocks = {name: module for name, module in model.unet.named_modules() if isinstance(module, TransformerBlock)}
    handles = [
        block.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: given}))
        for name, block in blocks.items()
    ]
    untapped = model.unet(z, t, context, added)
    for handle in handles:
        handle.remove()
    assert set(inputs) == {layer.name for layer in model.unet.layers}
    for point in points(model, *TAP_KINDS):
        x, _, grid, *_ = inputs[point.layer]
        taps = Taps([point], full=True)
        tapped = blocks[point.layer](x, context, grid, taps)
        assert taps[point].shape[-2:] == grid
        assert (tapped - blocks[point.layer](x, context, grid)).abs().max() <= 1e-5, point
    everywhere = model.unet.observe(z, t, context, Taps(points(model, *TAP_KINDS), full=True), added)
    assert (everywhere - untapped).abs().max() <= 1e-5


def test_maps_are_those_of_explicit_attention(oracle: Any, model: LatentDiffusion, step: Step) -> None:
    z = latents(model)
    view = bound(model).observe(z, step, Taps(points(model, *TAP_KINDS)))
    _, explicit = explicit_pass(oracle, z, step)
    assert len(explicit) == 2 * len(model.unet.layers)
    for layer in model.unet.layers:
        for kind, path in (("self_probs", "attn1"), ("cross_probs", "attn2")):
            ours = view[TapPoint(layer.name, kind)]
            assert ours.shape[:2] == (2, layer.heads)
            assert ours.shape[-2:] == (-(-8 // layer.downscale), -(-12 // layer.downscale))
            theirs = rearrange(explicit[f"{layer.name}.{path}"], "(b heads) p t -> b heads t p", b=2)
            assert near(rearrange(ours, "b heads t h w -> b heads t (h w)"), theirs)
        logits, probs = view[TapPoint(layer.name, "cross_logits")], view[TapPoint(layer.name, "cross_probs")]
        assert (logits.softmax(dim=2) - probs).abs().max() <= 1e-6


@pytest.mark.parametrize("kind", TAP_KINDS)
def test_a_stopped_pass_is_the_beginning_of_a_full_one(model: LatentDiffusion, step: Step, kind: str) -> None:
    denoiser, z = bound(model), latents(model)
    full = denoiser.observe(z, step, Taps(points(model, kind), full=True))
    for point in points(model, kind)[1::6]:
        stopped = denoiser.observe(z, step, Taps([point]))
        # The full pass computes every layer's attention explicitly, the stopped one only the last layer's.
        assert (stopped[point] - full[point]).abs().max() <= 1e-5
        with pytest.raises(ConfigError, match="did not predict"):
            stopped.prediction  # noqa: B018


def test_a_stopped_pass_computes_nothing_after_its_last_map(base: LatentDiffusion, step: Step) -> None:
    ran: list[str] = []
    handles = [module.register_forward_hook(lambda *_, n=name: ran.append(n)) for name, module in base.unet.named_modules()]
    try:
        first = base.unet.layers[0].name
        bound(base).observe(latents(base), step, Taps([TapPoint(first, "cross_probs")]))
    finally:
        for handle in handles:
            handle.remove()
    assert ran[-1] == f"{first}.attn2.to_k"
    assert not any(name.startswith(("mid_block", "up_blocks", "conv_out")) for name in ran)


def test_gradients_agree(oracle: Any, step: Step) -> None:
    """With diffusers' explicit attention and a whole graph, by layers from all over the network, in every memory mode."""
    model = oracle.load()
    denoiser, start = bound(model), latents(model)
    chosen = points(model, "cross_probs")[::3]

    def gradient(taps: Taps) -> Tensor:
        z = start.clone().requires_grad_()
        with torch.no_grad():  # the sampling loop runs like this
            view = denoiser.observe(z, step, taps)
        (grad,) = torch.autograd.grad(energy({str(point): view[point] for point in chosen}), z)
        return grad

    z = start.clone().requires_grad_()
    with torch.enable_grad():
        _, explicit = explicit_pass(oracle, z, step)
        width = {layer.name: -(-12 // layer.downscale) for layer in model.unet.layers}
        maps = {
            str(p): rearrange(explicit[f"{p.layer}.attn2"], "(b heads) (h w) t -> b heads t h w", b=2, w=width[p.layer])
            for p in chosen
        }
        (theirs,) = torch.autograd.grad(energy(maps), z)
    assert theirs.abs().max() > 0
    for memory in MEMORY:
        set_memory(model.unet, memory)
        for taps in (Taps(chosen), Taps(chosen, full=True), Taps(points(model, *TAP_KINDS))):
            assert (gradient(taps) - theirs).norm() <= 1e-4 * theirs.norm(), (memory, taps.full)


def test_tapped_attention_is_in_full_precision(oracles: Any, step: Step) -> None:
    model = DiffusersFolder().load(oracles("base").folder, LoadOptions(device="cpu", dtype="fp16"))
    assert isinstance(model, LatentDiffusion)
    wanted = points(model, "cross_logits", "cross_probs")
    with torch.no_grad():
        view = bound(model).observe(latents(model), step, Taps(wanted))
    assert {view[point].dtype for point in wanted} == {torch.float32}
    for layer in model.unet.layers:
        logits, probs = view[TapPoint(layer.name, "cross_logits")], view[TapPoint(layer.name, "cross_probs")]
        assert (probs.sum(dim=2) - 1).abs().max() <= 1e-6  # one rounded to half would miss it by a hundred times that
        assert (logits.softmax(dim=2) - probs).abs().max() <= 1e-6


def test_weights_are_frozen_and_the_prediction_is_differentiable(model: LatentDiffusion, step: Step) -> None:
    for network in (model.unet, model.autoencoder, *(encoder.network for encoder in model.text.encoders)):
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.training
    z = latents(model).requires_grad_()
    view = bound(model).observe(z, step, Taps((), full=True))
    (grad,) = torch.autograd.grad(view.image().square().sum() + view.eps.square().sum(), z)
    assert grad.abs().max() > 0


def test_nothing_wanted_runs_no_network(base: LatentDiffusion, step: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    denoiser = bound(base)
    monkeypatch.setattr(base, "unet", None)
    z = latents(base)
    view = denoiser.observe(z, step, Taps(()))
    assert view.z is z
    assert view.layers == denoiser.layers


def test_a_layer_that_is_not_there(base: LatentDiffusion, step: Step) -> None:
    with pytest.raises(ConfigError, match=r"down_blocks\.7.*has no such layer; it has .*down_blocks\.1\.attentions\.0"):
        bound(base).observe(latents(base), step, Taps([TapPoint("down_blocks.7", "hidden")]))
