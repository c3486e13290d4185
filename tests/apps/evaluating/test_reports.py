"""`lsregen evaluate table`, `page` and `plot` of runs that were scored."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image

from lsregen.apps.evaluating.samples import data_uri
from tests.apps.browser import SHAPES, browser
from tests.evaluation import drawn

pytestmark = pytest.mark.slow

Call = Callable[..., Result]
METHODS = {"right": drawn.true, "mirrored": drawn.mirrored, "empty": drawn.empty}


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three methods whose gammas differ, and its scores."""
    from click.testing import CliRunner

    from lsregen.apps.cli import cli

    folder = tmp_path_factory.mktemp("scored") / "run"
    drawn.run(folder, drawn.plan(tuple(METHODS), items=6, gammas=[30.0, 3.0, 300.0]), METHODS, broken=[7])
    result = CliRunner().invoke(cli, ["evaluate", "score", str(folder), "--detector", "shapeworld"])
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def folder(scored: Path, tmp_path: Path) -> Path:
    shutil.copytree(scored, tmp_path / "run")
    return tmp_path / "run"


def test_the_table_has_the_papers_layout(run: Call, folder: Path) -> None:
    result = run("evaluate", "table", "run")
    assert result.exit_code == 0, result.output
    head, rule, *rows = result.stdout.splitlines()
    assert head.startswith("| Method | Multi objects: mAP ↑ | Multi objects: mAP, prompted ↑ | Relations: right ↑ |")
    assert rule.startswith("| --- | ---: |")
    assert rows[0].startswith(
        "| right | 100.0 | 100.0 | 100.0 [54.1 to 100.0] |"
    )  # not the best of unlike pictures: mirrored lacks one
    assert "Note: these methods are not known to be of the same pictures, so no number is marked as the best." in result.stdout
    assert "- Pictures of right, empty: 0 with one box and 6 with several, 1 of each item." in result.stdout
    assert "- Pictures of mirrored: 0 with one box and 5 with several, 1 of each item." in result.stdout
    assert [row.split(" | ")[0] for row in rows[:3]] == ["| right", "| mirrored", "| empty"]
    assert "- Detector: shapeworld (detect.py " in result.stdout
    assert "- Note: relation_cond of empty: no picture has both things of a relation, so it is left out." in result.stdout
    assert "- Note: 1 job ended with an error, and has no picture." in result.stdout
    assert run("evaluate", "table", "run/scores/result.json").stdout == result.stdout
    full = run("evaluate", "table", "run", "--layout", "full").stdout
    assert "Paired differences" in full
    assert run("evaluate", "table", "run", "--metrics", "map50", "--part", "rows").stdout.startswith("| guidance |")
    found = run("evaluate", "table", "run", "--baseline", "empty").stdout.splitlines()
    assert [line.split(" | ")[:2] for line in found[4:6]] == [["| empty", "right"], ["| empty", "mirrored"]]
    assert (found[0], found[2].split(" | ")[:3]) == ("Paired differences, second - first:", ["| first", "second", "count"])
    for part, layout in (("rows", "full"), ("differences", "paper")):
        said = run("evaluate", "table", "run", "--baseline", "empty", "--part", part, "--layout", layout).stderr
        assert "--baseline" in said


def test_the_table_as_a_page(run: Call, folder: Path, tmp_path: Path) -> None:
    assert run("evaluate", "table", "run", "--html", "table.html").exit_code == 0
    text = (tmp_path / "table.html").read_text()
    assert '<th colspan="2" scope="colgroup" class="group">Multi objects</th>' in text
    assert '<span class="interval">54.1 to 100.0</span>' in text, "a share; a perfect mAP has no interval"
    assert '<span class="interval"></span>' not in text
    assert '<span class="best">' not in text
    assert text.count("<tr>") == 5
    assert not re.search(r"https?://", text)
    (tmp_path / "table.html").write_text("mine")
    assert "was not made by lsregen" in run("evaluate", "table", "run", "--html", "table.html").stderr


def test_the_best_of_the_same_pictures_is_marked(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("right", "mirrored"), items=3), METHODS)
    assert run("evaluate", "score", "run", "--detector", "shapeworld").exit_code == 0
    result = run("evaluate", "table", "run", "--html", "table.html")
    assert result.stdout.splitlines()[2].startswith("| right | **100.0** | **100.0** |")
    text = (tmp_path / "table.html").read_text()
    assert '<span class="best">100.0</span>' in text


def test_a_method_of_several_runs_stands_in_one_table(run: Call, folder: Path, tmp_path: Path) -> None:
    drawn.run(tmp_path / "more", drawn.plan(("third",), items=6), {"third": drawn.true})
    assert run("evaluate", "score", "more", "--detector", "shapeworld").exit_code == 0
    result = run("evaluate", "table", "run", "more")
    assert "| third |" in result.stdout
    twice = run("evaluate", "table", "run", "run")
    assert "method 'right' stands in two results; score their runs together" in twice.stderr


def test_runs_and_scenes_do_not_stand_in_one_table(run: Call, folder: Path, tmp_path: Path) -> None:
    scenes = {"format": "lsregen-evaluation", "rows": [{"guidance": "none", "objects": 2, "metrics": {}}]}
    (tmp_path / "scenes.json").write_text(json.dumps(scenes))
    for files in (("run", "scenes.json"), ("scenes.json", "run")):
        for layout in ("paper", "full"):
            said = run("evaluate", "table", *files, "--layout", layout).stderr
            assert "results of runs and of shapeworld's scenes cannot stand in one table" in said


def otherwise(protocol: dict[str, Any], kind: str, key: str, value: object) -> None:
    protocol[kind] = {**protocol[kind], key: value}


MEASURED: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "threshold": (lambda it: otherwise(it, "detector", "threshold", 0.1), "have another detector, and cannot be compared"),
    "classes": (lambda it: otherwise(it, "detector", "renamed", {"red circle": "red ring"}), "have another detector"),
    "pictures": (lambda it: otherwise(it, "features", "reference", {"images": 70, "digest": "1"}), "have another features"),
    "sources": (lambda it: it["plans"][0]["source"].update(items=7), "are of plans of other sources, and cannot be compared"),
}


TOGETHER = {
    "table": ("table",),
    "full": ("table", "--layout", "full"),
    "part": ("table", "--part", "rows"),
    "plot": ("plot", "--metrics", "map50", "--out", "x.png"),
}


@pytest.mark.parametrize("command", TOGETHER.values(), ids=list(TOGETHER))
@pytest.mark.parametrize(("change", "said"), MEASURED.values(), ids=list(MEASURED))
def test_results_that_were_measured_otherwise_are_not_pooled(
    run: Call,
    folder: Path,
    tmp_path: Path,
    command: tuple[str, ...],
    change: Callable[[dict[str, Any]], object],
    said: str,
) -> None:
    data = json.loads((folder / "scores" / "result.json").read_text())
    data["protocol"]["features"] = {
        "name": "x", "sha256": {}, "resize": "", "dimensions": 3, "reference": {"images": 70, "digest": "0"}
    }  # fmt: skip
    (tmp_path / "one.json").write_text(json.dumps(data))
    for row in data["rows"]:
        row["guidance"] += " 2"
        row["model"] += " 2"
    (tmp_path / "other.json").write_text(json.dumps(data))
    assert run("evaluate", *command, "one.json", "other.json").exit_code == 0
    change(data["protocol"])
    (tmp_path / "other.json").write_text(json.dumps(data))
    result = run("evaluate", *command, "one.json", "other.json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_a_run_without_scores_and_results_of_something_else(run: Call, folder: Path, tmp_path: Path) -> None:
    shutil.rmtree(folder / "scores")
    assert (
        "this run has no scores/result.json; make it with `lsregen evaluate score run ...`"
        in run("evaluate", "table", "run").stderr
    )
    (tmp_path / "old.json").write_text(json.dumps({"format": "lsregen-evaluation", "rows": []}))
    assert "use --layout full" in run("evaluate", "table", "old.json", "--layout", "paper").stderr
    assert "cannot be read" in run("evaluate", "table", "nothing.json").stderr


def test_the_page_shows_every_method_beside_the_others(run: Call, folder: Path) -> None:
    result = run("evaluate", "page", "run", "--count", "2")
    assert result.exit_code == 0, result.output
    text = (folder / "samples.html").read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "ValueError: no luck" in text  # the job that failed says why
    assert text.count('<section class="sample"') == 2
    assert "2 of 6" in text
    assert "<script" not in text
    assert not re.search(r"https?://", text)
    chosen = run("evaluate", "page", "run", "--items", "scene-1", "--methods", "mirrored,right", "--out", "one.html")
    assert chosen.exit_code == 0, chosen.output
    one = (folder.parent / "one.html").read_text()
    assert one.index("mirrored") < one.index("> right")
    assert one.count("data:image/png;base64,") == 1
    assert "not in these runs (did you mean 'scene-1'?)" in run("evaluate", "page", "run", "--items", "scene1").stderr
    assert "method 'wrong': not in these runs" in run("evaluate", "page", "run", "--methods", "wrong").stderr


def test_a_page_of_an_unfinished_run(run: Call, tmp_path: Path) -> None:
    plan = drawn.plan(tuple(METHODS), items=2)
    drawn.run(tmp_path / "none", plan, METHODS, but=range(6))
    assert "nothing is finished; make it with" in run("evaluate", "page", "none").stderr
    drawn.run(tmp_path / "half", plan, METHODS, but=range(1, 6))
    assert run("evaluate", "page", "half").exit_code == 0
    assert (tmp_path / "half" / "samples.html").read_text().count("Not made yet.") == 5


def test_runs_of_the_same_items_stand_side_by_side(run: Call, tmp_path: Path) -> None:
    def shown(*runs: str) -> tuple[int, int, int]:
        assert run("evaluate", "page", *runs, "--out", "page.html").exit_code == 0
        text = (tmp_path / "page.html").read_text()
        return text.count('<section class="sample"'), text.count("data:image/png;base64,"), text.count("Not in the plan.")

    drawn.run(tmp_path / "a", drawn.plan(("ours",), items=2), {"ours": drawn.true})
    drawn.run(tmp_path / "b", drawn.plan(("theirs",), items=3), {"theirs": drawn.empty})
    assert shown("a", "b") == (3, 5, 1)


@pytest.mark.parametrize("command", [("page",), ("score", "--detector", "shapeworld")], ids=["page", "score"])
def test_runs_that_are_not_alike_do_not_stand_together(run: Call, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A page is as strict as a score."""
    name, *options = command
    drawn.run(tmp_path / "a", drawn.plan(("ours",), items=2), {"ours": drawn.true})
    drawn.run(tmp_path / "asked", drawn.plan(("theirs",), items=2, objects=1), {"theirs": drawn.empty})
    drawn.run(tmp_path / "again", drawn.plan(("ours",), items=2), {"ours": drawn.true})
    drawn.run(tmp_path / "changed", drawn.plan(("ours",), items=2, name="more", gammas=[3.0]), {"ours": drawn.true})
    exchanged = drawn.run(tmp_path / "exchanged", drawn.plan(("ours",), items=2), {"ours": drawn.true})
    exchanged.image_path(1).write_bytes(exchanged.image_path(0).read_bytes())

    def said(*runs: str) -> str:
        result = run("evaluate", name, *runs, *options)
        assert result.exit_code == 2, result.output
        return result.stderr

    assert "item 'scene-0' is not the same in a and asked: another prompt" in said("a", "asked")
    assert "item 'scene-0' with seed 0 by 'ours' stands in both a and again; use these runs one by one" in said("a", "again")
    assert "method 'ours' is not the same in a and changed: config.guidance" in said("a", "changed")
    assert "a run is given twice" in said("a", "a")
    cure = "remove it, and `lsregen evaluate run exchanged/plan.jsonl --out exchanged` makes it again"
    assert f"000001.png: not the picture that the run made; {cure}" in said("exchanged")
    exchanged.image_path(1).write_bytes(b"")
    assert f"; {cure}" in said("exchanged")


@pytest.mark.browser
def test_pictures_of_another_shape_keep_it(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("square", "wide"), items=1), {"square": drawn.true, "wide": drawn.wide})
    assert run("evaluate", "page", "run", "--out", "page.html").exit_code == 0
    with browser(tmp_path) as context:
        page = context.new_page()
        page.goto((tmp_path / "page.html").as_uri())
        found = page.evaluate(SHAPES)
    assert [each["own"] for each in found] == [1, 2]
    assert [each["shown"] for each in found] == pytest.approx([1, 2], rel=0.01)
    assert max(each["apart"] for each in found) < 1


def test_large_pictures_are_reduced() -> None:
    picture = Image.effect_noise((1200, 600), 50).convert("RGB")
    kind, _, data = data_uri(picture).partition(";base64,")
    assert kind == "data:image/jpeg"
    import base64

    assert Image.open(BytesIO(base64.b64decode(data))).size == (448, 224)


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_is_drawn_and_is_the_same_again(run: Call, folder: Path, tmp_path: Path, ending: str) -> None:
    command = ("evaluate", "plot", "run", "--metrics", "map50,relation_uncond", "--out", f"gamma.{ending}")
    result = run(*command)
    assert result.exit_code == 0, result.output
    first = (tmp_path / f"gamma.{ending}").read_bytes()
    assert run(*command).exit_code == 0
    assert (tmp_path / f"gamma.{ending}").read_bytes() == first
    if ending == "png":
        assert Image.open(BytesIO(first)).width > 1000


def test_a_plot_of_methods_that_differ_in_nothing(run: Call, tmp_path: Path) -> None:
    drawn.run(tmp_path / "run", drawn.plan(tuple(METHODS), items=2, gammas=[30.0, 3.0, 3.0]), METHODS)
    assert run("evaluate", "score", "run", "--detector", "shapeworld").exit_code == 0
    command = ("evaluate", "plot", "run", "--metrics", "map50", "--out", "x.png")
    result = run(*command)
    assert result.exit_code == 2
    assert "methods 'mirrored' and 'empty' are the same in every setting, guidance.layout.gamma 3 among them" in result.stderr
    assert run(*command, "--methods", "right,empty").exit_code == 0
    assert (tmp_path / "x.png").is_file()


BAD = {
    "a method": (("--metrics", "map50", "--methods", "rigt", "--out", "x.png"), "method 'rigt': not in these results (did you"),
    "a metric": (("--metrics", "map", "--out", "x.png"), "metric 'map': not in these results (did you mean 'map50'?)"),
    "a setting": (
        ("--metrics", "map50", "--against", "guidance.layout.gama", "--out", "x.png"),
        "no number that varies over these rows (did you mean 'guidance.layout.gamma'?); such are: guidance.layout.gamma",
    ),
    "an ending": (("--metrics", "map50", "--out", "x.txt"), "expected a name that ends in .png, .svg, .pdf"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=list(BAD))
def test_a_plot_of_what_is_not_there(run: Call, folder: Path, options: tuple[str, ...], said: str) -> None:
    result = run("evaluate", "plot", "run", *options)
    assert result.exit_code == 2
    assert said in result.stderr
