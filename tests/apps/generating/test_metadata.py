"""Settings inside a picture: what goes in comes out, other tools can read them, and hostile pictures are refused."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lsregen.apps.generating.metadata import LONGEST, Metadata, MetadataError, Sample, encode_png, read_metadata
from lsregen.framework.errors import LsregenError
from lsregen.framework.layout.regions import Layout, Region, parse_box
from tests.apps.test_output import behind

LAYOUT = Layout((parse_box("red circle=0.05,0.1,0.45,0.6"), Region("red")))
METADATA = Metadata(
    batch=(Sample("a red circle", "", LAYOUT, 3), Sample("a red circle", "", LAYOUT, 4)),
    index=1,
    size=(512, 768),
    config={"steps": 50, "cfg": 7.5, "sampler": {"name": "ddim", "eta": 0.0}, "guidance": {}},
    model={"name": "shapeworld-base"},
    device="cpu",
    dtype="float32",
    versions={"lsregen": "0.1.0"},
)
LINE = "Steps: 50, Sampler: DDIM, CFG scale: 7.5, Seed: 4, Size: 512x768, Model: shapeworld-base, Version: lsregen 0.1.0"


def with_own(**changes: Any) -> Metadata:
    """The same, with other settings of the picture itself; its neighbour stays."""
    return replace(METADATA, batch=(METADATA.batch[0], replace(METADATA.own, **changes)))


def saved(path: Path, key: str = "lsregen", text: str = "{}") -> Path:
    info = PngInfo()
    info.add_text(key, text)
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize("prompt", ["a red circle", "ein rotes Äpfelchen", "赤い円 🔴", 'with "quotes"\nand lines'])
def test_round_trip(tmp_path: Path, prompt: str) -> None:
    metadata = with_own(prompt=prompt)
    path = tmp_path / "x.png"
    path.write_bytes(encode_png(Image.new("RGB", (3, 2)), metadata))
    assert read_metadata(path) == metadata
    with Image.open(path) as image:
        assert image.info["parameters"] == f"{prompt}\n{LINE}"
        assert set(image.info) == {"Software", "parameters", "lsregen"}


def test_a_picture_of_before_they_were_noted_has_no_models_that_rendered_for_it() -> None:
    made = replace(METADATA, models={"small": {"name": "small"}})
    data = json.loads(json.dumps(made.to_json()))
    assert Metadata.from_json(data) == made
    assert Metadata.from_json({key: value for key, value in data.items() if key != "models"}) == METADATA


def test_a_batch_says_of_the_others_only_what_differs(tmp_path: Path) -> None:
    mask = torch.zeros(40, 60)
    mask[10:20, 5:50] = 1
    other = Sample("a blue square", "red", Layout((Region("blue square", mask=mask),)), 9)
    metadata = replace(METADATA, batch=(METADATA.own, replace(METADATA.own, seed=5), other), index=0)
    written = metadata.to_json()["batch"]
    assert written[:2] == [{"seed": 4}, {"seed": 5}]
    assert set(written[2]) == {"prompt", "negative", "layout", "seed"}
    path = tmp_path / "x.png"
    path.write_bytes(encode_png(Image.new("RGB", (3, 2)), metadata))
    assert read_metadata(path) == metadata


def test_parameters_as_other_tools_write_them() -> None:
    assert METADATA.parameters() == f"a red circle\n{LINE}"
    text = replace(with_own(negative="blue"), model={"name": "mine, too: best"}).parameters()
    assert text.splitlines()[1] == "Negative prompt: blue"
    assert 'Model: "mine, too: best", Version' in text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, "newer lsregen"),
        ({"version": True}, "version: True is not a whole number"),
        ({"prompt": 3}, "prompt: 3 is not text"),
        ({"prompt": None}, "prompt: None is not text"),
        ({"seed": -1}, "seed: -1 is out of range"),
        ({"seed": 3}, "are not those at 'index'"),
        ({"index": 2}, "are not those at 'index'"),
        ({"batch": []}, "'index'"),
        ({"batch": [{"seed": 3}, {"seed": 2**63}]}, f"seed: {2**63} is out of range"),
        ({"batch": [{"seed": 3}, {"seed": 4.0}]}, "seed: 4.0 is not a whole number"),
        ({"batch": [{"seed": 3}, {}]}, "seed: None is not a whole number"),
        ({"batch": [3, 4]}, "batch[0]: 3 is not a mapping"),
        ({"batch": [{"seed": 3}, {"seed": 4, "prompt": "another"}]}, "are not those at 'index'"),
        ({"batch": [{"seed": 3, "layout": 7}, {"seed": 4}]}, "layout: 7 is not a mapping"),
        ({"batch": [{"seed": 4}] * 1025}, "at most 1024"),
        ({"size": [64]}, "size: [64] is not a list of 2"),
        ({"size": [64, 10**9]}, f"size[1]: {10**9} is out of range"),
        ({"layout": {"regions": [{"phrase": "a", "box": [0, 0, 2, 1]}]}}, "out of range"),
        ({"layout": {"regions": [{"phrase": "a", "box": [0, 0, 10**400, 1]}]}}, "cannot be used"),
        ({"layout": []}, "layout: [] is not a mapping"),
        ({"config": "x", "dtype": 3}, "config: 'x' is not a mapping from text to anything\ndtype: 3 is not text"),
        ({"versions": 1}, "versions: 1 is not a mapping"),
    ],
)
def test_settings_that_cannot_be_trusted(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = saved(tmp_path / "x.png", text=json.dumps({**METADATA.to_json(), **change}))
    with pytest.raises(MetadataError) as caught:
        read_metadata(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "NaN", '{"version": NaN}', "[" * 100_000, "1" * 5000, "x" * (LONGEST + 1)],
    ids=["empty", "open", "list", "number", "nan", "nan inside", "deep", "digits", "long"],
)  # fmt: skip
def test_text_that_is_no_settings(tmp_path: Path, text: str) -> None:
    with pytest.raises(MetadataError):
        read_metadata(saved(tmp_path / "x.png", text=text))


def test_pictures_without_settings(tmp_path: Path) -> None:
    with pytest.raises(MetadataError, match="no settings of lsregen inside"):
        read_metadata(saved(tmp_path / "x.png", key="parameters"))
    for name, data in {
        "text.png": b"hello",
        "empty.png": b"",
        "cut.png": encode_png(Image.new("RGB", (2, 2)), METADATA)[:60],
    }.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MetadataError, match=name):
            read_metadata(tmp_path / name)
    Image.new("RGB", (2, 2)).save(tmp_path / "other.png", "JPEG")
    with pytest.raises(MetadataError, match="not a PNG"):
        read_metadata(tmp_path / "other.png")
    with pytest.raises(MetadataError, match=r"absent\.png"):
        read_metadata(tmp_path / "absent.png")


def test_a_text_that_unpacks_to_too_much(tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("lsregen", "x" * 80_000_000, zip=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png", pnginfo=info)
    with pytest.raises(MetadataError):
        read_metadata(tmp_path / "x.png")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)  # a mask imports torch
@given(st.dictionaries(st.sampled_from(sorted(METADATA.to_json())), JSON))
def test_whatever_stands_there_is_refused_in_words(change: dict[str, Any]) -> None:
    with suppress(LsregenError, OverflowError):  # and nothing else
        Metadata.from_json({**METADATA.to_json(), **change})


def test_a_picture_whose_plugin_is_missing_names_its_package(run: Any, tmp_path: Path) -> None:
    config = {**METADATA.config, "sampler": {"name": "walk"}}
    made = replace(METADATA, config=config, versions={"lsregen": "0.1.0", "acme-walk": "1.2"})
    picture = tmp_path / "made.png"
    picture.write_bytes(encode_png(Image.new("RGB", (2, 2)), made))
    result = run("--", "generate", "--from-image", str(picture), "--out", str(tmp_path / "again"))
    assert result.exit_code == 2
    assert "sampler: no sampler is called 'walk'" in result.stderr
    assert f"--from-image {picture}: made with plugins of 'acme-walk' '1.2', not loaded here; install them" in result.stderr


def test_settings_behind_the_pixels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encode_png(Image.new("RGB", (3, 2)), METADATA))
    with Image.open(behind(path)) as picture:
        assert "lsregen" not in picture.info
    assert read_metadata(path) == METADATA


def test_settings_leave_out_only_the_batch() -> None:
    alone = replace(METADATA, batch=(METADATA.own,), index=0)
    assert alone.settings() == METADATA.settings()
    for changed in (with_own(seed=9), with_own(negative="rain"), replace(METADATA, config={}), replace(METADATA, device="cuda")):
        assert changed.settings() != METADATA.settings()
