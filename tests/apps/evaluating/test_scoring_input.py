"""`lsregen evaluate score`: bad input is said before any picture is looked at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from lsregen.evaluation.instruments.detectors import ShapeWorldDetector, _ShapeWorld
from tests.evaluation import drawn, networks

Call = Callable[..., Result]
METHODS = {"right": drawn.true, "mirrored": drawn.mirrored, "empty": drawn.empty}


def unknown_class(folder: Path) -> tuple[str, ...]:
    return ("run", "--detector", str(networks.yolos(folder / "yolos", ("cat", "dog"))))


BAD: dict[str, tuple[Callable[[Path], tuple[str, ...]], str]] = {
    "nothing to measure": (lambda _: ("run",), "nothing measures: give --detector, --clip, or --features with --reference"),
    "no run": (lambda _: (".", "--detector", "shapeworld"), "no plan.jsonl in it; expected the folder of a run"),
    "no such run": (lambda _: ("nowhere", "--detector", "shapeworld"), "no plan.jsonl in it"),
    "unfinished": (lambda _: ("half", "--detector", "shapeworld"), "2 of its 3 jobs are not finished; go on with"),
    "empty": (lambda _: ("none", "--detector", "shapeworld"), "none of its 3 jobs is finished; make them with"),
    "all failed": (
        lambda _: ("failed", "--detector", "shapeworld"),
        "no job of right has made a picture; `lsregen evaluate status` tells why",
    ),
    "twice": (lambda _: ("run", "run", "--detector", "shapeworld"), "a run is given twice"),
    "same items": (lambda _: ("run", "copy", "--detector", "shapeworld"), "item 'scene-0' with seed 0 by 'right' stands in both"),
    "another method": (lambda _: ("run", "other", "--detector", "shapeworld"), "method 'right' is not the same in run and other"),
    "no such detector": (
        lambda _: ("run", "--detector", "shapewrld"),
        "--detector 'shapewrld': neither a detector that is installed (shapeworld, transformers) nor a folder of transformers "
        "(did you mean 'shapeworld'?)",
    ),
    "no detector's folder": (
        lambda _: ("run", "--detector", "run"),
        "no folder with a config.json; expected a detector of transformers",
    ),
    "lacks the classes": (unknown_class, "classes that the plan asks for: "),
    "lacks the label": (
        lambda folder: (*unknown_class(folder), "--class", f"{drawn.plan(('right',)).jobs[0].layout.phrases[0]}=dgo"),
        "=dgo': the detector yolos has no label 'dgo' (did you mean 'dog'?); it knows cat, dog",
    ),
    "a detector for features": (
        lambda folder: ("run", "--features", unknown_class(folder)[2], "--reference", "run"),
        "it holds a YolosForObjectDetection, a detector, and no features of whole pictures; expected 'shapeworld'",
    ),
    "a detector for a CLIP": (
        lambda folder: ("run", "--clip", unknown_class(folder)[2]),
        "it holds a YolosForObjectDetection; expected a folder of CLIP",
    ),
    "no such option": (
        lambda _: ("run", "--detector", "shapeworld", "--detector-option", "x=1"),
        "--detector-option: x: no such option for detector",
    ),
    "no folder's option": (
        lambda _: ("run", "--detector", "transformers"),
        "--detector-option: model: missing; detector 'transformers' needs it",
    ),
    "an option of nothing": (lambda _: ("run", "--class", "cat=dog"), "are of a detector; name one (--detector)"),
    "not a pair": (lambda _: ("run", "--detector", "shapeworld", "--class", "cat"), "'cat': expected CLASS=LABEL"),
    "no reference": (lambda _: ("run", "--features", "shapeworld"), "--features and --reference belong together"),
    "no such reference": (
        lambda _: ("run", "--features", "shapeworld", "--reference", "x"),
        "expected a folder of real pictures",
    ),
    "empty reference": (lambda _: ("run", "--features", "shapeworld", "--reference", "empty"), "no pictures in it"),
    "no inception": (lambda _: ("run", "--features", "inception.pt", "--reference", "run"), "no such file or folder; expected"),
    "no TorchScript": (lambda _: ("run", "--features", "weights.pt", "--reference", "run"), "not a TorchScript file"),
    "no encoder": (
        lambda _: ("run", "--features", "run", "--reference", "run"),
        "--features 'run': no folder with a config.json; expected",
    ),
    "no clip": (lambda _: ("run", "--clip", "clip"), "--clip 'clip': no folder with a config.json; expected a folder of CLIP"),
    "no device": (lambda _: ("run", "--clip", "run", "--device", "abacus"), "device 'abacus': not a device of torch"),
    "a folder for a result": (lambda _: ("run", "--detector", "shapeworld", "--json", "run"), "is a folder; expected a file"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=list(BAD))
def test_bad_input_is_said_before_any_picture_is_looked_at(
    run: Call, tmp_path: Path, options: Callable[[Path], tuple[str, ...]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = drawn.plan(("right",), items=3)
    drawn.run(tmp_path / "run", plan, METHODS)
    drawn.run(tmp_path / "copy", plan, METHODS)
    drawn.run(tmp_path / "half", plan, METHODS, but=[1, 2])
    drawn.run(tmp_path / "none", plan, METHODS, but=[0, 1, 2])
    drawn.run(tmp_path / "failed", plan, METHODS, broken=[0, 1, 2])
    drawn.run(tmp_path / "other", drawn.plan(("right",), items=3, name="more", gammas=[3.0]), METHODS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pt").write_bytes(b"PK nothing")

    def refuse(*_: object) -> None:
        raise AssertionError("a picture was looked at")

    monkeypatch.setattr(_ShapeWorld, "__call__", refuse)
    result = run("evaluate", "score", *options(tmp_path))
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.stderr.split())


def test_a_run_in_which_a_package_is_missing_is_not_begun(run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsregen.apps.evaluating.scoring.EXTRA", {"no_such_module": "no-such-package"})
    result = run("evaluate", "score", "run", "--detector", "shapeworld")
    assert result.exit_code == 2
    assert "evaluation needs no-such-package; install them with: pip install no-such-package" in result.stderr


@pytest.mark.parametrize("error", [SystemExit(0), IndexError("a fault of its own")])
@pytest.mark.parametrize("method", ["load", "__call__"])
def test_whatever_a_detector_raises_names_it(
    run: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: BaseException
) -> None:
    drawn.run(tmp_path / "run", drawn.plan(("right",), items=3), METHODS)

    def fails(*_: object, **__: object) -> None:
        raise error

    if method == "load":
        monkeypatch.setattr(ShapeWorldDetector, "load", fails)
    else:
        monkeypatch.setattr(_ShapeWorld, "__call__", fails)
    result = run("evaluate", "score", "run", "--detector", "shapeworld")
    assert result.exit_code == 2
    assert "ShapeWorld" in result.stderr
    assert type(error).__name__ in result.stderr
    assert not (tmp_path / "run" / "scores").exists()
