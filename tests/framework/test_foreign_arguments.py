"""Every public callable is given, for each of its arguments, values of foreign kinds: it refuses them, or they are legal."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import numpy as np
import pytest
import torch

import lsregen.framework as public
from lsregen.distances.max_token import MaxToken
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import Box, Guidance, Layout, LsregenError, Pipeline, Region, Schedule, Term, discover
from lsregen.framework.arguments import hints_of

PROMPT = "a red circle and a blue square"
BOXES = {"red circle": (0.1, 0.1, 0.5, 0.5)}
ENDLESS: list[Any] = []
ENDLESS.append(ENDLESS)


class Broken:
    """Whoever looks at it in a message must not fail."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


FOREIGN: dict[str, Any] = {
    "None": None,
    "True": True,
    "three": 3,
    "negative": -1,
    "float": 1.5,
    "nan": float("nan"),
    "infinite": float("inf"),
    "huge": 10**400,
    "too long to print": 10**5000,
    "complex": 1j,
    "bytes": b"x",
    "empty text": "",
    "text": "nonsense",
    "half a character": "\ud800",
    "NUL": "a\0b",
    "long text": "x" * 500,
    "list": [3],
    "list of None": [None],
    "list of texts": ["a"],
    "list of lists": [[[]]],
    "endless list": ENDLESS,
    "tuple": (),
    "range": range(10**12),
    "longest range": range(10**30),
    "mapping": {"a": 1},
    "empty mapping": {},
    "mapping of None": {"a": None},
    "set": {1, 2},
    "object": object(),
    "broken": Broken(),
    "class": float,
    "function": lambda *_: None,
    "array": np.zeros((2, 2)),
    "tensor": torch.zeros(2, 2),
    "meta tensor": torch.zeros((), device="meta"),
    "exception": ValueError("x"),
}


@dataclass(frozen=True)
class Called:
    """A public callable with arguments that it takes."""

    call: Callable[..., Any]
    good: Mapping[str, Any]

    def legal(self, name: str, value: object) -> bool:
        hint = hints_of(self.call).get(name, Any)
        return fits(value, hint)


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type, told here anew and not by what is tested."""
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return value in args
    if origin is tuple and args[-1:] != (Ellipsis,):
        return isinstance(value, tuple | list) and len(value) == len(args) and all(map(fits, value, args))
    if origin in (list, tuple, Sequence, Iterable, Set):
        return isinstance(value, Iterable) and not isinstance(value, str | bytes | dict) and all(fits(v, args[0]) for v in value)
    if origin in (dict, Mapping):
        return isinstance(value, Mapping) and all(fits(k, args[0]) and fits(v, args[1]) for k, v in value.items())
    if hint in (None, type(None)):
        return value is None
    if hint in (int, float):
        return isinstance(value, int | hint) and not isinstance(value, bool) and bool(abs(value) < 1e300 or hint is int)
    if hint is str:
        return isinstance(value, str)
    return isinstance(value, origin or hint)


TERM = Term(CrossAttention(), MaxToken())
FOLDER = Path(__file__).parents[1]

CALLED: dict[str, Called] = {
    "load_preset": Called(public.load_preset, {"name": "layout-guidance"}),
    "mask_region": Called(public.mask_region, {"text": "red circle=nothing.png"}),
    "read_mask": Called(public.read_mask, {"path": "nothing.png"}),
    "read_layouts": Called(
        public.read_layouts, {"path": "nothing.json", "format": None, "size": None, "classes": None, "on_bad_box": "error"}
    ),
    "write_layouts": Called(partial(public.write_layouts, "/dev/null/a"), {"items": [public.Item()], "format": "jsonl"}),
    "parse_box": Called(public.parse_box, {"text": "red circle=0,0,1,1"}),
    "rasterise": Called(public.rasterise, {"place": Box(0, 0, 1, 1), "grid": (4, 4), "raster": "area"}),
    "discover": Called(discover, {"only": ()}),
    "Guidance": Called(Guidance, {"terms": TERM}),
    "Term": Called(Term, {"extractor": CrossAttention(), "distance": MaxToken(), "schedule": Schedule(), "name": ""}),
    "Schedule": Called(Schedule, vars(Schedule())),
    "Item": Called(public.Item, vars(public.Item("a"))),
    "Box": Called(Box, {"left": 0, "top": 0, "right": 1, "bottom": 1}),
    "Box.from_pixels": Called(Box.from_pixels, {"box": (0, 0, 5, 5), "size": (10, 10)}),
    "Box.from_xywh": Called(Box.from_xywh, {"box": (0, 0, 5, 5), "size": (10, 10)}),
    "Box.from_yolo": Called(Box.from_yolo, {"box": (0.5, 0.5, 0.5, 0.5)}),
    "Region": Called(Region, {"phrase": "red circle", "box": None, "mask": None, "image": None}),
    "Layout": Called(Layout, {"regions": ()}),
    "Layout.from_boxes": Called(Layout.from_boxes, {"boxes": BOXES}),
    "Layout.from_label_map": Called(Layout.from_label_map, {"path": "nothing.png", "names": {1: "red circle"}}),
    "Layout.from_json": Called(Layout.from_json, {"data": {"regions": []}}),
    "Layout.of": Called(Layout().of, {"phrase": "a"}),
    "Plugins.find": Called(discover(only=()).find, {"kind": "sampler", "name": "ddim"}),
    "Plugins.sampler": Called(discover(only=()).sampler, {"name": "ddim"}),
    "Plugins.name_of": Called(discover(only=()).name_of, {"kind": "sampler", "cls": MaxToken}),
    "Plugins.inspect_model": Called(discover(only=()).inspect_model, {"model": "shapeworld-base"}),
    "Plugins.convert_model": Called(discover(only=()).convert_model, {"path": "nothing", "out": "/dev/null/a"}),
    **{
        f"{plugin.kind} {plugin.name}": Called(plugin.cls, {"model": "nothing"} if plugin.name == "transformers" else {})
        for plugin in discover(only=()).all()
        if plugin.kind in ("extractor", "distance", "sampler", "detector")
    },
}
MADE_BY_LSREGEN = (
    "Detected Dropped Items GuidanceRun LogEntry Report Result Piece TokenTable TapLayer Taps Run Step StepReport View"
)
OF_AUTHORS = (
    "TapPoint Energy Features Prediction NoiseSchedule TapRequest Needs max_present mean_present over_groups select_layers sample"
)
NOT_CALLED = (
    "hookimpl option OnStep presets Pipeline Plugins Detector LoadedDetector Denoiser Distance FeatureExtractor Model Sampler"
)
ALIASES = "Image Latents Maps PerSample"


def test_every_public_name_has_its_place_here() -> None:
    """Names that are none of a user's doors: values that lsregen makes, what authors give back (checked in a run), protocols."""
    errors = {name for name in public.__all__ if name.endswith("Error")}
    elsewhere = {*" ".join((MADE_BY_LSREGEN, OF_AUTHORS, NOT_CALLED, ALIASES)).split(), *errors}
    assert set(public.__all__) - elsewhere - CALLED.keys() == set()
    assert elsewhere <= set(public.__all__)


def parameters_of(called: Called) -> list[str]:
    return list(inspect.signature(called.call).parameters if called.good.keys() <= {"model"} else called.good)


@pytest.mark.parametrize(
    ("name", "argument"), [(name, argument) for name, called in CALLED.items() for argument in parameters_of(called)]
)
def test_a_foreign_value_is_refused_or_legal(name: str, argument: str) -> None:
    called = CALLED[name]
    problems = tried(lambda value: called.call(**{**called.good, argument: value}), partial(called.legal, argument))
    assert not "\n".join(problems)


def tried(call: Callable[[Any], object], legal: Callable[[object], bool], values: Mapping[str, Any] = FOREIGN) -> list[str]:
    """What is wrong with how a call takes foreign values: errors that are not lsregen's, and values that nobody meant."""
    problems: list[str] = []
    for what, value in values.items():
        try:
            call(value)
        except LsregenError as error:
            if "\ud800" in str(error):
                problems.append(f"{what}: a message that cannot be printed")
        except OSError as error:  # of files, as documented
            problems += [] if "/dev/null/a" in str(error) else [f"{what}: {error!r}"]
        except Exception as error:
            problems.append(f"{what}: {type(error).__name__}: {error}")
        else:
            if not legal(value):
                problems.append(f"{what}: taken")
    return problems


# The methods of a pipeline


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return Pipeline.load("shapeworld-base", device="cpu", dtype="fp32")


def called(pipeline: Pipeline, **changed: Any) -> object:
    return pipeline(**{"prompt": PROMPT, "layout": Layout.from_boxes(BOXES), "steps": 1, "guidance": {}, **changed})


LEGAL: dict[str, Callable[[Any], bool]] = {
    "prompt": lambda value: isinstance(value, str) or value == ["a"],
    "negative": lambda value: isinstance(value, str) or value == ["a"],
    "layout": lambda value: value is None or value == [None],
    "guidance": lambda value: value is None or value in ({}, (), []),
    "steps": lambda value: value is None or value == 3,
    "cfg": lambda value: value is None or value in (3, 1.5),
    "sampler": lambda value: value is None,
    "seed": lambda value: value is None or value in (3, [3]),
    "count": lambda value: value == 3,
    "size": lambda value: value is None,
    "init_image": lambda value: value is None,
    "strength": lambda value: value is None,
    "sets": lambda value: value == (),
    "on_step": lambda value: value is None or callable(value),
    "trace": lambda value: value == 3,
    "model": lambda value: False,
    "device": lambda value: False,
    "dtype": lambda value: False,
    "plugins": lambda value: value is None,
    "vae": lambda value: value is None,
    "memory": lambda value: value is None,
    "tiling": lambda value: value is None,
    "tile": lambda value: value is None,
    "offload": lambda value: value is None or value is True,
    "grounding": lambda value: value is None,
    "variant": lambda value: value in (None, ""),  # the plain one
    "revision": lambda value: value is None,
    "prediction_type": lambda value: value is None,
}
OF_A_CALL = [name for name in inspect.signature(Pipeline.__call__).parameters if name != "self"]


def test_every_argument_of_a_pipeline_is_tried() -> None:
    assert {name for name in OF_A_CALL if name != "float"} <= LEGAL.keys()
    assert set(inspect.signature(Pipeline.load).parameters) - {"options"} <= LEGAL.keys()


@pytest.mark.parametrize("argument", OF_A_CALL)
def test_a_pipeline_refuses_foreign_values(pipeline: Pipeline, argument: str) -> None:
    values = {
        name: value for name, value in FOREIGN.items() if value is not True and not (name == "class" and argument == "on_step")
    }
    problems = tried(lambda value: called(pipeline, **{argument: value}), LEGAL[argument], values)
    assert not "\n".join(problems)


@pytest.mark.parametrize("argument", ["guidance", "steps", "cfg", "sampler", "sets"])
def test_resolving_refuses_foreign_values(pipeline: Pipeline, argument: str) -> None:
    given = {"guidance": "layout-guidance"}
    problems = tried(lambda value: pipeline.resolve(**{**given, argument: value}), LEGAL[argument])
    assert not "\n".join(problems)


@pytest.mark.parametrize("argument", [name for name in LEGAL if name not in OF_A_CALL])
def test_loading_refuses_foreign_values(argument: str) -> None:
    given = {"model": "shapeworld-base", "device": "cpu"}
    problems = tried(lambda value: Pipeline.load(**{**given, argument: value}), LEGAL[argument])
    assert not "\n".join(problems)


def test_numbers_of_other_libraries_are_numbers(pipeline: Pipeline) -> None:
    result = called(pipeline, seed=np.int64(3), steps=torch.tensor(1), cfg=np.float32(2), count=np.array(2), trace=np.int8(0))
    assert isinstance(result, public.Result)
    assert result.report.seeds == (3, 4)
    assert type(result.report.config["cfg"]) is float
    assert Schedule(gamma=np.float32(2), repeats=np.int64(3)) == Schedule(gamma=2.0, repeats=3)


@pytest.mark.parametrize("guidance", [{"steps": None}, {"steps": "many"}, {"cfg": "high"}, {"sampler": "ddim", "cfg": []}])
def test_what_is_overridden_must_be_of_the_right_kind_too(pipeline: Pipeline, guidance: dict[str, Any]) -> None:
    with pytest.raises(LsregenError, match=r"steps|cfg"):
        pipeline.resolve(guidance, steps=2, cfg=2.0)


def test_sets_beside_a_guidance_object_are_told_apart(pipeline: Pipeline) -> None:
    guidance = Guidance(TERM)
    with pytest.raises(LsregenError, match=r"guidance\.MaxToken\.gamma=3.*Guidance object"):
        pipeline.resolve(guidance, sets=["guidance.MaxToken.gamma=3"])
    assert pipeline.resolve(guidance, sets=["steps=3"])[0].steps == 3
