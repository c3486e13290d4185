"""GLIGEN: its networks beside diffusers', and how layouts become what it is grounded on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from einops import rearrange
from torch import Tensor

from lsregen.framework import LoadOptions
from lsregen.framework.errors import CheckpointError, ConfigError, LayoutError, PhraseError
from lsregen.framework.layout.regions import Box, Layout, Region
from lsregen.framework.sampling.taps import TapPoint, Taps
from lsregen.framework.types import Step
from lsregen.models import DiffusersFolder
from lsregen.models.networks.gligen import GatedSelfAttention
from lsregen.models.networks.unet import UNet
from lsregen.models.runtime.grounding import SLOTS
from lsregen.models.runtime.latent_diffusion import LatentDiffusion, family
from lsregen.models.weights.configs import unet_config, unet_values
from tests.models import ldm_layout as layout
from tests.models.networks.test_taps import Explicit, energy
from tests.near import TRAJECTORY, near, relative

WHOLE, SINGLE = 2e-5, 1e-4
KINDS = ("gligen", "gligen-text-image")
PROMPTS = ("a red circle and a blue circle", "a blue circle")
LAYOUTS = (
    Layout.from_boxes({"red circle": (0.1, 0.2, 0.5, 0.6), "blue circle": (0.5, 0.25, 1, 1)}),
    Layout.from_boxes({"blue circle": (0.0, 0.0, 0.3, 0.3)}),
)
FIRST, LATER = Step(2, 10, 781, 0.1, 0.2), Step(3, 10, 681, 0.2, 0.3)  # the last step that is grounded, and the one after it


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@pytest.fixture(params=KINDS)
def networks(request: pytest.FixtureRequest) -> tuple[UNet, Any]:
    """The UNet of each kind, ours and diffusers', with the same random weights."""
    torch.manual_seed(3)
    theirs = layout.unet(request.param)
    ours = UNet(unet_config(dict(theirs.config), request.param)).requires_grad_(False)
    ours.load_state_dict(theirs.state_dict())
    assert family(ours.config) == request.param
    return ours, theirs


def grounding(width: int, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Random slots, some of them empty, as arguments of our position net and of diffusers'."""
    boxes, filled = torch.rand(2, 5, 4), torch.tensor([[1.0, 1, 0, 1, 0], [0, 0, 0, 0, 0]])
    phrases = torch.randn(2, 5, width)
    ours = {"boxes": boxes, "filled": filled, "phrases": phrases}
    if kind == "text":
        return ours, {"boxes": boxes, "masks": filled, "positive_embeddings": phrases * filled[..., None]}
    images, pictured = torch.randn(2, 5, width), torch.tensor([[0.0, 1, 0, 1, 1], [0, 0, 0, 0, 0]])
    told = {"phrases_masks": filled, "image_masks": pictured, "phrases_embeddings": phrases, "image_embeddings": images}
    return {**ours, "images": images, "pictured": pictured}, {"boxes": boxes, "masks": filled, **told}


def test_networks(networks: tuple[UNet, Any]) -> None:
    ours, theirs = networks
    assert ours.position_net is not None
    given, told = grounding(ours.config.context_channels, ours.position_net.kind)
    tokens = ours.position_net(**given)
    assert error(tokens, theirs.position_net(**told)) <= WHOLE
    z, t, context = torch.randn(2, 4, 16, 24), torch.tensor([981, 7]), torch.randn(2, 7, ours.config.context_channels)
    with torch.no_grad():
        grounded = ours(z, t, context, grounding=tokens)
        assert error(grounded, theirs(z, t, context, cross_attention_kwargs={"gligen": told}).sample) <= WHOLE
        without = ours(z, t, context)
        assert error(without, theirs(z, t, context).sample) <= WHOLE
    assert error(grounded[1:], without[1:]) > 0.01  # null tokens are not nothing


def test_the_fuser_alone_on_faint_inputs(networks: tuple[UNet, Any]) -> None:
    ours, theirs = networks
    block, other = (net.down_blocks[0].attentions[0].transformer_blocks[0].fuser for net in (ours, theirs))
    assert isinstance(block, GatedSelfAttention)
    x, tokens = 1e-3 * torch.randn(2, 36, ours.config.widths[0]), 1e-3 * torch.randn(2, 5, ours.config.context_channels)
    assert error(block(x, tokens), other(x, tokens)) <= SINGLE
    for norm in (block.norm1, block.norm2):
        norm.eps = 1e-6
    assert error(block(x, tokens), other(x, tokens)) > 10 * SINGLE


def test_settings_round_trip(networks: tuple[UNet, Any]) -> None:
    config = networks[0].config
    assert unet_config(unet_values(config, 64), "written") == config


@pytest.fixture
def gligen(models: Any) -> LatentDiffusion:
    return models("gligen")


def test_only_the_first_share_of_the_steps_is_grounded(gligen: LatentDiffusion) -> None:
    z = torch.randn(2, 4, 8, 8)
    grounded, plain = (gligen.bind(PROMPTS, (), layouts, cfg=4.0, count=10) for layouts in (LAYOUTS, ()))
    assert error(grounded.predict(z, FIRST).eps, plain.predict(z, FIRST).eps) > 1e-3
    assert near(grounded.predict(z, LATER).eps, plain.predict(z, LATER).eps)
    views = [denoiser.observe(z, FIRST, Taps((), full=True)) for denoiser in (grounded, plain)]
    assert error(views[0].eps, views[1].eps) > 1e-3


def test_the_unconditional_branch_sees_null_tokens(gligen: LatentDiffusion, oracles: Any) -> None:
    bound = gligen.bind(PROMPTS, (), LAYOUTS, cfg=4.0, count=10)
    pipe = oracles("gligen").pipe
    empty = {"boxes": torch.zeros(2, SLOTS, 4), "masks": torch.zeros(2, SLOTS)}
    expected = pipe.unet.position_net(**empty, positive_embeddings=torch.zeros(2, SLOTS, 32))
    assert bound.unconditional is not None
    assert bound.unconditional.grounding is not None
    assert error(bound.unconditional.grounding, expected) <= WHOLE


def told_to(pipe: Any, layouts: tuple[Layout, ...]) -> dict[str, Tensor]:
    """What the position net of diffusers is told of layouts."""
    told = {"boxes": (4,), "masks": (), "positive_embeddings": (32,)}
    slots = {name: torch.zeros(len(layouts), SLOTS, *shape) for name, shape in told.items()}
    for i, one in enumerate(layouts):
        words = pipe.tokenizer([region.phrase for region in one.boxed], padding=True, return_tensors="pt")
        slots["positive_embeddings"][i, : len(one.boxed)] = pipe.text_encoder(**words).pooler_output
        for j, region in enumerate(one.boxed):
            assert region.box is not None
            slots["boxes"][i, j], slots["masks"][i, j] = torch.tensor(region.box.xyxy), 1
    return slots


def test_phrases_are_pooled_without_a_projection(gligen: LatentDiffusion, oracles: Any) -> None:
    pipe = oracles("gligen").pipe
    assert gligen.grounder is not None
    assert error(gligen.grounder.tokens(LAYOUTS), pipe.unet.position_net(**told_to(pipe, LAYOUTS))) <= WHOLE


def test_maps_and_gradients_of_a_grounded_pass_are_those_of_explicit_attention(gligen: LatentDiffusion, oracles: Any) -> None:
    oracle = oracles("gligen")
    unet, kept, told = oracle.pipe.unet, dict[str, Tensor](), told_to(oracle.pipe, LAYOUTS)
    start, bound = torch.randn(2, 4, 8, 12), gligen.bind(PROMPTS, (), LAYOUTS, cfg=4.0, count=10)
    points = [TapPoint(layer.name, kind) for layer in gligen.unet.layers for kind in ("cross_probs", "self_probs")]
    paths = {point: f"{point.layer}.{'attn2' if point.kind == 'cross_probs' else 'attn1'}" for point in points}
    before = unet.attn_processors
    unet.set_attn_processor({path: Explicit(path.removesuffix(".processor"), kept) for path in before})
    try:
        theirs = start.clone().requires_grad_()
        with torch.enable_grad():
            unet(theirs, FIRST.t, oracle.encode(PROMPTS)[0], cross_attention_kwargs={"gligen": told})
    finally:
        unet.set_attn_processor(before)
    z = start.clone().requires_grad_()
    view = bound.observe(z, FIRST, Taps(points))
    expected = {p: rearrange(kept[paths[p]], "(b n) (h w) k -> b n k h w", b=2, w=view[p].shape[-1]) for p in points}
    assert max(error(view[p], expected[p]) for p in points) <= WHOLE
    last = [p for p in points if p.kind == "cross_probs"][-3:]  # every fuser comes before them
    ours, wanted = (
        torch.autograd.grad(energy({str(p): maps[p] for p in last}), leaf)[0] for maps, leaf in ((view, z), (expected, theirs))
    )
    assert relative(ours, wanted) <= TRAJECTORY


def test_samples_with_their_own_boxes_do_not_mix(gligen: LatentDiffusion) -> None:
    z = torch.randn(2, 4, 8, 8)
    both = gligen.bind(PROMPTS, (), LAYOUTS, cfg=4.0, count=10)
    together = both.predict(z, FIRST).eps
    for i in range(2):
        alone = gligen.bind(PROMPTS[i : i + 1], (), LAYOUTS[i : i + 1], cfg=4.0, count=10)
        assert error(alone.predict(z[i : i + 1], FIRST).eps, together[i : i + 1]) <= 1e-5
        assert error(both.select([i]).predict(z[i : i + 1], FIRST).eps, together[i : i + 1]) <= 1e-5


def test_a_phrase_is_told_without_the_number_of_its_occurrence(gligen: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    told = list[tuple[str, ...]]()
    assert gligen.grounder is not None
    tokens = gligen.grounder.tokens

    def watched(layouts: Sequence[Layout]) -> Tensor:
        told.extend(layout.phrases for layout in layouts)
        return tokens((Layout(),) * len(layouts))  # this tokenizer does not know "#"

    monkeypatch.setattr(gligen.grounder, "tokens", watched)
    layouts = [Layout.from_boxes({phrase: (0.1, 0.1, 0.6, 0.6)}) for phrase in ("circle#2", "bus #2")]
    gligen.bind(["a circle and a circle", "a bus #2"], (), layouts, cfg=1, count=10)
    assert told == [("circle",), ("bus #2",)]  # a number that the prompt says itself is a word


def test_maps_of_a_grounded_pass(gligen: LatentDiffusion) -> None:
    """Taps see the text's attention, not the fuser's; a pass that stops early is the beginning of a full one."""
    z, bound = torch.randn(2, 4, 8, 8), gligen.bind(PROMPTS, (), LAYOUTS, cfg=4.0, count=10)
    points = [TapPoint(layer.name, kind) for layer in gligen.unet.layers for kind in ("cross_probs", "self_probs")]
    full = bound.observe(z, FIRST, Taps(points, full=True))
    plain = gligen.bind(PROMPTS, (), (), cfg=4.0, count=10).observe(z, FIRST, Taps(points))
    for point in points:
        keys = gligen.text.length if point.kind == "cross_probs" else full[point].shape[-2] * full[point].shape[-1]
        assert full[point].shape[2] == keys
        assert error(bound.observe(z, FIRST, Taps([point]))[point], full[point]) <= 1e-5
    assert error(full[points[-2]], plain[points[-2]]) > 1e-5


def test_a_mask_stands_for_its_bounding_box(gligen: LatentDiffusion) -> None:
    mask = torch.zeros(10, 20)
    mask[2:5, 4:16] = 0.8
    mask[5, :] = 0.1  # below half its peak
    masked = Layout((Region("red circle", mask=mask), Region("blue circle")))
    boxed = Layout((Region("red circle", Box(0.2, 0.2, 0.8, 0.5)),))
    assert gligen.grounder is not None
    assert error(gligen.grounder.tokens([masked]), gligen.grounder.tokens([boxed])) <= 1e-6


def test_what_cannot_be_grounded(gligen: LatentDiffusion) -> None:
    many = Layout(tuple(Region("red circle", Box(0.0, 0.0, 0.5, 0.5)) for _ in range(SLOTS + 1)))
    with pytest.raises(LayoutError, match="31 boxes in a layout: GLIGEN takes at most 30"):
        gligen.bind(PROMPTS[:1], (), (many,), cfg=4.0, count=10)
    long = Layout((Region("a red circle " * 6, Box(0.0, 0.0, 0.5, 0.5)),))
    with pytest.raises(PhraseError, match="too long for 16 tokens, from 'circle a red circle"):
        gligen.bind(PROMPTS[:1], (), (long,), cfg=4.0, count=10)
    foreign = Layout((Region("red 円", Box(0.0, 0.0, 0.5, 0.5)),))
    with pytest.raises(PhraseError, match="phrase 'red 円': the model that sees boxes has no token for '円'"):
        gligen.bind(PROMPTS[:1], (), (foreign,), cfg=4.0, count=10)


def test_the_share_of_grounded_steps(oracles: Any, copied: Any, models: Any) -> None:
    def steps(model: Any) -> int:
        return model.bind(PROMPTS[:1], (), LAYOUTS[:1], cfg=4.0, count=10).grounded_steps

    folder = oracles("gligen").folder
    assert steps(models("gligen")) == 3
    assert steps(DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32", grounding=0.55))) == 5
    whole = copied(folder, "lsregen.json", {"grounding": 1})
    assert steps(DiffusersFolder().load(whole, LoadOptions(device="cpu", dtype="fp32"))) == 10
    with pytest.raises(ConfigError, match=r"grounding: 1\.5 is out of range; expected a number from 0 to 1"):
        DiffusersFolder().load(folder, LoadOptions(device="cpu", dtype="fp32", grounding=1.5))
    said = r"grounding is 0\.3, the share .* this model \(sd1\) does not see boxes; leave the option out, or name a GLIGEN model$"
    with pytest.raises(CheckpointError, match=said):
        DiffusersFolder().load(oracles("sd1").folder, LoadOptions(device="cpu", dtype="fp32", grounding=0.3))
