"""Every preset, every family of models and every dial on a device that is not the CPU: nothing is made on the wrong one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from lsregen.framework import Layout, Pipeline, Region, presets
from lsregen.framework.config.presets import load_preset
from lsregen.framework.events import StepReport
from tests.card import CARD, OtherDevice, a_card

PROMPT = "a red circle and a blue square"
BOXES = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})
# What renders takes few steps, and there is one refinement instead of twenty, which would be more of the same.
SHORT = {
    "small": "guidance.small.extractor.source={model: shapeworld-gligen, steps: 4}",
    "semantic": "guidance.semantic.refine={0.0: [0.95, 1]}",
    "boxes": "guidance.boxes.refine={0.0: [0.95, 1]}",
}


@pytest.fixture
def card() -> Iterator[None]:
    with a_card():
        yield


def seen(pipeline: Pipeline, prompt: Any = PROMPT, **options: Any) -> set[torch.device]:
    """Make images, and say where the latents and the predictions of every step were."""
    found: set[torch.device] = set()

    def look(report: StepReport) -> None:
        tensors = (report.z, report.z_next, report.prediction.eps, report.prediction.z0)
        found.update(tensor.device for tensor in tensors)
        assert {energy.device.type for energy in report.energies.values()} <= {"cpu"}

    result = pipeline(prompt, **{"steps": 2, "seed": 0, "on_step": look, **options})
    assert result.report.device == str(CARD)
    assert len(result.images) == (1 if isinstance(prompt, str) and "count" not in options else 2)
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("name", sorted(presets()))
def test_a_preset_computes_on_the_card_alone(name: str) -> None:
    preset = load_preset(name)
    sets = [SHORT[term] for term, given in preset["guidance"].items() if term == "small" or "refine" in given]
    pipeline = Pipeline.load(preset.get("model") or "shapeworld-base", device="cuda", dtype="fp32")
    assert seen(pipeline, layout=BOXES, guidance=name, count=2, steps=4, sets=sets) == {CARD}


@pytest.mark.slow
@pytest.mark.usefixtures("card")
@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "gligen"])
@pytest.mark.parametrize(
    "options",
    [{}, {"offload": True, "memory": "low"}, {"tiling": "on", "tile": 16}],
    ids=["plain", "offload", "tiling"],
)
def test_a_family_computes_on_the_card_alone(oracles: Callable[[str], Any], family: str, options: dict[str, Any]) -> None:
    pipeline = Pipeline.load(oracles(family).folder, device="cuda", dtype="fp32", **options)
    rows = torch.zeros(8, 8)
    rows[2:6, 1:4] = 1
    layouts = [Layout((Region("red circle", mask=rows),)), Layout.from_boxes({"blue circle": (0.2, 0.1, 0.7, 0.8)})]
    start = Image.fromarray(np.full((64, 64, 3), 90, np.uint8))
    found = seen(
        pipeline,
        ["a red circle", "a blue circle"],
        layout=layouts,
        negative=["a blue circle", ""],
        guidance="layout-guidance",
        size=(64, 64),
        init_image=start,
        strength=1.0,
        trace=1,
    )
    assert found == {CARD}


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    "sets",
    [
        ["sampler={name: ddim, eta: 1}", "guidance.layout.site=after"],
        ["sampler={name: ddpm}", "guidance.layout.site=noise", "cfg=1"],
        ["guidance.layout.site=z0", "guidance.layout.repeats=1", "guidance.layout.normalise=rms"],
        ["guidance.layout.extractor={name: cross_attention, drop: specials, renormalise: sum, pieces: max}"],
        ["guidance.layout.extractor={name: segmentation, best: 1}", "guidance.layout.distance={name: l2, raster: round}"],
        [
            "guidance.layout.extractor={name: gligen_inversion, source: {model: shapeworld-gligen, steps: 4}, noise: fresh, "
            "mask: boxes, low_pass: 1, init_from_target: true}",
            "guidance.layout.distance=l2",
        ],
    ],
    ids=["after", "noise", "z0", "renormalised", "segmentation", "gligen_inversion"],
)
def test_samplers_sites_and_extractors_compute_on_the_card_alone(sets: list[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    pipeline = Pipeline.load("shapeworld-base", device="cuda", dtype="fp32")
    config: dict[str, Any] = {**load_preset("layout-guidance")}
    term = dict(config["guidance"]["layout"], repeats=1)
    for key in ("stop_below", "stop_forever"):
        term.pop(key)
    assert seen(pipeline, layout=BOXES, guidance={"guidance": {"layout": term}}, count=2, sets=sets) == {CARD}


# ---- the card itself ----


@pytest.mark.usefixtures("card")
@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, there: here + there,
        lambda here, there: here.mul_(there),
        lambda here, there: torch.cat([here, there]),
        lambda here, there: torch.stack([here, there.sum().expand(3)]),
        lambda here, there: here[there.long()],
        lambda here, there: F.mse_loss(here, there),
        lambda here, there: torch.where(there > 0, here, here),
        lambda here, there: there.numpy(),
        lambda here, there: np.asarray(there),
        lambda here, there: torch.randn(3, device=CARD, generator=torch.Generator()),
        lambda here, there: here + there.sum(),
        lambda here, there: torch.zeros(3) + torch.ones_like(there),
        lambda here, there: torch.arange(3) + there.new_tensor([1.0]),
    ],
)
def test_a_card_refuses_tensors_of_two_devices(mixed: Callable[[Tensor, Tensor], object]) -> None:
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    with pytest.raises(OtherDevice):
        mixed(here, there)


@pytest.mark.usefixtures("card")
def test_a_card_takes_what_a_real_one_takes() -> None:
    there = torch.arange(3.0, device="cuda")
    assert (there.device, there.is_cuda, there.cpu().is_cuda) == (CARD, True, False)
    assert (there * torch.tensor(2.0)).device == CARD  # a single number of the CPU
    assert there[torch.tensor([2, 0])].device == CARD  # an index of the CPU
    assert there[1:].reshape(1, 2).device == CARD
    assert there.to("cpu", torch.float64).numpy().tolist() == [0, 1, 2]
    assert torch.zeros(3).copy_(there).device == torch.device("cpu")
    assert torch.zeros(3).to(there).device == torch.empty_like(there).device == CARD
    assert torch.nn.Linear(2, 2).to("cuda").weight.device == CARD


@pytest.mark.usefixtures("card")
def test_a_gradient_comes_back_to_where_its_leaf_is() -> None:
    leaf = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad((leaf.to("cuda") * torch.ones(3, device="cuda")).sum(), leaf)
    assert gradient.device == torch.device("cpu")
    there = torch.ones(3, device="cuda", requires_grad=True)
    (gradient,) = torch.autograd.grad(there.square().sum(), there)
    assert gradient.device == CARD


def test_there_is_no_card_afterwards() -> None:
    with a_card():
        tensor = torch.ones(3, device="cuda")
    assert tensor.device == torch.device("cpu")
