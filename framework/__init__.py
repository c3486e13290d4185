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

from typing import TYPE_CHECKING

from .lazy import lazily

if TYPE_CHECKING:
    from .config.constraints import Range
    from .config.load_options import LoadOptions
    from .config.options import check_options, option
    from .config.presets import load_preset, presets
    from .errors import CheckpointError, ConfigError, LayoutError, LsregenError, NonFiniteError, PhraseError, PluginError
    from .events import Evaluated, Inverted, LogEntry, Passes, Rendering, Stepped, StepReport, at_once, drained
    from .guidance.run import Guidance, GuidanceRun, Term
    from .guidance.schedule import Schedule
    from .layout.masks import read_mask
    from .layout.rasters import rasterise
    from .layout.regions import Box, Layout, Region, parse_box
    from .layout.tokens import Piece, TokenTable
    from .layout_files.formats import mask_region, read_layouts, write_layouts
    from .layout_files.item import Dropped, Item, Items
    from .pipeline.events import Event, Finished, Prepared
    from .pipeline.pipeline import OnStep, Pipeline
    from .pipeline.report import Report, Result
    from .pipeline.request import Request
    from .pipeline.sweep import Sweep
    from .plugins.detection import Detected, Detector, LoadedDetector
    from .plugins.hookspecs import hookimpl
    from .plugins.registry import Plugins, discover
    from .protocols import Denoiser, Distance, FeatureExtractor, Model, Run, Sampler
    from .reductions import max_present, mean_present, over_groups
    from .sampling.loop import sample
    from .sampling.taps import TapLayer, TapPoint, Taps, select_layers
    from .types import Energy, Features, Image, Latents, Maps, Needs, NoiseSchedule, PerSample, Prediction, Step, TapRequest, View

HOMES = {
    "config.constraints": "Range",
    "config.load_options": "LoadOptions",
    "config.options": "check_options option",
    "config.presets": "load_preset presets",
    "errors": "CheckpointError ConfigError LayoutError LsregenError NonFiniteError PhraseError PluginError",
    "events": "Evaluated Inverted LogEntry Passes Rendering StepReport Stepped at_once drained",
    "guidance.run": "Guidance GuidanceRun Term",
    "guidance.schedule": "Schedule",
    "layout.masks": "read_mask",
    "layout.rasters": "rasterise",
    "layout.regions": "Box Layout Region parse_box",
    "layout.tokens": "Piece TokenTable",
    "layout_files.formats": "mask_region read_layouts write_layouts",
    "layout_files.item": "Dropped Item Items",
    "pipeline.events": "Event Finished Prepared",
    "pipeline.pipeline": "OnStep Pipeline",
    "pipeline.report": "Report Result",
    "pipeline.request": "Request",
    "pipeline.sweep": "Sweep",
    "plugins.detection": "Detected Detector LoadedDetector",
    "plugins.hookspecs": "hookimpl",
    "plugins.registry": "Plugins discover",
    "protocols": "Denoiser Distance FeatureExtractor Model Run Sampler",
    "reductions": "max_present mean_present over_groups",
    "sampling.loop": "sample",
    "sampling.taps": "TapLayer TapPoint Taps select_layers",
    "types": "Energy Features Image Latents Maps Needs NoiseSchedule PerSample Prediction Step TapRequest View",
}

__all__ = [  # noqa: RUF022 (in the order of their homes)
    "Range", "LoadOptions", "check_options", "option", "load_preset", "presets", "CheckpointError", "ConfigError", "LayoutError",
    "LsregenError", "NonFiniteError",
    "PhraseError", "PluginError", "Evaluated", "Inverted", "LogEntry", "Passes", "Rendering", "StepReport",
    "Stepped", "at_once", "drained", "Guidance", "GuidanceRun", "Term", "Schedule", "read_mask", "rasterise",
    "Box", "Layout", "Region", "parse_box", "Piece", "TokenTable", "mask_region", "read_layouts", "write_layouts",
    "Dropped", "Item", "Items", "Event", "Finished", "Prepared", "OnStep", "Pipeline", "Report", "Result", "Request",
    "Sweep", "Detected", "Detector", "LoadedDetector", "hookimpl",
    "Plugins", "discover", "max_present", "mean_present", "over_groups", "sample", "TapLayer", "TapPoint", "Taps",
    "select_layers", "Denoiser", "Distance", "Energy", "FeatureExtractor", "Features", "Image", "Latents", "Maps", "Model",
    "Needs", "NoiseSchedule", "PerSample", "Prediction", "Run", "Sampler", "Step", "TapRequest", "View",
]  # fmt: skip

__getattr__, __dir__ = lazily(__name__, HOMES)
