"""The shape world: captioned scenes of coloured shapes, their renderer, and an exact detector."""

from .detect import Detection, detect
from .geometry import SHAPES, Box
from .render import masks, render
from .scene import BACKGROUNDS, CAPTION_WORDS, COLOURS, Scene, SceneObject, sample_scene
from .score import ObjectResult, score_scene

__all__ = [
    "BACKGROUNDS",
    "CAPTION_WORDS",
    "COLOURS",
    "SHAPES",
    "Box",
    "Detection",
    "ObjectResult",
    "Scene",
    "SceneObject",
    "detect",
    "masks",
    "render",
    "sample_scene",
    "score_scene",
]
