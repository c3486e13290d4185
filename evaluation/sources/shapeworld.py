"""Scenes of the shape world as items, with their true boxes."""

from __future__ import annotations

from ...framework.layout.regions import Layout
from ...framework.layout_files.item import Item
from ..runs.expects import Attribute, Expects
from ..runs.plan import Origin
from ..shapeworld.scene import Scene
from ..shapeworld.scenes import Scenes
from .base import Asked, Entry, Source, finished

NAME = "shapeworld"


def read(asked: Asked) -> Source:
    """The scenes of the seeds `first, ..., first + count - 1`; the seed of a scene is also that of its image.

    Raises:
        ConfigError: no such number of objects.
    """
    scenes = Scenes(asked.objects, asked.size, asked.count, asked.first, asked.place)
    options = {"objects": asked.objects, "count": asked.count, "first": asked.first}
    if scenes.kind != Scenes(asked.objects, Asked.size, 1, 0).kind:
        options |= {"size": list(asked.size), "place": asked.place}
    return finished(NAME, asked, [_entry(scenes.scene(seed), scenes) for seed in scenes.seeds], options=options)


def scenes_of(origin: Origin, size: tuple[int, int] | None = None) -> Scenes:
    """The scenes that a plan was made of. `size`: of their true images, in pixels."""
    asked = origin.options
    width, height = size or asked.get("size", Asked.size)
    return Scenes(asked["objects"], (width, height), asked["count"], asked["first"], asked.get("place"))


def _entry(scene: Scene, scenes: Scenes) -> Entry:
    across, down = scenes.kind[1].as_integer_ratio()
    ratio = "" if across == down else f"-{across}:{down}"
    name = f"{NAME}{ratio}{'' if scenes.place is None else f'-at-{scenes.place:g}'}-{scene.seed}"
    layout = Layout.from_boxes(dict(zip(scene.phrases, scene.boxes, strict=True)))
    attributes = tuple(Attribute(thing.phrase, thing.shape, thing.colour) for thing in scene.objects)
    expects = Expects(attributes=attributes, classes={phrase: phrase for phrase in scene.phrases})
    return Entry(name, Item(scene.caption, layout, seed=scene.seed, name=name), expects)
