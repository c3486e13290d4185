"""Scenes of the shape world as a data set in COCO's form: what reads COCO, a detector or a metric, reads it as any other.

images/000000000017.png              the true picture of the scene with the seed 17
annotations/instances_eval.json      boxes, areas and categories; a category is a colour and a shape
annotations/captions_eval.json       a caption for each image
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

from ...framework.errors import ConfigError
from ...framework.files import is_there, look, reason, shortened, write_whole
from ..shapeworld.scene import COLOURS, Scene, sample_scene

FOLDERS = ("images", "annotations")
SPLITS = ("eval", "reference", "train")
INFO = {"description": "lsregen shapeworld: scenes of coloured shapes", "version": "1"}


def export_shapeworld(
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    objects: int | None = None,
    size: tuple[int, int] = (64, 64),
    split: str = "eval",
    on_done: Callable[[int], None] = lambda count: None,
) -> tuple[Path, Path]:
    """Write the scenes of the seeds `seed, ..., seed + count - 1`; returns the files of instances and of captions.

    Args:
        objects: in each scene, 1 to 3; None for a number that is drawn.
        size: width and height in pixels.
        split: `eval` is never trained on, and no other split shares a scene with it.

    Raises:
        ConfigError: no such split, or the folder has files already, or cannot be written to.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
    place = look(folder)
    if place.kind != "folder" and not place.free:
        raise ConfigError(f"folder {shortened(folder)}: cannot be written ({place.said}); choose another one")
    scenes = [sample_scene(each, split=split, objects=objects, size=size) for each in range(seed, seed + count)]
    try:
        if place.kind == "folder" and any(folder.iterdir()):
            raise ConfigError(f"folder {folder}: it is not empty; choose another one for the data set")
        with _whole_or_none(folder):
            instances, captions = _instances(scenes, folder / "images", on_done), _captions(scenes)
            paths = folder / "annotations" / f"instances_{split}.json", folder / "annotations" / f"captions_{split}.json"
            for path, data in zip(paths, (instances, captions), strict=True):
                write_whole(path, [(json.dumps(data) + "\n").encode()])
    except OSError as error:
        raise ConfigError(f"folder {folder}: cannot be written ({reason(error)}); choose another one") from None
    return paths


@contextmanager
def _whole_or_none(folder: Path) -> Generator[None]:
    """Make the folders of a data set; if the block fails, or is interrupted, all that was made is removed again.

    Only that: another command may make a data set in the same folder meanwhile.
    """
    above = [path for path in (folder, *folder.absolute().parents) if not is_there(path)]
    made: list[Path] = []
    try:
        for path in reversed(above):
            with suppress(FileExistsError):
                path.mkdir()
                made.append(path)
        for path in (folder / name for name in FOLDERS):
            path.mkdir()
            made.append(path)
        yield
    except BaseException:
        with suppress(OSError):  # one is not empty, or the disk became read-only: the first error is the one to tell
            for path in reversed(made):
                if path in above:
                    path.rmdir()
                else:
                    shutil.rmtree(path, ignore_errors=True)
        raise


def categories() -> dict[str, int]:
    """Every colour and shape, `red circle`, with its id from 1."""
    from ..shapeworld.geometry import SHAPES

    return {f"{colour} {shape}": i for i, (colour, shape) in enumerate(product(COLOURS, SHAPES), 1)}


def _instances(scenes: list[Scene], images: Path, on_done: Callable[[int], None]) -> dict[str, Any]:
    """COCO's instances; the picture of each scene is written on the way."""
    ids, annotations = categories(), list[Mapping[str, Any]]()
    for scene in scenes:
        annotations += _draw(scene, images / _image(scene)["file_name"], ids, len(annotations))
        on_done(1)
    listed = [{"id": number, "name": name, "supercategory": name.split()[1]} for name, number in ids.items()]
    return {"info": INFO, "images": list(map(_image, scenes)), "annotations": annotations, "categories": listed}


def _draw(scene: Scene, path: Path, ids: Mapping[str, int], before: int) -> list[dict[str, Any]]:
    """Write the picture of a scene; returns its annotations, the areas counted in pixels."""
    from PIL import Image

    from ..shapeworld.render import masks, render

    data = BytesIO()
    Image.fromarray(render(scene)).save(data, "PNG")
    path.write_bytes(data.getvalue())
    found: list[dict[str, Any]] = []
    for thing, box, mask in zip(scene.objects, scene.boxes, masks(scene), strict=True):
        left, top, right, bottom = (side * length for side, length in zip(box, (scene.width, scene.height) * 2, strict=True))
        found.append(
            {
                "id": before + len(found) + 1,
                "image_id": scene.seed,
                "category_id": ids[thing.phrase],
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
        )
    return found


def _captions(scenes: list[Scene]) -> dict[str, Any]:
    said = [{"id": i, "image_id": scene.seed, "caption": scene.caption} for i, scene in enumerate(scenes, 1)]
    return {"info": INFO, "images": list(map(_image, scenes)), "annotations": said}


def _image(scene: Scene) -> dict[str, Any]:
    return {"id": scene.seed, "file_name": f"{scene.seed:012}.png", "width": scene.width, "height": scene.height}
