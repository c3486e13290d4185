"""Runs whose pictures are drawn and not generated: what is on them is known, so that every metric has a known answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lsregen.evaluation.runs.expects import Attribute, Expects, Relation
from lsregen.evaluation.runs.jobs import Job
from lsregen.evaluation.runs.plan import Method, Origin, Plan
from lsregen.evaluation.runs.run_folder import Fault, Record, RunFolder
from lsregen.evaluation.shapeworld import Scene, render, sample_scene
from lsregen.framework.layout.regions import Layout
from lsregen.framework.sampling.image_to_image import fingerprint

Draw = Callable[[Scene, int], Image.Image]


def true(scene: Scene, seed: int) -> Image.Image:
    """Just what was asked for."""
    return Image.fromarray(render(scene))


def mirrored(scene: Scene, seed: int) -> Image.Image:
    """All there, on the wrong side."""
    return Image.fromarray(np.ascontiguousarray(render(scene)[:, ::-1]))


def empty(scene: Scene, seed: int) -> Image.Image:
    """Nothing at all; every seed has its own grey."""
    return Image.new("RGB", (scene.width, scene.height), (100 + seed % 50,) * 3)


def wide(scene: Scene, seed: int) -> Image.Image:
    """What was asked for, twice as wide: a circle of the scene is an ellipse of this picture."""
    return true(scene, seed).resize((2 * scene.width, scene.height))


def expects(scene: Scene) -> Expects:
    """What a scene's caption says: who is left of whom, how many of each, and the colours."""
    relations = tuple(
        Relation(one.phrase, "left of" if one.x < other.x else "right of", other.phrase)
        for one, other in zip(scene.objects, scene.objects[1:], strict=False)
    )
    attributes = tuple(Attribute(each.phrase, each.shape, each.colour) for each in scene.objects)
    return Expects(relations, {each.phrase: 1 for each in scene.objects}, attributes)


def plan(
    methods: Sequence[str], items: int = 4, objects: int = 2, seeds: int = 1, name: str = "scene", gammas: Sequence[float] = ()
) -> Plan:
    """Scenes of the shape world by every method; `gammas`: a setting of each, that varies."""
    jobs: list[Job] = []
    for number, method in enumerate(methods):
        for i in range(items):
            scene = sample_scene(i, split="eval", objects=objects)
            layout = Layout.from_boxes(dict(zip(scene.phrases, scene.boxes, strict=True)))
            for seed in range(seeds):
                jobs.append(
                    Job(len(jobs), number, method, f"{name}-{i}", seed, scene.caption, "", layout, (64, 64), expects(scene))
                )
    described = {"name": "drawn", "components": {}}
    configs: list[dict[str, Any]] = [
        {"steps": 2, "cfg": 4.0, "guidance": {"layout": {"gamma": gammas[i]}} if gammas else {}} for i in range(len(methods))
    ]
    found = {method: Method(method, "drawn", described, config) for method, config in zip(methods, configs, strict=True)}
    return Plan.of(Origin("shapeworld", {}, {}, items, {}), found, items * seeds, jobs)


def run(folder: Path, plan: Plan, draws: Mapping[str, Draw], but: Sequence[int] = (), broken: Sequence[int] = ()) -> RunFolder:
    """The run of a plan. `but`: jobs that are not made; `broken`: such as end with an error."""
    made = RunFolder.begin(folder, plan).make()
    for job in plan.jobs:
        if job.number in but:
            continue
        if job.number in broken:
            made.keep(Record(job.number, job.method, job.item, job.seed, None, Fault("ValueError", "no luck")), None)
            continue
        scene = sample_scene(int(job.item.rpartition("-")[2]), split="eval", objects=len(job.layout.regions))
        picture = draws[job.method](scene, job.seed)
        data = BytesIO()
        picture.save(data, "PNG")
        record = Record(job.number, job.method, job.item, job.seed, fingerprint(picture), None, {"seconds": 0.1})
        made.keep(record, data.getvalue())
    return made
