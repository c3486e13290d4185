"""COCO instances as items: one an image, its largest objects with their boxes, prompted by a caption or by their names."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...framework.errors import LayoutError, counted
from ...framework.layout_files.coco_instances import XYWH, Annotated, Annotations, read_annotated
from ...framework.layout_files.item import Dropped, four, parse_json, read_text
from ..runs.expects import Expects
from .base import Asked, Entry, Source, finished, whole
from .captions import read_captions

NAME = "coco"
KEPT = 2
"""Objects of an image in the split `multi`, as in LSReGen's evaluation: those with the largest pixel areas."""


def read(asked: Asked) -> Source:
    """One item for each image of the split, of the image's size; see `read_images`."""
    images, dropped = read_images(asked)
    entries = whole(asked, [(_entry(image), len(image.item.layout.boxed) == chosen) for image, chosen in images], dropped)
    files = [asked.file, *([asked.captions] if asked.captions else [])]
    return finished(NAME, asked, entries, dropped=dropped, files=files, options={"split": asked.split}, size="x3")


def read_images(asked: Asked, *, for_captions: bool = False) -> tuple[list[tuple[Annotated, int]], list[Dropped]]:
    """The first `limit` images of the split, each with how many objects were chosen of it, and what was left out.

    Crowds are left out first; then `single` are the images with exactly one object, `multi` those with two or more, of which the
    two largest are kept, the largest first, and `all` those with any. Size is `area`, which COCO measures on the segmentation, or
    that of the box where there is none. The prompt is the caption of `captions`, else the file's own, else composed: `a dog and a
    cat`. A bad box, or an object that the caption does not name or not as often as there are such objects, is an error, or is
    left out (`on_bad_box`). Nothing but its crowds is looked at in an image beyond the limit, which needs no caption either.
    Captions of images that the file does not have are left out, and counted.

    Args:
        for_captions: the largest object comes first in every split, and an image that loses a box is none to be left out.

    Raises:
        LayoutError: not COCO, an image or a category that is not there, no image in the split, or no caption of one.
    """
    reading = asked.reading(whole_items=not for_captions)
    captions = read_captions(asked.captions) if asked.captions is not None else {}
    objects, chosen = dict[int | str, int](), dict[int | str, int]()

    def select(image: Mapping[str, Any], annotations: Annotations) -> Annotations | None:
        objects[image["id"]] = len(annotations)
        found = None if len(chosen) == asked.limit else objects_of(annotations, asked.split)
        if found is None:
            return None
        chosen[image["id"]] = len(found)
        return by_area(found) if for_captions and len(found) > 1 else found

    images = read_annotated(reading, read_text(asked.file), captions, select)
    if not chosen:
        raise LayoutError(_no_images(asked, Counter(objects.values()), len(reading.dropped)))
    others = [each for each in captions if each not in objects]
    if asked.captions is not None and (missing := [each for each in chosen if each not in captions]):
        lacking = f"of its {counted(len(chosen), 'image')} {len(missing)} without one"
        raise LayoutError(
            f"{asked.captions}: no caption of image {missing[0]!r}, which is in the split {asked.split!r} of {asked.file} "
            f"({lacking}); {_of_others(captions, others)}expected one for each image "
            "(`lsregen caption`, of the package lsregen-captions, writes them)"
        )
    found = [(image, chosen[image.id]) for image in images]
    for each in others:
        reading.drop(f"{asked.captions}, image {each!r}", "caption", f"of no image in {asked.file.name}")
    return found, reading.dropped


def _no_images(asked: Asked, objects: Counter[int], crowds: int) -> str:
    """Why the split is empty. `objects`: how many images have so many."""
    none, one, total = objects[0], objects[1], objects.total()
    if none == total and any("caption" in each for each in parse_json(read_text(asked.file), "")["annotations"]):
        return (
            f"{asked.file}: a file of captions, in which no image has an object; expected COCO's instances "
            "(instances_*.json), to which captions are given by --captions of lsregen evaluate plan"
        )
    return (
        f"{asked.file}: no items (split {asked.split}): of its {counted(total, 'image')} {one} with exactly one object, "
        f"{total - none - one} with two or more, {none} with none (besides {counted(crowds, 'crowd')})"
    )


def _of_others(captions: Collection[int | str], others: Sequence[int | str]) -> str:
    if not others:
        return ""
    return f"of other images are {len(others)} of the {counted(len(captions), 'caption')}, the first has the id {others[0]!r}; "


def objects_of(annotations: Annotations, split: str) -> Annotations | None:
    """Which objects of an image are kept; None if the image is not in the split."""
    fits = {"single": len(annotations) == 1, "multi": len(annotations) >= KEPT, "all": len(annotations) >= 1}
    if not fits[split]:
        return None
    if split != "multi":
        return annotations
    return by_area(annotations)[:KEPT]


def by_area(annotations: Annotations) -> Annotations:
    """The largest object first; the first of the file among equally large ones."""
    return sorted(annotations, key=lambda placed: _area(*placed), reverse=True)


def _area(where: str, annotation: Mapping[str, Any]) -> float:
    area: object = annotation.get("area")
    if area is None:
        try:
            box = four(annotation.get("bbox"), XYWH)
        except LayoutError:  # told of where its region is made
            return 0
        return box[2] * box[3]
    if isinstance(area, bool) or not isinstance(area, int | float) or not 0 <= area < math.inf:
        raise LayoutError(f"{where}: area {area!r}: expected a number of pixels, or none")
    return float(area)


def entry_id(image: int | str) -> str:
    """What the item of an image is called."""
    return f"{NAME}-{image}"


def _entry(image: Annotated) -> Entry:
    phrases = [region.phrase for region in image.item.layout.regions]
    return Entry(entry_id(image.id), image.item, Expects(classes=dict(zip(phrases, image.categories, strict=True))))
