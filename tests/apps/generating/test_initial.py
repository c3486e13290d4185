"""`--init-image`: what the pipeline is asked, what a picture remembers of it, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from lsregen.apps.generating.metadata import read_metadata
from tests.apps.conftest import StandIn

Call = Callable[..., Result]
AGAIN = ("--", "generate", "--model", "somewhere", "--out", "again")
MADE = "outputs/a-red-circle-and-a-blue-square-0.png"


@pytest.fixture
def start(run: Call) -> Path:
    """A picture in the folder of the run."""
    path = Path("start.png")
    Image.new("RGB", (48, 32), (200, 30, 60)).save(path)
    Path("somewhere").mkdir()  # where the model is said to be
    return path


def test_the_pipeline_is_given_the_picture_and_its_size(run: Call, start: Path, stand_in: StandIn) -> None:
    result = run("generate", "--init-image", "start.png", "--strength", "0.5", "--steps", "4")
    assert result.exit_code == 0, result.output
    (call,) = stand_in.calls
    assert (call["size"], call["strength"]) == ((48, 32), 0.5)
    assert call["init_image"].tobytes() == Image.open(start).tobytes()


def test_without_one_the_pipeline_is_told_of_none(run: Call, stand_in: StandIn) -> None:
    run("generate")
    assert not {"init_image", "strength"} & set(stand_in.calls[0])


def test_a_size_that_is_asked_for_wins(run: Call, start: Path, stand_in: StandIn) -> None:
    run("generate", "--init-image", "start.png", "--size", "24x16")
    assert stand_in.calls[0]["size"] == (24, 16)


def test_the_picture_remembers_and_is_made_again_from_the_same_one(run: Call, start: Path, stand_in: StandIn) -> None:
    run("generate", "--init-image", "start.png", "--strength", "0.5")
    kept = read_metadata(Path(MADE))
    assert kept.initial["strength"] == 0.5
    assert "Denoising strength: 0.5" in kept.parameters()
    assert json.loads(Path("outputs/report.json").read_text())["initial"] == kept.initial
    Image.open(start).save("copy.bmp")  # another file, the same pixels
    result = run(*AGAIN, "--from-image", MADE, "--init-image", "copy.bmp")
    assert result.exit_code == 0, result.output
    assert stand_in.calls[1]["strength"] == 0.5
    assert stand_in.calls[1]["init_image"].tobytes() == stand_in.calls[0]["init_image"].tobytes()


def refused(result: Result, said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert said in result.stderr


def test_pictures_of_other_formats_are_not_opened(run: Call, stand_in: StandIn) -> None:
    for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "EPS"):
        Image.new("RGB", (48, 32)).save("start", format)
        result = run("generate", "--init-image", "start", "--again")
        assert result.exit_code == (2 if format in ("GIF", "PPM", "EPS") else 0), format
        assert ("--init-image start" in result.stderr) == (result.exit_code == 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--strength", "0.5"), "--strength 0.5: of what?"),
        (("--init-image", "absent.png"), "--init-image absent.png: no such file"),
        (("--init-image", "text.png"), "--init-image text.png: expected an image"),
        (("--init-image", "start.png", "--strength", "1.5"), "strength: 1.5 is not above 0 and at most 1"),
        (("--init-image", "start.png", "--strength", "0.1", "--steps", "4"), "strength: 0.1 of 4 steps is less than one"),
    ],
)
def test_bad_input_is_refused(run: Call, start: Path, stand_in: StandIn, options: tuple[str, ...], said: str) -> None:
    Path("text.png").write_text("no picture")
    refused(run("generate", *options), said)
    assert not stand_in.loaded


@pytest.mark.parametrize(
    ("size", "options", "said"),
    [
        (
            (100, 70),
            (),
            "100x70 pixels, and the sides of stand-in's images are multiples of 8; crop it to 96x64, or ask for a --size",
        ),
        ((48, 32), ("--size", "32x32"), "48x32 pixels, and the image is to have 32x32: it would be stretched"),
    ],
)
def test_a_picture_that_would_have_to_be_cropped_is_named(
    run: Call, stand_in: StandIn, size: tuple[int, int], options: tuple[str, ...], said: str
) -> None:
    Image.new("RGB", size).save("start.png")
    refused(run("generate", "--init-image", "start.png", *options), f"Error: --init-image start.png: {said}")
    assert not stand_in.calls


def test_a_picture_is_made_again_from_what_it_was_made_from_only(run: Call, start: Path, stand_in: StandIn) -> None:
    run("generate", "--init-image", "start.png")
    again = (*AGAIN, "--from-image", MADE)
    refused(run(*again), "was made from another picture; give it too")
    refused(run(*again, "--init-image", "start.png", "--strength", "0.3"), "--from-image with --strength")
    Image.new("RGB", (48, 32), (0, 0, 0)).save("other.png")
    refused(run(*again, "--init-image", "other.png"), "is not the picture that")
    run("generate", "--name", "plain", "--out", "plain")
    refused(run(*AGAIN, "--from-image", "plain/plain-0.png", "--init-image", "start.png"), "was not made from a picture")
