"""The recipe of the large model: its three networks learn, from the base's weights, and what is exported is ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lsregen.framework import LoadOptions
from lsregen.models import EMBEDDED, DiffusersFolder
from recipes.shapeworld import export_large, train_autoencoder
from recipes.shapeworld import train_large as recipe
from recipes.shapeworld.latents import LARGE_PATCH, LatentSpace, latent_space
from recipes.shapeworld.training import generator
from recipes.shapeworld.words import save_tokenizer
from tests.near import near
from tests.recipes.conftest import FEW, Starter, check_model, check_updates

pytestmark = pytest.mark.slow

# The UNet sees the layer before the last of the first encoder, and nothing its pooled text.
IDLE = (f"text.encoder.layers.{recipe.LAYERS - 1}.", "text.final_layer_norm.")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    save_tokenizer(folder := tmp_path_factory.mktemp("tokenizer"))
    return recipe.CLIPTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def space(start: Starter) -> LatentSpace:
    return latent_space(start.images, LARGE_PATCH)


@pytest.fixture(scope="module")
def model(tokenizer: Any) -> recipe.Captioned:
    torch.manual_seed(0)
    return recipe.Captioned(recipe.UNet(recipe.UNET), *recipe.text_encoders(tokenizer)).eval()


@pytest.fixture(scope="module")
def batches(start: Starter, space: LatentSpace, tokenizer: Any) -> recipe.Batches:
    return recipe.Batches(start.images, space, tokenizer, FEW)


@pytest.mark.long
def test_it_learns_and_resumes_and_its_export_is_a_model(start: Starter, tmp_path: Path) -> None:
    run, coder = tmp_path / "run", tmp_path / "autoencoder"
    check_updates(start, recipe.main, run, networks={"unet", "text", "text_2"}, idle=IDLE)
    check_updates(start, train_autoencoder.main, coder, "--patch", str(LARGE_PATCH), networks={"model"})
    assert export_large.export(tmp_path / "model", run, coder, start.images) == {"large": 2, "autoencoder": 2}
    check_model(tmp_path / "model", "shapeworld-large", run)


def test_it_starts_from_the_bases_levels_and_words(model: recipe.Captioned, start: Starter, space: LatentSpace) -> None:
    base: Any = DiffusersFolder().load(EMBEDDED / "shapeworld-base", LoadOptions(device="cpu", dtype="fp32"))
    recipe.start_from(base, space, latent_space(start.images), model)
    words, own = base.text.encoders[0].network.state_dict(), model.text.state_dict()
    assert all(torch.equal(own[name], value) for name, value in words.items())
    was, now = base.unet.state_dict(), model.unet.state_dict()
    for level, own_level in (("down_blocks.0", "down_blocks.0"), ("mid_block", "mid_block"), ("up_blocks.1", "up_blocks.2")):
        names = [name for name in was if name.startswith(f"{level}.resnets.")]
        assert names
        assert all(torch.equal(was[name], now[name.replace(level, own_level)]) for name in names)
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    assert torch.equal(now[key][:, : recipe.WIDTH], was[key])
    assert not now[key][:, recipe.WIDTH :].any()  # what the second encoder says counts for nothing at first


def test_an_absent_caption_is_nothing_at_all(model: recipe.Captioned, batches: recipe.Batches) -> None:
    drawn = batches.draw(0, generator(6, 0, 0))
    said = recipe.Batch(drawn.z0[:2], drawn.ids[:2], torch.ones(2), drawn.sizes[:2])
    silent, other = replace(said, said=torch.zeros(2)), replace(said, said=torch.zeros(2), ids=drawn.ids[2:4])
    t = torch.tensor([500, 900])
    with torch.no_grad():
        nothing = model(said.z0, t, silent)
        assert near(nothing, model(said.z0, t, other))
        assert not near(nothing, model(said.z0, t, said))


def test_sizes_are_told(batches: recipe.Batches, monkeypatch: pytest.MonkeyPatch) -> None:
    """Height and width of the original, the corner of the crop, and height and width of the image."""
    monkeypatch.setattr(recipe, "COARSE_SHARE", 0.5)
    assert batches.draw(0, generator(6, 0, 0)).sizes.unique(dim=0).tolist() == [
        [64, 64, 0, 0, 192, 192],
        [192, 192, 0, 0, 192, 192],
    ]
    for step, (width, height) in ((5, (240, 160)), (11, (160, 240))):
        batch = batches.draw(step, generator(6, step, 0))
        assert batch.z0.shape[-2:] == (height // LARGE_PATCH, width // LARGE_PATCH)
        assert batch.sizes.unique(dim=0).tolist() == [[height, width, 0, 0, height, width]]
