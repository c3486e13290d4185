"""What should stand where: phrases with boxes or masks, and the forms they come in.

Boxes are normalised: fractions of the image's width and height, from the top left corner. Sizes of images are
(width, height). Nothing here imports torch until a mask is made, so that the command line starts fast.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..config.options import convert
from ..config.values import bare, half_a_character
from ..errors import ConfigError, LayoutError, PhraseError, nearest, shown
from .region_images import checked_picture, picture_of_text, picture_to_text, same_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

Floats: TypeAlias = Sequence[float]

BOX_FORM = "PHRASE=LEFT,TOP,RIGHT,BOTTOM"
CORNERS: tuple[str, ...] = ("left", "top", "right", "bottom")
# A thinner side is a mistake, and would drown in rounding before it covered anything: a thousandth of a pixel of 1024.
MIN_SIDE = 1e-6
# Annotation files round to a few decimals, so their boxes may leave the image by this share of a side; it is cut off.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Box:
    """A rectangle, normalised: left < right and top < bottom, all in [0, 1].

    Raises:
        LayoutError: a value is no number, not finite or out of range, corners are swapped, or the area is zero.
    """

    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        values = _four(self.xyxy, CORNERS)
        if problem := _problem(values):
            pixels = all(map(math.isfinite, values)) and max(values) > 1
            ways = 'Box.from_pixels(box, size), fractions in --box, or "unit": "pixels" in a file'
            hint = f"; these look like pixels: use {ways}" if pixels else ""
            raise LayoutError(f"box {_shown(values)}: {problem}{hint}")
        for name, value in zip(CORNERS, values, strict=True):
            object.__setattr__(self, name, value)

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return self.left, self.top, self.right, self.bottom

    @property
    def area(self) -> float:
        """The share of the image, in (0, 1]."""
        return (self.right - self.left) * (self.bottom - self.top)

    @classmethod
    def from_pixels(cls, box: Floats, size: tuple[int, int]) -> Box:
        """From left, top, right, bottom in pixels of an image of `size` (width, height).

        Raises:
            LayoutError: as `Box`; here the box may leave the image by a rounding error (`ROUNDING`).
        """
        values = _four(box, CORNERS)
        return cls._converted(values, f"pixel box {_shown(values)}", size)

    @classmethod
    def from_xywh(cls, box: Floats, size: tuple[int, int]) -> Box:
        """From COCO's left, top, width, height in pixels of an image of `size` (width, height). Raises as `from_pixels`.

        Fractions, such as NSR-1K's, are those of an image of 1x1.
        """
        x, y, w, h = values = _four(box, ("left", "top", "width", "height"))
        return cls._converted((x, y, x + w, y + h), f"box {_shown(values)} (left, top, width, height)", size)

    @classmethod
    def from_yolo(cls, box: Floats) -> Box:
        """From YOLO's normalised centre x, centre y, width, height. Raises as `from_pixels`."""
        x, y, w, h = values = _four(box, ("centre x", "centre y", "width", "height"))
        return cls._converted((x - w / 2, y - h / 2, x + w / 2, y + h / 2), f"YOLO box {_shown(values)}")

    @classmethod
    def _converted(cls, corners: Floats, given: str, size: tuple[int, int] = (1, 1)) -> Box:
        """Of corners in units of which the image has `size`; errors speak of them in these units."""
        values = [min(max(v, 0.0), 1.0) if -ROUNDING <= v <= 1 + ROUNDING else v for v in _scaled(corners, size)]
        if problem := _problem(values, size):
            raise LayoutError(f"{given}: {problem}")
        return cls(*values)


def _four(values: object, names: Iterable[str]) -> tuple[float, ...]:
    """Four floats. Whatever `float` takes is a number (numpy scalars too), but text, bytes and truth values are not."""
    try:
        if isinstance(values, str | bytes | bytearray | Mapping | set | frozenset) or len(cast("Floats", values)) != 4:
            raise TypeError
        items = [bare(item) for item in cast("Iterable[Any]", values)]
        if any(isinstance(item, str | bytes | bytearray | bool) for item in items):
            raise TypeError
        return tuple(float(item) for item in items)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise LayoutError(f"box {shown(cast('object', values))}: expected four numbers ({', '.join(names)})") from None


def _shown(values: Floats) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in values) + "]"


def _scaled(values: Floats, size: tuple[int, int]) -> Floats:
    try:
        width, height = convert(size, tuple[int, int], "image size")
    except ConfigError:
        width = height = 0
    if width < 1 or height < 1:
        raise LayoutError(f"image size {shown(size)}: expected (width, height) in pixels, both at least 1")
    return [value / side for value, side in zip(values, (width, height, width, height), strict=True)]


def _problem(values: Floats, size: tuple[int, int] = (1, 1)) -> str | None:
    """What is wrong with a normalised box, in words, or None. `size`: of the image in the units in which the words have it."""
    corners = dict(zip(CORNERS, values, strict=True))
    said = {name: f"{name}={value * side:.6g}" for (name, value), side in zip(corners.items(), size * 2, strict=True)}
    within = "fractions of the image in [0, 1]" if size == (1, 1) else f"pixels of an image of {size[0]}x{size[1]}"
    if bad := [said[name] for name, value in corners.items() if not math.isfinite(value)]:
        return f"{', '.join(bad)} is not finite; expected {within}"
    if bad := [said[name] for name, value in corners.items() if not 0 <= value <= 1]:
        return f"{', '.join(bad)} is out of range; expected {within}"
    for low, high in (("left", "right"), ("top", "bottom")):
        if corners[low] > corners[high]:
            return f"{said[low]} > {said[high]}; expected {low} < {high}: are the corners swapped?"
        if corners[high] - corners[low] < MIN_SIDE:
            return f"zero area: {said[low]} and {said[high]}; expected {low} < {high}"
    return None


@dataclass(frozen=True, eq=False)
class Region:
    """A phrase of the prompt and its place: a box, a mask, or neither (then the phrase is merely to be present).

    `phrase` is kept with single spaces. `mask` is `[H W]` in [0, 1], of any size, over the whole image; it is copied, as fp32.
    `image`: what shall be there, for models that are grounded on images; it is copied, as RGB. Two regions are equal when phrase,
    box, and the values of mask and image are.

    Raises:
        PhraseError: the phrase is no text, or empty.
        LayoutError: a box that is no `Box`, both a box and a mask, a mask that is no tensor, of a wrong shape, out of range, not
            finite or all zero, or an image without a place.
    """

    phrase: str
    box: Box | None = None
    mask: Tensor | None = None
    image: Image | None = None

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.phrase), str) or half_a_character(self.phrase):
            raise PhraseError(f"region phrase {shown(self.phrase)}: expected a text, words of the prompt, such as 'red circle'")
        phrase = " ".join(self.phrase.split())
        if not phrase:
            raise PhraseError(f"region phrase {self.phrase!r} is empty; expected words of the prompt, such as 'red circle'")
        object.__setattr__(self, "phrase", phrase)
        if self.box is not None:
            _check_kind(self.box, Box, f"box of region {phrase!r}", "a Box: Box(left, top, right, bottom)")
        if self.mask is not None:
            if self.box is not None:
                raise LayoutError(f"region {phrase!r} has both a box and a mask; give one of them")
            object.__setattr__(self, "mask", _checked(self.mask, phrase))
        if self.image is not None:
            if self.box is None and self.mask is None:
                raise LayoutError(f"region {phrase!r} has an image and no place for it; give it a box or a mask")
            object.__setattr__(self, "image", checked_picture(self.image, phrase))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Region) or (self.phrase, self.box) != (other.phrase, other.box):
            return False
        if not same_picture(self.image, other.image):
            return False
        if self.mask is None or other.mask is None:
            return self.mask is other.mask
        return self.mask.shape == other.mask.shape and bool((self.mask == other.mask.to(self.mask.device)).all())

    def __hash__(self) -> int:
        return hash((self.phrase, self.box, None if self.mask is None else tuple(self.mask.shape)))


def _checked(mask: Tensor, phrase: str) -> Tensor:
    """The mask as fp32, detached and copied: a frozen region must not change when its maker's tensor does."""
    from torch import Tensor

    from .masks import FAINT

    _check_kind(mask, Tensor, f"mask of region {phrase!r}", "a tensor [H W]: torch.from_numpy(array), or read_mask('mask.png')")
    if kind := _unusable(mask):
        raise LayoutError(f"mask of region {phrase!r}: a {kind} tensor; expected a dense one of real numbers, with its values")
    if mask.ndim != 2 or mask.numel() == 0:
        raise LayoutError(f"mask of region {phrase!r}: expected a tensor [H W], got shape {list(mask.shape)}")
    mask = mask.detach().clone().float()
    low, high = float(mask.min()), float(mask.max())
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        hint = "; divide an 8-bit mask by 255" if 1 < high <= 255 else ""
        raise LayoutError(f"mask of region {phrase!r}: values from {low:.6g} to {high:.6g}, expected [0, 1]{hint}")
    if high < FAINT:
        said = f"its largest value is {high:.6g}" if high else "it is zero everywhere"
        hint = "; multiply an 8-bit mask of labels 0 and 1 by 255 before you divide it" if high else ""
        raise LayoutError(f"mask of region {phrase!r}: {said}; expected some part of the image near 1, at least {FAINT}{hint}")
    return mask


def _unusable(mask: Tensor) -> str:
    """What kind of tensor it is, if no mask can be made of it."""
    kinds = {
        "meta": mask.is_meta,
        "nested": mask.is_nested,
        "complex": mask.is_complex(),
        "quantized": mask.is_quantized,
        str(mask.layout).removeprefix("torch."): str(mask.layout) != "torch.strided",
    }
    return next((kind for kind, fits in kinds.items() if fits), "")


@dataclass(frozen=True)
class Layout:
    """The regions of one image, in the order they were given. One phrase may have several regions.

    Raises:
        LayoutError: `regions` is no tuple or list of regions.
    """

    regions: tuple[Region, ...] = ()

    def __post_init__(self) -> None:
        regions = cast("object", self.regions)
        if not isinstance(regions, tuple | list):
            raise LayoutError(f"regions: {shown(regions)}: expected a list of regions, such as [Region('red circle', box)]")
        for i, region in enumerate(cast("Sequence[object]", regions), 1):
            _check_kind(region, Region, f"region {i}", "a Region, such as Region('red circle', Box(0.05, 0.1, 0.45, 0.6))")
        object.__setattr__(self, "regions", tuple(cast("Sequence[Region]", regions)))

    @property
    def phrases(self) -> tuple[str, ...]:
        """Each phrase once, in the order of first mention; phrases that differ only in case are one."""
        first: dict[str, str] = {}
        for region in self.regions:
            first.setdefault(region.phrase.casefold(), region.phrase)
        return tuple(first.values())

    @property
    def boxed(self) -> tuple[Region, ...]:
        """The regions that have a place (a box or a mask)."""
        return tuple(region for region in self.regions if region.box is not None or region.mask is not None)

    def of(self, phrase: str) -> tuple[Region, ...]:
        """The regions of one phrase, whatever its case; empty if it has none."""
        wanted = " ".join(convert(phrase, str, "phrase").split()).casefold()
        return tuple(region for region in self.regions if region.phrase.casefold() == wanted)

    @classmethod
    def from_boxes(cls, boxes: Mapping[str, Box | Floats]) -> Layout:
        """From phrases and their boxes: `Layout.from_boxes({"red circle": (.05, .1, .45, .6)})`.

        Raises:
            LayoutError: no mapping; or as `Box` and `Region`, naming the phrase.
        """
        _check_kind(
            boxes,
            Mapping,
            "boxes",
            "a mapping, such as {'red circle': (0.05, 0.1, 0.45, 0.6)}; several boxes of one phrase are "
            "Layout((Region(phrase, box), ...))",
        )
        for phrase, box in boxes.items():
            if cast("object", box) is None:
                raise LayoutError(f"box of {shown(phrase)}: None: expected four numbers; without a place it is Region(phrase)")
        return cls(tuple(_region(f"box of {shown(phrase)}", phrase, box) for phrase, box in boxes.items()))

    @classmethod
    def from_label_map(cls, path: str | Path, names: Mapping[int, str]) -> Layout:
        """From a PNG file whose pixels are labels, and the phrases of some of these: a mask for each label that has a phrase.

        Raises:
            LayoutError: no such picture, no label is named, or a named one is no whole number or not in it.
        """
        from .masks import read_label_map

        path = convert(path, str | Path, "path")
        _check_kind(names, Mapping, "names", "a mapping from labels to phrases, such as {1: 'red circle'}")
        return cls(tuple(Region(names[label], mask=mask) for label, mask in read_label_map(path, tuple(names)).items()))

    def to_json(self) -> dict[str, Any]:
        """A plain dict: `{"regions": [{"phrase": ..., "box": [left, top, right, bottom]}, ...]}`.

        A mask is the text of a PNG file (`data:image/png;base64,...`) where 8 or 16 bits keep its values, else a list of rows; an
        image is always such a text.
        """
        from .masks import mask_to_text

        regions: list[dict[str, Any]] = []
        for region in self.regions:
            entry: dict[str, Any] = {"phrase": region.phrase}
            if region.box is not None:
                entry["box"] = list(region.box.xyxy)
            if region.mask is not None:
                entry["mask"] = mask_to_text(region.mask) or cast("Any", region.mask).tolist()
            if region.image is not None:
                entry["image"] = picture_to_text(region.image)
            regions.append(entry)
        return {"regions": regions}

    @classmethod
    def from_json(cls, data: object) -> Layout:
        """The inverse of `to_json`.

        Raises:
            LayoutError: an unknown or missing key, a wrong type, or a bad box; names the region by its position, from 1.
        """
        entries = _mapping(data, "layout", ("regions",)).get("regions")
        if not isinstance(entries, list):
            raise LayoutError(f"layout: expected a list under 'regions', got {type(entries).__name__}")
        regions: list[Region] = []
        for i, entry in enumerate(cast("list[object]", entries), 1):
            fields = _mapping(entry, f"layout region {i}", ("phrase", "box", "mask", "image"))
            phrase, box, mask, image = (fields.get(key) for key in ("phrase", "box", "mask", "image"))
            regions.append(_region(f"layout region {i} ({shown(phrase)})", phrase, box, mask, image))
        return cls(tuple(regions))


def _check_kind(given: object, kind: type, where: str, expected: str) -> None:
    if not isinstance(given, kind):
        raise LayoutError(f"{where}: a {type(given).__name__}; expected {expected}")


def _mapping(data: object, where: str, known: Sequence[str]) -> dict[str, Any]:
    expected = f"expected {', '.join(known)}"
    if not isinstance(data, dict):
        raise LayoutError(f"{where}: {expected} in a mapping, got {type(data).__name__}")
    entries = cast("dict[Any, Any]", data)
    if unknown := [key for key in entries if key not in known]:
        raise LayoutError(f"{where}: unknown key {unknown[0]!r}{nearest(str(unknown[0]), known)}; {expected}")
    return entries


def _region(where: str, phrase: object, box: object = None, rows: object = None, image: object = None) -> Region:
    """A region of unchecked values; every error begins with `where`."""
    try:
        if box is not None and not isinstance(box, Box):
            box = Box(*_four(box, CORNERS))
        mask = None if rows is None else _mask_of(rows)
        return Region(cast("str", phrase), box, mask, None if image is None else picture_of_text(image))
    except LayoutError as error:
        raise type(error)(f"{where}: {error}") from None


def _mask_of(given: object) -> Tensor:
    from .masks import mask_of_rows, mask_of_text

    return mask_of_text(given) if isinstance(given, str) else mask_of_rows(given)


def parse_box(text: str) -> Region:
    """A region from the command line's `red circle=0.05,0.1,0.45,0.6`.

    Raises:
        LayoutError: the text is malformed, or the box is bad; quotes the text and the expected form.
    """
    _check_kind(text, str, "box", f"a text of the form {BOX_FORM}")
    phrase, _, numbers = text.rpartition("=")  # the last one: a phrase may hold a sign itself, numbers never do
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        values = []
    if not phrase.strip() or len(values) != 4:
        raise LayoutError(f"box {text!r}: expected {BOX_FORM}, such as 'red circle=0.05,0.1,0.45,0.6'")
    return _region(f"box {text!r}, of the form {BOX_FORM}", phrase, values)
