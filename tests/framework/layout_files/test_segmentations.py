"""COCO's segmentations as masks: polygons, run lengths as lists and as texts, and what is none of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as reference

from lsregen.framework.errors import ConfigError, LayoutError
from lsregen.framework.layout_files.formats import read_layouts
from lsregen.framework.layout_files.segmentations import segmentation_mask
from tests.framework.layout_files.test_coco_instances import coco, load

SIZE = (12, 10)
POLYGONS = [[0, 0, 4, 0, 4, 4, 0, 4], [6, 6, 9.5, 6, 8, 9]]
HALF = {"counts": [60, 60], "size": [10, 12]}


@pytest.mark.parity
def test_polygons_are_those_of_pycocotools() -> None:
    wanted = reference.merge(reference.frPyObjects(POLYGONS, 10, 12))
    assert reference.encode(np.asfortranarray(segmentation_mask(POLYGONS, SIZE).byte().numpy())) == wanted


def test_run_lengths_go_down_the_columns() -> None:
    right = torch.zeros(10, 12)
    right[:, 6:] = 1
    packed = reference.frPyObjects(HALF, 10, 12)["counts"].decode()
    for counts in ([60, 60], [60.0, 60.0], packed):
        assert torch.equal(segmentation_mask({"counts": counts, "size": [10, 12]}, SIZE), right)


BAD: dict[str, tuple[object, str]] = {
    "nothing": (None, "None: expected polygons"),
    "empty": ([], "expected polygons"),
    "two points": ([[0, 0, 1, 1]], "no polygon of three points"),
    "half a point": ([[0, 0, 1, 1, 2, 2, 3]], "no polygon of three points"),
    "texts": ([["a"] * 6], "no polygon of three points"),
    "no list": ([3], "3: no polygon"),
    "outside": ([[0, 0, 1e9, 0, 3, 3]], "the point 1e\\+09, 0 lies outside of 12x10 pixels"),
    "nowhere": ([[1, 1, 1, 1, 1, 1]], "it covers no pixel"),
    "another size": ({"counts": [60, 60], "size": [12, 10]}, r"its size is \[12, 10\], and that of the image \[10, 12\]"),
    "too few": ({"counts": [60, 50], "size": [10, 12]}, "110 pixels but expected 120"),
    "too many": ({"counts": [60, 100], "size": [10, 12]}, "exceed"),
    "negative": ({"counts": [-1, 121], "size": [10, 12]}, "-1, 121.*expected"),
    "no numbers": ({"counts": ["a"], "size": [10, 12]}, "expected polygons"),
    "no counts": ({"size": [10, 12]}, "expected polygons"),
    "damaged text": ({"counts": "abc", "size": [10, 12]}, "malformed"),
    "no text of COCO's": ({"counts": "zzzzzzzz", "size": [10, 12]}, "expected polygons"),
}


@pytest.mark.parametrize(("value", "said"), BAD.values(), ids=list(BAD))
def test_what_is_no_segmentation(value: object, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        segmentation_mask(value, SIZE)


def test_an_image_too_large_for_a_mask() -> None:
    with pytest.raises(LayoutError, match="an image of 65536x65536 pixels; expected at most"):
        segmentation_mask(POLYGONS, (65536, 65536))


def file(*segmentations: Any) -> dict[str, Any]:
    annotations = [{"image_id": 9, "category_id": 18, "bbox": [0, 0, 5, 5], "segmentation": given} for given in segmentations]
    return coco(images=[{"id": 9, "width": 12, "height": 10}], annotations=annotations)


def test_a_file_gives_boxes_or_masks(tmp_path: Path) -> None:
    (box,), (mask,) = (load(tmp_path, file(POLYGONS), masks=masks).items[0].layout.regions for masks in (False, True))
    assert (box.mask, mask.box) == (None, None)
    assert mask.mask is not None
    assert torch.equal(mask.mask, segmentation_mask(POLYGONS, SIZE))


def test_a_bad_one_is_an_error_or_loses_its_place(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match=r"annotation 2 \('dog#2'\): segmentation \[\]"):
        load(tmp_path, file(POLYGONS, []), masks=True)
    found = load(tmp_path, file(POLYGONS, []), masks=True, on_bad_box="drop")
    assert [region.mask is None for region in found.items[0].layout.regions] == [False, True]
    assert [each.what for each in found.dropped] == ["mask"]


def test_other_formats_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"prompt": "a dog"}')
    with pytest.raises(ConfigError, match="masks: only coco has segmentations, and this file is jsonl"):
        read_layouts(tmp_path / "a.jsonl", masks=True)


def test_without_the_extra_the_error_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faster_coco_eval.core.mask", None)
    with pytest.raises(ConfigError, match=r"pip install 'lsregen\[eval\]', or read the boxes"):
        load(tmp_path, file(POLYGONS), masks=True)
    assert load(tmp_path, file(POLYGONS)).items[0].layout.regions[0].box is not None
