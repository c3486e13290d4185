"""`lsregen evaluate attention`, on models that ship."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from lsregen.apps.evaluating import evaluate
from lsregen.framework.errors import LsregenError


def call(*arguments: object) -> Result:
    return CliRunner().invoke(evaluate.command, ["attention", *map(str, arguments)])


@pytest.mark.slow
def test_layers_of_two_models_side_by_side(tmp_path: Path) -> None:
    models = ["--model", "shapeworld-base", "--model", "shapeworld-gligen"]
    outcome = call(*models, "--count", 4, "--json", tmp_path / "attention.json")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads((tmp_path / "attention.json").read_text())["layers"]
    assert list(found) == ["shapeworld-base", "shapeworld-gligen"]
    for layers in found.values():
        assert layers[-1]["layer"] == "all"
        assert layers[-1]["metrics"]["peak_in_box"]["value"] >= 0.75, "these models know where things are"
    with Image.open(tmp_path / "attention.png") as picture:
        assert picture.info["Software"] == "lsregen"
        assert picture.width > 5 * 128, "the true image, and two maps of either model"
        assert np.asarray(picture).std() > 20
    assert "| shapeworld-gligen | all |" in outcome.stdout


@pytest.mark.slow
def test_a_guidance_is_tried_on_the_best_layers(tmp_path: Path) -> None:
    options = ["--count", 2, "--steps", 4, "--out", tmp_path / "items", "--json", tmp_path / "attention.json"]
    outcome = call("--model", "shapeworld-base", "--guidance", "layout-guidance@shapeworld", *options)
    assert outcome.exit_code == 0, outcome.output
    data = json.loads((tmp_path / "attention.json").read_text())
    assert [row["guidance"] for row in data["rows"]] == ["none", "best layer", "best 3", "all layers"]
    assert {row["seed"] for row in data["rows"]} == {2}, "not the scenes that the layers were chosen by"
    ranked = sorted(data["layers"]["shapeworld-base"][:-1], key=lambda entry: -entry["metrics"]["peak_in_box"]["value"])
    used = {row["guidance"]: row["config"]["guidance"] for row in data["rows"]}
    assert used["best layer"]["layout"]["extractor"]["layers"] == [ranked[0]["layer"]]
    assert len(used["best 3"]["layout"]["extractor"]["layers"]) == 3
    assert used["all layers"]["layout"]["extractor"]["layers"] == ["all"]
    assert used["none"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "shapeworld-bass"], "did you mean 'shapeworld-base'"),
        (["--model", "shapeworld-base", "--guidance", "gligen"], "no term of it names the layers"),
    ],
)
def test_errors_come_first(tmp_path: Path, arguments: list[str], message: str) -> None:
    outcome = call(*arguments, "--json", tmp_path / "attention.json")
    assert isinstance(outcome.exception, LsregenError)
    assert message in str(outcome.exception)
    assert not list(tmp_path.iterdir())


def test_a_picture_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "attention.png").write_text("not ours")
    outcome = call("--model", "shapeworld-base", "--json", tmp_path / "attention.json")
    assert isinstance(outcome.exception, LsregenError)
    assert "choose another --picture" in str(outcome.exception)
