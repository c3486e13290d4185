"""The pictures of the documentation, from the models that are installed, with fixed seeds.

pip install -e ./examples/lsregen-centre -e ./docs/tutorial/lsregen-mosaic
python docs/pictures.py                  # all of them, into docs/pictures
python docs/pictures.py own-model        # only some
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from lsregen.evaluation.shapeworld import sample_scene
from lsregen.framework import Layout, Pipeline, Result
from lsregen.framework.config.yaml_text import parse_yaml
from lsregen.framework.pipeline.pipeline import GuidanceLike

HOME = Path(__file__).parent
CENTRE = HOME.parent / "examples" / "lsregen-centre" / "centre.yaml"
SIDE, GAP, LINE = 192, 8, 20
COLOURS = 128  # of a palette; a picture is then a quarter as large
SHAPES = "a red circle and a blue square"
BOXES = {"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)}
SCENES = (0, 1, 2, 3)  # the first of the held-out scenes, not chosen

Row = tuple[str, Sequence[Image.Image]]


@dataclass(frozen=True)
class Subjects:
    """What is asked for, the same in every row of a picture. `drawn`: whether its boxes are."""

    prompts: Sequence[str]
    layouts: Sequence[Layout]
    seeds: Sequence[int] = (0,)
    model: str = "shapeworld-base"
    drawn: bool = True

    def row(self, name: str, guidance: GuidanceLike) -> Row:
        result = loaded(self.model)(list(self.prompts), layout=list(self.layouts), seed=list(self.seeds), guidance=guidance)
        return name, [
            enlarged(i, layout if self.drawn else Layout()) for i, layout in zip(result.images, self.layouts, strict=True)
        ]


@cache
def loaded(model: str) -> Pipeline:
    return Pipeline.load(model, device="cpu")


def enlarged(image: Image.Image, layout: Layout) -> Image.Image:
    """The image, pixel by pixel, with its boxes in black and white, which shows on any ground."""
    picture = image.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(picture)
    for region in layout.boxed:
        left, top, right, bottom = (round(edge * (SIDE - 1)) for edge in (region.box.xyxy if region.box else (0, 0, 1, 1)))
        draw.rectangle((left - 1, top - 1, right + 1, bottom + 1), outline="black")
        draw.rectangle((left, top, right, bottom), outline="white")
    return picture


def beside(rows: Sequence[Row]) -> Image.Image:
    """One image a row, all of them beside each other, under their names."""
    sheet = Image.new("RGB", (len(rows) * (SIDE + GAP) - GAP, LINE + SIDE), "white")
    for i, (name, (image, *_)) in enumerate(rows):
        label(sheet, name, (i * (SIDE + GAP), 2))
        sheet.paste(image, (i * (SIDE + GAP), LINE))
    return sheet


def below(rows: Sequence[Row], names: Sequence[str]) -> Image.Image:
    """The rows below each other, and the name of every column at the bottom."""
    height = LINE + SIDE + GAP
    sheet = Image.new("RGB", (len(names) * (SIDE + GAP) - GAP, len(rows) * height + LINE), "white")
    for i, (name, images) in enumerate(rows):
        label(sheet, name, (0, i * height + 2))
        for j, image in enumerate(images):
            sheet.paste(image, (j * (SIDE + GAP), i * height + LINE))
    for j, name in enumerate(names):
        label(sheet, name, (j * (SIDE + GAP), len(rows) * height))
    return sheet


def label(sheet: Image.Image, text: str, at: tuple[int, int]) -> None:
    ImageDraw.Draw(sheet).text(at, text, fill="black", font=ImageFont.load_default(13))


def shapes() -> Subjects:
    return Subjects([SHAPES], [Layout.from_boxes(BOXES)])


def scenes(objects: int, *, drawn: bool) -> Subjects:
    made = [sample_scene(seed, split="eval", objects=objects) for seed in SCENES]
    layouts = [Layout.from_boxes(dict(zip(scene.phrases, scene.boxes, strict=True))) for scene in made]
    return Subjects([scene.caption for scene in made], layouts, SCENES, drawn=drawn)


def yaml_of(page: str, name: str) -> Mapping[str, object]:
    """The file `name` that a page shows: what the reader writes is what is drawn."""
    text = (HOME / page).read_text(encoding="utf-8")
    return parse_yaml(text.partition(f"`{name}`:\n\n```yaml\n")[2].partition("```")[0], page)


def first_image() -> Image.Image:
    asked = shapes()
    return beside([asked.row("no guidance", None), asked.row("guidance", "layout-guidance@shapeworld")])


def own_distance() -> Image.Image:
    asked = shapes()
    others = [asked.row("no guidance", None), asked.row("layout-guidance", "layout-guidance")]
    return beside([*others, asked.row("centre", CENTRE)])


def own_extractor() -> Image.Image:
    asked, warm = shapes(), yaml_of("tutorial/4-own-extractor.md", "warm.yaml")
    boxes = {"guidance": {name: term for name, term in warm["guidance"].items() if name == "layout"}}  # type: ignore[attr-defined]
    return beside([asked.row("boxes alone", boxes), asked.row("boxes and background", warm)])


def own_model() -> Image.Image:
    boxes = {"red": (0.1, 0.1, 0.5, 0.9), "blue": (0.55, 0.3, 0.95, 0.7)}
    asked = Subjects(["red tiles and blue tiles"], [Layout.from_boxes(boxes)], model="mosaic")
    tiles = yaml_of("tutorial/5-own-model.md", "tiles.yaml")
    return beside([asked.row("no guidance", None), asked.row("box_energy", tiles)])


def small_first() -> Image.Image:
    """A small picture, and large ones without and with a pull toward it, all drawn equally large."""
    (layout,) = shapes().layouts

    def made(guidance: GuidanceLike) -> Result:
        return loaded("shapeworld-large")(SHAPES, layout=layout, guidance=guidance, seed=1)

    pulled = made("lsregen")
    pictures = {"the small picture": pulled.renders[0][0], "no guidance": made({}).image, "pulled": pulled.image}
    return beside([(name, [enlarged(picture, layout)]) for name, picture in pictures.items()])


def front() -> Image.Image:
    """What is drawn, and the large model's images of it without guidance and with."""
    asked = replace(scenes(2, drawn=True), model="shapeworld-large")
    names = [" and ".join(layout.phrases) for layout in asked.layouts]
    drawn = "what you draw", [boxes_alone(layout) for layout in asked.layouts]
    return below([drawn, asked.row("without guidance", {}), asked.row("with guidance", "lsregen")], names)


def boxes_alone(layout: Layout) -> Image.Image:
    """The boxes of a layout in the colours that their phrases name, with the phrases in them."""
    picture = Image.new("RGB", (SIDE, SIDE), (246, 246, 244))
    draw = ImageDraw.Draw(picture)
    for region in layout.boxed:
        corners = [edge * (SIDE - 1) for edge in (region.box.xyxy if region.box else (0, 0, 1, 1))]
        draw.rectangle(corners, outline=region.phrase.split()[0], width=2)
        draw.text(
            (corners[0] + 6, corners[1] + 4), "\n".join(region.phrase.split()), fill="black", font=ImageFont.load_default(13)
        )
    return picture


def method(preset: str, objects: int = 2, *, drawn: bool = True) -> Callable[[], Image.Image]:
    """The same scenes without guidance, as published, and tuned for the model that draws them."""

    def picture() -> Image.Image:
        asked = scenes(objects, drawn=drawn)
        names = [", ".join(layout.phrases) for layout in asked.layouts]
        tuned = f"{preset}@shapeworld"
        return below([asked.row("no guidance", None), asked.row(preset, preset), asked.row(tuned, tuned)], names)

    return picture


def sees_boxes() -> Image.Image:
    asked = scenes(2, drawn=True)
    names = [", ".join(layout.phrases) for layout in asked.layouts]
    grounded = replace(asked, model="shapeworld-gligen").row("shapeworld-gligen", "gligen")
    return below([asked.row("shapeworld-base", None), grounded], names)


PICTURES: Mapping[str, Callable[[], Image.Image]] = {
    "front": front,
    "first-image": first_image,
    "own-distance": own_distance,
    "own-extractor": own_extractor,
    "own-model": own_model,
    "gligen": sees_boxes,
    "lsregen": small_first,
    "attend-and-excite": method("attend-and-excite", 3, drawn=False),
    "layout-guidance": method("layout-guidance"),
    "semantic-layout": method("semantic-layout"),
    "boxdiff": method("boxdiff"),
    "zestguide": method("zestguide"),
    "syngen": method("syngen", 3, drawn=False),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", choices=[*PICTURES, []], help=f"out of {', '.join(PICTURES)}")
    parser.add_argument("--out", type=Path, default=HOME / "pictures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.names or PICTURES:
        path = args.out / f"{name}.png"
        PICTURES[name]().quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
