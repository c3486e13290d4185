"""The exact detector of the shape world: which colours and shapes an image holds, and where.

Backgrounds are nearly grey and colour words have hues far apart, so chroma and hue alone find the objects.
Each connected patch of one colour is then compared with the six shapes, drawn by the renderer's own signed
distances in its own box.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from .geometry import AREA, EXTENT, SHAPES, Box, Floats, coverage, signed_distance
from .scene import COLOURS

# Objects have a chroma of .45 or more and backgrounds of .11 or less.
_LEAST_CHROMA = 0.24
# The chroma of a typical background, where an object covers nothing.
_GREY = 0.05
# In units of the shorter side: the smallest object has sides of .18, an area of .018 and arms .05 thick.
_LEAST_SIDE = 0.10
_LEAST_AREA = 0.006
_RIM = 0.015
# In pixels: shapes larger than twice this are compared on a coarser grid.
_TEMPLATE_SIDE = 32

# The indices of the colours around the hue circle, and the hues where each gives way to the next.
_HUES = np.array([hue for hue, _, _ in COLOURS.values()])
_ORDER = np.argsort(_HUES).astype(np.int8)
_BORDERS = (_HUES[_ORDER] + np.append(_HUES[_ORDER][1:], _HUES[_ORDER][0] + 360)) / 2


@dataclass(frozen=True, eq=False)
class Detection:
    """One coloured shape found in an image.

    `box`: `(left, top, right, bottom)` in [0, 1] of width and height, to a fraction of a pixel. `score`: in
    [0, 1], the soft intersection over union with the best shape drawn in that box. `mask`: `[h w]`, the
    object's pixels.
    """

    colour: str
    shape: str
    box: Box
    score: float
    mask: NDArray[np.bool_]

    @property
    def label(self) -> str:
        """What the detector plugin calls it: `red circle`."""
        return f"{self.colour} {self.shape}"


def detect(image: NDArray[np.uint8]) -> list[Detection]:
    """All coloured shapes of an image `[h w 3]` in [0, 255], best score first.

    Every patch of colour that is not a speck is reported, however badly it fits its best shape: its score
    tells.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 [h w 3], got {image.dtype} {list(image.shape)}")
    planes = np.moveaxis(image, 2, 0).astype(np.float32) / np.float32(255)
    red, green, blue = planes
    largest, smallest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    chroma = largest - smallest
    patches = _patches(_name_colours(planes, chroma))
    taken = np.zeros(chroma.shape, dtype=np.bool_)
    for patch in patches:
        taken[patch.rows, patch.columns] |= patch.own
    return sorted((_recognise(patch, chroma, taken) for patch in patches), key=lambda found: -found.score)


@dataclass(frozen=True, eq=False)
class _Patch:
    """A connected patch of one colour: `own` `[rows columns]` says which pixels of its window are its."""

    colour: str
    rows: slice
    columns: slice
    own: NDArray[np.bool_]


def _patches(names: NDArray[np.int8]) -> list[_Patch]:
    """The patches that are neither specks nor rims.

    Blur paints thin lines of a third hue where two colours meet.
    """
    height, width = names.shape
    shorter = min(height, width)
    thickness = max(1, round(_RIM * shorter))
    found: list[_Patch] = []
    for index, colour in enumerate(COLOURS):
        named = names == index
        if np.count_nonzero(named) < _LEAST_AREA * shorter**2:
            continue
        labels, _ = ndimage.label(named)
        for label, (inner_rows, inner_columns) in enumerate(ndimage.find_objects(labels), start=1):
            sides = inner_rows.stop - inner_rows.start, inner_columns.stop - inner_columns.start
            if min(sides) < _LEAST_SIDE * shorter:
                continue
            # Wider than the patch, so that its soft outline is inside.
            rows = slice(max(0, inner_rows.start - 2), min(height, inner_rows.stop + 2))
            columns = slice(max(0, inner_columns.start - 2), min(width, inner_columns.stop + 2))
            own = labels[rows, columns] == label
            thick = ndimage.binary_erosion(own, iterations=thickness, border_value=1)
            if np.count_nonzero(own) >= _LEAST_AREA * shorter**2 and thick.any():
                found.append(_Patch(colour, rows, columns, own))
    return found


def _name_colours(planes: Floats, chroma: Floats) -> NDArray[np.int8]:
    """The index of each pixel's colour word, -1 where there is none: `[h w]` from `[3 h w]` in [0, 1]."""
    coloured = chroma >= _LEAST_CHROMA
    hue = _hue(planes[:, coloured], chroma[coloured])
    names = np.full(chroma.shape, -1, dtype=np.int8)
    names[coloured] = _ORDER[np.searchsorted(_BORDERS, hue) % len(_ORDER)]
    return names


def _hue(pixels: Floats, chroma: Floats) -> Floats:
    """Hue in [0, 360] degrees of coloured pixels: `[n]` from `[3 n]`."""
    red: Floats = pixels[0]
    green: Floats = pixels[1]
    blue: Floats = pixels[2]
    near_green = (blue - red) / chroma + np.float32(2)
    near_blue = (red - green) / chroma + np.float32(4)
    sextant = np.where(green >= blue, near_green, near_blue)
    sextant = np.where((red >= green) & (red >= blue), (green - blue) / chroma, sextant)
    return sextant * np.float32(60) % np.float32(360)


def _recognise(patch: _Patch, chroma: Floats, taken: NDArray[np.bool_]) -> Detection:
    rows, columns, own = patch.rows, patch.columns, patch.own
    height, width = chroma.shape
    strength = chroma[rows, columns]
    # A pixel's chroma shows how much of it the object covers: the outline to a fraction of a pixel.
    full = np.float32(np.quantile(strength[own], 0.8))
    reachable = ndimage.binary_dilation(own) & ~(taken[rows, columns] & ~own)
    alpha = np.where(reachable, np.clip((strength - _GREY) / (full - _GREY), 0, 1), 0).astype(np.float32)
    shape, score, (left, top, right, bottom) = _best_shape(alpha)
    mask = np.zeros(chroma.shape, dtype=np.bool_)
    mask[rows, columns] = alpha > 0.5
    box = (
        (columns.start + left) / width,
        (rows.start + top) / height,
        (columns.start + right) / width,
        (rows.start + bottom) / height,
    )
    return Detection(patch.colour, shape, box, score, mask)


def _soft_edges(profile: Floats) -> tuple[float, float]:
    """Where a profile of coverage in [0, 1] begins and ends, in pixels: the border pixels count in part."""
    inside = np.flatnonzero(profile > 0.5)
    first, last = int(inside[0]), int(inside[-1])
    before = float(profile[first - 1]) if first > 0 else 0.0
    after = float(profile[last + 1]) if last + 1 < len(profile) else 0.0
    start = first + 1 - float(profile[first]) - before
    stop = last + float(profile[last]) + after
    return start, stop


def _best_shape(alpha: Floats) -> tuple[str, float, Box]:
    """The shape that covers the same pixels best, its score, and its box in pixels."""
    # A shape of many pixels is recognised as well from some of them.
    stride = max(1, max(alpha.shape) // _TEMPLATE_SIDE)
    sampled = alpha[::stride, ::stride]
    left, right = _soft_edges(alpha.max(axis=0))
    top, bottom = _soft_edges(alpha.max(axis=1))
    equal_mass = _boxes_of_equal_mass(alpha)
    fits = [
        (soft_overlap(sampled, template(shape, box, alpha.shape, stride)), shape, box)
        for shape in SHAPES
        for box in ((left, top, right, bottom), equal_mass[shape])
    ]
    score, shape, box = max(fits)
    return shape, score, box


def _boxes_of_equal_mass(alpha: Floats) -> dict[str, Box]:
    """The box, in pixels, in which each shape has the area, centre and elongation of a coverage.

    Blur eats thin tips, and with them the edges; it keeps the area.
    """
    area = float(alpha.sum())
    columns, rows = alpha.sum(axis=0) / area, alpha.sum(axis=1) / area
    x, y = np.arange(len(columns)) + 0.5, np.arange(len(rows)) + 0.5
    centre_x, centre_y = float(columns @ x), float(rows @ y)
    # A pixel has a spread of its own, 1/12.
    spread_x, spread_y = columns @ (x - centre_x) ** 2 + 1 / 12, rows @ (y - centre_y) ** 2 + 1 / 12
    elongation = float(spread_x / spread_y) ** 0.25
    boxes: dict[str, Box] = {}
    for shape, (left, top, right, bottom) in EXTENT.items():
        radius = (area / AREA[shape]) ** 0.5
        across, down = radius * elongation, radius / elongation
        boxes[shape] = (
            centre_x + left * across,
            centre_y + top * down,
            centre_x + right * across,
            centre_y + bottom * down,
        )
    return boxes


def soft_overlap(first: Floats, second: Floats) -> float:
    """Intersection over union of two coverages in [0, 1] of one grid; for sharp masks, the usual one."""
    return float(np.minimum(first, second).sum() / max(float(np.maximum(first, second).sum()), 1e-6))


def template(shape: str, box: Box, grid: tuple[int, ...], stride: int = 1) -> Floats:
    """A shape stretched to fill a box: its coverage in [0, 1] at every `stride`-th pixel of a grid `(h, w)`.

    `box`: in pixels of that grid.
    """
    left, top, right, bottom = EXTENT[shape]
    across, down = (box[2] - box[0]) / (right - left), (box[3] - box[1]) / (bottom - top)
    x = (np.arange(0.5, grid[1], stride) - box[0]) / across + left
    y = (np.arange(0.5, grid[0], stride) - box[1]) / down + top
    distance = signed_distance(shape, x.astype(np.float32)[None, :], y.astype(np.float32)[:, None])
    return coverage(distance, (across * down) ** 0.5)
