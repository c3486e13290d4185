"""The command `lsregen evaluate shapeworld`, with the model that ships and very few steps."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lsregen.apps.evaluating import comparison, evaluate
from lsregen.evaluation.runs.worker import Made, Maker
from lsregen.evaluation.shapeworld.rows import ALL, read_rows
from lsregen.framework.config.merging import apply_sets
from lsregen.framework.config.resolve import load_guidance, validate
from lsregen.framework.errors import ConfigError, LsregenError
from lsregen.framework.pipeline.pipeline import Pipeline
from lsregen.framework.plugins.registry import discover

pytestmark = pytest.mark.slow
ABLATIONS = sorted((Path(__file__).parents[3] / "docs" / "ablations").glob("*.yaml"))


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(evaluate.command, [str(argument) for argument in arguments])


def shapeworld(tmp_path: Path, *arguments: str | Path, guidance: str = "none", count: int = 2) -> Result:
    own = (
        "--count",
        str(count),
        "--steps",
        "1",
        "--device",
        "cpu",
        "--out",
        tmp_path / "runs",
        "--json",
        tmp_path / "result.json",
    )
    return call("shapeworld", *(("--guidance", guidance) if guidance else ()), *own, *arguments)


def result(tmp_path: Path) -> dict[str, Any]:
    return json.loads((tmp_path / "result.json").read_text())


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each batch has that is made."""
    made: list[int] = []
    make = Maker.make

    def counted(self: Maker, jobs: Any) -> list[Made]:
        made.append(len(jobs))
        return make(self, jobs)

    monkeypatch.setattr(Maker, "make", counted)
    return made


def test_result_table_page_and_records(tmp_path: Path, batches: list[int]) -> None:
    outcome = shapeworld(
        tmp_path, "--batch", "2", "--images", "--records", tmp_path / "a.jsonl.gz", guidance="none,gligen", count=3
    )
    assert outcome.exit_code == 0, outcome.output
    data = result(tmp_path)
    assert [(row["guidance"], row["model"]) for row in data["rows"]] == [
        ("none", "shapeworld-base"),
        ("gligen", "shapeworld-gligen"),
    ]
    assert [(row["count"], row["seed"], row["size"]) for row in data["rows"]] == [(3, 0, [64, 64])] * 2
    assert {"map50", "all_right", "centre_in_box", "seconds_per_image"} <= set(data["rows"][0]["metrics"])
    assert (data["format"], data["diagnostics"]) == ("lsregen-evaluation", {})
    assert batches == [2, 1, 2, 1]
    assert len(list((tmp_path / "runs").glob("*/images/*/*/*.png"))) == 6
    assert len(list((tmp_path / "runs").glob("*/samples.html"))) == 1
    assert outcome.stdout == call("table", tmp_path / "result.json").stdout
    assert outcome.stdout.count("| none |") == 2, "a row and a difference"
    assert "%|" not in outcome.output, "no progress bar where nobody looks"
    kept = [json.loads(line) for line in gzip.decompress((tmp_path / "a.jsonl.gz").read_bytes()).splitlines()]
    assert [(line["guidance"], line["seed"]) for line in kept] == [
        (name, seed) for name in ("none", "gligen") for seed in range(3)
    ]
    (run,) = (tmp_path / "runs").iterdir()
    assert "none: 3 images, 3 finished" in call("status", run).stdout, "it is a run like any other"


def test_the_same_command_goes_on_and_another_has_a_run_of_its_own(tmp_path: Path, batches: list[int]) -> None:
    first = shapeworld(tmp_path, "--records", tmp_path / "a.jsonl.gz")
    before = (tmp_path / "a.jsonl.gz").read_bytes()
    again = shapeworld(tmp_path, "--records", tmp_path / "a.jsonl.gz")
    assert (first.exit_code, again.exit_code, batches) == (0, 0, [2])
    assert first.stdout == again.stdout
    assert (tmp_path / "a.jsonl.gz").read_bytes() == before
    assert shapeworld(tmp_path, "--cfg", "2").exit_code == 0
    assert batches == [2, 2]
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_interrupt_keeps_finished_images(tmp_path: Path, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Pipeline, *_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "__call__", interrupted)
        outcome = shapeworld(tmp_path, "--batch", "1")
    assert outcome.exit_code == 130
    assert "finished images are kept" in outcome.stderr
    assert not (tmp_path / "result.json").exists()
    assert shapeworld(tmp_path, "--batch", "1").exit_code == 0
    assert batches == [1, 1, 1]


def test_an_image_that_cannot_be_made_is_told_of_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Pipeline, *_: Any, **__: Any) -> Any:
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "__call__", full)
        outcome = shapeworld(tmp_path, "--batch", "2")
    assert isinstance(outcome.exception, ConfigError)
    assert "2 of 2 images could not be made (MemoryError: no room)" in str(outcome.exception)
    assert "lower --batch 2" in str(outcome.exception)
    assert shapeworld(tmp_path, "--batch", "2").exit_code == 0


def test_a_log_has_a_line_about_progress_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "SILENCE", 0)
    said = shapeworld(tmp_path, "--batch", "1").stderr.splitlines()
    found = [line for line in said if line.startswith("images: ")]
    assert list(dict.fromkeys(found)) == [f"images: {n} of 2 images" for n in range(3)]


def test_a_row_for_each_value_of_a_setting(tmp_path: Path) -> None:
    vary = ("--vary", "guidance.layout.gamma=10,40", "--model", "shapeworld-base")
    outcome = shapeworld(tmp_path, *vary, guidance="none,layout-guidance", count=1)
    assert outcome.exit_code == 0, outcome.output
    rows = result(tmp_path)["rows"]
    assert [row["guidance"] for row in rows] == ["none", "layout-guidance 10", "layout-guidance 40"]
    gammas = [row["config"]["guidance"]["layout"]["gamma"] for row in rows[1:]]
    assert gammas == [10, 40]
    drawn = call("plot", tmp_path / "result.json", "--metrics", "right", "--out", tmp_path / "gamma.png")
    assert drawn.exit_code == 0, drawn.output


def rows(tmp_path: Path, text: str, *arguments: str) -> Result:
    path = tmp_path / "rows.yaml"
    path.write_text(text)
    return shapeworld(tmp_path, "--rows", path, *arguments, guidance="", count=1)


def test_rows_have_their_own_guidance_size_scenes_and_settings(tmp_path: Path) -> None:
    text = """rows:
  plain: {guidance: none}
  "wide, of course": {guidance: none, size: [96, 64]}
  pulled: {guidance: layout-guidance, sets: [guidance.layout.gamma=7], steps: 2}
  enlarged: {enlarged: 192x192}
  moved: {place: 0.3}
"""
    outcome = rows(tmp_path, text)
    assert outcome.exit_code == 0, outcome.output
    found = {row["guidance"]: row for row in result(tmp_path)["rows"]}
    assert {name: row["size"] for name, row in found.items()} == {
        "plain": [64, 64], "wide, of course": [96, 64], "pulled": [64, 64], "enlarged": [192, 192], "moved": [64, 64],
    }  # fmt: skip
    assert [found[name]["config"]["steps"] for name in ("plain", "pulled")] == [1, 2]
    assert found["pulled"]["config"]["guidance"]["layout"]["gamma"] == 7
    assert (found["plain"].get("place"), found["moved"]["place"]) == (None, 0.3)
    pairs = {(entry["first"], entry["second"]) for entry in result(tmp_path)["differences"]}
    assert pairs == {("plain", "pulled"), ("plain", "enlarged"), ("pulled", "enlarged")}, "those of the same scenes"


def test_diagnostics_are_of_every_model(tmp_path: Path) -> None:
    outcome = shapeworld(tmp_path, "--diagnostics", guidance="none,gligen", count=1)
    assert outcome.exit_code == 0, outcome.output
    found = result(tmp_path)["diagnostics"]
    assert list(found) == ["shapeworld-base", "shapeworld-gligen"]
    assert found["shapeworld-base"]["metrics"]["autoencoder_right"]["value"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance", "none,"], "separated by commas"),
        (["--guidance", "none,none"], "given twice"),
        (["--count", "0"], "1<=x"),
        (["--objects", "4"], "1<=x<=3"),
        (["--batch", "0"], "1<=x"),
        (["--steps", "0"], "1<=x"),
        (["--seed", "-1"], "0<=x"),
        (["--vary", "guidance.layout.gamma"], "such as guidance.layout.gamma=10,30"),
    ],
)
def test_bad_options(tmp_path: Path, batches: list[int], arguments: list[str], message: str) -> None:
    outcome = shapeworld(tmp_path, *arguments)
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert batches == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--guidance", "layuot-guidance"], "did you mean 'layout-guidance'"),
        (["--guidance", "nowhere.yaml"], "nowhere.yaml"),
        (["--guidance", "gligen", "--model", "shapeworld-base"], "its model sees the boxes itself"),
        (["--size", "65x64"], "multiples of"),
        (["--size", "64"], "WIDTHxHEIGHT"),
        (["--model", "nowhere"], "'nowhere' is neither"),
        (["--set", "model=[3]"], r"model: [3] is not text"),
        (["--dtype", "auto"], "expected fp32, fp16 or bf16"),
        (["--json", "."], "is a folder"),
        (["--records", "."], "is a folder"),
        (["--records", __file__], "was not made by lsregen"),
    ],
)
def test_errors_come_before_the_first_image(tmp_path: Path, batches: list[int], arguments: list[str], message: str) -> None:
    outcome = shapeworld(tmp_path, *arguments)
    assert isinstance(outcome.exception, LsregenError)
    assert message in str(outcome.exception)
    assert batches == []


@pytest.mark.parametrize(
    ("text", "arguments", "messages"),
    [
        ("rows: []", [], ["expected a mapping 'rows'"]),
        ("lines: {}", [], ["expected a mapping 'rows'"]),
        ("rows: {a: 3, b: {guidence: none}}", [], ["rows.a: 3 is not a mapping", "rows.b.guidence", "did you mean 'guidance'?"]),
        ("rows: {a: {size: 64}}", [], ["rows.a.size: 64 is not text"]),
        ("rows: {a: {place: 2}}", [], ["rows.a.place: 2; expected a number in [0, 1]"]),
        ("rows: {a: {enlarged: [64, 32]}}", [], ["enlarged: 64x32 is smaller than", "64x64"]),
        ("rows: {'a,b': {}, a-b: {}}", [], ["rows 'a,b' and 'a-b' would both be kept as 'a-b'"]),
        ("rows: {a: {vary: {steps: 3}}}", [], ["rows.a.vary"]),
        ("rows: {a: {guidance: layuot-guidance}}", [], ["did you mean 'layout-guidance'"]),
        ("rows: {a: {}}", ["--guidance", "none"], ["either --guidance NAME,... or --rows all, and not both"]),
        ("rows: {a: {}}", ["--size", "64x64"], ["--rows with --model, --size, --set or --vary"]),
    ],
)
def test_bad_rows(tmp_path: Path, batches: list[int], text: str, arguments: list[str], messages: list[str]) -> None:
    outcome = rows(tmp_path, text, *arguments)
    assert isinstance(outcome.exception, LsregenError)
    for message in messages:
        assert message in str(outcome.exception)
    assert batches == []


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    outcome = call("shapeworld", "--json", str(tmp_path / "result.json"))
    assert "expected either --guidance NAME,... or --rows all" in str(outcome.exception)


@pytest.mark.parametrize("name", [ALL, *map(str, ABLATIONS)])
def test_the_rows_that_ship_and_those_of_the_docs_can_be_used(name: str) -> None:
    shipped, plugins = read_rows(name), discover(only=())
    assert len(ABLATIONS) == 6
    for row in shipped.values():
        resolved = validate(apply_sets(load_guidance(row.guidance), row.sets), plugins)
        assert (row.model or resolved.model) in {None, *plugins.embedded_models()}, name


def test_only_an_earlier_result_is_replaced(tmp_path: Path, batches: list[int]) -> None:
    path = tmp_path / "result.json"
    for content in ("notes", "{}", '{"format": "lsregen-report"}'):
        path.write_text(content)
        outcome = shapeworld(tmp_path)
        assert "exists and was not made by lsregen (no lsregen-evaluation); choose another --json" in str(outcome.exception)
        assert path.read_text() == content
    assert batches == []


def test_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "EXTRA", {"no_such_module": "no-such-package"})
    outcome = shapeworld(tmp_path)
    assert isinstance(outcome.exception, ConfigError)
    assert "no-such-package" in str(outcome.exception)
    assert "pip install " in str(outcome.exception)
