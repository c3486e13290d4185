"""The scenes that methods are compared on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from .scene import Scene, sample_scene

SPLIT = "eval"
ABOVE, BELOW = 0.28, 0.74
"""Where a moved object and the others stand, as shares of the height."""
RADIUS = 0.17  # of all of them then: they never touch


@dataclass(frozen=True)
class Scenes:
    """The scenes of a benchmark: those of the seeds `seed, ..., seed + count - 1`, in the split that nothing is trained on.

    `objects`: in each scene, 1 to 3. `size`: width and height in pixels; sizes of one aspect ratio show the same scenes.
    `place`: in [0, 1]; if given, the first object's centre stands there across the upper half, and the others stand still in the
    lower half, whatever the place: captions and all else are as without it.
    """

    objects: int
    size: tuple[int, int]
    count: int
    seed: int
    place: float | None = None

    @property
    def seeds(self) -> range:
        return range(self.seed, self.seed + self.count)

    def scene(self, seed: int) -> Scene:
        scene = sample_scene(seed, split=SPLIT, objects=self.objects, size=self.size)
        if self.place is None:
            return scene
        first, *others = scene.objects
        spots = [(index + 0.5) / len(others) for index in range(len(others))]
        moved = replace(first, x=self.place, y=ABOVE, radius=RADIUS)
        still = [replace(item, x=x, y=BELOW, radius=RADIUS) for item, x in zip(others, spots, strict=True)]
        return replace(scene, objects=(moved, *still))

    @property
    def kind(self) -> tuple[int, Fraction, float | None]:
        """Scenes of one kind and one seed are the same, whatever their pixels."""
        return self.objects, Fraction(*self.size), self.place
