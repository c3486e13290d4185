"""The public module of lsregen: what users compose and what plugin authors implement.

Make a picture:

    from lsregen.framework import Layout, Pipeline

    pipeline = Pipeline.load("shapeworld-base")
    layout = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})
    result = pipeline("a red circle and a blue square", layout=layout, guidance="layout-guidance", seed=0)
    result.image.save("picture.png")

Write a distance, in a package of your own:

    from dataclasses import dataclass
    from lsregen.framework import Energy, hookimpl, mean_present, option, over_groups

    @dataclass(frozen=True)
    class Spread:
        # How even a phrase's attention is: the share of a map that its strongest cell does not hold.
        accepts = ("attention", "probability")
        needs_target = False
        raster: str = option("area", "how boxes become masks (this distance looks at none)")

        def __call__(self, current, target):
            held = [(m.amax(dim=(-2, -1)) / m.sum(dim=(-2, -1)).clamp(min=1e-6)).mean(dim=1) for m in current.maps]  # [b k] each
            energy = 1 - sum(held) / len(held)
            return Energy.of(mean_present(*over_groups(energy, current.present, current.group)))

    @hookimpl
    def register_distances(register):
        register("spread", Spread)

and name the module in the package's `pyproject.toml`, under `[project.entry-points.lsregen]`. `examples/lsregen-centre` is such
a package, complete. Names are imported on first use, so that importing this module costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import load_preset, presets
    from .detection import Detected, Detector, LoadedDetector
    from .errors import (
        CheckpointError,
        ConfigError,
        LayoutError,
        LsregenError,
        NonFiniteError,
        PhraseError,
        PluginError,
    )
    from .formats import mask_region, read_layouts, write_layouts
    from .guidance import Guidance, GuidanceRun, LogEntry, Term
    from .hookspecs import hookimpl
    from .items import Dropped, Item, Items
    from .layout import Box, Layout, Region, parse_box
    from .loop import OnStep, sample
    from .masks import read_mask
    from .options import option
    from .pipeline import Pipeline
    from .plugins import Plugins, discover
    from .rasters import rasterise
    from .reduce import max_present, mean_present, over_groups
    from .report import Report, Result
    from .schedule import Schedule
    from .taps import TapLayer, TapPoint, Taps, select_layers
    from .tokens import Piece, TokenTable
    from .types import (
        Denoiser,
        Distance,
        Energy,
        FeatureExtractor,
        Features,
        Image,
        Latents,
        Maps,
        Model,
        Needs,
        NoiseSchedule,
        PerSample,
        Prediction,
        Run,
        Sampler,
        Step,
        StepReport,
        TapRequest,
        View,
    )

_HOMES = {
    "config": "load_preset presets",
    "detection": "Detected Detector LoadedDetector",
    "errors": "CheckpointError ConfigError LayoutError LsregenError NonFiniteError PhraseError PluginError",
    "formats": "mask_region read_layouts write_layouts",
    "guidance": "Guidance GuidanceRun LogEntry Term",
    "hookspecs": "hookimpl",
    "items": "Dropped Item Items",
    "layout": "Box Layout Region parse_box",
    "loop": "OnStep sample",
    "masks": "read_mask",
    "options": "option",
    "pipeline": "Pipeline",
    "plugins": "Plugins discover",
    "rasters": "rasterise",
    "reduce": "max_present mean_present over_groups",
    "report": "Report Result",
    "schedule": "Schedule",
    "taps": "TapLayer TapPoint Taps select_layers",
    "tokens": "Piece TokenTable",
    "types": "Denoiser Distance Energy FeatureExtractor Features Image Latents Maps Model Needs NoiseSchedule PerSample "
    "Prediction Run Sampler Step StepReport TapRequest View",
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [  # noqa: RUF022 (in the order of their homes)
    "CheckpointError", "ConfigError", "LayoutError", "LsregenError", "NonFiniteError", "PhraseError", "PluginError",
    "load_preset", "presets", "Detected", "Detector", "LoadedDetector",
    "mask_region", "read_layouts", "write_layouts", "Guidance", "GuidanceRun", "LogEntry", "Term", "hookimpl",
    "Dropped", "Item", "Items", "Box", "Layout", "Region", "parse_box", "rasterise", "OnStep", "sample", "read_mask",
    "option", "Pipeline", "Plugins", "discover", "max_present", "mean_present", "over_groups",
    "Report", "Result", "Schedule", "TapLayer", "TapPoint", "Taps", "select_layers", "Piece", "TokenTable",
    "Denoiser", "Distance", "Energy", "FeatureExtractor", "Features", "Image", "Latents", "Maps", "Model", "Needs",
    "NoiseSchedule", "PerSample", "Prediction", "Run", "Sampler", "Step", "StepReport", "TapRequest", "View",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME_OF])
