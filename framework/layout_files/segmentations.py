"""Masks of COCO's segmentations: polygons and run lengths, decoded by faster-coco-eval."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from ..errors import ConfigError, LayoutError, shown
from ..layout.image_files import MOST_PIXELS
from .item import Size

if TYPE_CHECKING:
    from torch import Tensor

EXPECTED = "expected polygons, or run lengths with their counts and their size, as COCO has them"
BEYOND = 1.0  # pixels: so far outside of the image a point of a polygon may lie, as annotators write it


def segmentation_mask(value: object, size: Size) -> Tensor:
    """The mask `[H W]`, fp32, 1 inside, of an annotation's `segmentation` on an image of `size` (width, height).

    Raises:
        LayoutError: no segmentation, one of another form or size, one that covers no pixel, or an image above `MOST_PIXELS`.
        ConfigError: faster-coco-eval is not installed.
    """
    import torch

    width, height = size
    if width * height > MOST_PIXELS:
        raise LayoutError(f"an image of {width}x{height} pixels; expected at most {MOST_PIXELS} in all for a mask: scale it down")
    codec, given = _codec(), shown(value)
    try:
        if isinstance(value, list):
            encoded = codec.merge(codec.frPyObjects(_polygons(cast("list[object]", value), size), height, width))
        else:
            encoded = _runs(value, [height, width])
            encoded = encoded if isinstance(encoded["counts"], str) else codec.frPyObjects(encoded, height, width)
        mask = codec.decode(encoded)
    except (ValueError, RuntimeError, TypeError) as error:  # what the decoder raises
        raise LayoutError(f"segmentation {given}: {str(error).splitlines()[0]}; {EXPECTED}") from None
    if not mask.any():
        raise LayoutError(f"segmentation {given}: it covers no pixel of an image of {width}x{height}; {EXPECTED}")
    return torch.tensor(mask, dtype=torch.float32)


def _codec() -> Any:
    try:
        return import_module("faster_coco_eval.core.mask")
    except ImportError:
        raise ConfigError(
            "COCO's segmentations are decoded by faster-coco-eval, which is not installed; install it with: "
            "pip install 'lsregen[eval]', or read the boxes"
        ) from None


def _polygons(value: list[object], size: Size) -> list[list[float]]:
    """Polygons, each a list of x and y in turn, in pixels."""
    polygons: list[list[float]] = []
    for each in value:
        numbers = _numbers(each)
        if numbers is None or len(numbers) < 6 or len(numbers) % 2:
            raise LayoutError(f"segmentation {shown(each)}: no polygon of three points or more; {EXPECTED}")
        for x, y in zip(numbers[::2], numbers[1::2], strict=True):
            if not (-BEYOND <= x <= size[0] + BEYOND and -BEYOND <= y <= size[1] + BEYOND):
                raise LayoutError(
                    f"segmentation {shown(each)}: the point {x:g}, {y:g} lies outside of {size[0]}x{size[1]} pixels"
                )
        polygons.append(numbers)
    if not polygons:
        raise LayoutError(f"segmentation []: {EXPECTED}")
    return polygons


def _runs(value: object, height_width: list[int]) -> dict[str, Any]:
    """Run lengths, column by column: a list of them, or COCO's text."""
    entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    counts: object = entry.get("counts")
    if entry and entry.get("size") != height_width:
        said = f"its size is {shown(entry.get('size'))}, and that of the image {height_width}"
        raise LayoutError(f"segmentation {shown(entry)}: {said} (height, width); {EXPECTED}")
    if not isinstance(counts, str):
        most = height_width[0] * height_width[1]
        numbers = _numbers(counts)
        if not numbers or any(number != number // 1 or not 0 <= number <= most for number in numbers):
            raise LayoutError(f"segmentation {shown(counts) if entry else shown(cast('object', value))}: {EXPECTED}")
        counts = [int(number) for number in numbers]
    return {"counts": counts, "size": height_width}


def _numbers(value: object) -> list[float] | None:
    """A list of numbers; None for anything else."""
    found = cast("list[object]", value) if isinstance(value, list) else [None]
    numbers = [float(each) for each in found if isinstance(each, int | float) and not isinstance(each, bool)]
    return numbers if len(numbers) == len(found) else None
