"""The shapes: their signed distances agree with their boxes, areas and stated symmetries."""

import numpy as np
import pytest

from lsregen.evaluation.shapeworld.geometry import AREA, EXTENT, REACH, SHAPES, coverage, signed_distance

STEP = 0.005
AXIS = np.arange(-1.5 + STEP / 2, 1.5, STEP, dtype=np.float32)


@pytest.mark.parametrize("shape", SHAPES)
def test_extent_area_and_centre_of_mass_agree_with_the_inside(shape: str) -> None:
    inside = signed_distance(shape, AXIS[None, :], AXIS[:, None]) < 0
    rows, columns = np.nonzero(inside)
    left, right = AXIS[columns.min()] - STEP / 2, AXIS[columns.max()] + STEP / 2
    top, bottom = AXIS[rows.min()] - STEP / 2, AXIS[rows.max()] + STEP / 2
    # A star's tips narrow to less than one cell of the grid.
    assert np.allclose((left, top, right, bottom), EXTENT[shape], atol=4 * STEP)
    assert np.isclose(inside.sum() * STEP**2, AREA[shape], rtol=5e-3)
    assert np.allclose((AXIS[columns].mean(), AXIS[rows].mean()), 0, atol=STEP)
    assert np.isclose(AXIS[columns].std(), AXIS[rows].std(), rtol=5e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_shape_reaches_beyond_its_reach(shape: str) -> None:
    inside = signed_distance(shape, AXIS[None, :], AXIS[:, None]) < 0
    assert np.hypot(AXIS[None, :], AXIS[:, None])[inside].max() <= REACH


def test_triangle_points_up_and_ring_has_a_hole() -> None:
    triangle = signed_distance("triangle", AXIS[None, :], AXIS[:, None]) < 0
    widths = triangle.sum(axis=1)
    assert (np.diff(widths[widths > 0]) >= 0).all()
    centre = np.zeros((1, 1), dtype=np.float32)
    assert signed_distance("ring", centre, centre) > 0
    assert signed_distance("circle", centre, centre) < 0


@pytest.mark.parametrize("shape", SHAPES)
def test_coverage_keeps_the_area_at_few_pixels(shape: str) -> None:
    radius = 7.04
    offsets = ((np.arange(24) + 0.5 - 12.3) / radius).astype(np.float32)
    covered = coverage(signed_distance(shape, offsets[None, :], offsets[:, None]), radius)
    assert covered.dtype == np.float32
    assert np.isclose(covered.sum() / radius**2, AREA[shape], rtol=0.03)
