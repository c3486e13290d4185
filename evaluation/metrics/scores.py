"""The scores of runs: everything that was asked for, as rows of a result with intervals, and how it was measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

from ...framework.config.options import plain
from ...framework.errors import counted
from ...framework.pipeline.report import DECIDING, versions
from ..instruments import passes
from ..instruments.observations import Instruments, Looked, by_crops
from ..runs.jobs import Job
from ..runs.records import digest
from ..runs.run_folder import RunFolder
from ..tables.markdown import FORMAT
from . import bootstrap as metrics
from . import frechet, measures
from .bootstrap import Floats, Statistic
from .feature_distances import Reference, enough
from .measures import SIDES

SCORING = ("torchmetrics", "faster-coco-eval", "numpy", "scipy", "pillow")
"""What computes scores, beside what makes pictures."""
OF_NOTHING = {
    "relation_cond": ("relation_oa", "no picture has both things of a relation"),
    "count_precision": ("count_exact", "nothing of what was to be counted is there"),
    "count_recall": ("count_exact", "all counts that were asked for are 0"),
    "count_f1": ("count_exact", "nothing was asked for, and nothing is there"),
}
"""Shares that may be shares of nothing: a metric that is there all the same, and why this one is not."""

INTERVALS = "BCa; of a Frechet distance percentiles; where all resamples agree, of a share exact binomial, else none"

GROUPS = ("single", "multi")
"""The paper's splits: pictures of which one box was asked for, or several. Average precision and CLIP score are given for each
too, as `map50_single`."""


def statistics(looked: Looked, threshold: float, chosen: Sequence[int] | None = None) -> dict[str, Statistic]:
    """Every metric but the Frechet distance over some of an entrant's pictures, by items; all of them by default."""
    places = range(len(looked.jobs)) if chosen is None else chosen
    jobs = [looked.jobs[i] for i in places]
    found: dict[str, tuple[Statistic, list[str]]] = {}

    def add(statistics: Mapping[str, Statistic], of: Sequence[Job], suffix: str = "") -> None:
        found.update({name + suffix: (each, [job.item for job in of]) for name, each in statistics.items()})

    for suffix, group in groups_of(jobs).items():
        at = [places[i] for i in group]
        if not at:
            continue
        some: dict[str, Statistic] = {}
        if looked.seen is not None:
            some.update(measures.precision([looked.seen[i] for i in at]))
        if looked.clip is not None:
            some["clip"] = metrics.mean(looked.clip[at])
        add(some, [looked.jobs[i] for i in at], suffix)
    if looked.seen is not None:
        seen = [looked.seen[i] for i in places]
        add(measures.relations(seen, threshold), jobs)
        add(measures.counts(seen, threshold), jobs)
        if looked.attributes is not None:
            add(measures.attributes([looked.attributes[i] for i in places]), jobs)
    return {name: measures.per_item(statistic, items) for name, (statistic, items) in found.items()}


def groups_of(jobs: Sequence[Job]) -> dict[str, list[int]]:
    """The places of all jobs, of those with one box, and of those with several, by the ending of a metric's name."""
    numbers = [len(measures.boxes_of(job)) for job in jobs]
    single = [i for i, count in enumerate(numbers) if count == 1]
    multi = [i for i, count in enumerate(numbers) if count > 1]
    return {"": list(range(len(jobs))), "_single": single, "_multi": multi}


def measured(looked: Looked, tools: Instruments, reference: Reference | None, chosen: Sequence[int]) -> dict[str, Statistic]:
    """Every metric of some pictures; pictures are resampled by item."""
    found: dict[str, Statistic] = {}
    if looked.features is not None and reference is not None and enough(features := looked.features[list(chosen)]):
        items = [looked.jobs[i].item for i in chosen]
        found["frechet"] = measures.per_item(frechet.statistic(features, reference), items)
    return found | statistics(looked, tools.least, chosen)


def row(looked: Looked, found: Mapping[str, Statistic]) -> dict[str, Any]:
    """The row of a result."""
    entrant, jobs = looked.entrant, looked.jobs
    sizes, items = sorted({job.size for job in jobs}), {job.item for job in jobs}
    groups = groups_of(jobs)
    return {
        "guidance": entrant.name,
        "model": str(entrant.method.described.get("name", entrant.method.model)),
        "size": list(sizes[0]) if len(sizes) == 1 else None,
        "sizes": [list(size) for size in sizes],
        "cfg": entrant.method.config.get("cfg"),
        "count": len(jobs),
        "pictures_digest": digest({"of": sorted((job.item, job.seed) for job in jobs)})[:12],
        "items": len(items),
        "seeds": len(jobs) / len(items),
        "single": len(groups["_single"]),
        "multi": len(groups["_multi"]),
        "failed": entrant.failed,
        "config": plain(entrant.method.config),
        "metrics": {name: metrics.bootstrap(each).to_json() for name, each in found.items()},
    }


def differences(
    every: Sequence[Looked],
    of: Callable[[int, Sequence[int]], dict[str, Statistic]],
    about: Callable[[int, int], dict[str, Any]] = lambda first, second: {},
) -> list[dict[str, Any]]:
    """`second - first` of every pair of methods, paired over the items and seeds that both have, in their order.

    Args:
        of: every metric of some pictures of the method of this number.
        about: what else a pair of methods, by their numbers, says of itself.
    """
    rows: list[dict[str, Any]] = []
    for (i, first), (j, second) in combinations(enumerate(every), 2):
        places = [{(job.item, job.seed): i for i, job in enumerate(one.jobs)} for one in (first, second)]
        shared = [key for key in places[0] if key in places[1]]
        if not shared:
            continue
        one, other = (of(number, [at[key] for key in shared]) for number, at in zip((i, j), places, strict=True))
        intervals = {name: metrics.bootstrap(metrics.difference(one[name], other[name])) for name in one if name in other}
        rows.append(
            {
                "first": first.entrant.name,
                "second": second.entrant.name,
                **about(i, j),
                "count": len(shared),
                "metrics": {name: each.to_json() for name, each in intervals.items()},
            }
        )
    return rows


def notes(
    runs: Sequence[RunFolder],
    every: Sequence[Looked],
    tools: Instruments,
    reference: Floats | None,
    rows: Sequence[Mapping[str, Any]],
) -> list[str]:
    """What was asked of the pictures and not measured, and why, in words."""
    said: list[str] = []
    if part := [f"{each.entrant.name} ({each.entrant.missing})" for each in every if each.entrant.missing]:
        said.append(f"scored before all jobs were finished; missing: {', '.join(part)}")
    measured = {each.entrant.name for each in every}
    if bare := dict.fromkeys(name for run in runs for name in run.plan.methods if name not in measured):
        said.append(f"left out, since no picture of it is finished: {', '.join(bare)}")
    jobs = [job for each in every for job in each.jobs]
    if reference is not None and not enough(reference):
        said.append(
            f"frechet: {len(reference)} reference pictures are too few; {reference.shape[1]} features need more than that"
        )
    few = [(each.entrant.name, each.features.shape) for each in every if each.features is not None and not enough(each.features)]
    if few:
        names, (_, wide) = ", ".join(f"{name} ({shape[0]})" for name, shape in few), few[0][1]
        said.append(f"frechet: too few pictures of {names}; {wide} features need more pictures than that")
    if tools.detector is not None:
        other = sorted({each.relation for job in jobs for each in job.expects.relations if each.relation not in SIDES})
        if other:
            said.append(f"relations: {', '.join(other)} is not judged by VISOR's rule, and left out")
        faults = {each.entrant.name: fault for each in every if (fault := measures.visor_fault(each.jobs))}
        said += [f"visor_n of {name}: {fault}, so it is left out" for name, fault in faults.items()]
        unboxed = sum(not measures.boxes_of(job) for job in jobs)
        if unboxed:
            said.append(f"map50: {unboxed} of {len(jobs)} pictures were asked for without boxes, so there is no mean over all")
        crops = by_crops([each.entrant for each in every], tools)
        if any(job.expects.attributes for job in jobs) and crops is None:
            said.append("attribute_rate: the detector does not know the phrases; it needs a CLIP (--clip) to look at crops")
        if crops and (alone := [name for name, among in passes.choices_of(jobs).items() if len(among) < 2]):
            said.append(f"attribute_rate: left out: {', '.join(alone)}, since no attribute of its kind is there to tell it from")
    for name, (beside, why) in OF_NOTHING.items():
        if bare := [row["guidance"] for row in rows if beside in row["metrics"] and name not in row["metrics"]]:
            said.append(f"{name} of {', '.join(bare)}: {why}, so it is left out")
    if tools.clip is not None and (cut := sum(tools.clip.is_cut(prompt) for prompt in {job.prompt for job in jobs})):
        said.append(f"clip: {cut} prompts are longer than {tools.clip.length} tokens, and were cut there")
    if mixed := _mixed(every):
        said.append(f"pictures were made by several versions: {', '.join(mixed)}")
    if failed := sum(each.entrant.failed for each in every):
        said.append(f"{counted(failed, 'job')} ended with an error, and {'has' if failed == 1 else 'have'} no picture")
    return said


def protocol(
    runs: Sequence[RunFolder],
    every: Sequence[Looked],
    tools: Instruments,
    reference: Floats | None,
    rows: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Everything that decides the numbers besides the pictures. `rows`: of the result."""
    found: dict[str, Any] = {
        "plans": [_planned(run, every) for run in runs],
        "images": sum(len(each.jobs) for each in every),
        "resamples": metrics.RESAMPLES,
        "resampled": "items; pictures of one item are drawn together",
        "intervals": INTERVALS,
        "versions": {**versions((*DECIDING, *SCORING)), **tools.detector_package},
        "notes": notes(runs, every, tools, reference, rows),
    }
    if tools.detector is not None:
        found["detector"] = {
            "name": tools.detector_name,
            "sha256": dict(tools.detector.sha256),
            "settings": dict(tools.detector.settings),
            "threshold": tools.least,
            "overlap": 0.5,
            "renamed": dict(tools.renamed),
        }
    if tools.features is not None and tools.reference is not None and reference is not None:
        found["features"] = {
            "name": tools.features.name,
            "sha256": tools.features.sha256,
            "resize": tools.features.resize,
            "dimensions": reference.shape[1],
            "reference": {
                "folder": str(tools.reference),
                "images": len(reference),
                "digest": passes.reference_digest(tools.reference),
            },
            "resamples": frechet.FEW if reference.shape[1] > frechet.WIDE else metrics.RESAMPLES,
        }
    if tools.clip is not None:
        found["clip"] = {"name": tools.clip.path.name, "sha256": tools.clip.sha256, "resize": tools.clip.resize, "factor": 100}
    return found


def _planned(run: RunFolder, every: Sequence[Looked]) -> dict[str, Any]:
    """The plan of a run, and by which versions how many of its pictures were made."""
    plan, used = run.plan, _used(every, run)
    return {
        "digest": plan.digest,
        "source": plain(plan.origin),
        "seeds": plan.seeds,
        "seed": plan.seed,
        "made_by": [{"images": count, "versions": dict(found)} for found, count in used.items()],
    }


def _used(every: Sequence[Looked], run: RunFolder | None = None) -> Counter[tuple[tuple[str, str], ...]]:
    """The versions that made the pictures, of one run or of all, and how many pictures each did."""
    entries = (entry for each in every for entry in each.entrant.entries)
    return Counter(entry.versions for entry in entries if run is None or entry.run is run)


def _mixed(every: Sequence[Looked]) -> list[str]:
    """The packages of which several versions made the pictures, in words."""
    used = _used(every)
    said: list[str] = []
    for package in dict.fromkeys(name for found in used for name, _ in found):
        counts = Counter[str]()
        for found, count in used.items():
            counts[dict(found).get(package, "none")] += count
        if len(counts) > 1:
            said.append(f"{package} {' and '.join(f'{version} ({count})' for version, count in counts.items())}")
    return said


def result(runs: Sequence[RunFolder], every: Sequence[Looked], tools: Instruments, reference: Floats | None) -> dict[str, Any]:
    """The whole result as JSON, in the shape of `lsregen evaluate`, with the `protocol` beside its rows."""
    compared = Reference(reference) if reference is not None and enough(reference) else None
    known: dict[tuple[int, tuple[int, ...]], dict[str, Statistic]] = {}  # a method stands in several pairs

    def of(number: int, chosen: Sequence[int]) -> dict[str, Statistic]:
        key = number, tuple(chosen)
        if key not in known:
            found = measured(every[number], tools, compared, chosen)
            known[key] = {name: metrics.remembered(each) for name, each in found.items()}
        return known[key]

    rows = [row(each, of(i, range(len(each.jobs)))) for i, each in enumerate(every)]
    return {
        "format": FORMAT,
        "rows": rows,
        "differences": differences(every, of),
        "diagnostics": {},
        "protocol": protocol(runs, every, tools, reference, rows),
    }
