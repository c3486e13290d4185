"""Large pictures piece by piece: the same as at once, differentiable, and never more at once than a tile."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lsregen.evaluation.shapeworld import render, sample_scene
from lsregen.framework import ConfigError, Pipeline
from lsregen.models.runtime.latent_diffusion import LatentDiffusion
from lsregen.models.runtime.tiling import LARGE, SIDE, Tiling, make_tiling
from tests.near import TRAJECTORY, near, relative

pytestmark = pytest.mark.slow

LEVELS, TILE = 255, 64


def error(ours: Tensor, theirs: Tensor) -> float:
    assert ours.shape == theirs.shape
    return (ours - theirs).abs().max().item()


@pytest.fixture(scope="module")
def whole() -> LatentDiffusion:
    model = Pipeline.load("shapeworld-base", device="cpu", dtype="fp32", tiling="off").model
    assert isinstance(model, LatentDiffusion)
    return model


@pytest.fixture(scope="module")
def tiled() -> LatentDiffusion:
    model = Pipeline.load("shapeworld-base", device="cpu", dtype="fp32", tiling="on", tile=TILE).model
    assert isinstance(model, LatentDiffusion)
    return model


@pytest.fixture(scope="module")
def picture() -> Tensor:
    """A scene in [0, 1], larger than the model was trained on."""
    return torch.from_numpy(render(sample_scene(3, objects=3, size=(256, 256)))).permute(2, 0, 1)[None].float() / LEVELS


@torch.no_grad()
def test_a_picture_is_the_same_piece_by_piece(whole: LatentDiffusion, tiled: LatentDiffusion, picture: Tensor) -> None:
    """Also where pieces meet, so there are no seams; also where a tile is within one thing, so colours are the same."""
    exact, z = whole.encode_image(picture), tiled.encode_image(picture)
    assert error(z, exact) <= 2e-5
    difference = (tiled.autoencoder.decode(exact) - whole.autoencoder.decode(exact)).abs()
    print(f"decoded piece by piece: at most {float(difference.max()):.1e}, {float(difference.mean()):.1e} on average")
    assert float(difference.max()) <= 2e-5
    odd = torch.randn(2, 8, 46, 39)
    assert error(tiled.autoencoder.decode(odd), whole.autoencoder.decode(odd)) <= 2e-5


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_autoencoders_with_attention(models: Any, name: str) -> None:
    autoencoder = models(name).autoencoder
    z, images = torch.randn(1, 4, 22, 14), torch.randn(1, 3, 88, 56)
    expected = autoencoder.decode(z), autoencoder.encode(images)
    autoencoder.tiling = Tiling(32**2, 0)
    try:
        assert error(autoencoder.decode(z), expected[0]) <= 2e-5
        assert error(autoencoder.encode(images), expected[1]) <= 2e-5
    finally:
        autoencoder.tiling = Tiling()


def test_a_gradient_is_taken_through_the_whole(whole: LatentDiffusion, tiled: LatentDiffusion) -> None:
    z, weight = torch.randn(1, 8, 40, 48), torch.randn(1, 3, 160, 192)
    grads = list[Tensor]()
    for model in (whole, tiled):
        leaf = z.clone().requires_grad_()
        grads += torch.autograd.grad((model.autoencoder.decode(leaf) * weight).sum(), leaf)
    assert relative(*grads) <= TRAJECTORY


@torch.no_grad()
def test_the_most_that_is_computed_at_once(tiled: LatentDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every convolution at the sizes of the picture: no more than a tile, and the rows that it sees beyond."""
    seen, conv2d = list[tuple[int, int]](), F.conv2d

    def counted(x: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.append((x.shape[-2], x.shape[-1]))
        return conv2d(x, *args, **options)

    monkeypatch.setattr(F, "conv2d", counted)
    tiled.autoencoder.decode(torch.zeros(1, 8, 70, 64))
    assert max(height * width for height, width in seen) <= TILE**2 + 4 * 256 < 280 * 256
    assert sum(height for height, width in seen if width == 256) >= 280 * 3  # every row of the picture, more than once


@torch.no_grad()
def test_small_pictures_are_left_whole(whole: LatentDiffusion, tiled: LatentDiffusion) -> None:
    z = torch.randn(2, 8, 16, 16)
    assert near(tiled.decode(z), whole.decode(z))


def test_what_the_options_mean() -> None:
    assert make_tiling("auto", None) == Tiling(SIDE**2, LARGE)
    assert make_tiling("on", 512) == Tiling(512**2, 0)
    assert make_tiling("off", None).above is None
    with pytest.raises(ConfigError, match="tile: 64 with tiling off, which cuts nothing"):
        make_tiling("off", 64)
