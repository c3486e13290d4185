"""Measures have known answers on known findings; average precision is pycocotools', the Frechet distance its closed form."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

from lsregen.evaluation.metrics import frechet, measures
from lsregen.evaluation.metrics.bootstrap import (
    FoundBox,
    ImageResult,
    Interval,
    Statistic,
    average_precision,
    bootstrap,
    precision_statistic,
)
from lsregen.evaluation.metrics.feature_distances import Reference
from lsregen.evaluation.metrics.measures import Seen
from lsregen.evaluation.runs.expects import Expects, Relation
from lsregen.evaluation.runs.jobs import Job
from lsregen.framework.layout.regions import Layout
from lsregen.framework.plugins.detection import Detected

FIXED = Path(__file__).with_name("coco.json")
LEFT, RIGHT, TOP = (0.0, 0.4, 0.2, 0.6), (0.8, 0.4, 1.0, 0.6), (0.4, 0.0, 0.6, 0.2)
LABELS = {"cat": "cat", "dog": "dog", "car": "car"}


def job(item: str = "one", seed: int = 0, boxes: dict[str, Any] | None = None, **expects: Any) -> Job:
    layout = Layout.from_boxes(boxes or {})
    return Job(0, 0, "m", item, seed, "a cat and a dog", "", layout, (64, 64), Expects(**expects))


def seen(*found: tuple[str, Any, float], of: Job | None = None) -> Seen:
    return Seen(of or job(), tuple(Detected(*each) for each in found), LABELS)


def values(statistics: dict[str, Statistic]) -> dict[str, float]:
    return {name: each.value for name, each in statistics.items()}


def fixed() -> tuple[dict[str, Any], list[dict[str, Any]], list[ImageResult]]:
    """The fixed file, and what it holds as results."""
    data = json.loads(FIXED.read_text())
    names = {each["id"]: each["name"] for each in data["truth"]["categories"]}

    def corners(box: list[float]) -> tuple[float, float, float, float]:
        return box[0], box[1], box[0] + box[2], box[1] + box[3]

    results = [
        ImageResult(
            tuple(
                (names[each["category_id"]], corners(each["bbox"]))
                for each in data["truth"]["annotations"]
                if each["image_id"] == image["id"]
            ),
            tuple(
                FoundBox(names[each["category_id"]], corners(each["bbox"]), each["score"])
                for each in data["found"]
                if each["image_id"] == image["id"]
            ),
        )
        for image in data["truth"]["images"]
    ]
    return data["truth"], data["found"], results


@pytest.mark.parity
def test_average_precision_is_that_of_pycocotools_on_a_fixed_file() -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth, found, results = fixed()
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = COCOeval(reference, reference.loadRes(found), "bbox")
        evaluation.params.iouThrs = np.array([0.5])
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    theirs = float(precision[precision > -1].mean())
    assert 0.2 < theirs < 0.9
    assert average_precision(results) == pytest.approx(theirs, abs=1e-9)
    assert precision_statistic(results).value == pytest.approx(theirs, abs=1e-9)


def test_an_object_that_nobody_asked_for_counts_only_among_all_classes() -> None:
    asked = job(boxes={"cat": LEFT})
    other = job("two", boxes={"dog": RIGHT})
    rows = [seen(("cat", LEFT, 0.9), ("dog", TOP, 0.99), of=asked), seen(("dog", RIGHT, 0.8), of=other)]
    found = values(measures.precision(rows))
    assert found["map50"] == pytest.approx(0.75)
    assert found["map50_prompted"] == pytest.approx(1.0)


@pytest.mark.parametrize("seeds", [1, 2])
def test_the_value_of_precision_is_the_librarys_and_the_resamples_are_ours(monkeypatch: pytest.MonkeyPatch, seeds: int) -> None:
    rng = np.random.default_rng(3)

    def box() -> Any:
        left, top, width, height = rng.uniform(size=4) * 0.5
        return left, top, left + width + 0.01, top + height + 0.01

    rows: list[Seen] = []
    for i in range(40):
        at = {name: box() for name in ("cat", "dog")}
        found = [
            (name, at[name] if name in at and rng.uniform() < 0.5 else box(), rng.integers(9) / 9) for name in (*at, "car", "cat")
        ]
        rows.append(seen(*found, of=job(str(i // seeds), i % seeds, boxes=at)))
    items = [row.job.item for row in rows]
    theirs, ours = (
        {name: measures.per_item(each, items) for name, each in measures.precision(rows).items()},
        {prompted: precision_statistic([row.result(prompted) for row in rows]) for prompted in (False, True)},
    )
    for name, prompted in (("map50", False), ("map50_prompted", True)):
        assert theirs[name].value == average_precision([row.result(prompted) for row in rows])
        assert theirs[name].value == pytest.approx(ours[prompted].value, abs=1e-9)
        assert 0.1 < theirs[name].value < 0.9
    monkeypatch.setattr("lsregen.evaluation.metrics.bootstrap.average_precision", lambda _: 0.125)
    told, before = measures.per_item(measures.precision(rows)["map50"], items), bootstrap(theirs["map50"])
    assert bootstrap(told) == Interval(0.125, before.low, before.high)


def test_precision_needs_boxes_in_every_picture() -> None:
    assert measures.precision([seen(of=job(boxes={"cat": LEFT})), seen(of=job("two"))]) == {}


def test_the_frechet_distance_of_gaussians_is_its_closed_form() -> None:
    """Features whose mean and covariance are exactly known: no sampling is left in them."""
    rng = np.random.default_rng(0)
    roots = [rng.normal(size=(6, 6)) for _ in range(2)]
    means, covariances = rng.normal(size=(2, 6)), [root @ root.T for root in roots]

    def sample(mean: Any, covariance: Any, count: int) -> Any:
        raw = rng.normal(size=(count, 6))
        raw -= raw.mean(axis=0)
        white = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw, rowvar=False)).T)
        return white @ np.linalg.cholesky(covariance).T + mean

    ours, theirs = sample(means[0], covariances[0], 500), sample(means[1], covariances[1], 600)
    cross = np.trace(sqrtm(covariances[0] @ covariances[1])).real
    wanted = ((means[0] - means[1]) ** 2).sum() + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross
    assert frechet.distance(ours, theirs) == pytest.approx(wanted, rel=1e-6)
    found = bootstrap(replace(frechet.statistic(ours, Reference(theirs)), resamples=50))
    assert found.value == pytest.approx(wanted, rel=1e-6)
    assert found.low < wanted < found.high


def test_many_features_get_few_resamples() -> None:
    rng = np.random.default_rng(0)
    dimensions = frechet.WIDE + 1
    features = rng.normal(size=(dimensions + 3, dimensions))
    items = ["x"] * 2 + [str(i) for i in range(dimensions + 1)]
    found = measures.per_item(frechet.statistic(features, Reference(features + 1)), items)
    assert found.value == pytest.approx(dimensions, rel=1e-3)
    assert (found.items, found.resamples, found.method) == (dimensions + 2, frechet.FEW, "percentile")


@pytest.mark.parametrize(
    ("relation", "subject", "holds"),
    [
        ("left of", LEFT, True), ("left of", TOP, False), ("right of", LEFT, False),
        ("above", TOP, True), ("below", TOP, False), ("below", LEFT, False),
    ],
)  # fmt: skip
def test_a_relation_is_of_centres(relation: str, subject: Any, holds: bool) -> None:
    of = (0.4, 0.4, 0.6, 0.6)
    asked = Relation("cat", relation, "dog")
    assert measures.judge(seen(("cat", subject, 0.9), ("dog", of, 0.9)), asked, 0.5) == (True, holds)
    assert measures.judge(seen(("cat", subject, 0.4), ("dog", of, 0.9)), asked, 0.5) == (False, False)


def test_any_pair_will_do_but_nothing_is_beside_itself() -> None:
    asked = Relation("cat", "left of", "dog")
    assert measures.judge(seen(("cat", RIGHT, 0.9), ("dog", TOP, 0.9), ("cat", LEFT, 0.6)), asked, 0.5) == (True, True)
    alike = Relation("cat", "left of", "cat")
    assert measures.judge(seen(("cat", LEFT, 0.9)), alike, 0.5) == (False, False)
    assert measures.judge(seen(("cat", LEFT, 0.9), ("cat", RIGHT, 0.9)), alike, 0.5) == (True, True)


def test_relations_as_visor_counts_them() -> None:
    left = (Relation("cat", "left of", "dog"),)
    right = (("cat", LEFT, 0.9), ("dog", RIGHT, 0.9))
    wrong = (("cat", RIGHT, 0.9), ("dog", LEFT, 0.9))
    rows = [
        seen(*right, of=job("a", 0, relations=left)),
        seen(*wrong, of=job("a", 1, relations=left)),
        seen(*right[:1], of=job("b", 0, relations=left)),
        seen(*wrong, of=job("b", 1, relations=left)),
    ]
    found = values(measures.relations(rows, 0.5))
    assert found == {
        "relation_oa": 0.75, "relation_uncond": 0.25, "relation_cond": pytest.approx(1 / 3), "visor_1": 0.5, "visor_2": 0.0
    }  # fmt: skip
    assert "visor_1" not in measures.relations(rows[:3], 0.5)
    assert "visor_1" not in measures.relations([*rows, seen(of=job("c"))], 0.5)
    nowhere = measures.relations([seen(of=job(relations=left))], 0.5)
    assert values(nowhere) == {"relation_oa": 0.0, "relation_uncond": 0.0}  # of those that are there: a share of nothing
    assert measures.relations([seen(of=job(relations=(Relation("cat", "next to", "dog"),)))], 0.5) == {}


def test_why_there_is_no_visor_n() -> None:
    left = (Relation("cat", "left of", "dog"),)
    jobs = [job(item, seed, relations=left) for item in ("a", "b") for seed in range(2)]
    assert measures.visor_fault(jobs) == measures.visor_fault(jobs[::2]) == measures.visor_fault([]) == ""
    assert measures.visor_fault(jobs[:3]) == "some items have 1 pictures and some 2"
    assert measures.visor_fault([*jobs, job("c")]) == "1 of 5 pictures were asked for without a relation"


def test_counts() -> None:
    rows = [
        seen(("cat", LEFT, 0.9), ("cat", RIGHT, 0.9), of=job("a", counts={"cat": 2})),
        seen(("cat", LEFT, 0.9), ("cat", RIGHT, 0.9), ("dog", TOP, 0.1), of=job("b", counts={"cat": 1, "dog": 1})),
    ]
    found = values(measures.counts(rows, 0.5))
    assert found["count_exact"] == pytest.approx(1 / 3)
    assert found["count_precision"] == pytest.approx(3 / 4)
    assert found["count_recall"] == pytest.approx(3 / 4)
    assert found["count_f1"] == pytest.approx(3 / 4)
    assert measures.counts([seen()], 0.5) == {}


def test_attributes() -> None:
    assert values(measures.attributes([[True, False], [True], []])) == {"attribute_rate": pytest.approx(2 / 3)}
    assert measures.attributes([[], []]) == {}


def test_a_phrase_is_its_own_category_unless_the_plan_says_otherwise() -> None:
    asked = job(boxes={"red car": LEFT, "cat": RIGHT}, classes={"red car": "car"})
    assert measures.boxes_of(asked) == [("car", LEFT), ("cat", RIGHT)]
    assert measures.category(asked, "cat#2") == "cat"
    assert measures.categories_of(job(counts={"dog": 2}, relations=(Relation("cat", "above", "car"),))) == ["cat", "car", "dog"]


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3), (1, 2, 3, 4)])
def test_pictures_of_one_item_are_drawn_together(sizes: tuple[int, ...]) -> None:
    """Pictures that are all alike within an item tell no more than one of them would."""
    rng = np.random.default_rng(1)
    of_item = rng.uniform(size=40)
    items = [str(i) for i in range(40) for _ in range(sizes[i % 4])]
    pictures = np.array([of_item[int(item)] for item in items])
    mean = Statistic(len(pictures), lambda draws: pictures[draws].mean(axis=1))
    by_item, apart = bootstrap(measures.per_item(mean, items)), bootstrap(mean)
    assert by_item.value == pytest.approx(apart.value)
    assert by_item.high - by_item.low > 1.2 * (apart.high - apart.low)
