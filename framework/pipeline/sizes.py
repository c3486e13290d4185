"""Widths and heights in pixels: as they are given, and of a picture that another model renders for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..config.options import convert
from ..config.values import MOST_SIDE
from ..errors import ConfigError, LayoutError, shown

if TYPE_CHECKING:
    from ..layout.regions import Layout
    from ..protocols import Model

PROPORTIONS = 0.02  # by which those of a mask, or of a first picture, may differ from the image's


def checked_size(size: object) -> tuple[int, int]:
    """A width and a height.

    Raises:
        ConfigError: it is something else.
    """
    try:
        width, height = convert(size, tuple[int, int], "size")
    except ConfigError:
        raise ConfigError(f"size: {shown(size)}: expected a width and a height in pixels, such as (64, 64)") from None
    if max(width, height) > MOST_SIDE:
        raise ConfigError(f"size: {shown((width, height))}: a side is longer than {MOST_SIDE:,} pixels")
    return width, height


def rendered_size(model: Model, given: object, wanted: tuple[int, int]) -> tuple[int, int]:
    """The size at which a model renders for an image of the size `wanted`: the `given` one, else its own in these proportions.

    Raises:
        ConfigError: it is larger than that, or the given one has other proportions, or is no size.
    """
    width, height = _proportioned(model, wanted) if given is None else checked_size(given)
    if given is not None and (width < 1 or height < 1 or stretched((width, height), wanted)):
        raise ConfigError(
            f"size: {width}x{height} pixels, and the image is to have {wanted[0]}x{wanted[1]}: the picture would be stretched; "
            "name a size of the image's proportions, or leave the source's size out"
        )
    if width > wanted[0] or height > wanted[1]:
        raise ConfigError(
            f"size: the source renders {width}x{height} pixels, more than the image's {wanted[0]}x{wanted[1]}; make the image "
            "larger with --size, or set the source's size"
        )
    return width, height


def _proportioned(model: Model, size: tuple[int, int]) -> tuple[int, int]:
    """A model's own size, stretched along one side to the proportions of `size` as nearly as its factor allows."""
    short, longer = min(model.default_size), max(size) / min(size)
    side = max(1, round(short * longer / model.factor)) * model.factor
    return (side, short) if size[0] >= size[1] else (short, side)


def check_proportions(layout: Layout, size: tuple[int, int]) -> None:
    """Whether the masks of a layout have the proportions of an image of `size` (width, height); their resolution is free.

    Raises:
        LayoutError: one has others.
    """
    for region in layout.regions:
        if region.mask is not None:
            height, width = region.mask.shape
            if said := stretched((width, height), size):
                raise LayoutError(f"the mask of {region.phrase!r}: {said}")


def stretched(had: tuple[int, int], wanted: tuple[int, int]) -> str | None:
    """What is wrong with a picture of one width and height where another is wanted, if they have not the same proportions."""
    if abs(had[0] * wanted[1] / (had[1] * wanted[0]) - 1) <= PROPORTIONS:
        return None
    return (
        f"{had[0]}x{had[1]} pixels, and the image is to have {wanted[0]}x{wanted[1]}: it would be stretched; crop it, or ask for "
        "a size of its proportions"
    )
