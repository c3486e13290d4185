"""`lsregen evaluate ablation`, with a stand-in for the pipeline: unguided pictures are right, guided ones are empty."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lsregen.apps.evaluating import evaluate
from lsregen.framework.errors import LsregenError
from tests.apps.conftest import FakePipeline

pytestmark = pytest.mark.slow


def call(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate.command, ["ablation", *map(str, arguments)])


def ablation(tmp_path: Path, name: str, *arguments: object) -> Result:
    return call(name, "--count", 2, "--out", tmp_path / "items", "--json", tmp_path / "result.json", *arguments)


def test_a_setting_is_varied_and_plotted(tmp_path: Path, fake: FakePipeline) -> None:
    outcome = ablation(tmp_path, "steps", "--batch", 2)
    assert outcome.exit_code == 0, outcome.output
    data = json.loads((tmp_path / "result.json").read_text())
    about = data["ablation"]
    assert [(point["line"], point["value"]) for point in about["points"]] == [
        (line, value) for line in ("lsregen", "unguided") for value in ("10", "20", "30", "50")
    ]
    rights = {point["line"]: point["metrics"]["all_right"]["value"] for point in about["points"]}
    assert rights == {"lsregen": 0, "unguided": 1}
    assert len(data["rows"]) == len(fake.batches) == 8
    with Image.open(tmp_path / "result.png") as plot:
        assert plot.width > 2 * plot.height, "charts stand beside each other"
    assert "| lsregen, 10 |" in outcome.stdout
    assert f"The plot: {tmp_path / 'result.png'}" in outcome.stdout
    assert not (tmp_path / "items" / "images").exists()


def test_nothing_is_made_again(tmp_path: Path, fake: FakePipeline) -> None:
    for _ in range(2):
        assert ablation(tmp_path, "steps", "--plot", tmp_path / "plot.png").exit_code == 0
    assert len(fake.batches) == 8
    assert (tmp_path / "plot.png").exists()


def test_a_moving_box_has_pictures(tmp_path: Path, fake: FakePipeline) -> None:
    outcome = ablation(tmp_path, "moving-box")
    assert outcome.exit_code == 0, outcome.output
    with Image.open(tmp_path / "result-pictures.png") as sheet:
        assert sheet.height > 10 * 64, "five places of two scenes"
    places = {row["place"] for row in json.loads((tmp_path / "result.json").read_text())["rows"]}
    assert places == {0.2, 0.35, 0.5, 0.65, 0.8}


def test_boxes_by_their_area(tmp_path: Path, fake: FakePipeline) -> None:
    assert ablation(tmp_path, "box-size").exit_code == 0
    points = json.loads((tmp_path / "result.json").read_text())["ablation"]["points"]
    for line in ("everywhere alike", "weaker in large boxes"):
        assert sum(point["count"] for point in points if point["line"] == line) == 4, "two objects in each of two scenes"


def test_what_can_be_varied_is_listed() -> None:
    stdout = call("--list").stdout
    for name in ("guided-fraction", "strength", "steps", "noise", "box-size", "moving-box"):
        assert f"{name}\n    " in stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["strenght"], "did you mean 'strength'?"),
        (["strength", "--plot", "plot.pdf"], "--plot 'plot.pdf': expected a name that ends in .png"),
    ],
)
def test_errors_come_first(tmp_path: Path, fake: FakePipeline, arguments: list[str], message: str) -> None:
    outcome = ablation(tmp_path, *arguments)
    assert isinstance(outcome.exception, LsregenError)
    assert message in str(outcome.exception)
    assert not fake.batches
    assert not list(tmp_path.iterdir())


def test_a_picture_in_the_way(tmp_path: Path, fake: FakePipeline) -> None:
    (tmp_path / "result.png").write_text("not ours")
    outcome = ablation(tmp_path, "steps")
    assert "choose another --plot" in str(outcome.exception)
    assert not fake.batches
