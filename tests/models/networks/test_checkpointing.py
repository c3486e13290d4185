"""The memory dial: the same gradient in every setting, less kept in each, and passes that still end early."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.framework.errors import ConfigError
from lsregen.framework.layout.regions import Layout
from lsregen.framework.sampling.taps import TAP_KINDS, TapPoint, Taps
from lsregen.framework.types import Step
from lsregen.models import DiffusersFolder
from lsregen.models.networks.checkpointing import MEMORY, Recomputed, set_memory
from lsregen.models.runtime.latent_diffusion import BoundDenoiser, LatentDiffusion

pytestmark = pytest.mark.slow

PROMPTS = ("a red circle and a blue circle", "red")
LAYOUT = Layout.from_boxes({"red": (0.1, 0.1, 0.5, 0.6)})
STEP = Step(0, 10, 901, 0.05, 0.1)  # grounded, where there is grounding
TOLERANCE = 1e-4


@pytest.fixture
def bound(oracle: Any) -> BoundDenoiser:
    """Of each family in turn, a model of its own, whose dial may be turned."""
    return oracle.load().bind(PROMPTS, (), (LAYOUT, LAYOUT), cfg=4.0, count=10)


def points(model: LatentDiffusion, *kinds: str) -> list[TapPoint]:
    return [TapPoint(layer.name, kind) for layer in model.unet.layers for kind in kinds]


def energy_of(bound: BoundDenoiser, z: Tensor, taps: Taps) -> Tensor:
    view = bound.observe(z, STEP, taps)
    left = [view[point][..., : view[point].shape[-1] // 2].square().mean() for point in sorted(taps.wanted)]
    total = torch.stack(left).sum() if left else torch.zeros(())
    return total + view.eps.square().mean() if taps.full else total


def measured(bound: BoundDenoiser, memory: str, z: Tensor, taps: list[TapPoint], *, full: bool) -> tuple[Tensor, Tensor, int]:
    """The energy, its gradient, and the bytes kept for the backward."""
    set_memory(bound.model.unet, memory)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    leaf = z.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        energy = energy_of(bound, leaf, Taps(taps, full=full))
    weights = {parameter.untyped_storage().data_ptr() for parameter in bound.model.unet.parameters()}
    (gradient,) = torch.autograd.grad(energy, leaf)
    return energy.detach(), gradient, sum(size for place, size in kept.items() if place not in weights)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("kinds", [("cross_probs",), TAP_KINDS], ids=["cross_probs", "all kinds"])
def test_the_gradient_is_that_of_the_plain_graph(bound: BoundDenoiser, full: bool, kinds: tuple[str, ...]) -> None:
    z, model = torch.randn(2, bound.model.latent_channels, 8, 12), bound.model
    for module in model.unet.modules():
        if isinstance(module, Recomputed):
            module.recomputed = False
    taps = points(model, *kinds)
    leaf = z.clone().requires_grad_()
    plain = energy_of(bound, leaf, Taps(taps, full=full))
    (expected,) = torch.autograd.grad(plain, leaf)
    assert expected.abs().max() > 0
    for memory in MEMORY:
        energy, gradient, _ = measured(bound, memory, z, taps, full=full)
        assert torch.allclose(energy, plain.detach(), rtol=1e-6)
        assert (gradient - expected).norm() <= TOLERANCE * expected.norm(), memory


def test_a_pass_that_stops_keeps_its_gradient(bound: BoundDenoiser) -> None:
    """One point alone, early, in the middle or late, recorded inside a block that is computed again."""
    z = torch.randn(2, bound.model.latent_channels, 8, 12)
    for point in points(bound.model, *TAP_KINDS)[:: max(1, len(bound.model.unet.layers) // 2)]:
        results = [measured(bound, memory, z, [point], full=False) for memory in MEMORY]
        for _, gradient, _ in results[1:]:
            assert (gradient - results[0][1]).norm() <= TOLERANCE * results[0][1].norm()


def test_nothing_after_the_last_point_is_computed(bound: BoundDenoiser) -> None:
    set_memory(bound.model.unet, "low")
    first = bound.model.unet.layers[0]
    ran: list[str] = []
    for name, module in bound.model.unet.named_modules():
        module.register_forward_hook(lambda *_, name=name: ran.append(name))
    leaf = torch.randn(2, bound.model.latent_channels, 8, 12).requires_grad_()
    bound.observe(leaf, STEP, Taps([TapPoint(first.name, "cross_probs")]))
    assert f"{first.name}.attn2.to_k" in ran
    assert f"{first.name}.attn2.to_v" not in ran
    assert f"{first.name}.ff" not in ran
    assert not any(name.startswith("up_blocks") for name in ran)


def test_less_is_kept_in_each_setting(bound: BoundDenoiser) -> None:
    z = torch.randn(2, bound.model.latent_channels, 16, 16)
    kept = [measured(bound, memory, z, points(bound.model, "cross_probs"), full=True)[2] for memory in MEMORY]
    assert kept[0] > 1.1 * kept[1]
    assert kept[1] > 1.5 * kept[2]


def test_the_gradient_through_the_autoencoder(base: LatentDiffusion) -> None:
    z = torch.randn(1, base.latent_channels, 8, 8)
    found: list[Tensor] = []
    for memory in MEMORY:
        set_memory(base.autoencoder, memory)
        leaf = z.clone().requires_grad_()
        found.append(torch.autograd.grad(base.decode(leaf).square().sum(), leaf)[0])
    set_memory(base.autoencoder, "fast")
    for gradient in found[1:]:
        assert (gradient - found[0]).norm() <= TOLERANCE * found[0].norm()


def test_the_dial_is_an_option_of_loading(oracles: Any) -> None:
    def settings(**options: Any) -> set[str]:
        model: Any = DiffusersFolder().load(oracles("base").folder, LoadOptions(device="cpu", dtype="fp32", **options))
        return {type(m).__name__ for m in model.unet.modules() if isinstance(m, Recomputed) and m.recomputed}

    assert settings() == {"GEGLU"}
    assert settings(memory="balanced") == {"FeedForward", "Activation"}
    assert settings(memory="low") == {"ResnetBlock", "TransformerBlock"}
    with pytest.raises(ConfigError, match=r"memory: 'lo' is not one of fast, balanced, low \(did you mean 'low'\?\)"):
        settings(memory="lo")
