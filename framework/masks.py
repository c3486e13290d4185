"""Masks on disk: grey PNG files, white where the phrase stands."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from .errors import LayoutError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor

MOST_PIXELS = 2**26
"""A larger mask is refused before it is unpacked: 8192 x 8192, 256 MiB as numbers."""


def read_mask(path: str | Path) -> Tensor:
    """A mask `[H W]`, fp32 in [0, 1], from a PNG file: black is 0 and white is 1, with 1, 8 or 16 bits.

    A picture in colour is taken if every pixel is grey. Where transparency varies, the mask is the opacity; the picture under it
    must then be of one value, since otherwise two masks could be meant.

    Raises:
        LayoutError: no PNG file, too large (`MOST_PIXELS`), coloured, or both grey values and transparency vary.
    """
    import torch
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower, and an error
            picture = Image.open(path, formats=["PNG"])
        with picture:
            if picture.width * picture.height > MOST_PIXELS:
                raise LayoutError(
                    f"mask {path}: {picture.width}x{picture.height} pixels; expected at most {MOST_PIXELS} in all: scale it down"
                )
            return torch.tensor(_values(picture, path))
    except FileNotFoundError:
        raise LayoutError(f"mask {path}: no such file; expected a PNG picture") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise LayoutError(f"mask {path}: cannot be read as a PNG picture ({type(error).__name__}: {error})") from None


def _values(picture: Image.Image, path: str | Path) -> np.ndarray[Any, Any]:
    """The mask of an opened picture, by the rules of `read_mask`."""
    import numpy as np

    if picture.mode.startswith("I"):  # 16 bits of grey
        return np.asarray(picture).astype(np.float32) / 65535
    if picture.mode in ("1", "L") and "transparency" not in cast("dict[Any, Any]", picture.info):
        return np.asarray(picture.convert("L")).astype(np.float32) / 255
    pixels = np.asarray(picture.convert("RGBA"))
    grey, opacity = pixels[..., 0], pixels[..., 3]
    if opacity.min() == opacity.max() == 255:
        if (pixels[..., :3] != grey[..., None]).any():
            raise LayoutError(f"mask {path}: it has colours; expected black and white, or grey: one picture for each phrase")
        return grey.astype(np.float32) / 255
    seen = pixels[opacity > 0][:, :3]  # what is fully transparent has no colour that anybody sees
    if len(seen) and (seen != seen[0]).any():
        raise LayoutError(f"mask {path}: its colours and its transparency both vary; expected a mask in one of them, not both")
    return opacity.astype(np.float32) / 255


def encode_mask(mask: Tensor) -> bytes | None:
    """A mask `[H W]` in [0, 1] as a PNG file with 8 bits of grey, if that keeps every value; else None."""
    import torch
    from PIL import Image

    levels = (mask * 255).round()
    if not torch.equal(levels / 255, mask):
        return None
    data = io.BytesIO()
    Image.fromarray(levels.byte().cpu().numpy()).save(data, "PNG")
    return data.getvalue()


def mask_of_rows(rows: object, where: str) -> Tensor:
    """A mask `[H W]` from rows of numbers.

    Raises:
        LayoutError: not rows of numbers, all of one length.
    """
    import torch

    try:
        return torch.tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise LayoutError(f"{where}: mask: expected rows of numbers, all of one length, or the name of a PNG file") from None
