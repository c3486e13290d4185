"""What 0.1.0 wrote stays readable: an image, a report and a configuration of every preset of that version, and a plan of all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsregen.apps.generating.metadata import read_metadata
from lsregen.apps.showing.records import read_record
from lsregen.evaluation.runs.plan import Plan
from lsregen.framework.config.resolve import validate
from lsregen.framework.config.yaml_text import load_yaml
from lsregen.framework.plugins.registry import discover

MADE = Path(__file__).parent / "made_by_0.1.0"
PRESETS = sorted(path.stem for path in MADE.glob("*.png"))
each_preset = pytest.mark.parametrize("preset", PRESETS)


def test_there_is_one_of_each() -> None:
    assert len(PRESETS) == 18


@each_preset
def test_settings_inside_an_image(preset: str) -> None:
    metadata = read_metadata(MADE / f"{preset}.png")
    assert (metadata.own.prompt, metadata.seed) == ("a red circle and a blue square", 3)
    resolved = validate(metadata.config, discover())
    assert (resolved.steps, resolved.seed) == (10, 3)


@each_preset
def test_a_report_and_the_image_agree(preset: str) -> None:
    record = read_record(MADE / f"{preset}.json")
    [image] = record.images
    assert record.guidance == preset
    assert validate(image.settings, discover()) == validate(read_metadata(MADE / f"{preset}.png").config, discover())


@each_preset
def test_a_configuration(preset: str) -> None:
    assert validate(load_yaml(MADE / f"{preset}.yaml"), discover()).sampler is not None


def test_a_plan() -> None:
    plan = Plan.read(MADE / "plan.jsonl")
    assert sorted(plan.methods) == PRESETS
    assert len(plan.jobs) == len(PRESETS)


def test_an_image_is_made_again(tmp_path: Path) -> None:
    made = MADE / "layout-guidance@shapeworld.png"
    command = [
        sys.executable,
        "-m",
        "lsregen.apps",
        "generate",
        "--from-image",
        str(made),
        "--out",
        str(tmp_path),
        "--trace",
        "0",
    ]
    subprocess.run([*command, "--name", "x"], check=True, capture_output=True)
    with Image.open(made) as old, Image.open(tmp_path / "x-3.png") as new:
        difference = np.asarray(old).astype(int) - np.asarray(new).astype(int)
    assert abs(difference).mean() < 1  # of 255: machines differ in rounding, and guidance magnifies it
