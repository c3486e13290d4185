"""The picture of the README: the same prompts and seeds without and with guidance, the requested boxes drawn over both.

python -m recipes.shapeworld.gallery --out docs/guided.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lsregen.evaluation.shapeworld import Scene, sample_scene
from lsregen.framework import Layout, Pipeline

SIDE, GAP, LABEL = 192, 8, 22
ROWS = (("no guidance", None), ("layout-guidance", "layout-guidance"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/guided.png"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    args = parser.parse_args()

    pipeline = Pipeline.load("shapeworld-base", device="cpu")
    scenes = [sample_scene(seed, split="eval", objects=2) for seed in args.seeds]
    height = LABEL + SIDE + GAP
    sheet = Image.new("RGB", (len(scenes) * (SIDE + GAP) + GAP, len(ROWS) * height + LABEL), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for row, (name, guidance) in enumerate(ROWS):
        top = row * height
        draw.text((GAP, top + 3), name, fill="black", font=font)
        images = pipeline(
            [scene.caption for scene in scenes],
            layout=[Layout.from_boxes(dict(zip(scene.phrases, scene.boxes, strict=True))) for scene in scenes],
            guidance=guidance,
            seed=args.seeds,
        ).images
        for column, (scene, image) in enumerate(zip(scenes, images, strict=True)):
            place = (GAP + column * (SIDE + GAP), top + LABEL)
            sheet.paste(with_boxes(image, scene), place)
    for column, scene in enumerate(scenes):
        text = " and ".join(scene.phrases)
        draw.text((GAP + column * (SIDE + GAP), len(ROWS) * height + 2), text, fill="black", font=font)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.out, optimize=True)


def with_boxes(image: Image.Image, scene: Scene) -> Image.Image:
    """The image enlarged, each requested box outlined in black and white so that it shows on any colour."""
    picture = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for box in scene.boxes:
        left, top, right, bottom = (round(edge * (SIDE - 1)) for edge in box)
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")
        draw.rectangle((left, top, right, bottom), outline="white")
    return picture


if __name__ == "__main__":
    main()
