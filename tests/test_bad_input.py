"""Every kind of mistake through both doors: the command line and Python name the same value and the same mend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lsregen.apps.cli import cli
from lsregen.framework import Layout, LsregenError, Pipeline
from lsregen.framework.config.presets import load_preset
from lsregen.framework.layout.regions import parse_box

PROMPT = "a red circle and a blue square"
GOOD = "red circle=0.1,0.1,0.5,0.5"
Python = Callable[[Pipeline], object]


@dataclass(frozen=True)
class Mistake:
    """A mistake: the options of `lsregen generate` that make it, the Python that makes it, and what both must say."""

    options: tuple[str, ...]
    python: Python
    said: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()


def run(pipeline: Pipeline, guidance: Any = "layout-guidance", boxes: Any = None, **more: Any) -> object:
    layout = Layout.from_boxes(boxes or {"red circle": (0.1, 0.1, 0.5, 0.5)})
    return pipeline(PROMPT, layout=layout, guidance=guidance, **{"steps": 2, **more})


def boxed(text: str, *said: str) -> Mistake:
    """A box that cannot be, said on the command line and given as numbers."""
    numbers = parse_numbers(text)
    return Mistake(("--box", text), lambda pipeline: run(pipeline, boxes={text.partition("=")[0]: numbers}), said)


def parse_numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.rpartition("=")[2].split(","))


def changed(config: dict[str, Any], *said: str) -> Mistake:
    """A configuration with something wrong, as a YAML file and as a mapping."""
    import yaml

    options = ("--box", GOOD, "--guidance", "mine.yaml")
    return Mistake(options, lambda pipeline: run(pipeline, config), said, (("mine.yaml", yaml.safe_dump(config)),))


def term(**changes: Any) -> dict[str, Any]:
    """The term of layout-guidance with other settings."""
    (name,) = load_preset("layout-guidance")["guidance"]
    return {"guidance": {name: {**load_preset("layout-guidance")["guidance"][name], **changes}}}


def inversion(**changes: Any) -> dict[str, Any]:
    """A pull toward a small picture, with other settings."""
    extractor = {"name": "gligen_inversion", "source": {"model": "shapeworld-base", "steps": 1, **changes.pop("source", {})}}
    return {"steps": 2, "guidance": {"pull": {"extractor": extractor, "distance": "l2", "blend": 0.5, **changes}}}


MISTAKES: dict[str, Mistake] = {
    "box out of range": boxed("red circle=-0.1,0.1,0.5,0.5", "left=-0.1 is out of range", "fractions of the image in [0, 1]"),
    "box with swapped corners": boxed("red circle=0.5,0.1,0.2,0.5", "left=0.5 > right=0.2", "are the corners swapped?"),
    "box in pixels": boxed("red circle=10,20,200,300", "is out of range", "these look like pixels"),
    "box without an area": boxed("red circle=0.2,0.1,0.2,0.5", "zero area: left=0.2", "expected left < right"),
    "box that is not finite": boxed("red circle=nan,0.1,0.2,0.5", "left=nan is not finite"),
    "phrase not in the prompt": boxed("red cirle=0,0,1,1", "phrase 'red cirle' is not in the prompt", "near it: 'red circle'"),
    "ambiguous phrase": boxed("a=0.1,0.1,0.5,0.5", "phrase 'a' occurs 2 times", "a#1", "a#2"),
    "phrase that occurs less often": boxed("a#3=0.1,0.1,0.5,0.5", "'a' occurs 2 times"),
    "unknown preset": Mistake(
        ("--box", GOOD, "--guidance", "layout-guidence"),
        lambda pipeline: run(pipeline, "layout-guidence"),
        ("'layout-guidence'", "did you mean 'layout-guidance'"),
    ),
    "source that sees no boxes": changed(inversion(), "source: the model 'shapeworld-base' does not see boxes", "GLIGEN model"),
    "source larger than the image": changed(
        inversion(source={"guidance": {}, "size": [128, 128]}),
        "the source renders 128x128 pixels, more than the image's 64x64",
        "set the source's size",
    ),
    "source with a setting that is none": changed(
        inversion(source={"guidance": {}, "stepps": 3}), "pull.extractor.source.stepps: no such setting", "did you mean 'steps'"
    ),
    "source of a model that is none": changed(
        inversion(source={"model": "shapeworld-glign"}), "source: model 'shapeworld-glign' is neither a model that ships"
    ),
    "blend out of range": changed(inversion(blend=1.5), "blend: 1.5 is out of range", "from 0 to 1"),
    "blend of another distance": changed(term(blend=0.5, gamma=1.0), "blend 0.5: only a squared distance", "give gamma instead"),
    "unknown model": Mistake(
        ("--box", GOOD, "--model", "shapeworld-bse"),
        lambda _: Pipeline.load("shapeworld-bse"),
        ("'shapeworld-bse' is neither a model that ships", "did you mean 'shapeworld-base'"),
    ),
    "unknown sampler": Mistake(
        ("--box", GOOD, "--sampler", "dddim"),
        lambda pipeline: run(pipeline, sampler="dddim"),
        ("no sampler is called 'dddim'", "did you mean 'ddim'"),
    ),
    "unknown setting": Mistake(
        ("--box", GOOD, "--guidance", "layout-guidance", "--set", "guidance.layout.gama=3"),
        lambda pipeline: run(pipeline, sets=["guidance.layout.gama=3"]),
        ("guidance.layout.gama", "did you mean 'gamma'"),
    ),
    "setting of a wrong type": Mistake(
        ("--box", GOOD, "--guidance", "layout-guidance", "--set", "guidance.layout.gamma=much"),
        lambda pipeline: run(pipeline, sets=["guidance.layout.gamma=much"]),
        ("guidance.layout.gamma", "'much'", "a number"),
    ),
    "size that the model cannot make": Mistake(
        ("--box", GOOD, "--size", "66x64"),
        lambda pipeline: run(pipeline, size=(66, 64)),
        ("size 66x64", "multiples of 4", "the nearest is 64x64"),
    ),
    "more steps than there are": Mistake(
        ("--box", GOOD, "--steps", "1001"), lambda pipeline: run(pipeline, steps=1001), ("1001", "1000")
    ),
    "empty prompt": Mistake(("--prompt", " "), lambda pipeline: pipeline(" "), ("prompt ' ' is empty", "say what the")),
    "unknown extractor": changed(
        term(extractor={"name": "cross_atention"}), "no extractor is called 'cross_atention'", "did you mean 'cross_attention'"
    ),
    "unknown distance": changed(
        term(distance={"name": "box_enrgy"}), "no distance is called 'box_enrgy'", "did you mean 'box_energy'"
    ),
    "unknown option of an extractor": changed(
        term(extractor={"name": "cross_attention", "layres": ["mid"]}), "extractor.layres", "did you mean 'layers'"
    ),
    "layers that the model does not have": changed(
        term(extractor={"name": "cross_attention", "layers": ["grid:1/64"]}), "'grid:1/64' picks no attention layer", "layers:"
    ),
    "phrase that binds nothing": Mistake(
        ("--phrase", "circle", "--guidance", "syngen"),
        lambda pipeline: run(pipeline, "syngen", {"circle": (0.1, 0.1, 0.5, 0.5)}),
        ("phrase 'circle'", "no modifier stands before the noun", "such as 'red circle'"),
    ),
    "folder that is no segmentation model": changed(
        term(extractor={"name": "segmentation", "model": "nowhere"}, distance="cross_entropy"),
        "model 'nowhere': no folder with a config.json", "SegFormer",
    ),
    "several at once": changed(
        {"cfg": "much", "stepps": 4, **term(gama=3, distance={"name": "box_enrgy"})},
        "cfg: 'much'", "stepps", "did you mean 'steps'", "guidance.layout.gama", "did you mean 'gamma'", "'box_enrgy'",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("shapeworld-base", device="cpu")


@pytest.mark.parametrize("name", list(MISTAKES))
def test_both_doors_name_the_value_and_the_mend(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    mistake = MISTAKES[name]
    monkeypatch.chdir(tmp_path)
    for file, text in mistake.files:
        Path(file).write_text(text)
    prompt = () if "--prompt" in mistake.options else ("--prompt", PROMPT)
    result = CliRunner().invoke(cli, ["generate", *prompt, *mistake.options], prog_name="lsregen")
    assert (result.exit_code, result.stdout) == (2, "")
    assert isinstance(result.exception, SystemExit)
    assert result.stderr.count("Error: ") == 1
    assert "Traceback" not in result.stderr
    with pytest.raises(LsregenError) as caught:
        mistake.python(pipeline)
    for text in mistake.said:
        assert text in result.stderr
        assert text in str(caught.value)
    assert not list(tmp_path.rglob("*.png"))


def test_the_boxes_of_the_table_are_read_by_the_same_rules() -> None:
    assert parse_numbers(GOOD) == (region.xyxy if (region := parse_box(GOOD).box) else ())
