"""Scenes of the shape world as items, with their true boxes."""

from __future__ import annotations

from ...framework.layout.regions import Layout
from ...framework.layout_files.item import Item
from ..runs.expects import Attribute, Expects
from ..shapeworld.scene import Scene, sample_scene
from .base import Asked, Entry, Source, finished

NAME = "shapeworld"
SPLIT = "eval"  # which nothing is trained on


def read(asked: Asked) -> Source:
    """The scenes of the seeds `first, ..., first + count - 1`; the seed of a scene is also that of its image.

    Raises:
        ConfigError: no such number of objects.
    """
    scenes = [sample_scene(seed, split=SPLIT, objects=asked.objects) for seed in range(asked.first, asked.first + asked.count)]
    options = {"objects": asked.objects, "count": asked.count, "first": asked.first}
    return finished(NAME, asked, list(map(_entry, scenes)), options=options)


def _entry(scene: Scene) -> Entry:
    name = f"{NAME}-{scene.seed}"
    layout = Layout.from_boxes(dict(zip(scene.phrases, scene.boxes, strict=True)))
    attributes = tuple(Attribute(thing.phrase, thing.shape, thing.colour) for thing in scene.objects)
    expects = Expects(attributes=attributes, classes={phrase: phrase for phrase in scene.phrases})
    return Entry(name, Item(scene.caption, layout, seed=scene.seed, name=name), expects)
