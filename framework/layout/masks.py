"""Masks on disk: grey images, white where the phrase stands, and label maps, which hold many masks in one."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ..config.arguments import checked_as
from ..errors import LayoutError
from .image_files import Wanted, encode_picture, opened, packed, place_of, unpacked

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image
    from torch import Tensor


MASK, LABEL_MAP = Wanted("mask"), Wanted("label map", ("PNG", "BMP", "TIFF"))  # a JPEG would blur labels into each other
FAINT = 0.1
"""The least that the largest value of a mask may be: below it nothing is marked, and numbers of labels were taken for grey."""
SHOWN_VALUES = 6  # in an error
SHOWN_LABELS = 24  # in an error


@checked_as(LayoutError)
def read_mask(path: str | Path | io.BytesIO) -> Tensor:
    """A mask `[H W]`, fp32 in [0, 1], from an image file or its bytes: black is 0 and white is 1, with 1, 8 or 16 bits.

    A picture in colour is taken if every pixel is grey. Where transparency varies, the mask is the opacity; the picture under it
    must then be of one value, since otherwise two masks could be meant.

    Raises:
        LayoutError: no file of `image_files.FORMATS`, too large (`MOST_PIXELS`), coloured, both grey values and transparency
            vary, or nowhere near white: numbers of labels, or 8-bit values in 16 bits, were meant otherwise.
    """
    import torch

    values, most = _values(opened(path, MASK), place_of(path))
    if 0 < values.max() < FAINT * most:
        found = sorted({int(value) for value in values.flat})
        shown = ", ".join(map(str, found[:SHOWN_VALUES])) + (", ..." if len(found) > SHOWN_VALUES else "")
        raise LayoutError(
            f"mask {place_of(path)}: its values are {shown} of {most}, nowhere near white; if they are labels, read it as a "
            f"label map; else scale it, so that {most} is white"
        )
    return torch.tensor(values.astype("float32") / most)


def read_label_map(path: str | Path, labels: Sequence[int]) -> dict[int, Tensor]:
    """The mask `[H W]` of each of these labels, from an image of one whole number a pixel (a palette's index, or 8 or 16 bits).

    Raises:
        LayoutError: no PNG, BMP or TIFF file, one in colours, too large (`MOST_PIXELS`), no labels, or a label is a text
            or nowhere in it; names those that are.
    """
    import numpy as np
    import torch

    texts = [label for label in labels if isinstance(label, str)]
    if texts or not labels:
        wrong = f"the label {texts[0]!r} is a text" if texts else "no label is named"
        raise LayoutError(f"label map {path}: {wrong}; expected whole numbers and their phrases, such as {{1: 'red circle'}}")
    picture = opened(path, LABEL_MAP)
    if picture.mode not in ("1", "L", "P") and not picture.mode.startswith("I"):
        raise LayoutError(
            f"label map {path}: a picture in the mode {picture.mode}; expected one whole number a pixel (palette or grey)"
        )
    values = np.asarray(picture).astype(np.int64)
    found = [int(value) for value in np.unique(values)]
    if missing := [label for label in labels if label not in found]:
        raise LayoutError(
            f"label map {path}: the label {missing[0]} is nowhere in it; its labels: {', '.join(map(str, found[:SHOWN_LABELS]))}"
            + (f" and {len(found) - SHOWN_LABELS} more" if len(found) > SHOWN_LABELS else "")
        )
    return {label: torch.tensor((values == label).astype(np.float32)) for label in labels}


def _values(picture: Image.Image, path: str | Path) -> tuple[np.ndarray[Any, Any], int]:
    """The mask of an opened picture as it is stored, by the rules of `read_mask`, and the number that is white."""
    import numpy as np

    if picture.mode.startswith("I"):  # 16 bits of grey
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise LayoutError(f"mask {path}: values from {values.min()} to {values.max()}; expected 1, 8 or 16 bits of grey")
        return values, 65535
    if picture.mode == "F":
        raise LayoutError(f"mask {path}: an image of floats; expected 1, 8 or 16 bits of grey: save it so")
    if picture.mode in ("1", "L") and "transparency" not in cast("dict[Any, Any]", picture.info):
        return np.asarray(picture.convert("L")), 255
    pixels = np.asarray(picture.convert("RGBA"))
    grey, opacity = pixels[..., 0], pixels[..., 3]
    if opacity.min() == opacity.max() == 255:
        if (pixels[..., :3] != grey[..., None]).any():
            raise LayoutError(f"mask {path}: it has colours; expected black and white, or grey: one picture for each phrase")
        return grey, 255
    seen = pixels[opacity > 0][:, :3]  # what is fully transparent has no colour that anybody sees
    if len(seen) and (seen != seen[0]).any():
        raise LayoutError(f"mask {path}: its colours and its transparency both vary; expected a mask in one of them, not both")
    return opacity, 255


def encode_mask(mask: Tensor) -> bytes | None:
    """A mask `[H W]` in [0, 1] as a PNG file with 8 or 16 bits of grey, if that keeps every value; else None."""
    import numpy as np
    import torch
    from PIL import Image

    for most, kind in ((255, np.uint8), (65535, np.uint16)):
        levels = (mask * most).round()
        if torch.equal(levels / most, mask):
            return encode_picture(Image.fromarray(levels.cpu().numpy().astype(kind)))
    return None


def mask_to_text(mask: Tensor) -> str | None:
    """The same PNG file as a text, for JSON."""
    data = encode_mask(mask)
    return None if data is None else packed(data)


def mask_of_text(text: str) -> Tensor:
    """The inverse of `mask_to_text`.

    Raises:
        LayoutError: not such a text, or not a mask.
    """
    return read_mask(unpacked(text, "mask", "rows of numbers, or a text"))


def mask_of_rows(rows: object) -> Tensor:
    """A mask `[H W]` from rows of numbers.

    Raises:
        LayoutError: not rows of numbers, all of one length.
    """
    import torch

    try:
        return torch.tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise LayoutError("mask: expected rows of numbers, all of one length, or a PNG picture") from None
