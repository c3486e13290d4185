"""A small plan without a network behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lsregen.evaluation.runs.expects import Attribute, Expects, Relation
from lsregen.evaluation.runs.jobs import Job
from lsregen.evaluation.runs.plan import Method, Origin, Plan
from lsregen.framework.layout.regions import Layout

LAYOUT = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})
EXPECTS = Expects(
    (Relation("circle", "left of", "square"),),
    {"circle": 1},
    (Attribute("red circle", "circle", "red"),),
    {"red circle": "circle", "blue square": "square"},
)


def method(guidance: str) -> Method:
    return Method(guidance, "shapeworld-base", {"name": "shapeworld-base"}, {"steps": 2, "cfg": 4.0, "guidance": {}})


@pytest.fixture
def small() -> Callable[..., Plan]:
    """`small(items=3, batch=2, methods=("none", "layout-guidance"))`"""

    def make(items: int = 3, batch: int = 2, methods: tuple[str, ...] = ("none", "layout-guidance")) -> Plan:
        jobs: list[Job] = []
        number = -1
        for name in methods:
            for i in range(items):
                number += i % batch == 0
                prompt = "a red circle and a blue square"
                jobs.append(Job(len(jobs), number, name, f"item-{i}", 100 + i, prompt, "", LAYOUT, (64, 64), EXPECTS))
        origin = Origin("list", {"a.jsonl": "0" * 64}, {"limit": None}, items, {"a crowd": 2})
        return Plan.of(origin, {name: method(name) for name in methods}, batch, jobs)

    return make
