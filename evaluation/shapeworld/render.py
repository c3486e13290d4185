"""Scenes to pixels: antialiased shapes from signed distances, softly lit, on a nearly grey background."""

import colorsys
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .geometry import REACH, Floats, coverage, signed_distance
from .scene import COLOURS, Scene, SceneObject, scene_generator

_HUE_JITTER, _SATURATION_JITTER, _VALUE_JITTER = 5.0, 0.05, 0.06
_BACKGROUND_SATURATION = 0.12
_SHADE = 0.09


def render(scene: Scene) -> NDArray[np.uint8]:
    """The image of a scene: `[h w 3]` in [0, 255]; the same scene always gives the same pixels."""
    generator = scene_generator(scene.seed, scene.split, 1)
    image = _background(scene, generator)
    for item in scene.objects:
        colour = _tint(item.colour, generator)
        rows, columns, x, y = _window(scene, item)
        alpha = coverage(signed_distance(item.shape, x, y), _pixels_per_radius(scene, item))[..., None]
        # Light from the upper left; scaling all channels alike keeps the hue.
        lit = colour * (1 - np.float32(_SHADE) * (x + y))[..., None]
        patch = image[rows, columns]
        image[rows, columns] = patch + alpha * (lit - patch)
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)


def masks(scene: Scene) -> NDArray[np.bool_]:
    """Which pixel centres lie inside each object: `[objects h w]`."""
    result = np.zeros((len(scene.objects), scene.height, scene.width), dtype=np.bool_)
    for mask, item in zip(result, scene.objects, strict=True):
        rows, columns, x, y = _window(scene, item)
        mask[rows, columns] = signed_distance(item.shape, x, y) < 0
    return result


def _pixels_per_radius(scene: Scene, item: SceneObject) -> float:
    return item.radius * min(scene.width, scene.height)


def _window(scene: Scene, item: SceneObject) -> tuple[slice, slice, Floats, Floats]:
    """The rows and columns an object can touch, and the pixel centres there, `[1 w]` and `[h 1]`.

    The centres are offsets from the object's own, in its radii.
    """
    radius = _pixels_per_radius(scene, item)
    reach = REACH * radius + 1
    centre_x, centre_y = item.x * scene.width, item.y * scene.height
    columns = slice(max(0, int(centre_x - reach)), min(scene.width, int(centre_x + reach) + 1))
    rows = slice(max(0, int(centre_y - reach)), min(scene.height, int(centre_y + reach) + 1))
    x = (np.arange(columns.start, columns.stop) + 0.5 - centre_x) / radius
    y = (np.arange(rows.start, rows.stop) + 0.5 - centre_y) / radius
    return rows, columns, x.astype(np.float32)[None, :], y.astype(np.float32)[:, None]


def _tint(colour: str, generator: np.random.Generator) -> Floats:
    """One object's own variant of a colour word, `[3]`: small shifts that never leave the class."""
    hue, saturation, value = COLOURS[colour]
    shift = generator.uniform(-1, 1, size=3)
    return _rgb(
        hue + _HUE_JITTER * shift[0],
        saturation + _SATURATION_JITTER * shift[1],
        value + _VALUE_JITTER * shift[2],
    )


def _rgb(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue / 360 % 1, min(saturation, 1), min(value, 1)), dtype=np.float32)


def _background(scene: Scene, generator: np.random.Generator) -> Floats:
    """`[h w 3]` in [0, 1]: two nearly grey colours mixed by the scene's pattern."""
    shorter = min(scene.width, scene.height)
    x = ((np.arange(scene.width) + 0.5 - scene.width / 2) / shorter).astype(np.float32)[None, :]
    y = ((np.arange(scene.height) + 0.5 - scene.height / 2) / shorter).astype(np.float32)[:, None]
    mix = _PATTERNS[scene.background](x, y, generator)[..., None]
    first_value = generator.uniform(0.25, 0.90)
    contrast = generator.uniform(0.10, 0.28)
    second_value = first_value + (contrast if first_value < 0.55 else -contrast)
    first, second = (
        _rgb(generator.uniform(0, 360), generator.uniform(0, _BACKGROUND_SATURATION), value)
        for value in (first_value, second_value)
    )
    return mix * (second - first) + first


# Each pattern maps pixel centres (units of the shorter side, origin in the middle) to [0, 1]. The frequencies
# are in these units and the edges are soft, so that a pattern looks the same at every resolution.


def _rotated(x: Floats, y: Floats, generator: np.random.Generator) -> tuple[Floats, Floats]:
    angle = float(generator.uniform(0, 2 * math.pi))
    cosine, sine = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    return x * cosine + y * sine, y * cosine - x * sine


def _wave(along: Floats, generator: np.random.Generator, slowest: float, fastest: float) -> Floats:
    frequency, phase = generator.uniform(slowest, fastest), generator.uniform(0, 2 * math.pi)
    return np.sin(along * np.float32(2 * math.pi * frequency) + np.float32(phase))


def _half(signed: Floats, sharpness: float = 1.0) -> Floats:
    return np.clip(signed * np.float32(sharpness), -1, 1) * np.float32(0.5) + np.float32(0.5)


def _gradient(x: Floats, y: Floats, generator: np.random.Generator) -> Floats:
    return _half(_rotated(x, y, generator)[0] * np.float32(1.4))


def _stripes(x: Floats, y: Floats, generator: np.random.Generator) -> Floats:
    return _half(_wave(_rotated(x, y, generator)[0], generator, 2.5, 5), 3)


def _checker(x: Floats, y: Floats, generator: np.random.Generator) -> Floats:
    frequency = generator.uniform(1.5, 3)
    return _half(_wave(x, generator, frequency, frequency) * _wave(y, generator, frequency, frequency), 4)


def _waves(x: Floats, y: Floats, generator: np.random.Generator) -> Floats:
    along, across = _rotated(x, y, generator)
    bend = _wave(across, generator, 0.8, 1.6) * np.float32(0.12)
    return _half(_wave(along + bend, generator, 2, 4))


def _radial(x: Floats, y: Floats, generator: np.random.Generator) -> Floats:
    centre_x, centre_y = np.float32(generator.uniform(-0.4, 0.4)), np.float32(generator.uniform(-0.4, 0.4))
    return np.clip(np.hypot(x - centre_x, y - centre_y) * np.float32(1.2), 0, 1)


_PATTERNS: dict[str, Callable[[Floats, Floats, np.random.Generator], Floats]] = {
    "gradient": _gradient,
    "stripes": _stripes,
    "checker": _checker,
    "waves": _waves,
    "radial": _radial,
}
