"""Plans made of sources and methods, with the model that ships."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lsregen.evaluation.runs.plan import Origin, Plan
from lsregen.evaluation.runs.planning import MethodSpec, make_plan, read_methods, seed_of, size_for, varied
from lsregen.evaluation.runs.worker import Maker, Workshop
from lsregen.evaluation.sources import Asked, Entry, Source, read_source
from lsregen.framework.errors import ConfigError, LayoutError, PhraseError
from lsregen.framework.layout.regions import Layout
from lsregen.framework.layout_files.item import Item
from lsregen.framework.pipeline.pipeline import Pipeline

TWO = {"none": MethodSpec(), "layout-guidance": MethodSpec("layout-guidance", steps=3)}
BOX = {"red circle": (0.1, 0.1, 0.5, 0.5)}


@pytest.fixture(autouse=True, scope="module")
def loaded_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pipeline, "load", cache(Pipeline.load))
        yield


@pytest.fixture(scope="module")
def scenes() -> Source:
    return read_source("shapeworld", Asked(count=3))


@pytest.fixture(scope="module")
def planned(scenes: Source) -> Plan:
    return make_plan(scenes, TWO, seeds=2, batch=4, device="cpu")[0]


def items(*given: Item, on_bad_box: str = "error") -> Source:
    entries = tuple(Entry(f"item-{i}", item) for i, item in enumerate(given))
    return Source(Origin("list", options={"on_bad_box": on_bad_box}, items=len(entries)), entries, size="own")


def item(prompt: str = "a red circle", boxes: Any = BOX, **more: Any) -> Item:
    return Item(prompt, Layout.from_boxes(boxes), **more)


def test_every_item_with_every_seed_by_every_method(planned: Plan) -> None:
    assert [(job.method, job.item, job.seed) for job in planned.jobs] == [
        (method, f"shapeworld-{i}", seed_of(f"shapeworld-{i}", 1, i) if k else i)
        for method in TWO
        for i in range(3)
        for k in range(2)
    ]
    assert [len(numbers) for numbers in planned.batches()] == [4, 2, 4, 2]
    assert {job.size for job in planned.jobs} == {(64, 64)}


def test_a_method_is_fully_resolved(planned: Plan) -> None:
    method = planned.methods["layout-guidance"]
    assert (method.config["steps"], method.config["cfg"], method.config["sampler"]["name"]) == (3, 4.0, "ddim")
    assert method.config["guidance"]["layout"]["gamma"] == 30
    assert "seed" not in method.config
    assert method.model == "shapeworld-base"
    assert method.described["components"]["unet"]["sha256"]
    assert planned.methods["none"].config["guidance"] == {}


LSREGEN = MethodSpec("lsregen", model="shapeworld-base", steps=2)


def test_all_models_of_a_method_are_described_with_what_a_source_leaves_open(scenes: Source) -> None:
    segmenter = MethodSpec("segmenter@shapeworld", steps=2)
    plan, _ = make_plan(scenes, {"none": MethodSpec(), "ours": LSREGEN, "segmenter": segmenter}, device="cpu")
    assert {name: list(method.models) for name, method in plan.methods.items()} == {
        "none": [],
        "ours": ["shapeworld-gligen"],
        "segmenter": ["shapeworld-segmenter"],
    }
    small = plan.methods["ours"].models["shapeworld-gligen"]
    assert small["name"] == "shapeworld-gligen"
    assert all(len(digest) == 64 for part in small["components"].values() for digest in part["sha256"].values())
    looks = plan.methods["segmenter"].models["shapeworld-segmenter"]
    assert set(looks["sha256"]) == {"config.json", "model.safetensors", "preprocessor_config.json"}
    source = plan.methods["ours"].config["guidance"]["small"]["extractor"]["source"]
    assert (source["model"], source["steps"], source["cfg"], source["sampler"]["name"]) == ("shapeworld-gligen", 50, None, "ddim")


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (
            replace(LSREGEN, sets=("guidance.small.extractor.source.model=/nowhere",)),
            "method 'it': guidance.small.extractor.source: model '/nowhere' is neither",
        ),
        (
            replace(LSREGEN, sets=("guidance.small.extractor.source.stesp=3",)),
            r"source\.stesp: no such setting .did you mean 'steps'",
        ),
        (
            MethodSpec("segmenter@shapeworld", sets=("guidance.segments.extractor.model=/nowhere",)),
            "method 'it': guidance.segments.extractor.model: model '/nowhere': no folder with a config.json",
        ),
        (MethodSpec(model="/nowhere"), "method 'it': model '/nowhere' is neither"),
    ],
)
def test_other_models_that_cannot_be_used_are_refused(spec: MethodSpec, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make_plan(items(item()), {"it": spec}, device="cpu")


def test_a_plan_says_what_its_seeds_were_made_of(planned: Plan, scenes: Source) -> None:
    other = make_plan(scenes, TWO, seeds=2, seed=7, batch=4, device="cpu")[0]
    assert (planned.head()["seeds"], planned.head()["seed"], other.head()["seed"]) == (2, 0, 7)
    assert planned.differences(other) == ["seed 0 and 7"]


def test_the_same_plan_twice_is_the_same(planned: Plan, scenes: Source) -> None:
    assert make_plan(scenes, TWO, seeds=2, batch=4, device="cpu")[0].digest == planned.digest


def test_seeds_belong_to_items_whatever_else_is_in_the_plan() -> None:
    first = item(name="a")
    one = make_plan(items(first), {"none": MethodSpec()}, device="cpu")[0].jobs[0].seed
    entries = tuple(Entry(name, first) for name in ("other", "item-0"))
    both = make_plan(Source(Origin("list", items=2), entries), {"none": MethodSpec()}, device="cpu")[0]
    assert [job.seed for job in both.jobs][1] == one == seed_of("item-0", 0)
    assert both.jobs[0].seed != one
    assert len({seed_of(name, k, seed) for name in "ab" for k in range(2) for seed in range(2)}) == 8


def test_items_with_neighbouring_seeds_share_none() -> None:
    given = [item(seed=7 + i) for i in range(4)]
    plan, _ = make_plan(items(*given), {"none": MethodSpec()}, seeds=5, device="cpu")
    assert len({job.seed for job in plan.jobs}) == len(plan.jobs) == 20
    assert [job.seed for job in plan.jobs][::5] == [7, 8, 9, 10]
    one = make_plan(items(given[0]), {"none": MethodSpec()}, seeds=5, seed=3, device="cpu")[0]
    assert [job.seed for job in one.jobs] == [job.seed for job in plan.jobs][:5]


def test_batches_are_of_one_size() -> None:
    small, wide = item(size=(64, 64)), item(size=(96, 64))
    plan, _ = make_plan(items(small, wide, small, wide), {"none": MethodSpec()}, batch=8, device="cpu")
    assert [(job.item, job.size, job.batch) for job in plan.jobs] == [
        ("item-0", (64, 64), 0),
        ("item-2", (64, 64), 0),
        ("item-1", (96, 64), 1),
        ("item-3", (96, 64), 1),
    ]


@pytest.fixture(scope="module")
def model() -> Any:
    return Pipeline.load("shapeworld-base", device="cpu").model


@pytest.mark.parametrize(
    ("policy", "own", "size"),
    [
        ("model", (100, 50), (64, 64)),
        ("own", (96, 64), (96, 64)),
        ("own", None, (64, 64)),
        ("x3", (21, 33), (64, 100)),
        ("x1.5", (64, 64), (96, 96)),
        ("x1", (1, 1), (4, 4)),
        ("128x64", (5, 5), (128, 64)),
    ],
)
def test_sizes_by_policy(model: Any, policy: str, own: Any, size: tuple[int, int]) -> None:
    assert size_for(policy, item(size=own), model) == size
    assert model.latent_shape(size)[1:] == (size[1] // model.factor, size[0] // model.factor)


@pytest.mark.parametrize("policy", ["x", "x0", "3x", "large", "64x"])
def test_a_policy_that_is_none(model: Any, policy: str) -> None:
    with pytest.raises(ConfigError, match=f"size '{policy}': expected model, own, xFACTOR or WIDTHxHEIGHT"):
        size_for(policy, item(), model)


def test_a_factor_of_no_size(model: Any) -> None:
    with pytest.raises(ConfigError, match="the item 'a red circle' has no size of its own"):
        size_for("x3", item(), model)


def test_a_size_that_the_model_cannot_make() -> None:
    with pytest.raises(ConfigError, match="65x64: the sides of shapeworld-base's images are multiples"):
        make_plan(items(item()), {"none": MethodSpec(size="65x64")}, device="cpu")


FAULTY = {
    "phrase": (item("a blue square"), "none", "phrase 'red circle'"),
    "boxes": (item(boxes={}), "layout-guidance", "no box, and its guidance needs one"),
    "long": (item("a blue square and " * 9 + "a red circle"), "layout-guidance", "does not see"),
    "empty": (item(" ", {}), "none", "an empty prompt"),
}


@pytest.mark.parametrize("name", FAULTY)
def test_items_that_a_method_cannot_make(name: str) -> None:
    faulty, method, why = FAULTY[name]
    specs = {"none": MethodSpec(), "it": MethodSpec(method)}
    with pytest.raises(LayoutError, match=rf"item item-1: .*{why}.* cannot make 1 of 2 items\); or .*--on-bad-box drop"):
        make_plan(items(item(), faulty), specs, device="cpu")
    plan, dropped = make_plan(items(item(), faulty, on_bad_box="drop"), specs, device="cpu")
    assert [(job.method, job.item) for job in plan.jobs] == [("none", "item-0"), ("it", "item-0")]
    assert plan.origin.dropped == {"item that a method cannot make": 1}
    assert plan.origin.items == 1
    assert [each.where for each in dropped] == ["item-1"]


def test_a_long_prompt_is_no_fault_where_nothing_looks_at_phrases() -> None:
    long, _, _ = FAULTY["long"]
    assert len(make_plan(items(long), {"none": MethodSpec()}, device="cpu")[0].jobs) == 1


TWICE = "a red circle and a blue circle"
UNSEEN = "a blue square and " * 9 + TWICE


@pytest.mark.parametrize(
    ("prompt", "phrase", "guidance", "taken"),
    [
        (TWICE, "red circle", "none", True),
        (TWICE, "circle#2", "none", True),
        (TWICE, "circle", "none", False),  # it is not clear which is meant, though nothing looks at it
        (TWICE, "circle", "layout-guidance", False),
        (TWICE, "circle#3", "none", False),
        (UNSEEN, "red", "none", True),
        (UNSEEN, "red", "layout-guidance", False),
    ],
)
def test_a_plan_takes_the_phrases_that_its_run_takes(prompt: str, phrase: str, guidance: str, taken: bool) -> None:
    asked, spec = item(prompt, {phrase: BOX["red circle"]}), MethodSpec(guidance, steps=2)
    if taken:
        [made] = Maker.of(plan := make_plan(items(asked), {"it": spec}, device="cpu")[0], Workshop("cpu")).make(plan.jobs)
        assert made.record.error is None
        return
    with pytest.raises(LayoutError, match=f"item item-0: phrase '{phrase}'"):
        make_plan(items(asked), {"it": spec}, device="cpu")
    with pytest.raises(PhraseError, match=f"phrase '{phrase}'"):
        Pipeline.load("shapeworld-base", device="cpu")(prompt, layout=asked.layout, guidance=guidance, steps=2)


def test_no_item_is_left() -> None:
    source = items(item("a blue square"), on_bad_box="drop")
    with pytest.raises(LayoutError, match=r"no item is left: 1 cannot be made, the first is item-0: item: phrase 'red circle'"):
        make_plan(source, {"none": MethodSpec()}, device="cpu")


def test_no_methods() -> None:
    with pytest.raises(ConfigError, match="no methods"):
        make_plan(items(item()), {}, device="cpu")


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 70])
def test_names_are_looked_at_before_anything_is_loaded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pipeline, "load", None)
    with pytest.raises(ConfigError, match=rf"method '{name}': expected a name that a folder may have"):
        make_plan(items(item()), {name: MethodSpec()}, device="cpu")


@pytest.mark.parametrize("wrong", [{"seeds": 0}, {"batch": 0}])
def test_numbers_below_one(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1 of each"):
        make_plan(items(item()), TWO, device="cpu", **wrong)


def test_a_new_plan_keeps_little_of_a_job() -> None:
    entries = items(item(size=(64, 64)), item(size=(96, 64)))
    many = make_plan(entries, {"none": MethodSpec()}, seeds=1, batch=100, device="cpu")[0]
    tracemalloc.start()
    plan, _ = make_plan(entries, {"none": MethodSpec(), "again": MethodSpec()}, seeds=1500, batch=100, device="cpu")
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(plan.jobs) == 6000 == 3000 * len(many.jobs)
    assert kept < 6000 * 40 + 200_000


def test_methods_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "methods.yaml"
    path.write_text("methods:\n  ours: {guidance: layout-guidance, size: x3, steps: 5}\n  text only: {}\n")
    assert read_methods(path) == {"ours": MethodSpec("layout-guidance", size="x3", steps=5), "text only": MethodSpec()}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("rows: {}", "'rows': no such key; expected a mapping 'methods' alone"),
        ("methods: {}", "expected a mapping 'methods'"),
        ("methods: {a: {}}\nmethod: {b: {}}", "'method': no such key; expected a mapping 'methods' alone"),
        ("methods: {a: 3}", "methods.a: 3 is not a mapping with guidance"),
        ("methods: {a: {guidence: none}}", "methods.a.guidence: no such option .*did you mean 'guidance'"),
        ("methods: {a: {dtype: auto}}", "methods.a.dtype: 'auto'; expected fp32, fp16 or bf16"),
        ("methods: {a: {steps: many}}", "methods.a.steps: 'many' is not a whole number or nothing"),
    ],
)
def test_files_that_are_no_methods(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "methods.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"methods.yaml: {why}"):
        read_methods(tmp_path / "methods.yaml")


def test_a_method_that_varies_stands_for_one_of_each_value(tmp_path: Path) -> None:
    path = tmp_path / "methods.yaml"
    path.write_text(
        "methods:\n  none: {}\n  ours:\n    guidance: layout-guidance\n    sets: [cfg=3]\n"
        "    vary: {guidance.layout.gamma: [10, 2.5], steps: [4]}\n"
    )
    assert read_methods(path) == {
        "none": MethodSpec(),
        "ours 10 4": MethodSpec("layout-guidance", sets=("cfg=3", "guidance.layout.gamma=10", "steps=4")),
        "ours 2.5 4": MethodSpec("layout-guidance", sets=("cfg=3", "guidance.layout.gamma=2.5", "steps=4")),
    }
    path.write_text("methods: {ours 4: {}, ours: {vary: {steps: [4]}}}")
    with pytest.raises(ConfigError, match="'ours 4' stands twice"):
        read_methods(path)


def test_settings_of_terms_leave_a_method_without_terms_as_it_is() -> None:
    specs = {"none": MethodSpec(), "ours": MethodSpec("layout-guidance")}
    assert list(varied(specs, {"guidance.layout.gamma": ["10", "40"]})) == ["none", "ours 10", "ours 40"]
    assert list(varied(specs, {"steps": ["10", "40"]})) == ["none 10", "none 40", "ours 10", "ours 40"]
    assert varied(specs, {}) == specs


def test_images_may_be_enlarged_before_they_are_kept(scenes: Source) -> None:
    plan, _ = make_plan(scenes, {"large": MethodSpec(steps=1, enlarged="192x128")}, device="cpu")
    assert {job.size for job in plan.jobs} == {(64, 64)}
    made = Maker.of(plan, Workshop("cpu")).make([plan.jobs[0]])
    with Image.open(BytesIO(made[0].image or b"")) as image:
        assert image.size == (192, 128)
    with pytest.raises(ConfigError, match="32x192 is smaller than the images that are made, 64x64"):
        make_plan(scenes, {"large": MethodSpec(enlarged="32x192")}, device="cpu")
    with pytest.raises(ConfigError, match="expected WIDTHxHEIGHT"):
        MethodSpec(enlarged="large")


def test_a_model_that_does_not_see_the_boxes_of_a_preset_without_terms_is_refused(scenes: Source) -> None:
    with pytest.raises(ConfigError, match="its model sees the boxes itself"):
        make_plan(scenes, {"boxes": MethodSpec("gligen", model="shapeworld-base")}, device="cpu")


def test_counts_of_the_source_are_kept(scenes: Source) -> None:
    source = replace(scenes, origin=replace(scenes.origin, dropped={"crowd": 4}))
    assert make_plan(source, {"none": MethodSpec()}, device="cpu")[0].origin.dropped == {"crowd": 4}
