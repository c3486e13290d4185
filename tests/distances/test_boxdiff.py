"""BoxDiff's constraints against the published formula, written out cell by cell; small, full and empty boxes; refinement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsregen.distances.boxdiff import BoxDiff
from lsregen.framework.errors import ConfigError
from lsregen.framework.layout.rasters import rasterise
from lsregen.framework.layout.regions import Box
from lsregen.framework.types import Energy
from tests.toys import draw, features

Cells = NDArray[np.float64]


def maps(seed: int, *shape: int) -> Tensor:
    return torch.sigmoid(draw(seed, *shape, dtype=torch.float64))


def masked(box: tuple[int, int, int, int], h: int, w: int) -> Tensor:
    """The mask of x1, y1, x2, y2 in cells."""
    x1, y1, x2, y2 = box
    mask = torch.zeros(h, w, dtype=torch.float64)
    mask[y1:y2, x1:x2] = 1
    return mask


def xie(image: Cells, box: tuple[int, int, int, int], top: float = 0.2, reach: int = 1) -> tuple[float, float]:
    """The published inner constraint of one object, and the sum of the others: `image` `[h w]`, the box in cells."""
    x1, y1, x2, y2 = box
    h, w = image.shape
    within = sorted((image[y, x] for y in range(y1, y2) for x in range(x1, x2)), reverse=True)
    without = sorted((image[y, x] for y in range(h) for x in range(w) if not (y1 <= y < y2 and x1 <= x < x2)), reverse=True)
    inner = max(0.0, 1 - float(np.mean(within[: int(top * len(within))])))
    outer = float(np.mean(without[: int(top * len(without))]))
    corners = 0.0
    for profile, low, high in ((image.max(axis=0), x1, x2), (image.max(axis=1), y1, y2)):
        cells = len(profile)
        near = {i for e in (low, high) for i in range(max(e - reach, 0), min(e + reach + 1, cells))}
        corners += sum(abs(profile[i] - float(low <= i < high)) for i in near) / cells
    return inner, outer + corners


def energy_of(box: tuple[int, int, int, int], image: Tensor, **options: Any) -> Energy:
    h, w = image.shape
    return BoxDiff(**options)(features(image[None, None, None]), features(masked(box, h, w)[None, None, None]))


@pytest.mark.parametrize("box", [(2, 3, 7, 9), (0, 0, 5, 4), (4, 2, 12, 10), (3, 0, 9, 10), (0, 6, 12, 9), (1, 1, 6, 2)])
@pytest.mark.parametrize(("top", "reach"), [(0.2, 1), (0.5, 2), (1.0, 0)])
def test_the_energy_is_the_published_formula(box: tuple[int, int, int, int], top: float, reach: int) -> None:
    image = maps(0, 10, 12)
    inner, others = xie(image.numpy(), box, top, reach)
    energy = energy_of(box, image, top=top, reach=reach)
    assert energy.value.tolist() == pytest.approx([inner + others])
    assert energy.watch.tolist() == pytest.approx([inner])


def test_phrases_are_summed_and_refinement_pulls_and_watches_the_worst_inner_constraint_alone() -> None:
    boxes = [(0, 0, 5, 5), (5, 4, 8, 8)]
    images = maps(1, 2, 8, 8).requires_grad_()
    aims = torch.stack([masked(box, 8, 8) for box in boxes])[None, None]
    energy = BoxDiff()(features(images[None, None]), features(aims))
    published = [xie(image, box) for image, box in zip(images.detach().numpy(), boxes, strict=True)]
    assert energy.value.tolist() == pytest.approx([sum(inner + others for inner, others in published)])
    inners = [inner for inner, _ in published]
    assert energy.watch.tolist() == pytest.approx([max(inners)])
    assert energy.refine is not None
    (gradient,) = torch.autograd.grad(energy.refine.sum(), images)
    worst = int(np.argmax(inners))
    pulled = gradient[worst].nonzero().tolist()
    assert len(pulled) == int(0.2 * np.prod([b - a for a, b in zip(boxes[worst][:2], boxes[worst][2:], strict=True)]))
    assert all(float(masked(boxes[worst], 8, 8)[y, x]) == 1 for y, x in pulled)
    assert not gradient[1 - worst].any()


def test_views_maps_and_word_pieces_are_averaged() -> None:
    box = (1, 2, 6, 7)
    first, second = maps(2, 1, 2, 3, 8, 8), maps(3, 1, 1, 3, 8, 8)
    group = torch.tensor([[0, 0, 1]])
    aims = masked(box, 8, 8).expand(1, 1, 3, 8, 8)
    energy = BoxDiff()(features(first, second, group=group), features(aims, aims))
    of_piece = [
        (np.mean([sum(xie(view.numpy(), box)) for view in first[0, :, k]]) + sum(xie(second[0, 0, k].numpy(), box))) / 2
        for k in range(3)
    ]
    assert energy.value.tolist() == pytest.approx([(of_piece[0] + of_piece[1]) / 2 + of_piece[2]])


def gradient_of(mask: Tensor, image: Tensor) -> tuple[Energy, Tensor]:
    leaf = image.clone().requires_grad_()
    energy = BoxDiff()(features(leaf[None, None, None]), features(mask[None, None, None]))
    (gradient,) = torch.autograd.grad(energy.value.sum(), leaf)
    return energy, gradient


def test_a_box_of_fewer_cells_than_its_share_counts_its_strongest_cell() -> None:
    image = maps(4, 8, 8)
    energy, gradient = gradient_of(masked((2, 2, 4, 4), 8, 8), image)  # 0.2 of four cells is less than one
    assert energy.watch.tolist() == pytest.approx([1 - float(image[2:4, 2:4].max())])
    assert bool(torch.isfinite(gradient).all())


def test_a_full_box_has_no_outer_constraint() -> None:
    image = maps(5, 8, 8)
    energy, gradient = gradient_of(torch.ones(8, 8, dtype=torch.float64), image)
    inner = 1 - float(image.flatten().sort(descending=True).values[:12].mean())
    ends = [0, 1, 7]  # the edges are those of the picture
    corner = sum(float((1 - image.amax(dim=axis)[ends]).sum()) / 8 for axis in (0, 1))
    assert energy.value.tolist() == pytest.approx([inner + corner])
    assert bool(torch.isfinite(gradient).all())


def test_an_empty_mask_lacks_everything_inside_and_stays_finite() -> None:
    energy, gradient = gradient_of(torch.zeros(8, 8, dtype=torch.float64), maps(6, 8, 8))
    assert energy.watch.tolist() == [1]
    assert bool(torch.isfinite(gradient).all())


def test_a_box_inside_one_cell_can_be_filled() -> None:
    mask = rasterise(Box(0.3, 0.3, 0.34, 0.36), (8, 8)).double()
    met = (mask > 0).double()
    assert float(mask.max()) < 0.5
    energy, _ = gradient_of(mask, met)
    assert energy.value.tolist() == pytest.approx([0])


def test_the_published_rounding_is_the_raster_rule_round() -> None:
    assert BoxDiff().raster == "area"
    left, top, right, bottom = 0.09, 0.22, 0.66, 0.91
    mask = rasterise(Box(left, top, right, bottom), (16, 16), BoxDiff(raster="round").raster).double()
    x1, y1, x2, y2 = (max(round(512 * edge / (512 / 16)), 0) for edge in (left, top, right, bottom))
    assert torch.equal(mask, masked((x1, y1, x2, y2), 16, 16))


@pytest.mark.parametrize(
    ("options", "message"), [({"top": 0.0}, "top: 0.0"), ({"top": 1.5}, "top: 1.5"), ({"reach": -1}, "reach: -1")]
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BoxDiff(**options)
