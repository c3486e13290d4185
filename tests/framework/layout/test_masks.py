"""Masks from PNG files: every kind of grey is read to the same numbers, and what could mean two masks is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lsregen.framework.errors import LayoutError, PhraseError
from lsregen.framework.layout import image_files as packing
from lsregen.framework.layout.masks import encode_mask, mask_of_rows, read_label_map, read_mask
from lsregen.framework.layout.regions import Layout, Region
from lsregen.framework.pipeline.sizes import check_proportions

LEVELS = np.array([[0, 51, 255], [255, 102, 0]], dtype=np.uint8)  # two rows and three columns: an exchange shows
EXPECTED = torch.tensor([[0, 0.2, 1], [1, 0.4, 0]])


def saved(tmp_path: Path, picture: Image.Image, **options: int) -> Path:
    picture.save(tmp_path / "mask.png", **options)
    return tmp_path / "mask.png"


def rgba(grey: np.ndarray, opacity: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([grey, grey, grey, opacity], axis=-1))


def pictures() -> dict[str, Image.Image]:
    full, palette = np.full_like(LEVELS, 255), Image.fromarray(LEVELS).convert("P")
    return {
        "8 bits": Image.fromarray(LEVELS),
        "16 bits": Image.fromarray(LEVELS.astype(np.uint16) * 257),
        "grey in colour": Image.fromarray(np.stack([LEVELS] * 3, axis=-1)),
        "palette": palette,
        "opaque": rgba(LEVELS, full),
        "grey and opaque": rgba(LEVELS, full).convert("LA"),
        "opacity": rgba(full, LEVELS),
        "opacity of black": rgba(full * 0, LEVELS),
        "opacity and grey": rgba(full, LEVELS).convert("LA"),
        "colour under nothing": rgba(np.where(LEVELS == 0, 9, 255).astype(np.uint8), LEVELS),
    }


@pytest.mark.parametrize("kind", pictures())
def test_every_kind_of_grey(tmp_path: Path, kind: str) -> None:
    mask = read_mask(saved(tmp_path, pictures()[kind]))
    assert (mask.dtype, mask.shape) == (torch.float32, (2, 3))
    torch.testing.assert_close(mask, EXPECTED, atol=1e-6, rtol=0)


def test_one_bit(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(LEVELS == 255))
    with Image.open(path) as picture:
        assert picture.mode == "1"
    assert read_mask(path).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_sixteen_bits_are_kept(tmp_path: Path) -> None:
    levels = np.array([[0, 1, 65534, 65535]], dtype=np.uint16)
    expected = torch.tensor([[0, 1, 65534, 65535]]) / 65535
    torch.testing.assert_close(read_mask(saved(tmp_path, Image.fromarray(levels))), expected, atol=1e-9, rtol=0)


def test_a_transparent_grey_is_opacity(tmp_path: Path) -> None:
    picture = Image.fromarray(np.array([[0, 255, 0]], dtype=np.uint8))
    assert read_mask(saved(tmp_path, picture, transparency=0)).tolist() == [[0, 1, 0]]


def test_colours_and_two_masks_in_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"mask .*mask\.png: it has colours; expected black and white"):
        read_mask(saved(tmp_path, Image.new("RGB", (2, 2), (255, 0, 0))))
    with pytest.raises(LayoutError, match="its colours and its transparency both vary"):
        read_mask(saved(tmp_path, rgba(LEVELS, LEVELS[::-1])))


def test_files_that_are_no_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LayoutError, match=r"absent\.png: no such file"):
        read_mask(tmp_path / "absent.png")
    Image.new("L", (2, 2)).save(tmp_path / "a.gif")
    (tmp_path / "a.txt").write_text("hello")
    whole = saved(tmp_path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8))).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    for name in ("a.gif", "a.txt", "cut.png", ".", "a\0b", "x" * 300, "/dev/zero"):
        with pytest.raises(LayoutError, match=r"expected an image|cannot be read as an image|NUL"):
            read_mask(tmp_path / name)
    monkeypatch.setattr(packing, "MOST_PIXELS", 64 * 64 - 1)
    with pytest.raises(LayoutError, match="64x64 pixels; expected at most 4095"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("name", ["mask.png", "mask.webp", "mask.bmp", "mask.tif"])
def test_every_format_without_loss_gives_the_same_mask(tmp_path: Path, name: str) -> None:
    Image.fromarray(LEVELS).save(tmp_path / name, lossless=True)
    torch.testing.assert_close(read_mask(tmp_path / name), EXPECTED, atol=1e-6, rtol=0)


def test_a_photograph_of_a_mask_is_nearly_the_same(tmp_path: Path) -> None:
    Image.fromarray(np.kron(LEVELS, np.ones((16, 16), dtype=np.uint8))).save(tmp_path / "mask.jpg", quality=95)
    expected = EXPECTED.repeat_interleave(16, 0).repeat_interleave(16, 1)
    torch.testing.assert_close(read_mask(tmp_path / "mask.jpg"), expected, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("levels", "named"),
    [
        (np.array([[0, 1]], dtype=np.uint8), "0, 1 of 255"),
        (np.array([[0, 3, 1]], dtype=np.uint8), "0, 1, 3 of 255"),
        (np.array([[0, 255]], dtype=np.uint16), "0, 255 of 65535"),
    ],
)
def test_a_mask_that_is_nowhere_near_white_is_refused(tmp_path: Path, levels: np.ndarray, named: str) -> None:
    with pytest.raises(LayoutError, match=named):
        read_mask(saved(tmp_path, Image.fromarray(levels)))
    most = 65535 if levels.dtype == np.uint16 else 255
    with pytest.raises(LayoutError, match="'dog'"):
        Region("dog", mask=torch.tensor(levels.astype(np.float32) / most))


def test_numbers_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for values in (np.array([[0.0, 1.0]], dtype=np.float32), np.array([[0, 2**20]], dtype=np.int32)):
        Image.fromarray(values).save(tmp_path / "mask.tif")
        with pytest.raises(LayoutError, match="bits of grey"):
            read_mask(tmp_path / "mask.tif")


def test_a_bomb_is_refused_before_it_goes_off(tmp_path: Path) -> None:
    for side in (10_000, 14_000):  # pillow would warn of the first, and refuse the second
        path = saved(tmp_path, Image.new("1", (side, side)))
        with pytest.raises(LayoutError, match=r"pixels; expected at most|DecompressionBomb"):
            read_mask(path)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_masks_of_256_levels_go_through_a_file(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int
) -> None:
    levels = torch.randint(0, 256, (height, width), generator=torch.Generator().manual_seed(seed))
    levels[0, 0] = 255  # a mask without anything near white is refused
    data = encode_mask(levels / 255)
    assert data is not None
    path = tmp_path_factory.getbasetemp() / "levels.png"
    path.write_bytes(data)
    assert torch.equal(read_mask(path), levels / 255)


def test_a_mask_that_a_file_would_change_is_not_encoded() -> None:
    assert encode_mask(torch.tensor([[0.5]])) is None
    assert encode_mask(torch.tensor([[1.0, 0.2, 0.0]])) is not None


def test_rows() -> None:
    assert mask_of_rows([[0, 1, 0.5]]).tolist() == [[0, 1, 0.5]]
    for rows in ([[0], [0, 1]], "abc", {"a": 1}, [["a"]], [[10**400]]):
        with pytest.raises(LayoutError, match="mask: expected rows of numbers"):
            mask_of_rows(rows)
    with pytest.raises(LayoutError, match=r"layout region 1 \('cat'\): mask: expected rows of numbers"):
        Layout.from_json({"regions": [{"phrase": "cat", "mask": [[10**400]]}]})


# ---- label maps ----

LABELS = np.array([[0, 1, 1], [7, 7, 1]], dtype=np.uint8)


def label_maps() -> dict[str, Image.Image]:
    indexed = Image.new("P", (3, 2))
    indexed.putdata([int(label) for label in LABELS.ravel()])
    indexed.putpalette([value for i in range(256) for value in (255 - i, i, 7 * i % 256)])
    return {"grey": Image.fromarray(LABELS), "16 bits": Image.fromarray(LABELS.astype(np.uint16)), "palette": indexed}


@pytest.mark.parametrize("kind", label_maps())
def test_a_label_map_has_a_mask_for_every_named_label(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path, label_maps()[kind])
    layout = Layout.from_label_map(path, {7: "grass", 1: "red ball"})
    assert layout.phrases == ("grass", "red ball")
    for region, label in zip(layout.regions, (7, 1), strict=True):
        assert region.mask is not None
        assert torch.equal(region.mask, torch.from_numpy((label == LABELS).astype(np.float32)))


def test_a_named_label_that_is_nowhere_in_the_picture_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(LABELS))
    with pytest.raises(LayoutError, match=r"label map .*mask\.png: the label 3 is nowhere in it; its labels: 0, 1, 7$"):
        read_label_map(path, (1, 3))
    many = saved(tmp_path, Image.fromarray(np.arange(30, dtype=np.uint8)[None]))
    with pytest.raises(LayoutError, match="22, 23 and 6 more"):
        read_label_map(many, (99,))


def test_a_label_map_in_colours_one_that_is_missing_and_an_empty_name_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.stack([LABELS] * 3, axis=-1)))
    with pytest.raises(LayoutError, match="in the mode RGB; expected one whole number a pixel"):
        read_label_map(path, (1,))
    with pytest.raises(LayoutError, match=r"label map .*no such file"):
        read_label_map(tmp_path / "other.png", (1,))
    with pytest.raises(PhraseError, match="is empty"):
        Layout.from_label_map(saved(tmp_path, Image.fromarray(LABELS)), {1: " "})


@pytest.mark.parametrize(
    ("names", "wrong"),
    [({"1": "red ball"}, "the label '1' is a text"), ({1: "a", "b": 7}, "the label 'b' is a text"), ({}, "no label is named")],
)
def test_labels_that_are_texts_or_none_at_all_are_refused(tmp_path: Path, names: Any, wrong: str) -> None:
    said = rf"label map .*mask\.png: {wrong}; expected whole numbers and their phrases, such as \{{1: 'red circle'\}}$"
    with pytest.raises(LayoutError, match=said):
        Layout.from_label_map(saved(tmp_path, Image.fromarray(LABELS)), names)


@pytest.mark.parametrize("size", [(32, 16), (64, 32), (640, 321)])
def test_a_mask_may_have_any_resolution(size: tuple[int, int]) -> None:
    check_proportions(Layout((Region("a"), Region("b", mask=torch.ones(size[1], size[0])))), (64, 32))


def test_a_mask_of_other_proportions_is_refused() -> None:
    with pytest.raises(LayoutError, match="the mask of 'b': 32x64 pixels, and the image is to have 64x32"):
        check_proportions(Layout((Region("b", mask=torch.ones(64, 32)),)), (64, 32))
