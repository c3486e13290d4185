"""Pictures that a region of a layout shows: from files, and as texts in JSON."""

from __future__ import annotations

import base64
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import LayoutError
from .masks import DATA

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("PNG", "JPEG", "WEBP")
MOST_PIXELS = 2**26
"""A larger picture is refused before it is unpacked."""


def read_picture(path: str | Path | io.BytesIO) -> Image:
    """A picture in RGB from a file or its bytes.

    Raises:
        LayoutError: no PNG, JPEG or WebP file, or too large (`MOST_PIXELS`).
    """
    from PIL import Image

    name = "in the text" if isinstance(path, io.BytesIO) else path
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and an error
            picture = Image.open(path, formats=FORMATS)
        with picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise LayoutError(
                    f"image {name}: {picture.width}x{picture.height} pixels; expected at most {MOST_PIXELS} in all: scale it down"
                )
            return picture.convert("RGB")
    except FileNotFoundError:
        raise LayoutError(f"image {name}: no such file; expected a picture ({', '.join(FORMATS)})") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        expected = f"expected a picture ({', '.join(FORMATS)})"
        raise LayoutError(f"image {name}: cannot be read ({type(error).__name__}: {error}); {expected}") from None


def checked_picture(image: object, phrase: str) -> Image:
    """A region's picture in RGB, copied: a frozen region must not change when its maker's picture does.

    Raises:
        LayoutError: it is no picture of PIL's.
    """
    from PIL import Image

    if not isinstance(image, Image.Image):
        kind = type(image).__name__
        raise LayoutError(f"image of region {phrase!r}: a {kind}; expected a PIL.Image.Image, such as PIL.Image.open('dog.png')")
    return image.convert("RGB")


def same_picture(first: Image | None, second: Image | None) -> bool:
    """Whether two pictures in RGB, or none, have the same pixels."""
    if first is None or second is None:
        return first is second
    return first.size == second.size and first.tobytes() == second.tobytes()


def encode_picture(image: Image) -> bytes:
    """A picture as a PNG file."""
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def picture_to_text(image: Image) -> str:
    """The same PNG file as a text, for JSON."""
    return DATA + base64.b64encode(encode_picture(image)).decode()


def picture_of_text(text: object) -> Image:
    """The inverse of `picture_to_text`.

    Raises:
        LayoutError: not such a text, or no picture.
    """
    if not isinstance(text, str) or not text.startswith(DATA):
        raise LayoutError(f"image {str(text)[:40]!r}: expected a text that begins with {DATA!r}")
    try:
        data = base64.b64decode(text.removeprefix(DATA), validate=True)
    except ValueError:
        raise LayoutError(f"image {text[:40]!r}...: not base64 after {DATA!r}") from None
    return read_picture(io.BytesIO(data))
