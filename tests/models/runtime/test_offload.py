"""Offload: which networks are on the device when, and that everything comes out the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lsregen.distances.l2 import L2
from lsregen.extractors.gligen_inversion import GligenInversion
from lsregen.framework import Guidance, Layout, Pipeline, Plugins, Schedule, Term
from lsregen.framework.sampling.taps import Taps
from lsregen.framework.types import Step
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.runtime.offload import Stages
from tests.near import PARITY, TRAJECTORY, relative

pytestmark = pytest.mark.slow

PROMPTS = ("a red circle", "a blue circle")
LAYOUTS = (Layout.from_boxes({"red circle": (0.1, 0.1, 0.6, 0.6)}), Layout())
STEP = Step(0, 4, 901, 0.1, 0.3)


def offloaded(model: LatentDiffusion) -> LatentDiffusion:
    """The same model, its networks at home; the device is the same too, but what is brought to it is a copy."""
    networks = model._networks()  # pyright: ignore[reportPrivateUsage]
    model.stages = Stages(torch.device("cpu"), networks)
    return model


def watched(model: LatentDiffusion) -> list[tuple[str, set[str]]]:
    """Fills with the networks that run, and those that have copies on the device at that moment."""
    parts: dict[str, nn.Module] = {"text": model.text.encoders[0].network, "unet": model.unet, "vae": model.autoencoder.decoder}
    home = {name: set(map(id, part.parameters())) for name, part in parts.items()}
    seen = list[tuple[str, set[str]]]()

    def look(name: str) -> None:
        seen.append((name, {other for other, part in parts.items() if not home[other] & set(map(id, part.parameters()))}))

    parts["text"].register_forward_pre_hook(lambda *_: look("text"))
    parts["unet"].get_submodule("conv_in").register_forward_pre_hook(lambda *_: look("unet"))
    parts["vae"].register_forward_pre_hook(lambda *_: look("vae"))
    return seen


@pytest.mark.parametrize("name", ["sdxl", "gligen"])
def test_one_network_at_a_time_and_the_same_numbers(oracles: Any, name: str) -> None:
    plain, model = oracles(name).load(), offloaded(oracles(name).load())
    # Of 8x8 a single cell is left at the coarsest level: a norm would divide by a difference of two values.
    seen, z = watched(model), torch.randn(2, 4, 16, 16)
    picture = torch.rand(2, 3, 64, 64)

    def run(model: LatentDiffusion) -> Sequence[Tensor]:
        bound = model.bind(PROMPTS, (), LAYOUTS, cfg=4.0, count=4)
        eps = bound.predict(z, STEP).eps
        view = bound.observe(z, STEP, Taps((), full=True))
        with torch.no_grad():
            return eps, view.eps, model.decode(z), model.encode_image(picture), bound.predict(z, STEP).eps

    for ours, theirs in zip(run(model), run(plain), strict=True):
        assert relative(ours, theirs) <= PARITY
    assert {name for name, _ in seen} == {"text", "unet", "vae"}
    assert all(there == {name} for name, there in seen)
    model.stages.leave()
    assert torch.equal(model.unet.conv_in.weight, plain.unet.conv_in.weight)
    assert not model.stages.resident


@pytest.mark.parametrize("memory", ["fast", "low"])
def test_a_gradient_through_two_stages(oracles: Any, memory: str) -> None:
    """Of the decoded picture: both networks stay, also where the backward computes their insides again."""
    folder, z = oracles("sd1").folder, torch.randn(1, 4, 8, 8)
    grads = list[Tensor]()
    for change in (lambda model: model, offloaded):
        loaded = Pipeline.load(folder, device="cpu", dtype="fp32", memory=memory).model
        assert isinstance(loaded, LatentDiffusion)
        model = change(loaded)
        bound, leaf = model.bind(PROMPTS[:1], (), (), cfg=4.0, count=4), z.clone().requires_grad_()
        view = bound.observe(leaf, STEP, Taps((), full=True))
        energy = view.image().square().mean()
        bound.predict(z, STEP)
        grads += torch.autograd.grad(energy, leaf)
    assert relative(*grads) <= TRAJECTORY
    assert float(grads[0].abs().max()) > 0
    assert model.stages.resident == {"noise", "pictures"}
    model.decode(z)
    assert model.stages.resident == {"pictures"}
    model.bind(PROMPTS[:1], (), (), cfg=4.0, count=4)
    assert model.stages.resident == {"texts"}


def test_a_render_finds_the_device_free(oracles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The large model's networks are off the device while the small one is on it, and come back afterwards."""
    large, small = offloaded(oracles("sdxl").load()), oracles("sd1").load()
    resident: list[set[str]] = []

    def load(*_: Any, **__: Any) -> LatentDiffusion:
        resident.append(set(large.stages.resident))
        return small

    pipeline, source = Pipeline(large), GligenInversion(source={"steps": 1, "size": [16, 16]}, noise="shared")
    monkeypatch.setattr(Plugins, "load_model", load)
    guidance = Guidance([Term(source, L2(), Schedule(blend=0.5))])
    assert pipeline("a red circle", guidance=guidance, steps=2, size=large.default_size).renders
    assert resident == [set()]
    assert large.stages.resident == {"pictures"}


def test_on_the_cpu_there_is_nothing_to_move(oracles: Any) -> None:
    model = Pipeline.load(oracles("sd1").folder, device="cpu", dtype="fp32", offload=True).model
    assert isinstance(model, LatentDiffusion)
    weight = model.unet.conv_in.weight
    model.bind(PROMPTS[:1], (), (), cfg=1.0, count=4).predict(torch.randn(1, 4, 8, 8), STEP)
    assert model.unet.conv_in.weight is weight


def test_networks_are_loaded_at_home(oracles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another device the model says that it computes there, while its weights are not there yet."""
    monkeypatch.setattr("lsregen.models.runtime.assemble.resolve", lambda device, dtype: (torch.device("meta"), torch.float32))
    model = Pipeline.load(oracles("gligen").folder, device="cpu", offload=True).model
    assert isinstance(model, LatentDiffusion)
    assert model.device == torch.device("meta")
    assert {p.device.type for network in (model.unet, model.autoencoder) for p in network.parameters()} == {"cpu"}
    model.stages.enter("noise")
    assert {p.device.type for p in model.unet.parameters()} == {"meta"}
    assert {p.device.type for p in model.autoencoder.parameters()} == {"cpu"}
    model.stages.enter("texts")
    text = model.text.encoders[0].network
    assert {t.device.type for t in (*text.parameters(), *text.buffers())} == {"meta"}
    assert {p.device.type for p in model.unet.down_blocks.parameters()} == {"cpu"}
