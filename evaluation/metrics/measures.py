"""What a run's pictures show of what was asked: boxes, relations, counts and attributes, as statistics over the pictures.

A picture is judged by what a detector found in it. Labels are the detector's own. Where somebody asks whether a thing is there,
objects count from a threshold on; average precision wants all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import cast

import numpy as np

from ...framework.layout_files.coco_instances import category_of
from ...framework.plugins.detection import Corners, Detected
from ..runs.expects import Relation
from ..runs.jobs import Job
from . import bootstrap as metrics
from .bootstrap import Draws, Floats, FoundBox, ImageResult, Statistic

SIDES: Mapping[str, Callable[[float, float], bool]] = {
    "left of": lambda x, y: x < 0,
    "right of": lambda x, y: x > 0,
    "above": lambda x, y: y < 0,
    "below": lambda x, y: y > 0,
}
"""VISOR's relations: whether the subject's centre, seen from the object's, is there; y points down."""


@dataclass(frozen=True)
class Seen:
    """A job's picture and what was found in it. `labels`: what the detector calls the categories that the plan names."""

    job: Job
    found: tuple[Detected, ...]
    labels: Mapping[str, str]

    def there(self, category: str, threshold: float) -> list[Corners]:
        """The boxes of the objects of a category that count as there."""
        label = self.labels[category]
        return [each.box for each in self.found if each.label == label and each.score >= threshold]

    def result(self, prompted: bool) -> ImageResult:
        """As average precision takes it. `prompted`: with only those objects whose class was asked for in this picture."""
        requested = tuple((self.labels[category], box) for category, box in boxes_of(self.job))
        asked = {label for label, _ in requested}
        kept = [each for each in self.found if not prompted or each.label in asked]
        return ImageResult(requested, tuple(FoundBox(each.label, each.box, each.score) for each in kept))


def category(job: Job, phrase: str) -> str:
    """What a phrase of a job's layout is, as its plan says it; without a word of it, the phrase is its own category."""
    plain = category_of(phrase)
    return job.expects.classes.get(phrase, job.expects.classes.get(plain, plain))


def boxes_of(job: Job) -> list[tuple[str, Corners]]:
    """The boxes that were asked for, with their categories; a region with a mask or without a place has none."""
    return [(category(job, each.phrase), each.box.xyxy) for each in job.layout.regions if each.box is not None]


def categories_of(job: Job) -> list[str]:
    """Every category that a detector must know to judge the job's picture, attributes aside."""
    expects = job.expects
    named = [name for relation in expects.relations for name in (relation.subject, relation.object)]
    return list(dict.fromkeys([*(name for name, _ in boxes_of(job)), *named, *expects.counts]))


def per_item(statistic: Statistic, items: Sequence[str]) -> Statistic:
    """A statistic over pictures as one over the items they were made of: pictures of one item are not independent.

    Args:
        items: the item of every picture.
    """
    places: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        places.setdefault(item, []).append(i)
    members = list(places.values())
    sizes = {len(group) for group in members}
    if sizes <= {1}:
        return statistic

    def of(draws: Draws) -> Floats:
        if len(sizes) == 1:
            return statistic.of(np.array(members, dtype=np.intp)[draws].reshape(len(draws), -1))
        rows = cast("list[list[int]]", draws.tolist())
        return np.concatenate([statistic.of(np.array([[p for i in row for p in members[i]]], dtype=np.intp)) for row in rows])

    trials = None if statistic.trials is None else min(statistic.trials, len(members))
    return replace(statistic, items=len(members), of=of, trials=trials, width=max(statistic.items, statistic.width))


def shares(**found: Statistic | None) -> dict[str, Statistic]:
    """Those that are shares of something."""
    return {name: each for name, each in found.items() if each is not None}


def precision(seen: Sequence[Seen]) -> dict[str, Statistic]:
    """Mean average precision of the requested boxes at an overlap of one half, over the classes that were requested.

    `map50`: an object of such a class counts in every picture. `map50_prompted`: only where the picture asked for its class. The
    values are faster-coco-eval's, the resamples ours.
    """
    chosen = [each for each in seen if boxes_of(each.job)]
    if len(chosen) < len(seen) or not chosen:
        return {}
    found: dict[str, Statistic] = {}
    for name, prompted in {"map50": False, "map50_prompted": True}.items():
        results = [each.result(prompted) for each in chosen]
        found[name] = replace(metrics.precision_statistic(results), known=metrics.average_precision(results))
    return found


def relations(seen: Sequence[Seen], threshold: float) -> dict[str, Statistic]:
    """VISOR (Gokhale et al. 2022): is the subject where the prompt says?

    `relation_oa`: the share of relations of which both objects are there. `relation_uncond`: of which the relation holds too.
    `relation_cond`: where both are there, the share that holds. `visor_n`, where prompts have several pictures and `visor_fault`
    has nothing against it: the share of prompts of which n pictures or more have all relations right. A share of nothing is left
    out, here and below.
    """
    judged = [[judge(each, relation, threshold) for relation in measured_relations(each.job)] for each in seen]
    asked, both = [len(row) for row in judged], [sum(there for there, _ in row) for row in judged]
    holds = [sum(right for _, right in row) for row in judged]
    if not any(asked):
        return {}
    found = shares(
        relation_oa=metrics.ratio(both, asked),
        relation_uncond=metrics.ratio(holds, asked),
        relation_cond=metrics.ratio(holds, both),
    )
    right: dict[str, list[bool]] = {}
    for each, row in zip(seen, judged, strict=True):
        if row:
            right.setdefault(each.job.item, []).append(all(holds for _, holds in row))
    most = max(map(len, right.values()))
    if most > 1 and not visor_fault([each.job for each in seen]):
        for n in range(1, most + 1):
            by_item = {item: float(sum(row) >= n) for item, row in right.items()}
            found[f"visor_{n}"] = metrics.mean([by_item[each.job.item] for each in seen], share=True)
    return found


def visor_fault(jobs: Sequence[Job]) -> str:
    """Why there is no VISOR n of pictures, some prompts having several, in words; empty if nothing is against it."""
    numbers = Counter(job.item for job in jobs if measured_relations(job))
    if not numbers or max(numbers.values()) == 1:
        return ""
    if bare := sum(not measured_relations(job) for job in jobs):
        return f"{bare} of {len(jobs)} pictures were asked for without a relation"
    least, most = min(numbers.values()), max(numbers.values())
    return "" if least == most else f"some items have {least} pictures and some {most}"


def measured_relations(job: Job) -> list[Relation]:
    """The relations that VISOR's rule can judge."""
    return [relation for relation in job.expects.relations if relation.relation in SIDES]


def judge(seen: Seen, relation: Relation, threshold: float) -> tuple[bool, bool]:
    """Whether both objects of a relation are there, and whether it holds for any pair of them."""
    subjects, objects = seen.there(relation.subject, threshold), seen.there(relation.object, threshold)
    pairs = [(one, other) for one, other in product(subjects, objects) if one is not other]
    side = SIDES[relation.relation]
    return bool(pairs), any(side((a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2) for a, b in pairs)


def counts(seen: Sequence[Seen], threshold: float) -> dict[str, Statistic]:
    """How many of a category there are, against how many were asked for.

    `count_exact`: the share of categories, over all pictures, with just as many as asked for. `count_precision`, `count_recall`,
    `count_f1`: of the objects (Bakr et al. 2023, HRS-Bench), where as many are right as are both asked for and there.
    """
    pairs = [[(len(each.there(name, threshold)), wanted) for name, wanted in each.job.expects.counts.items()] for each in seen]
    right = np.array([sum(min(pair) for pair in row) for row in pairs], dtype=np.float64)
    there = np.array([sum(found for found, _ in row) for row in pairs], dtype=np.float64)
    asked = np.array([sum(wanted for _, wanted in row) for row in pairs], dtype=np.float64)
    exact = [sum(found == wanted for found, wanted in row) for row in pairs]
    return shares(
        count_exact=metrics.ratio(exact, [len(row) for row in pairs]),
        count_precision=metrics.ratio(right, there),
        count_recall=metrics.ratio(right, asked),
        count_f1=metrics.ratio(2 * right, there + asked, share=False),
    )


def attributes(right: Sequence[Sequence[bool]]) -> dict[str, Statistic]:
    """`attribute_rate`: the share of attributes, over all pictures, that things have as the prompt says. `right`: by picture."""
    return shares(attribute_rate=metrics.ratio([sum(row) for row in right], [len(row) for row in right]))
