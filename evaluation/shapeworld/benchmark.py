"""Methods compared on the same scenes: items made in batches and kept, rows of metrics with intervals, paired differences."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image

from ...framework.config.described_models import with_described
from ...framework.errors import ConfigError
from ...framework.files import is_file, reason, write_whole
from ...framework.layout.regions import Layout
from ...framework.pipeline.report import versions
from ..metrics import bootstrap as metrics
from ..metrics.bootstrap import FoundBox, ImageResult, Statistic
from ..runs.peak_memory import watch
from ..runs.records import Record, Records
from .classifier import image_features, weights_hash
from .detect import Detection, detect
from .geometry import Box
from .quality import quality
from .render import masks
from .scene import Scene
from .scenes import Scenes
from .score import LEAST_SCORE, score_scene

if TYPE_CHECKING:
    from ...framework.pipeline.pipeline import Pipeline

Make: TypeAlias = Callable[[Sequence[Scene]], Sequence[Image.Image]]
DECIMALS = 4  # of the features that are kept, which have a deviation of about 1


@dataclass(frozen=True)
class Contender:
    """A method in the benchmark.

    `guidance`: what it is called. `model`, `cfg`: as the table shows them. `settings`: everything that decides its images besides
    the scenes, as JSON types; contenders of equal ones share their finished items. `make`: the images of some scenes, in their
    order; the seed of an image is that of its scene. `device`: where it works, by torch's name.
    """

    guidance: str
    model: str
    cfg: float | None
    settings: Mapping[str, Any]
    make: Make
    device: str = "cpu"


def contender(
    pipeline: Pipeline,
    name: str,
    guidance: Mapping[str, Any],
    *,
    steps: int | None = None,
    cfg: float | None = None,
    sets: Sequence[str] = (),
    made: tuple[int, int] | None = None,
    known: dict[str, dict[str, Any]] | None = None,
) -> Contender:
    """A pipeline with one guidance (a configuration as a mapping, empty for none); the prompt is the scene's caption.

    `made`: width and height of the images that are made, if they are then enlarged to the size of their scenes (bicubic).
    `known`: descriptions of the models that terms name, such as what renders for one; those that were not there are added.

    Raises:
        ConfigError: a setting cannot be used.
    """
    resolved, _ = pipeline.resolve(guidance, steps=steps, cfg=cfg, sets=sets)
    config = {key: value for key, value in resolved.as_dict().items() if key != "seed"}  # every item has its own
    _, others = with_described(config, pipeline.plugins, {} if known is None else known)
    described, device = pipeline.model.describe(), str(pipeline.model.device)

    def make(scenes: Sequence[Scene]) -> Sequence[Image.Image]:
        wanted = (scenes[0].width, scenes[0].height)
        images = pipeline(
            [scene.caption for scene in scenes],
            layout=[requested_layout(scene) for scene in scenes],
            guidance=config,
            seed=[scene.seed for scene in scenes],
            size=made or wanted,
        ).images
        return images if made is None else [image.resize(wanted, Image.Resampling.BICUBIC) for image in images]

    settings = {
        "model": dict(described),
        "config": config,
        "device": device,
        **({"others": others} if others else {}),
        **({} if made is None else {"made": list(made)}),
        "versions": {package: version for package, version in versions().items() if package in ("lsregen", "torch")},
    }
    return Contender(name, str(described.get("name", pipeline.model.name)), resolved.cfg, settings, make, device)


def requested_layout(scene: Scene) -> Layout:
    """Each object's phrase with its true box."""
    return Layout.from_boxes(dict(zip(scene.phrases, scene.boxes, strict=True)))


@dataclass(frozen=True)
class Row:
    """A contender's finished items, in the order of their seeds."""

    contender: Contender
    scenes: Scenes
    items: tuple[Record, ...]
    name: str
    """Of the row's files: its items and its images."""

    def statistics(self, seeds: Sequence[int] | None = None) -> dict[str, Statistic]:
        """Every metric that these items have, over all of them or those of some seeds; see `METRICS` and `quality`."""
        wanted = self.scenes.seeds if seeds is None else frozenset(seeds)
        chosen = [item for item in self.items if item["seed"] in wanted]
        found = {name: metric(chosen) for name, metric in METRICS.items()}
        features = np.array([item["features"] for item in chosen])
        return {
            **{name: statistic for name, statistic in found.items() if statistic is not None},
            **quality(features, [self.scenes.scene(item["seed"]) for item in chosen]),
        }

    def to_json(self) -> dict[str, Any]:
        """The row of the result, every metric with its interval."""
        intervals = {name: metrics.bootstrap(statistic).to_json() for name, statistic in self.statistics().items()}
        return {
            "guidance": self.contender.guidance,
            "model": self.contender.model,
            "objects": self.scenes.objects,
            "size": list(self.scenes.size),
            **({} if self.scenes.place is None else {"place": self.scenes.place}),
            "cfg": self.contender.cfg,
            "count": len(self.items),
            "seed": self.scenes.seed,
            "classifier": weights_hash(),
            "metrics": intervals,
        }


def run(
    contender: Contender,
    scenes: Scenes,
    folder: Path,
    *,
    batch: int = 8,
    images: bool = False,
    on_done: Callable[[int], None] = lambda count: None,
) -> Row:
    """Make and score what is not finished yet; finished items in the folder are kept, whatever batches they were made in.

    Args:
        folder: of the items, and of the images under `images/`.
        batch: how many images are made at once.
        images: keep the images too; an item without one is then made again.
        on_done: is told how many more items are finished, those found on disk included.

    Raises:
        ConfigError: the folder cannot be written to.
    """
    settings = scenes.settings()
    settings["classifier"] = weights_hash()  # another one sees other features: nothing is mixed
    records = Records(folder, contender.guidance, {**settings, **contender.settings}, shared=True)
    pictures = folder / "images" / records.name
    with records.held():
        kept = records.read()
        missing = [seed for seed in scenes.seeds if seed not in kept or (images and not is_file(image_path(pictures, seed)))]
        on_done(scenes.count - len(missing))
        for first in range(0, len(missing), batch):
            chosen = [scenes.scene(seed) for seed in missing[first : first + batch]]
            made, cost = _watched(contender, chosen)
            if images:
                _save(made, [image_path(pictures, scene.seed) for scene in chosen])
            seen = [{"features": features} for features in image_features(made).round(DECIMALS).tolist()]
            scored = zip(chosen, made, seen, strict=True)
            records.append([{**score(scene, image), **more, **cost} for scene, image, more in scored])
            on_done(len(chosen))
        found = records.read()
    return Row(contender, scenes, tuple(found[seed] for seed in scenes.seeds), records.name)


def image_path(pictures: Path, seed: int) -> Path:
    return pictures / f"{seed}.png"


def _watched(contender: Contender, scenes: Sequence[Scene]) -> tuple[Sequence[Image.Image], dict[str, Any]]:
    """The images of a batch, and what each of their items says of its cost."""
    peak = watch(contender.device)
    # Other work on the machine stretches the wall clock. A GPU's work is not on the processor's clock.
    clock = time.process_time if contender.device == "cpu" else time.perf_counter
    start = clock()
    images = contender.make(scenes)
    seconds = (clock() - start) / len(scenes)
    return images, {"seconds": seconds, "peak_bytes": peak(), "batch": [scenes[0].seed, len(scenes)]}


def _save(images: Sequence[Image.Image], paths: Sequence[Path]) -> None:
    try:
        for image, path in zip(images, paths, strict=True):
            data = BytesIO()
            image.save(data, "PNG")
            write_whole(path, [data.getvalue()])
    except OSError as error:
        raise ConfigError(f"folder {paths[0].parent}: images cannot be written there ({reason(error)})") from None


def score(scene: Scene, image: Image.Image) -> Record:
    """What became of one scene: everything found in its image, and every requested object's result."""
    found = detect(np.asarray(image.convert("RGB")))
    results = score_scene(found, scene.phrases, scene.boxes)
    overlaps = mask_overlaps(scene, found)
    return {
        "seed": scene.seed,
        "objects": [
            {**asdict(result), "box": list(box), "mask_iou": overlap}
            for result, box, overlap in zip(results, scene.boxes, overlaps, strict=True)
        ],
        "found": [
            {"phrase": f"{item.colour} {item.shape}", "box": list(map(float, item.box)), "score": float(item.score)}
            for item in found
        ],
    }


def mask_overlaps(scene: Scene, found: Sequence[Detection]) -> list[float]:
    """Of every object of the scene: the overlap (intersection over union) of its true mask with all that was found of its kind.

    Everything of the right colour and shape whose score shows a shape of this world counts, so that a second copy lowers it; 0 if
    there is none. The images must have the scene's size.
    """
    overlaps: list[float] = []
    for item, true in zip(scene.objects, masks(scene), strict=True):
        seen = np.zeros_like(true)
        for other in found:
            if (other.colour, other.shape) == (item.colour, item.shape) and other.score >= LEAST_SCORE:
                seen |= other.mask
        overlaps.append(float(np.count_nonzero(seen & true) / max(1, np.count_nonzero(seen | true))))
    return overlaps


def _share(name: str) -> Callable[[Sequence[Record]], Statistic]:
    """The mean over images of the mean over an image's objects."""
    return lambda items: metrics.mean([float(np.mean([entry[name] for entry in item["objects"]])) for item in items], share=True)


def _all_right(items: Sequence[Record]) -> Statistic:
    return metrics.mean([float(all(entry["right"] for entry in item["objects"])) for item in items], share=True)


def _count_right(items: Sequence[Record]) -> Statistic:
    return metrics.mean([float(len(item["found"]) == len(item["objects"])) for item in items], share=True)


def _colour_given_shape(items: Sequence[Record]) -> Statistic | None:
    shapes = [{f["phrase"].split()[-1] for f in item["found"] if f["score"] >= LEAST_SCORE} for item in items]
    asked = [
        [entry for entry in item["objects"] if entry["phrase"].split()[-1] in there]
        for item, there in zip(items, shapes, strict=True)
    ]
    rights = [float(sum(entry["right"] for entry in entries)) for entries in asked]
    return metrics.ratio(rights, list(map(len, asked)))


def _precision(items: Sequence[Record]) -> Statistic:
    return metrics.precision_statistic([image_result(item) for item in items])


def _cost(name: str) -> Callable[[Sequence[Record]], Statistic | None]:
    """The mean over images of what was measured; those of one batch were made together, so whole batches are resampled."""

    def statistic(items: Sequence[Record]) -> Statistic | None:
        batches: dict[tuple[int, ...], list[float]] = {}
        for item in items:
            if item[name] is not None:
                batches.setdefault(tuple(item["batch"]), []).append(float(item[name]))
        return metrics.ratio(list(map(sum, batches.values())), list(map(len, batches.values())), share=False)

    return statistic


METRICS: Mapping[str, Callable[[Sequence[Record]], Statistic | None]] = {
    "present": _share("present"),
    "right": _share("right"),
    "all_right": _all_right,
    "centre_in_box": _share("centre_in_box"),
    "map50": _precision,
    "mask_iou": _share("mask_iou"),
    "count_right": _count_right,
    "colour_given_shape": _colour_given_shape,
    "seconds_per_image": _cost("seconds"),
    "peak_bytes": _cost("peak_bytes"),
}
"""How well a method did, from its items.

- `present`, `right`, `centre_in_box`: the share of requested objects of which this is true; see `score.ObjectResult`.
- `all_right`: the share of images in which every requested object is right.
- `map50`: mean average precision of the requested boxes at an overlap of 0.5, over the classes (colour and shape) that were
  asked for; everything that was found is a detection, with its own colour, shape and score.
- `mask_iou`: see `mask_overlaps`.
- `count_right`: the share of images with as many objects as were requested; every patch of colour that is not a speck counts.
- `colour_given_shape`: of the requested objects whose shape was found, in any colour, the share that are right. Left out where no
  such shape was found.
- `seconds_per_image`: the time of making a batch over its number of images, in seconds; loading does not count, except that of
  a model that renders for another, and scoring does not either. It is processor time on a CPU, all threads together, and the wall
  clock elsewhere.
- `peak_bytes`: the most memory that making its batch took; see `memory.watch`. Left out where it cannot be measured.

Beside them stand the distances from true images of `quality`.
"""
UNPAIRED = ("seconds_per_image", "peak_bytes", "frechet_true")  # batches need not be the same in two rows; true images are


def image_result(item: Record) -> ImageResult:
    """A kept item as average precision takes it."""
    requested = tuple((str(entry["phrase"]), _corners(entry["box"])) for entry in item["objects"])
    return ImageResult(requested, tuple(FoundBox(str(f["phrase"]), _corners(f["box"]), float(f["score"])) for f in item["found"]))


def _corners(values: Sequence[float]) -> Box:
    left, top, right, bottom = values
    return left, top, right, bottom


def differences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """`second - first` of every pair of rows that share scenes, with paired intervals, in the order of the rows.

    `count` scenes from `seed` on are shared. `size` is the first's; the second's stands beside it where it is another.
    """
    result: list[dict[str, Any]] = []
    known: dict[tuple[int, tuple[int, ...]], dict[str, Statistic]] = {}  # a row stands in several pairs

    def resampled(number: int, seeds: tuple[int, ...]) -> dict[str, Statistic]:
        if (number, seeds) not in known:
            statistics = rows[number].statistics(seeds)
            known[number, seeds] = {name: metrics.remembered(of) for name, of in statistics.items() if name not in UNPAIRED}
        return known[number, seeds]

    for (i, first), (j, second) in combinations(enumerate(rows), 2):
        shared = tuple(first.scenes.shared(second.scenes))
        if shared:
            one, other = resampled(i, shared), resampled(j, shared)
            intervals = {name: metrics.bootstrap(metrics.difference(one[name], other[name])) for name in one if name in other}
            result.append(
                {
                    "first": first.contender.guidance,
                    "second": second.contender.guidance,
                    "objects": first.scenes.objects,
                    "size": list(first.scenes.size),
                    **({"second_size": list(second.scenes.size)} if second.scenes.size != first.scenes.size else {}),
                    "count": len(shared),
                    "seed": shared[0],
                    "metrics": {name: interval.to_json() for name, interval in intervals.items()},
                }
            )
    return result
