"""Pictures that a region of a layout shows: from files, and as texts in JSON."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LayoutError
from .image_files import Wanted, encode_picture, in_rgb, packed, shown, unpacked

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE = Wanted("image")


def read_picture(path: str | Path | io.BytesIO) -> Image:
    """A picture in RGB from a file or its bytes, upright.

    Raises:
        LayoutError: no file of `image_files.FORMATS`, or too large (`image_files.MOST_PIXELS`).
    """
    return shown(path, IMAGE)


def checked_picture(image: object, phrase: str) -> Image:
    """A region's picture in RGB, copied: a frozen region must not change when its maker's picture does.

    Raises:
        LayoutError: no picture of PIL's, or one of more than 8 bits or with transparent parts.
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise LayoutError(f"image of region {phrase!r}: a {kind}; expected a PIL.Image.Image, such as PIL.Image.open('dog.png')")
    return in_rgb(image, f"image of region {phrase!r}")


def same_picture(first: Image | None, second: Image | None) -> bool:
    """Whether two pictures in RGB, or none, have the same pixels."""
    if first is None or second is None:
        return first is second
    return first.size == second.size and first.tobytes() == second.tobytes()


def picture_to_text(image: Image) -> str:
    """The same PNG file as a text, for JSON."""
    return packed(encode_picture(image))


def picture_of_text(text: object) -> Image:
    """The inverse of `picture_to_text`.

    Raises:
        LayoutError: not such a text, or no picture.
    """
    return read_picture(unpacked(text, "image", "a text"))
