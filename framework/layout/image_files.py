"""Pictures as files and as texts in JSON, for masks and for what regions show alike: opened within a limit, packed, unpacked."""

from __future__ import annotations

import base64
import io
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import LayoutError, LsregenError
from ..files import look, shortened

if TYPE_CHECKING:
    from PIL.Image import Image

DATA = "data:image/png;base64,"
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
"""The files that are opened as images: no other reader of Pillow's ever sees a file of somebody else's."""
MOST_PIXELS = 2**26
"""A larger picture is refused before it is unpacked: 8192 x 8192, as a mask 256 MiB of numbers."""


@dataclass(frozen=True)
class Wanted:
    """What an image is opened for, as messages begin. `formats`: those that Pillow may try. `error`: what is raised."""

    what: str
    formats: tuple[str, ...] = FORMATS
    error: type[LsregenError] = LayoutError

    @property
    def expected(self) -> str:
        """What is expected, for messages."""
        return f"an image ({', '.join(self.formats)})"


def place_of(path: str | Path | io.BytesIO) -> str:
    """Where a picture comes from, in messages."""
    return "in the text" if isinstance(path, io.BytesIO) else shortened(path)


def opened(path: str | Path | io.BytesIO, wanted: Wanted) -> Image:
    """The picture in a file or its bytes, unpacked.

    Raises:
        LsregenError: of the class that is `wanted`: no such picture, or a larger one than `MOST_PIXELS`.
    """
    from PIL import Image, UnidentifiedImageError

    name = f"{wanted.what} {place_of(path)}"
    if not isinstance(path, io.BytesIO) and not (place := look(path)).readable:
        raise wanted.error(f"{name}: {place.said}; expected {wanted.expected}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and an error
            picture = Image.open(path, formats=wanted.formats)
        with picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise wanted.error(
                    f"{name}: {picture.width}x{picture.height} pixels; expected at most {MOST_PIXELS} in all: scale it down"
                )
            picture.load()
            return picture
    except UnidentifiedImageError:
        raise wanted.error(f"{name}: expected {wanted.expected}, and this is something else") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as fault:
        raise wanted.error(f"{name}: cannot be read as {wanted.expected} ({type(fault).__name__}: {fault})") from None


def shown(path: str | Path | io.BytesIO, wanted: Wanted) -> Image:
    """A picture as it is meant to be seen, in RGB: cameras turn it by a note in the file. Raises as `opened` and `in_rgb`."""
    from PIL import ImageOps

    return in_rgb(ImageOps.exif_transpose(opened(path, wanted)), f"{wanted.what} {place_of(path)}", wanted.error)


def in_rgb(picture: Image, name: str, error: type[LsregenError] = LayoutError) -> Image:
    """A picture in RGB.

    Raises:
        LsregenError: of the class `error`: its values are not those of 8 bits, and would be cut off at 255; or parts of it are
            transparent, and what is behind them would be a guess.
    """
    if picture.mode[0] in "IF":
        raise error(f"{name}: a picture in the mode {picture.mode}, with more than 8 bits of grey; expected 8: save it so")
    if picture.has_transparency_data and picture.convert("RGBA").getchannel("A").tobytes().strip(b"\xff"):
        raise error(f"{name}: parts of it are transparent; expected a picture without holes: put it on a background")
    return picture.convert("RGB")


def encode_picture(image: Image, texts: Mapping[str, str] | None = None) -> bytes:
    """A picture as a PNG file. `texts`: what it says of itself, by key."""
    from PIL.PngImagePlugin import PngInfo

    info, data = PngInfo(), io.BytesIO()
    for key, text in (texts or {}).items():
        info.add_text(key, text)
    image.save(data, "PNG", pnginfo=info)
    return data.getvalue()


def packed(data: bytes) -> str:
    """A PNG file as a text, for JSON."""
    return DATA + base64.b64encode(data).decode()


def unpacked(text: object, what: str, expected: str) -> io.BytesIO:
    """The inverse of `packed`.

    Raises:
        LayoutError: not such a text.
    """
    if not isinstance(text, str) or not text.startswith(DATA):
        raise LayoutError(f"{what} {str(text)[:40]!r}: expected {expected} that begins with {DATA!r}")
    try:
        return io.BytesIO(base64.b64decode(text.removeprefix(DATA), validate=True))
    except ValueError:
        raise LayoutError(f"{what} {text[:40]!r}...: not base64 after {DATA!r}") from None
