"""What a run does for its extractors: it renders another configuration, and inverts a latent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from lsregen.distances.l2 import L2
from lsregen.extractors.segmenter import folder_of
from lsregen.framework import (
    ConfigError,
    Features,
    Guidance,
    Layout,
    Model,
    Needs,
    Pipeline,
    Run,
    StepReport,
    Term,
    View,
)
from lsregen.framework.config.other_models import described_folder
from lsregen.framework.config.presets import load_preset
from lsregen.framework.plugins.registry import Plugins
from lsregen.framework.sampling.image_to_image import to_pil
from lsregen.framework.sampling.loop import sample
from tests.near import same_pictures

pytestmark = pytest.mark.slow

PROMPT = "a red circle and a blue square"
LAYOUT = Layout.from_boxes({"red circle": (0.05, 0.1, 0.45, 0.5), "blue square": (0.55, 0.5, 0.95, 0.9)})


@dataclass(frozen=True)
class Probe:
    """Calls `look` with the run while it prepares, and keeps what comes back; then looks at the latent itself."""

    kind: ClassVar[str] = "latent"

    look: Callable[[Run], Any]
    seen: list[Any] = field(default_factory=list[Any], init=False)

    @property
    def needs(self) -> Needs:
        return Needs()

    def prepare(self, run: Run, raster: str) -> Any:
        self.seen.append(self.look(run))
        return run

    def current(self, view: View, state: Any) -> Features:
        b = len(view.z)
        maps = view.z[:, None]
        present = torch.ones(maps.shape[:1] + maps.shape[2:3], dtype=torch.bool)
        return Features((maps,), self.kind, present, torch.zeros_like(present, dtype=torch.long).expand(b, -1))

    def target(self, view: View, state: Any) -> Features:
        return self.current(view, state)


def probe(pipeline: Pipeline, look: Callable[[Run], Any], **options: Any) -> Any:
    extractor = Probe(look)
    pipeline(PROMPT, guidance=Guidance([Term(extractor, L2())]), **{"steps": 1, **options})
    return extractor.seen[0]


@pytest.mark.parametrize(
    "source",
    [
        {"steps": 2, "guidance": {}},
        {"steps": 2, "size": [32, 32], "cfg": 1, "model": "shapeworld-base", "guidance": {}},
        {"steps": 2, "guidance": load_preset("layout-guidance")["guidance"]},
    ],
    ids=["plain", "sized", "guided"],
)
def test_a_run_renders_another_configuration_of_itself(pipeline: Pipeline, source: Mapping[str, Any]) -> None:
    images = probe(pipeline, lambda run: run.render(source), layout=LAYOUT, seed=6)
    options = {key: value for key, value in source.items() if key not in ("size", "model")}
    size = source.get("size", (64, 64))
    plain = pipeline(PROMPT, layout=LAYOUT, guidance=options, seed=6, size=(size[0], size[1]))
    assert images.shape == (1, 3, size[1], size[0])
    assert same_pictures(to_pil(images), plain.images)


def test_a_render_by_a_preset_is_that_preset(pipeline: Pipeline) -> None:
    source = {"steps": 2, "guidance": "layout-guidance", "size": [32, 32]}
    images = probe(pipeline, lambda run: run.render(source), layout=LAYOUT, seed=6)
    plain = pipeline(PROMPT, layout=LAYOUT, guidance="layout-guidance", seed=6, size=(32, 32), steps=2)
    assert same_pictures(to_pil(images), plain.images)


def test_what_is_rendered_comes_back_beside_the_images(pipeline: Pipeline) -> None:
    def look(run: Run) -> None:
        run.render({"steps": 1})
        run.render({"steps": 2})

    result = pipeline([PROMPT] * 2, steps=1, guidance=Guidance([Term(Probe(look), L2())]))
    assert [len(batch) for batch in result.renders] == [2, 2]
    again = pipeline([PROMPT] * 2, steps=2)
    assert same_pictures(result.renders[1], again.images)
    assert not pipeline(PROMPT, steps=1).renders


@pytest.mark.parametrize(("size", "rendered"), [((128, 128), (64, 64)), ((144, 96), (96, 64)), ((96, 128), (64, 84))])
def test_a_render_has_the_proportions_of_the_image(pipeline: Pipeline, size: tuple[int, int], rendered: tuple[int, int]) -> None:
    images = probe(pipeline, lambda run: run.render({"steps": 1}), size=size, on_step=lambda _: False)
    assert images.shape[-2:] == rendered[::-1]


def test_the_report_has_the_weights_of_whatever_rendered(pipeline: Pipeline) -> None:
    def pulled(source: Mapping[str, Any]) -> dict[str, Any]:
        extractor = {"name": "gligen_inversion", "source": {"steps": 1, "size": [32, 32], **source}, "noise": "shared"}
        return {"guidance": {"small": {"extractor": extractor, "distance": "l2", "blend": 0.5}}}

    guidance = pulled({"model": "shapeworld-gligen", **pulled({"model": "shapeworld-base", "guidance": {}})})
    report = pipeline(PROMPT, guidance=guidance, steps=1).report
    assert list(report.models) == ["shapeworld-gligen", "shapeworld-base"]
    assert report.models["shapeworld-base"] == pipeline.model.describe()
    assert "grounding" in report.as_dict()["models"]["shapeworld-gligen"]
    assert pipeline(PROMPT, steps=1).report.models == {}


def test_the_report_has_the_weights_of_whatever_looks_at_pictures(pipeline: Pipeline) -> None:
    term = {"extractor": {"name": "segmentation", "model": "shapeworld-segmenter"}, "distance": "cross_entropy"}
    report = pipeline(PROMPT, layout=LAYOUT, guidance={"guidance": {"segments": term}}, steps=1).report
    assert report.models == {"shapeworld-segmenter": described_folder("shapeworld-segmenter", folder_of)}
    assert set(report.models["shapeworld-segmenter"]["sha256"]) >= {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("size", "rendered", "said"),
    [
        ((128, 128), [64, 32], "size: 64x32 pixels, and the image is to have 128x128: the picture would be stretched"),
        ((48, 48), [64, 64], "size: the source renders 64x64 pixels, more than the image's 48x48"),
        ((48, 48), None, "size: the source renders 64x64 pixels, more than the image's 48x48"),
    ],
)
def test_a_render_of_another_shape_is_refused_before_it_is_made(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int], rendered: list[int] | None, said: str
) -> None:
    sampled: list[Run] = []

    def watched(run: Run, *rest: Any) -> Any:
        sampled.append(run)
        return sample(run, *rest)

    monkeypatch.setattr("lsregen.framework.pipeline.engine.sample", watched)
    source = {"steps": 1, **({} if rendered is None else {"size": rendered})}
    with pytest.raises(ConfigError, match=f"^source: {said}"):
        probe(pipeline, lambda run: run.render(source), size=size)
    assert not sampled


def test_a_source_that_would_not_see_the_boxes_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match="source: the model 'shapeworld-base' does not see boxes"):
        probe(pipeline, lambda run: run.render({"steps": 1}), layout=LAYOUT)


def test_a_render_computes_in_the_dtype_of_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline.load("shapeworld-base", device="cpu", dtype="bf16")
    dtypes, load = list[torch.dtype](), Plugins.load_model

    def watched(plugins: Plugins, *args: Any, **options: Any) -> Model:
        loaded = load(plugins, *args, **options)
        dtypes.append(loaded.dtype)
        return loaded

    monkeypatch.setattr(Plugins, "load_model", watched)
    probe(pipeline, lambda run: run.render({"steps": 1}), on_step=lambda _: False)
    assert dtypes == [torch.bfloat16]


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_an_inversion_returns_to_the_noise_it_came_from(pipeline: Pipeline) -> None:
    options: dict[str, Any] = {"steps": 40, "cfg": 1, "seed": 3}
    reports: list[StepReport] = []
    pipeline(PROMPT, on_step=reports.append, **options)
    z0 = reports[-1].z_next
    found, z_T = probe(pipeline, lambda run: (run.invert(z0), run.z_T), on_step=lambda _: False, **options)
    assert sorted(found) == list(range(40))
    # Measured at 40 steps: 0.16 and 0.15, all of it from the coarse last steps; unrelated noise would be at 1.4.
    assert relative(found[0], z_T) < 0.3
    assert relative(found[20], reports[20].z) < 0.3


def test_a_source_of_a_render_that_cannot_be_run_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(ConfigError, match=r"^source: stesp: no such setting .*, size, revision"):
        probe(pipeline, lambda run: run.render({"stesp": 2}))
    with pytest.raises(ConfigError, match="size"):
        probe(pipeline, lambda run: run.render({"steps": 1, "size": 64}))
    with pytest.raises(ConfigError, match="source: size: 0x0 pixels"):
        probe(pipeline, lambda run: run.render({"steps": 1, "size": [0, 0]}))
    with pytest.raises(ConfigError, match="source: seed: 7: a render has the seeds of the images"):
        probe(pipeline, lambda run: run.render({"steps": 1, "seed": 7}))


def test_a_source_without_a_model_has_that_of_its_preset(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    named, load = list[str](), Plugins.load_model

    def watched(plugins: Plugins, model: str, **options: Any) -> Model:
        named.append(model)
        return load(plugins, model, **options)

    monkeypatch.setattr(Plugins, "load_model", watched)
    pipeline = Pipeline(pipeline.model, pipeline.plugins)  # one that has rendered nothing yet
    probe(pipeline, lambda run: run.render({"guidance": "gligen", "steps": 1}), layout=LAYOUT, on_step=lambda _: False)
    probe(pipeline, lambda run: run.render({"guidance": "none", "steps": 1}), layout=LAYOUT, on_step=lambda _: False)
    assert named == ["shapeworld-gligen", "shapeworld-base"]
