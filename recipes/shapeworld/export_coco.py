"""Writes scenes as a data set in COCO's form: what reads COCO, a detector or a metric, reads them as any other.

images/000000000017.png              the true image of the scene with the seed 17
annotations/instances_eval.json      boxes, areas and categories; a category is a colour and a shape
annotations/captions_eval.json       a caption for each image

    python -m recipes.shapeworld.export_coco world --count 300
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image

from lsregen.evaluation.shapeworld import Scene, masks, render, sample_scene
from lsregen.evaluation.shapeworld.geometry import SHAPES
from lsregen.evaluation.shapeworld.scene import COLOURS

SPLITS = ("eval", "reference", "train")
INFO = {"description": "lsregen shapeworld: scenes of coloured shapes", "version": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new, or empty")
    parser.add_argument("--count", type=int, default=300, help="scenes, one image each")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--objects", type=int, choices=(1, 2, 3), help="in every scene; a number that is drawn by default")
    parser.add_argument("--size", type=int, nargs=2, default=(64, 64), metavar=("WIDTH", "HEIGHT"), help="in pixels")
    parser.add_argument("--split", choices=SPLITS, default="eval", help="eval is never trained on; no two splits share a scene")
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        parser.error(f"{args.folder}: it is not empty; choose another folder for the data set")
    for path in export_coco(**vars(args)):
        print(path)


def export_coco(
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    objects: int | None = None,
    size: tuple[int, int] = (64, 64),
    split: str = "eval",
) -> tuple[Path, Path]:
    """Write the scenes of the seeds `seed, ..., seed + count - 1`; returns the files of instances and of captions.

    Args:
        objects: in each scene, 1 to 3; None for a number that is drawn.
        size: width and height in pixels.
        split: one of `SPLITS`.
    """
    scenes = [sample_scene(each, split=split, objects=objects, size=size) for each in range(seed, seed + count)]
    for name in ("images", "annotations"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for scene in scenes:
        Image.fromarray(render(scene)).save(folder / "images" / _image(scene)["file_name"])
    shared = {"info": INFO, "images": [_image(scene) for scene in scenes]}
    said = [{"id": i, "image_id": scene.seed, "caption": scene.caption} for i, scene in enumerate(scenes, 1)]
    listed = [{"id": number, "name": name, "supercategory": name.split()[1]} for name, number in categories().items()]
    instances, captions = (folder / "annotations" / f"{what}_{split}.json" for what in ("instances", "captions"))
    captions.write_text(json.dumps({**shared, "annotations": said}) + "\n")
    instances.write_text(json.dumps({**shared, "annotations": _annotations(scenes), "categories": listed}) + "\n")
    return instances, captions


def categories() -> dict[str, int]:
    """Every colour and shape, `red circle`, with its id from 1."""
    return {f"{colour} {shape}": i for i, (colour, shape) in enumerate(product(COLOURS, SHAPES), 1)}


def _annotations(scenes: list[Scene]) -> list[dict[str, Any]]:
    """COCO's boxes, in pixels; the areas are counted."""
    ids, found = categories(), list[dict[str, Any]]()
    for scene in scenes:
        sides = (scene.width, scene.height) * 2
        for thing, box, mask in zip(scene.objects, scene.boxes, masks(scene), strict=True):
            left, top, right, bottom = (part * side for part, side in zip(box, sides, strict=True))
            found.append(
                {
                    "id": len(found) + 1,
                    "image_id": scene.seed,
                    "category_id": ids[thing.phrase],
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                }
            )
    return found


def _image(scene: Scene) -> dict[str, Any]:
    return {"id": scene.seed, "file_name": f"{scene.seed:012}.png", "width": scene.width, "height": scene.height}


if __name__ == "__main__":
    main()
