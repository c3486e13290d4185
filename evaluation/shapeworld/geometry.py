"""The six shapes as signed distances, in units of the shape's radius, with y pointing down.

Everything that must agree about what a shape is (the renderer, the true boxes, the detector's templates)
reads it here.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
"""A real array, float32 throughout (numpy's types lose the precision in arithmetic); most are `[h w]`."""

Box = tuple[float, float, float, float]
"""`(left, top, right, bottom)`."""

# All sizes in radii. The shapes cover similar areas, and each is unmistakable when the radius is 7 px.
_SQUARE_HALF = 0.82
_TRIANGLE_REACH = 1.12
_STAR_REACH, _STAR_NOTCH = 1.14, 0.40
_CROSS_REACH, _CROSS_HALF = 0.98, 0.32
_RING_HOLE = 0.50

REACH = 1.16
"""No shape extends further than this many radii from its centre."""


def _circle(x: Floats, y: Floats) -> Floats:
    return np.hypot(x, y) - np.float32(1)


def _rectangle(x: Floats, y: Floats, half_width: float, half_height: float) -> Floats:
    return np.maximum(np.abs(x) - np.float32(half_width), np.abs(y) - np.float32(half_height))


def _square(x: Floats, y: Floats) -> Floats:
    return _rectangle(x, y, _SQUARE_HALF, _SQUARE_HALF)


def _triangle(x: Floats, y: Floats) -> Floats:
    inner = np.float32(_TRIANGLE_REACH / 2)
    slanted = np.float32(math.cos(math.pi / 6)) * np.abs(x) - np.float32(0.5) * y
    return np.maximum(slanted, y) - inner


def _star(x: Floats, y: Floats) -> Floats:
    # Ten-fold symmetry: fold the plane onto the sector between one tip and the notch beside it, which one
    # line cuts.
    distance = np.hypot(x, y)
    fifth = np.float32(2 * math.pi / 5)
    angle = np.arctan2(x, -y)
    angle = np.abs(angle - fifth * np.round(angle / fifth))
    notch_x = _STAR_NOTCH * _STAR_REACH * math.cos(math.pi / 5)
    notch_y = _STAR_NOTCH * _STAR_REACH * math.sin(math.pi / 5)
    length = math.hypot(notch_y, _STAR_REACH - notch_x)
    normal_x, normal_y = np.float32(notch_y / length), np.float32((_STAR_REACH - notch_x) / length)
    along, across = distance * np.cos(angle), distance * np.sin(angle)
    return normal_x * (along - np.float32(_STAR_REACH)) + normal_y * across


def _cross(x: Floats, y: Floats) -> Floats:
    return np.minimum(_rectangle(x, y, _CROSS_REACH, _CROSS_HALF), _rectangle(x, y, _CROSS_HALF, _CROSS_REACH))


def _ring(x: Floats, y: Floats) -> Floats:
    middle, half_width = np.float32((1 + _RING_HOLE) / 2), np.float32((1 - _RING_HOLE) / 2)
    return np.abs(np.hypot(x, y) - middle) - half_width


_DISTANCES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
}

SHAPES: tuple[str, ...] = tuple(_DISTANCES)
"""The words for the six shapes."""

_TRIANGLE_SIDE = _TRIANGLE_REACH * math.cos(math.pi / 6)
_STAR_SIDE = _STAR_REACH * math.cos(math.pi / 10)

EXTENT: dict[str, Box] = {
    "circle": (-1.0, -1.0, 1.0, 1.0),
    "square": (-_SQUARE_HALF, -_SQUARE_HALF, _SQUARE_HALF, _SQUARE_HALF),
    "triangle": (-_TRIANGLE_SIDE, -_TRIANGLE_REACH, _TRIANGLE_SIDE, _TRIANGLE_REACH / 2),
    "star": (-_STAR_SIDE, -_STAR_REACH, _STAR_SIDE, _STAR_REACH * math.cos(math.pi / 5)),
    "cross": (-_CROSS_REACH, -_CROSS_REACH, _CROSS_REACH, _CROSS_REACH),
    "ring": (-1.0, -1.0, 1.0, 1.0),
}
"""The tight box of each shape around its centre, in radii."""

AREA: dict[str, float] = {
    "circle": math.pi,
    "square": 4 * _SQUARE_HALF**2,
    "triangle": _TRIANGLE_SIDE * _TRIANGLE_REACH * 1.5,
    "star": 5 * _STAR_NOTCH * _STAR_REACH**2 * math.sin(math.pi / 5),
    "cross": 8 * _CROSS_REACH * _CROSS_HALF - 4 * _CROSS_HALF**2,
    "ring": math.pi * (1 - _RING_HOLE**2),
}
"""The area of each shape, in squared radii.

All shapes have their centre of mass at their centre, and equal spread in all directions.
"""


def signed_distance(shape: str, x: Floats, y: Floats) -> Floats:
    """Signed distance to a shape's outline, negative inside.

    `x` and `y` are offsets from the shape's centre in radii (y down) and broadcast against each other; so is
    the result. Exact near the outline except beyond a sharp corner, where it continues the two edges (corners
    stay sharp).
    """
    return _DISTANCES[shape](x, y)


def coverage(distance: Floats, pixels_per_radius: float) -> Floats:
    """How much of each pixel a shape covers, in [0, 1], from signed distances (in radii) at the centres."""
    return np.clip(np.float32(0.5) - distance * np.float32(pixels_per_radius), 0, 1)
