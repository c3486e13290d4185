"""Good values for the arguments of public callables: by type, by name, and for one callable."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import lsregen.framework as framework
from lsregen.distances.box_energy import BoxEnergy
from lsregen.evaluation.instruments.detectors import ShapeWorldDetector
from lsregen.extractors.cross_attention import CrossAttention
from lsregen.framework import (
    Box,
    Denoiser,
    Distance,
    Energy,
    FeatureExtractor,
    Features,
    Guidance,
    GuidanceRun,
    Item,
    Items,
    Layout,
    LogEntry,
    Model,
    Needs,
    NoiseSchedule,
    Piece,
    Pipeline,
    Plugins,
    Prediction,
    Region,
    Report,
    Result,
    Run,
    Sampler,
    Schedule,
    Step,
    StepReport,
    TapLayer,
    TapPoint,
    TapRequest,
    Taps,
    Term,
    TokenTable,
    View,
    discover,
)
from lsregen.framework.plugins.detection import Detector
from lsregen.framework.testing import Conformance
from lsregen.samplers.ddim import DDIM
from tests import toys
from tests.bad_input.files import BOX, MODEL, PROMPT

Make = Callable[[], Any]
PHRASE = "red circle"
CORNERS = (0.1, 0.1, 0.5, 0.5)


def z() -> torch.Tensor:
    return toys.draw(0, 1, 4, 8, 8)


@cache
def pipeline() -> Pipeline:
    return Pipeline.load(MODEL, device="cpu")


def request() -> Any:
    return pipeline().request(PROMPT, steps=1)


def step() -> Step:
    return Step(0, 5, 801, 0.3, 0.5)


def run() -> Run:
    layouts = (Layout.from_boxes({"toy": CORNERS}),)
    return toys.make_run(toys.LinearDenoiser(), z(), layouts=layouts)


def layer() -> TapLayer:
    return toys.LAYER


def point() -> TapPoint:
    return TapPoint(layer().name, "cross_probs")


def term() -> Term:
    return Term(CrossAttention(), BoxEnergy(), name="layout")


def guidance_run() -> GuidanceRun:
    return framework.drained(Guidance().start(run()))


def report() -> Report:
    return pipeline()(PROMPT, steps=1).report


def features() -> Features:
    return Features(
        (torch.rand(1, 1, 1, 4, 4),), "attention", torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.long)
    )


def prediction() -> Prediction:
    return Prediction(z(), z())


BY_TYPE: Mapping[Any, Make] = {
    str: lambda: "x",
    int: lambda: 1,
    float: lambda: 0.5,
    bool: lambda: False,
    Any: lambda: None,
    object: lambda: None,
    Path: lambda: Path("mask.png"),
    torch.Tensor: z,
    Box: lambda: Box(*CORNERS),
    Layout: lambda: Layout.from_boxes({PHRASE: CORNERS}),
    Region: lambda: Region(PHRASE, Box(*CORNERS)),
    Item: lambda: Item(PROMPT),
    Items: lambda: Items((Item(PROMPT),), "jsonl"),
    Step: step,
    NoiseSchedule: NoiseSchedule,
    Prediction: prediction,
    Schedule: Schedule,
    Guidance: Guidance,
    GuidanceRun: guidance_run,
    LogEntry: lambda: LogEntry(0, "layout", (0.5,), (True,), 1.0),
    Term: term,
    Run: run,
    Sampler: DDIM,
    FeatureExtractor: CrossAttention,
    Denoiser: toys.LinearDenoiser,
    Distance: BoxEnergy,
    Detector: ShapeWorldDetector,
    Model: lambda: pipeline().model,
    Pipeline: pipeline,
    Plugins: discover,
    TapLayer: layer,
    TapPoint: point,
    TapRequest: lambda: TapRequest("cross_probs", ("all",)),
    Taps: lambda: Taps((point(),)),
    Piece: lambda: Piece(0, "red", 0, 3),
    TokenTable: lambda: toys.token_table(PROMPT),
    Needs: Needs,
    Energy: lambda: Energy.of(torch.zeros(1)),
    Features: features,
    View: lambda: View(z(), step(), Taps(()), (layer(),), prediction(), lambda latents: latents[:, :3]),
    StepReport: lambda: StepReport(step(), z(), z(), prediction(), {}),
    Report: report,
    Result: lambda: Result([Image.new("RGB", (8, 8))], report()),
    Conformance: lambda: Conformance(()),
    Image.Image: lambda: Image.new("RGB", (64, 64)),
}

BY_NAME: Mapping[str, Make] = {
    "phrase": lambda: PHRASE,
    "prompt": lambda: PROMPT,
    "size": lambda: (64, 64),
    "kind": lambda: "cross_probs",
    "fits": lambda: "boxes",
    "decode": lambda: None,
}


def taps() -> Taps:
    """With what it asks for."""
    asked = Taps((point(),), full=True)
    asked.record(layer().name, "cross_probs", torch.rand(1, 1, 2, 8, 8))
    return asked


def rendering() -> Run:
    return replace(run(), renderer=lambda _: framework.at_once(torch.zeros(1, 3, 8, 8)))


SELVES: Mapping[str, Make] = {
    "Taps.__getitem__": taps,
    "View.__getitem__": lambda: View(z(), step(), taps(), (layer(),)),
    **dict.fromkeys(("Run.render", "Run.rendering"), rendering),
}
"""Instances for methods that not every instance can do."""

GOOD: Mapping[str, Mapping[str, Make]] = {
    "load_preset": {"name": lambda: "layout-guidance"},
    "mask_region": {"text": lambda: f"{PHRASE}=mask.png"},
    "parse_box": {"text": lambda: BOX},
    "read_mask": {"path": lambda: "mask.png"},
    "read_layouts": {"path": lambda: "layout.json"},
    "write_layouts": {"path": lambda: "new.jsonl", "items": lambda: [Item(PROMPT)], "format": lambda: "jsonl"},
    "rasterise": {"place": lambda: Box(*CORNERS), "grid": lambda: (4, 4)},
    "option": {"default": lambda: 1, "help": lambda: "x"},
    "max_present": {"values": lambda: torch.rand(2, 3), "present": lambda: torch.ones(2, 3, dtype=torch.bool)},
    "mean_present": {"values": lambda: torch.rand(2, 3), "present": lambda: torch.ones(2, 3, dtype=torch.bool)},
    "over_groups": {
        "values": lambda: torch.rand(2, 3),
        "present": lambda: torch.ones(2, 3, dtype=torch.bool),
        "group": lambda: torch.zeros(2, 3, dtype=torch.long),
    },
    "select_layers": {"layers": lambda: [layer()], "selectors": lambda: ["all"]},
    "Box": dict(zip(("left", "top", "right", "bottom"), [lambda x=x: x for x in CORNERS], strict=True)),
    "Box.from_pixels": {"box": lambda: (1, 1, 5, 5)},
    "Box.from_xywh": {"box": lambda: (1, 1, 5, 5)},
    "Box.from_yolo": {"box": lambda: (0.5, 0.5, 0.2, 0.2)},
    "Layout.from_boxes": {"boxes": lambda: {PHRASE: CORNERS}},
    "Layout.from_label_map": {"path": lambda: "mask.png", "names": lambda: {255: PHRASE}},
    "Layout.from_json": {"data": lambda: {"regions": []}},
    "Pipeline.__call__": {"prompt": lambda: PROMPT, "steps": lambda: 1},
    "Pipeline.request": {"prompt": lambda: PROMPT},
    "Pipeline.stream": {"request": request},
    "Pipeline.sweep": {"request": request, "settings": lambda: {"steps": [1]}},
    "Pipeline.load": {"model": lambda: MODEL, "device": lambda: "cpu"},
    "Pipeline.resolve": {"guidance": lambda: "layout-guidance"},
    "Plugins.extractor": {"name": lambda: "cross_attention"},
    "Plugins.distance": {"name": lambda: "l2"},
    "Plugins.sampler": {"name": lambda: "ddim"},
    "Plugins.detector": {"name": lambda: "shapeworld"},
    "Plugins.find": {"kind": lambda: "sampler", "name": lambda: "ddim"},
    "Plugins.name_of": {"kind": lambda: "sampler", "cls": lambda: DDIM},
    "Plugins.load_model": {"model": lambda: MODEL, "device": lambda: "cpu"},
    "Plugins.inspect_model": {"model": lambda: MODEL},
    "Plugins.convert_model": {"path": lambda: Path("one.safetensors"), "out": lambda: Path("new-folder")},
    "Features": {
        "maps": lambda: features().maps,
        "kind": lambda: "attention",
        "present": lambda: features().present,
        "group": lambda: features().group,
    },
    "Segmentation": {"model": lambda: "x"},
    "TransformersDetector": {"model": lambda: "x"},
}

OF_PIPELINES: Mapping[str, tuple[Any, ...]] = {
    "layout": (None, [None]),
    "guidance": (None, {}, (), []),
    "steps": (None, 3),
    "cfg": (None, 3, 1.5),
    "sampler": (None,),
    "seed": (None, 3, [3]),
    "count": (3,),
    "size": (None,),
    "init_image": (None,),
    "strength": (None,),
    "sets": ((), []),
    "trace": (3,),
    "model": (),
    "device": (),
    "dtype": (),
    "plugins": (None,),
    "vae": (None,),
    "memory": (None,),
    "tiling": (None,),
    "tile": (None,),
    "offload": (None, True),
    "grounding": (None,),
    "variant": (None, ""),
    "revision": (None,),
    "prediction_type": (None,),
}
"""By the arguments of a pipeline's methods, the only ones of all foreign values that can be meant."""
