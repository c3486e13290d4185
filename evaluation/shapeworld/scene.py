"""Scenes of the shape world: one to three coloured shapes on a background, with captions and exact boxes.

A scene is pure data. `sample_scene` draws one from a seed, `render` (next door) turns it into pixels of any
size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .geometry import EXTENT, REACH, SHAPES, Box

Doubles = NDArray[np.float64]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.0, 0.86, 0.90),
    "green": (125.0, 0.78, 0.72),
    "blue": (222.0, 0.80, 0.90),
    "yellow": (55.0, 0.86, 0.95),
    "purple": (284.0, 0.72, 0.80),
    "orange": (27.0, 0.92, 0.96),
}
"""Each colour word with its mean hue (degrees), saturation and value (both in [0, 1])."""

BACKGROUNDS: tuple[str, ...] = ("gradient", "stripes", "checker", "waves", "radial")
"""The kinds of background; all are nearly grey."""

CAPTION_WORDS: tuple[str, ...] = ("a", "an", "and", "small", "large", *COLOURS, *SHAPES)
"""Every word that a caption can hold."""

RADIUS_RANGE = (0.11, 0.22)
SMALL_BELOW, LARGE_ABOVE = 0.15, 0.18
"""An object is called small below the first radius, and large above the second."""

_SPLITS = {"train": 0, "eval": 1, "reference": 2}
_COUNT_PROBABILITY = (0.35, 0.45, 0.20)
_SIZE_WORDS = ("", "small", "large")
_SIZE_WORD_PROBABILITY = (0.70, 0.15, 0.15)
_RADIUS_OF_WORD = {
    "": RADIUS_RANGE,
    "small": (RADIUS_RANGE[0], SMALL_BELOW),
    "large": (LARGE_ABOVE, RADIUS_RANGE[1]),
}
# Two pixels at 64 px: equal colours must not merge, and nothing may touch the frame.
_MARGIN = 0.03


@dataclass(frozen=True)
class SceneObject:
    """One shape of a scene.

    `x`, `y`: its centre, in [0, 1] of the width and of the height. `radius`: in units of the shorter side.
    `size_word`: what the caption says about its size: `""`, `"small"` or `"large"`.
    """

    colour: str
    shape: str
    size_word: str
    x: float
    y: float
    radius: float

    @property
    def phrase(self) -> str:
        """Colour and shape, without article or size: `red circle`."""
        return f"{self.colour} {self.shape}"

    @property
    def caption(self) -> str:
        """The object as the caption names it: `a small red circle`, `an orange star`."""
        words = f"{self.size_word} {self.phrase}".strip()
        return f"{'an' if words.startswith('orange') else 'a'} {words}"


@dataclass(frozen=True)
class Scene:
    """Everything that decides an image: the objects, the kind of background, the size in pixels, and a seed.

    `seed` and `split` decide only what the fields leave open: the exact tints and the pattern of the
    background.
    """

    objects: tuple[SceneObject, ...]
    background: str
    width: int
    height: int
    seed: int = 0
    split: str = "train"

    @property
    def caption(self) -> str:
        """`a small red circle and a blue square`."""
        return " and ".join(item.caption for item in self.objects)

    @property
    def phrases(self) -> tuple[str, ...]:
        """One phrase per object, each a substring of the caption."""
        return tuple(item.phrase for item in self.objects)

    @property
    def boxes(self) -> tuple[Box, ...]:
        """One tight box per object, from the geometry.

        `(left, top, right, bottom)` in [0, 1] of width and height.
        """
        return tuple(self._box(item) for item in self.objects)

    def _box(self, item: SceneObject) -> Box:
        unit = min(self.width, self.height) * item.radius
        across, down = unit / self.width, unit / self.height
        left, top, right, bottom = EXTENT[item.shape]
        return (
            item.x + left * across,
            item.y + top * down,
            item.x + right * across,
            item.y + bottom * down,
        )


def scene_generator(seed: int, split: str, purpose: int) -> np.random.Generator:
    """The random stream of one scene for one purpose (0: its objects, 1: its rendering).

    Splits never share a stream.
    """
    if split not in _SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(_SPLITS)}")
    if seed < 0:
        raise ValueError(f"a scene's seed cannot be negative, got {seed}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((_SPLITS[split], purpose, seed))))


def sample_scene(seed: int, *, split: str = "train", objects: int | None = None, size: tuple[int, int] = (64, 64)) -> Scene:
    """Draw a scene: a pure function of its arguments.

    `split`: `"train"`, `"eval"` or `"reference"`. `objects`: how many, 1 to 3; drawn with probabilities .35, .45, .20 when
    None. `size`: width and height in pixels. The caption does not depend on it; radii and positions depend on
    the aspect ratio alone, so sizes of one aspect ratio give one scene at several resolutions.
    """
    width, height = size
    if width < 1 or height < 1:
        raise ValueError(f"size must be positive, got {width} x {height}")
    if objects is not None and not 1 <= objects <= len(_COUNT_PROBABILITY):
        raise ValueError(f"a scene holds 1 to {len(_COUNT_PROBABILITY)} objects, got {objects}")
    generator = scene_generator(seed, split, 0)
    drawn = int(generator.choice(len(_COUNT_PROBABILITY), p=_COUNT_PROBABILITY)) + 1
    count = objects or drawn
    background = BACKGROUNDS[int(generator.integers(len(BACKGROUNDS)))]
    # Without replacement: no two objects of one scene share both colour and shape.
    kinds = generator.choice(len(COLOURS) * len(SHAPES), size=count, replace=False)
    size_words = [_SIZE_WORDS[int(i)] for i in generator.choice(3, size=count, p=_SIZE_WORD_PROBABILITY)]
    frame = np.array([width, height]) / min(width, height)
    shapes = [SHAPES[int(kind) % len(SHAPES)] for kind in kinds]
    radii, centres = _place(generator, shapes, size_words, frame)
    return Scene(
        objects=tuple(
            SceneObject(
                colour=tuple(COLOURS)[int(kind) // len(SHAPES)],
                shape=shape,
                size_word=word,
                x=float(x),
                y=float(y),
                radius=radius,
            )
            for kind, shape, word, radius, (x, y) in zip(kinds, shapes, size_words, radii, centres / frame, strict=True)
        ),
        background=background,
        width=width,
        height=height,
        seed=seed,
        split=split,
    )


def _place(
    generator: np.random.Generator, shapes: Sequence[str], size_words: Sequence[str], frame: Doubles
) -> tuple[list[float], Doubles]:
    """Radii that suit the size words, and centres `[objects 2]` with all shapes inside the frame and apart.

    `frame`: width and height; it, the radii and the centres are in units of the shorter side. Whole
    arrangements are rejected, never single objects, so the first object of a caption is not favoured in any
    place.
    """
    extents = np.array([EXTENT[shape] for shape in shapes])
    while True:
        radii = [float(generator.uniform(*_RADIUS_OF_WORD[word])) for word in size_words]
        low, high = np.split(extents * np.array(radii)[:, None], 2, axis=1)
        centres = generator.uniform(_MARGIN - low, frame - _MARGIN - high, size=(32, len(radii), 2))
        # Two shapes are apart if their boxes are, or (side by side on a diagonal) the circles around them.
        gaps = (centres + low)[:, :, None] - (centres + high)[:, None, :]
        apart = np.maximum(gaps, gaps.swapaxes(1, 2)).max(axis=-1) >= _MARGIN
        reach = REACH * np.array(radii)
        distances = np.linalg.norm(centres[:, :, None] - centres[:, None, :], axis=-1)
        apart |= distances >= reach[:, None] + reach[None, :] + _MARGIN
        apart |= np.eye(len(radii), dtype=np.bool_)
        valid = np.flatnonzero(apart.all(axis=(1, 2)))
        if len(valid):
            return radii, centres[valid[0]]
