"""Bad input ends with one clear error: exit code 2, nothing on stdout, no traceback; it names the value and what was expected."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result
from PIL import Image

from lsregen.apps import checks
from lsregen.apps.generating.metadata import encode_png, read_metadata
from lsregen.framework.plugins.registry import Broken, Plugins
from tests.apps.conftest import BOXES, StandIn

Call = Callable[..., Result]


def box(text: str) -> tuple[str, ...]:
    return "--box", text


def check(result: Result, *said: str) -> None:
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert isinstance(result.exception, SystemExit)
    assert "Error: " in result.stderr
    for text in said:
        assert text in result.stderr


EARLY: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "out of range": (
        box("red circle=-0.1,0.1,0.45,0.6"),
        ("red circle=-0.1,0.1,0.45,0.6", "left=-0.1 is out of range", "[0, 1]"),
    ),
    "swapped": (box("red circle=0.5,0.1,0.2,0.6"), ("left=0.5 > right=0.2", "swapped?")),
    "pixels": (
        box("red circle=10,20,200,300"),
        ("out of range", "these look like pixels: divide them by the image's width and height\n"),
    ),
    "nan": (box("red circle=nan,0.1,0.45,0.6"), ("left=nan is not finite",)),
    "infinite": (box("red circle=0,0,inf,1"), ("right=inf is not finite",)),
    "zero area": (box("red circle=0.2,0.1,0.2,0.6"), ("zero area", "left=0.2")),
    "three numbers": (box("red circle=0.1,0.2,0.3"), ("'red circle=0.1,0.2,0.3'", "PHRASE=LEFT,TOP,RIGHT,BOTTOM")),
    "no numbers": (box("red circle"), ("'red circle'", "PHRASE=LEFT,TOP,RIGHT,BOTTOM")),
    "no phrase": (box("=0,0,1,1"), ("PHRASE=LEFT,TOP,RIGHT,BOTTOM",)),
    "words for numbers": (box("red circle=a,b,c,d"), ("PHRASE=LEFT,TOP,RIGHT,BOTTOM",)),
    "phrase not in prompt": (
        box("red cirle=0,0,1,1"),
        ("--box: phrase 'red cirle' is not in the prompt", "near it: 'red circle'"),
    ),
    "named phrase not in prompt": (("--phrase", "green star"), ("--phrase: phrase 'green star' is not in the prompt",)),
    "ambiguous phrase": (box("a=0,0,1,1"), ("phrase 'a' occurs 2 times", "a#1", "a#2")),
    "no third": (box("a#3=0,0,1,1"), ("'a' occurs 2 times",)),
    "empty phrase": (("--phrase", " "), ("--phrase '' is empty",)),
    "empty prompt": (("--prompt", "  "), ("--prompt '  ' is empty",)),
    "prompt of no text": (("--prompt", "a \udcff"), ("--prompt 'a \\udcff'", "UTF-8")),
    "preset": (("--guidance", "layout-guidence"), ("'layout-guidence'", "did you mean 'layout-guidance'?")),
    "no file": (("--guidance", "absent.yaml"), ("absent.yaml", "cannot be read")),
    "no steps": (("--steps", "0"), ("'--steps'", "1<=x")),
    "steps in words": (("--steps", "many"), ("'--steps'", "'many'")),
    "no images": (("--count", "0"), ("'--count'", "1<=x")),
    "no batch": (("--batch", "0"), ("'--batch'",)),
    "negative seed": (("--seed", "-1"), ("'--seed'", "0<=x")),
    "seed too large": (("--seed", str(2**63 - 1), "--count", "2"), ("seed 9223372036854775807 with --count 2",)),
    "cfg below 0": (("--cfg", "-1"), ("--cfg -1.0", "at least 0")),
    "cfg nan": (("--cfg", "nan"), ("--cfg", "nan")),
    "size in words": (("--size", "big"), ("--size 'big'", "WIDTHxHEIGHT")),
    "size of one side": (("--size", "64"), ("--size '64'", "such as 96x64")),
    "size beyond all": (("--size", "32768x32768"), ("size 32768x32768", "67,108,864 pixels")),
    "size of many digits": (("--size", "1000000000x1000000000"), ("--size '1000000000x1000000000'",)),
    "size of nothing": (("--size", "0x64"), ("--size '0x64'",)),
    "name with a folder": (("--name", "../x"), ("--name '../x'", "--out")),
    "empty name": (("--name", ""), ("--name", "''")),
    "hub name as a folder": (("--model", "./owner/name"), ("model './owner/name': no such folder",)),
    "home of nobody": (("--model", "~nosuchuser/x"), ("model '~nosuchuser/x': there is no such user's home", "whole path")),
    "model path too long": (("--model", "/" + "x" * 300), ("model '/xxx", "cannot be read (File name too long)")),
    "model of no path": (("--model", "./a\0b"), ("model './a\\x00b': not a path",)),
    "long name": (("--name", "x" * 300), ("--name of 300 bytes",)),
}


@pytest.mark.parametrize("case", EARLY)
def test_refused_before_anything_is_made(run: Call, case: str) -> None:
    args, said = EARLY[case]
    check(run("generate", *args), *said)
    assert not Path("outputs").exists()


def test_output_folder_that_cannot_be(run: Call) -> None:
    Path("file").write_text("")
    check(run("generate", "--out", "file/outputs"), "--out 'file/outputs': cannot write there", "choose another folder")
    check(run("generate", "--out", "file"), "--out 'file': cannot write there ('file' is not a folder)")
    check(run("generate", "--out", "x" * 300), "cannot write there (File name too long)")


def forbidden(**_: object) -> None:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_output_folder_without_permission(run: Call, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "TemporaryFile", forbidden)
    check(run("generate", "--out", "new/folder"), "--out 'new/folder': cannot write there (Permission denied)")
    assert not stand_in.loaded


PLACES = "--box PHRASE=LEFT,TOP,RIGHT,BOTTOM, --mask PHRASE=FILE.png or --layout FILE"
PLACED = f"give a phrase its place: {PLACES}"
SETTINGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "sampler": (("--sampler", "dddim"), ("sampler", "'dddim'", "did you mean 'ddim'?", "ddpm")),
    "set to nothing": (("--set", "model="), ("--set 'model='", "is no value")),
    "set to no name": (("--set", "model=''"), ("model ''", "empty")),
    "set without value": (("--set", "steps"), ("--set 'steps'", "key=value")),
    "set of no setting": (("--set", "stepps=3"), ("stepps", "did you mean 'steps'?")),
    "set of no term": ((*BOXES, "--set", "guidance.layuot.gamma=3"), ("'layuot'", "did you mean 'layout'?")),
    "set of no option": ((*BOXES, "--set", "guidance.layout.gama=3"), ("guidance.layout.gama", "did you mean 'gamma'?")),
    "set of a wrong type": ((*BOXES, "--set", "guidance.layout.gamma=much"), ("guidance.layout.gamma", "'much'", "a number")),
    "distance": ((*BOXES, "--set", "guidance.layout.distance=box_enrgy"), ("'box_enrgy'", "did you mean 'box_energy'?")),
    "extractor": ((*BOXES, "--set", "guidance.layout.extractor=attention"), ("'attention'", "cross_attention")),
    "seed by set": (("--set", "seed=-1"), ("seed: -1 is out of range", "from 0 to")),
    "model by set": (("--set", "model=3"), ("model: 3 is not text",)),
    "boxes missing": (
        ("--phrase", "red circle", "--guidance", "layout-guidance"),
        (f"guidance 'layout-guidance', term 'layout': distance box_energy needs a box or a mask; {PLACED}",),
    ),
    "phrases and boxes missing": (("--guidance", "layout-guidance"), (f"distance box_energy needs a box or a mask; {PLACED}",)),
    "boxes of segments missing": (
        ("--guidance", "zestguide@shapeworld"),
        (f"guidance 'zestguide@shapeworld', term 'segments': distance cross_entropy needs a box or a mask; {PLACED}",),
    ),
    "nothing to look at": (
        ("--guidance", "attend-and-excite"),
        ("guidance 'attend-and-excite', term ", f"no phrase to look at; give one with --phrase, or with its place: {PLACES}"),
    ),
    "model": (
        ("--model", "shapeworld-bass"),
        ("'shapeworld-bass'", "nor a folder", "owner/name of the hub (did you mean 'shapeworld-base'?)"),
    ),
    "model by path": (
        ("--model", "./someone/shapeworld-bass"),
        ("model './someone/shapeworld-bass': no such folder",),
    ),
    "model of a file": (("--guidance", "mine.yaml"), ("model 'absent/far/away': no such folder",)),
    "steps by set": (("--set", "steps=0"), ("steps: 0 is out of range; expected a whole number from 1 to 10,000",)),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_are_checked_before_the_model_is_loaded(run: Call, stand_in: StandIn, case: str) -> None:
    args, said = SETTINGS[case]
    Path("mine.yaml").write_text("model: absent/far/away\n")
    check(run("generate", *args), *said)
    assert not stand_in.loaded
    assert not Path("outputs").exists()


MODEL: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "a file": (("--model", "broken/model_index.json"), ("broken/model_index.json", "not recognised", "diffusers folder")),
    "empty folder": (("--model", "empty"), ("empty", "model_index.json")),
    "foreign folder": (("--model", "foreign"), ("foreign", "FluxPipeline")),
    "unreadable folder": (("--model", "broken"), ("broken", "JSON")),
    "device": (("--device", "cuda0"), ("device 'cuda0'", "cuda")),
    "absent device": (("--device", "cuda:99"), ("device 'cuda:99'", "'cpu'")),
    "dtype": (("--dtype", "fp61"), ("--dtype", "'fp61' is not one of auto, fp32, fp16", "did you mean 'fp16'?")),
    "size": (("--size", "63x64"), ("63x64", "multiples of", "64x64")),
    "steps above the schedule": (("--steps", "1001"), ("1001", "1000")),
}


@pytest.mark.parametrize("case", MODEL)
def test_what_only_the_model_can_refuse(run: Call, case: str) -> None:
    Path("empty").mkdir()
    for name, text in (("foreign", '{"_class_name": "FluxPipeline", "transformer": ["diffusers", "X"]}'), ("broken", "{")):
        Path(name).mkdir()
        Path(name, "model_index.json").write_text(text)
    args, said = MODEL[case]
    check(run("generate", *args), *said)
    assert not list(Path("outputs").glob("*"))


def test_the_other_commands(run: Call) -> None:
    check(run("presets", "layout"), "'layout'", "layout-guidance")
    check(run("tokens", " "), "PROMPT ' ' is empty")
    check(run("tokens", "a \udcff"), "PROMPT 'a \\udcff': these bytes are no text in UTF-8")
    check(run("tokens", "a red circle", "--model", "absent"), "model 'absent' is neither")
    check(run("tokens", "a red circle", "--model", "~nosuchuser"), "no such user's home")
    check(run("evaluate", "shapewrld"), "No such command 'shapewrld' (did you mean 'shapeworld'?); there are attention,")


def test_a_message_names_what_was_given_once(run: Call) -> None:
    result = run("generate", *box("red circle=0.5,0.1,0.2,0.6"))
    assert result.stderr.splitlines() == [
        "Error: --box 'red circle=0.5,0.1,0.2,0.6', of the form PHRASE=LEFT,TOP,RIGHT,BOTTOM: left=0.5 > right=0.2; "
        "expected left < right: are the corners swapped?"
    ]


def test_a_size_beyond_all_is_refused_wherever_it_comes_from(run: Call, stand_in: StandIn) -> None:
    assert run("generate", "--name", "x", "--size", "24x16").exit_code == 0
    made = read_metadata(Path("outputs/x-0.png"))
    Path("huge.png").write_bytes(encode_png(Image.new("RGB", (8, 8)), replace(made, size=(32768, 32768))))
    Path("huge.jsonl").write_text('{"prompt": "a circle", "size": [32768, 32768]}')
    Path("here").mkdir()
    check(run("--", "generate", "--from-image", "huge.png", "--model", "here"), "huge.png", "size", "32768")
    check(run("--", "generate", "--prompts", "huge.jsonl", "--guidance", "none"), "huge.jsonl", "size [32768, 32768]")
    assert len(stand_in.loaded) == 1


def test_own_plugins_that_cannot_be_loaded_are_the_first_thing_said(run: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    lacking = Plugins(broken=(Broken("lsregen", "0.1.0", "samplers = lsregen.samplers", "MemoryError: "),))
    monkeypatch.setattr("lsregen.framework.plugins.registry.discover", lambda *_, **__: lacking)
    result = run("generate")
    check(result, "MemoryError", "lsregen.samplers")
    assert len(result.stderr.splitlines()) == 1
