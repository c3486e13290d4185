"""Pictures as the beginning of a run: image-to-image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lsregen.framework import ConfigError, Pipeline, StepReport
from lsregen.framework.sampling.image_to_image import entry_step, from_pil, to_pil

PROMPT = "a red circle"


def picture(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("strength", "count", "first"), [(1, 50, 0), (0.92, 50, 4), (0.57, 100, 43), (0.02, 50, 49), (0.5, 3, 2)]
)
def test_strength_is_the_share_of_the_steps_that_is_made(strength: float, count: int, first: int) -> None:
    assert entry_step(strength, count) == first


@pytest.mark.parametrize("strength", [0, -0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match=r"strength: .* is not above 0 and at most 1"):
        entry_step(strength, 50)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"strength": 0.3}, "strength: 0.3 without init_image: name the picture"),
        ({"init_image": picture(), "strength": "0.3"}, "strength: '0.3' is not a number"),
        ({"init_image": Image.new("I;16", (64, 64))}, "init_image: a picture in the mode I;16, with more than 8 bits"),
        (
            {"init_image": Image.new("RGBA", (64, 64), (9, 9, 9, 254))},
            "init_image: parts of it are transparent; expected a picture",
        ),
        ({"init_image": "start.png"}, "init_image: 'start.png': expected a PIL.Image.Image"),
        ({"init_image": ["start.png"]}, "init_image: 'start.png': expected a PIL.Image.Image"),
    ],
)
def test_what_cannot_be_started_from_is_refused(pipeline: Pipeline, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pipeline(PROMPT, steps=2, **options)


def test_a_strength_of_no_step_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"strength: 0.1 of 5 steps is less than one"):
        entry_step(0.1, 5)


def test_pictures_come_back_as_they_were() -> None:
    pictures = [picture(24, 16, seed) for seed in range(2)]
    back = to_pil(from_pil(pictures, (24, 16)))
    assert [image.tobytes() for image in back] == [image.tobytes() for image in pictures]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_an_opaque_picture_of_any_mode_can_be_started_from(mode: str) -> None:
    assert from_pil([picture(8, 8).convert(mode)], (8, 8)).shape == (1, 3, 8, 8)


def test_a_picture_of_other_proportions_is_refused_and_another_size_is_not() -> None:
    assert from_pil([picture(128, 64)], (64, 32)).shape == (1, 3, 32, 64)
    with pytest.raises(ConfigError, match="init_image: 128x64 pixels, and the image is to have 64x64"):
        from_pil([picture(128, 64)], (64, 64))


def test_a_picture_whose_size_the_model_cannot_make_is_named(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match="init_image: size 100x70"):
        pipeline(PROMPT, init_image=picture(100, 70), steps=2)


def walk(pipeline: Pipeline, **options: Any) -> list[StepReport]:
    reports: list[StepReport] = []
    pipeline(PROMPT, **{"steps": 10, "seed": 3, "on_step": reports.append, **options})
    return reports


def test_a_run_from_a_picture_starts_at_its_noised_latent(pipeline: Pipeline) -> None:
    reports = walk(pipeline, init_image=picture(), strength=0.4)
    first = reports[0]
    assert [report.step.index for report in reports] == [6, 7, 8, 9]
    with torch.no_grad():
        z0 = pipeline.model.encode_image(from_pil([picture()], (64, 64)))
    noise = walk(pipeline)[0].z  # of the same seed
    expected = first.step.alpha_bar**0.5 * z0 + (1 - first.step.alpha_bar) ** 0.5 * noise
    torch.testing.assert_close(first.z, expected)


def test_the_size_is_the_pictures_unless_one_is_asked_for(pipeline: Pipeline) -> None:
    assert pipeline(PROMPT, steps=2, init_image=picture(48, 32), strength=0.5).image.size == (48, 32)
    assert pipeline(PROMPT, steps=2, init_image=picture(48, 32), strength=0.5, size=(96, 64)).image.size == (96, 64)


def test_a_little_strength_keeps_more_of_the_picture(pipeline: Pipeline) -> None:
    given = np.asarray(picture()).astype(float)

    def distance(strength: float) -> float:
        made = pipeline(PROMPT, steps=10, init_image=picture(), strength=strength).image
        return float(np.abs(np.asarray(made).astype(float) - given).mean())

    assert distance(0.2) < 0.7 * distance(1)


def test_a_list_of_another_length_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match="init_image: 2 given for 1 images"):
        pipeline(PROMPT, steps=2, init_image=[picture(), picture()])


def test_the_report_says_what_a_run_started_from(pipeline: Pipeline) -> None:
    report = pipeline([PROMPT] * 2, steps=2, init_image=[picture(), picture(seed=1)], strength=0.5).report
    assert report.initial["strength"] == 0.5
    assert len(set(report.initial["sha256"])) == 2
    assert report.as_dict()["initial"] == dict(report.initial)
    assert not pipeline(PROMPT, steps=1).report.initial
