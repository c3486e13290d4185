"""The images of scenes judged: what became of every object, the metrics, and the rows of a result."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...framework.config.options import plain
from ...framework.hashes import file_hash
from ..instruments import passes
from ..instruments.detectors import ShapeWorldDetector
from ..instruments.entrants import Entrant
from ..instruments.features import SHAPEWORLD, load_features
from ..instruments.observations import Instruments, Looked, labels, look
from ..metrics import bootstrap as metrics
from ..metrics import measures, scores
from ..metrics.bootstrap import Statistic
from ..sources.shapeworld import scenes_of
from ..tables.markdown import FORMAT
from .classifier import weights_hash
from .detect import detect
from .quality import quality
from .scene import Scene
from .scenes import Scenes
from .score import LEAST_SCORE, ObjectResult, mask_overlaps, score_scene

PASSES = 3
"""How often every image is looked at: by the detector, for masks, and for features."""
UNPAIRED = ("seconds_per_image", "peak_bytes", "frechet_true")  # batches need not be the same in two rows; true images are


@dataclass(frozen=True)
class Judged:
    """A method's images, and what became of every object that they were asked for.

    `scenes`: of each image, in its size. `objects`: see `score_scene`; `overlaps`: see `mask_overlaps`. `measured`: what the run
    recorded of its cost.
    """

    looked: Looked
    kind: Scenes
    scenes: tuple[Scene, ...]
    objects: tuple[list[ObjectResult], ...]
    overlaps: Sequence[list[float]]
    measured: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        return self.looked.entrant.name


def judge(entrant: Entrant, name: str, *, batch: int = 32, on_done: Callable[[int], None] = lambda count: None) -> Judged:
    """Let the exact detector and the classifier look at every image of a method, with the source `shapeworld`.

    What was seen before is read from the runs' `scores/`.

    Args:
        name: what the method is called in the result.
        on_done: is told how many looks are done, of `PASSES` at each image.
    """
    tools = Instruments(ShapeWorldDetector().load("cpu"), SHAPEWORLD, features=load_features(SHAPEWORLD))
    entrant = replace(entrant, name=name)
    looked = look(entrant, tools, labels([entrant], tools), None, {}, batch=batch, on_done=on_done)
    run, size = entrant.entries[0].run, entrant.method.enlarged or entrant.entries[0].job.size
    kind = scenes_of(run.plan.origin, size)
    scenes = tuple(kind.scene(each.job.seed) for each in entrant.entries)

    def masks(places: Sequence[int], pictures: Sequence[Image.Image]) -> list[list[float]]:
        return [mask_overlaps(scenes[i], detect(np.asarray(each))) for i, each in zip(places, pictures, strict=True)]

    sources = {**(tools.detector.sha256 if tools.detector else {}), "render.py": file_hash(Path(__file__).with_name("render.py"))}
    overlaps = passes.looked(entrant.entries, "masks", {"sha256": sources}, masks, batch=batch, on_done=on_done)
    objects = tuple(
        score_scene(seen.found, scene.phrases, scene.boxes) for seen, scene in zip(looked.seen or (), scenes, strict=True)
    )
    measured = tuple(each.run.record(each.job.number).measured for each in entrant.entries)
    return Judged(looked, kind, scenes, objects, overlaps, measured)


def statistics(judged: Judged, chosen: Sequence[int]) -> dict[str, Statistic]:
    """How well a method did, over some of its images.

    - `present`, `right`, `centre_in_box`: the share of requested objects of which this is true; see `score.ObjectResult`.
    - `all_right`: the share of images in which every requested object is right.
    - `map50`: see `measures.precision`; everything that was found is a detection, with its own colour, shape and score.
    - `mask_iou`: see `score.mask_overlaps`.
    - `count_right`: the share of images with as many objects as were requested; every patch of colour that is not a speck counts.
    - `colour_given_shape`: of the requested objects whose shape was found, in any colour, the share that are right. Left out
      where no such shape was found.
    - `seconds_per_image`: the time of making a batch over its number of images; loading and scoring do not count. It is processor
      time on a CPU, all threads together, and the wall clock elsewhere.
    - `peak_bytes`: the most memory that torch allocated on the device for its batch. Left out on a CPU.
    - `frechet`, `frechet_true`, `kid`: see `quality`.
    """
    seen = [judged.looked.seen[i] for i in chosen] if judged.looked.seen is not None else []
    objects, found = [judged.objects[i] for i in chosen], [each.found for each in seen]
    given_shape = [_given_shape(row, there) for row, there in zip(objects, found, strict=True)]
    features = judged.looked.features[list(chosen)] if judged.looked.features is not None else np.zeros((0, 0))
    every: dict[str, Statistic | None] = {
        "present": _share([[each.present for each in row] for row in objects]),
        "right": _share([[each.right for each in row] for row in objects]),
        "all_right": _share([[all(each.right for each in row)] for row in objects]),
        "centre_in_box": _share([[each.centre_in_box for each in row] for row in objects]),
        "map50": measures.precision(seen).get("map50"),
        "mask_iou": _share([judged.overlaps[i] for i in chosen]),
        "count_right": _share([[len(there) == len(row)] for row, there in zip(objects, found, strict=True)]),
        "colour_given_shape": metrics.ratio(list(map(sum, given_shape)), list(map(len, given_shape))),
        "seconds_per_image": _cost(judged, chosen, "seconds"),
        "peak_bytes": _cost(judged, chosen, "peak_bytes"),
        **quality(features, [judged.scenes[i] for i in chosen]),
    }
    return measures.shares(**every)


def _share(rows: Sequence[Sequence[float]]) -> Statistic:
    """The mean over images of the mean over an image's objects."""
    return metrics.mean([float(np.mean(row)) for row in rows], share=True)


def _given_shape(objects: Sequence[ObjectResult], found: Sequence[Any]) -> list[bool]:
    """Of the objects whose shape was found: whether they are right."""
    shapes = {each.label.split()[-1] for each in found if each.score >= LEAST_SCORE}
    return [each.right for each in objects if each.phrase.split()[-1] in shapes]


def _cost(judged: Judged, chosen: Sequence[int], name: str) -> Statistic | None:
    """The mean over images of what was measured; those of one batch were made together, so whole batches are resampled."""
    batches: dict[int, list[float]] = {}
    for i in chosen:
        if (value := judged.measured[i].get(name)) is not None:
            batches.setdefault(judged.looked.jobs[i].batch, []).append(float(value))
    return metrics.ratio(list(map(sum, batches.values())), list(map(len, batches.values())), share=False)


def result(every: Sequence[Judged]) -> dict[str, Any]:
    """The rows of methods and their paired differences over the scenes that both have, as JSON."""
    known: dict[tuple[int, tuple[int, ...]], dict[str, Statistic]] = {}  # a method stands in several pairs

    def of(number: int, chosen: Sequence[int]) -> dict[str, Statistic]:
        key = number, tuple(chosen)
        if key not in known:
            known[key] = {name: metrics.remembered(each) for name, each in statistics(every[number], chosen).items()}
        return known[key]

    def paired(number: int, chosen: Sequence[int]) -> dict[str, Statistic]:
        return {name: each for name, each in of(number, chosen).items() if name not in UNPAIRED}

    def about(first: int, second: int) -> dict[str, Any]:
        """`size` is the first's; the second's stands beside it where it is another."""
        one, other = every[first].kind, every[second].kind
        size = {"size": list(one.size), **({"second_size": list(other.size)} if other.size != one.size else {})}
        return {"objects": one.objects, **size, "seed": one.seed}

    return {
        "format": FORMAT,
        "rows": [_row(each, of(i, range(len(each.scenes)))) for i, each in enumerate(every)],
        "differences": scores.differences([each.looked for each in every], paired, about),
        "intervals": scores.INTERVALS,
    }


def _row(judged: Judged, found: Mapping[str, Statistic]) -> dict[str, Any]:
    method, kind = judged.looked.entrant.method, judged.kind
    return {
        "guidance": judged.name,
        "model": str(method.described.get("name", method.model)),
        "objects": kind.objects,
        "size": list(kind.size),
        **({} if kind.place is None else {"place": kind.place}),
        "cfg": method.config.get("cfg"),
        "count": len(judged.scenes),
        "seed": kind.seed,
        "classifier": weights_hash(),
        "config": plain(method.config),
        "metrics": {name: metrics.bootstrap(each).to_json() for name, each in found.items()},
    }


def records(every: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """What was seen of every image, as JSON: a line of the records that stand beside a result."""
    for judged in every:
        rows = zip(judged.looked.entrant.entries, judged.looked.seen or (), judged.objects, judged.overlaps, strict=True)
        for entry, seen, objects, overlaps in rows:
            yield {
                "guidance": judged.name,
                "item": entry.job.item,
                "seed": entry.job.seed,
                "image": entry.image,
                "objects": [{**asdict(one), "mask_iou": overlap} for one, overlap in zip(objects, overlaps, strict=True)],
                "found": [asdict(one) for one in seen.found],
            }
