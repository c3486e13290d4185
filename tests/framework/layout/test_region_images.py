"""Pictures in regions: copied, compared by their pixels, from files and back, and refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lsregen.framework import Layout, LayoutError, Region, read_layouts, write_layouts
from lsregen.framework.layout.region_images import read_picture
from lsregen.framework.layout.regions import Box
from lsregen.framework.layout_files.item import Item

WHERE = Box(0.1, 0.1, 0.6, 0.6)


def picture(colour: str = "red") -> Image.Image:
    return Image.new("RGB", (6, 4), colour)


def test_a_region_keeps_a_copy() -> None:
    given = picture()
    region = Region("dog", WHERE, image=given)
    given.paste("blue", (0, 0, 6, 4))
    assert region == Region("dog", WHERE, image=picture())
    assert region != Region("dog", WHERE, image=given)
    assert region != Region("dog", WHERE)
    assert hash(region) == hash(Region("dog", WHERE, image=picture()))


@pytest.mark.parametrize("format", ["lsregen", "jsonl", "pixels"])
def test_images_go_beside_the_file(tmp_path: Path, format: str) -> None:
    layout = Layout((Region("dog", WHERE, image=picture()), Region("cat", Box(0.5, 0.5, 1, 1))))
    assert Layout.from_json(json.loads(json.dumps(layout.to_json()))) == layout
    path = tmp_path / f"a.{'jsonl' if format == 'jsonl' else 'json'}"
    writing = write_layouts(path, [Item("a dog and a cat", layout, size=(10, 10))], format)
    assert sorted(file.name for file in writing) == sorted([path.name, "a-1-1-image.png"])
    (item,) = read_layouts(path).items
    assert item.layout.regions[0].image is not None
    assert item.layout == layout


def entry(image: object, **place: Any) -> dict[str, Any]:
    return {"prompt": "a dog", "regions": [{"phrase": "dog", "image": image, **(place or {"box": [0, 0, 1, 1]})}]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (entry("absent.png"), r"image .*absent.png: no such file.*; expected an image \(PNG, JPEG"),
        (entry("text.png"), r"image .*text.png: expected an image"),
        (entry(3), "image 3: expected the name of a picture's file"),
        (entry("data:image/png;base64,???"), "not base64 after"),
        (entry("dog.png", mask=[[0, 1]], box=[0, 0, 1, 1]), "both a box and a mask"),
        (
            {"prompt": "a dog", "regions": [{"phrase": "dog", "image": "dog.png"}]},
            "has an image and no place for it; give it a box",
        ),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    picture().save(tmp_path / "dog.png")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "a.json").write_text(json.dumps(given))
    with pytest.raises(LayoutError, match=rf"a.json, region 1 \('dog'\): .*{said}"):
        read_layouts(tmp_path / "a.json")


def test_a_photograph_is_taken_as_it_is_meant_to_be_seen(tmp_path: Path) -> None:
    lying, note = Image.new("RGB", (6, 4)), Image.Exif()
    note[0x0112] = 6  # turn it to the right
    lying.save(tmp_path / "dog.jpg", exif=note)
    assert read_picture(tmp_path / "dog.jpg").size == (4, 6)


def test_what_is_no_picture() -> None:
    with pytest.raises(LayoutError, match=r"image of region 'dog': a str; expected a PIL.Image.Image, such as"):
        Region("dog", WHERE, image="dog.png")  # pyright: ignore[reportArgumentType]
    with pytest.raises(LayoutError, match=r"layout region 1 \('dog'\): image 'dog.png': expected a text that begins with 'data"):
        Layout.from_json({"regions": [{"phrase": "dog", "box": [0, 0, 1, 1], "image": "dog.png"}]})


def test_a_box_that_is_dropped_takes_its_image_along(tmp_path: Path) -> None:
    picture().save(tmp_path / "dog.png")
    (tmp_path / "a.json").write_text(json.dumps(entry("dog.png", box=[0.5, 0, 0.2, 1])))
    found = read_layouts(tmp_path / "a.json", on_bad_box="drop")
    assert found.items[0].layout.regions == (Region("dog"),)
    assert len(found.dropped) == 1
