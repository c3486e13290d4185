"""A stand-in for a pipeline: the doors are tested without waiting for a network."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from lsregen.apps.cli import cli
from lsregen.framework.config.merging import DEFAULTS
from lsregen.framework.config.resolve import ResolvedConfig
from lsregen.framework.errors import ConfigError
from lsregen.framework.events import LogEntry, Stepped, StepReport
from lsregen.framework.layout.tokens import Piece, TokenTable
from lsregen.framework.pipeline import report as reports
from lsregen.framework.pipeline.events import Event, Finished, Prepared
from lsregen.framework.pipeline.pipeline import Pipeline
from lsregen.framework.plugins.registry import Plugins, discover
from lsregen.framework.sampling.image_to_image import beginning
from lsregen.framework.types import Prediction, Step

PROMPT = "a red circle and a blue square"
PLAN = ("evaluate", "plan", "shapeworld", "--count", "2", "--steps", "2", "--batch", "1", "--device", "cpu")
BOXES = ("--box", "red circle=0.05,0.1,0.45,0.6", "--box", "blue square=0.55,0.45,0.95,0.95")


class StandInModel:
    name, device, default_size, factor, dtype = "stand-in", torch.device("cpu"), (24, 16), 8, torch.float32
    grounded = False

    def describe(self) -> dict[str, Any]:
        return {"name": "stand-in", "components": {"unet": {"sha256": {"a.safetensors": "0" * 64}}}}

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        if any(side % 8 for side in size):
            raise ConfigError(f"size {size}: multiples of 8")
        return 4, size[1] // 8, size[0] // 8

    def tokens(self, prompt: str) -> TokenTable:
        pieces, at = list[Piece](), 0
        for i, word in enumerate(prompt.split()[:20]):
            at = prompt.index(word, at)
            pieces.append(Piece(i, word, at, at + len(word)))
            at += len(word)
        return TokenTable(prompt, tuple(pieces), at if at < len(prompt.rstrip()) else None)


@dataclass
class StandIn:
    """Records its calls; `before_batch` may raise what a run could raise."""

    model: StandInModel = field(default_factory=StandInModel)
    loaded: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    plugins: Plugins = field(default_factory=discover)
    before_batch: Callable[[int], None] = lambda _: None

    def load(self, model: Any, **options: Any) -> StandIn:
        self.loaded.append({"model": model, **options})
        return self

    def resolve(self, guidance: ResolvedConfig) -> tuple[ResolvedConfig, None]:
        """Four steps where nothing else is asked, and a cfg of 4."""
        steps, cfg = 4 if guidance.steps == DEFAULTS["steps"] else guidance.steps, guidance.cfg or 4.0
        return replace(guidance, steps=steps, cfg=cfg, model=None), None

    def request(self, prompt: Sequence[str], **options: Any) -> dict[str, Any]:
        self.calls.append({"prompt": prompt, **options})
        return self.calls[-1]

    def stream(self, request: dict[str, Any]) -> Generator[Event, bool | None, None]:
        self.before_batch(len(self.calls) - 1)
        prompt, layout, seed = request["prompt"], request["layout"], request["seed"]
        size, n, k = request["size"] or self.model.default_size, len(prompt), max(len(each.phrases) for each in layout)
        resolved, _ = self.resolve(request["guidance"])
        steps, zero = resolved.steps, torch.zeros(n, 4, 2, 3)
        made = tuple(Step(i, steps, i, 0.5, 0.6) for i in range(steps))
        yield Prepared(made, size, ())
        for step in made:
            yield Stepped(StepReport(step, zero, zero, Prediction(zero, zero), {}))
        rendered = any(term.extractor_name == "gligen_inversion" for term in resolved.terms)
        report = reports.Report(
            prompts=tuple(prompt),
            negatives=tuple(request["negative"]),
            layouts=tuple(layout),
            seeds=tuple(seed),
            size=size,
            **reports.described(self.model, self.plugins, resolved),
            energies=tuple(LogEntry(i, "layout", tuple(s + i / 10 for s in seed), (True,) * n, 30.0) for i in range(steps)),
            seconds={"prepare": 0.01, "sample": 0.2, "decode": 0.01},
            guided_passes=steps,
            skipped_updates=0,
            steps_made=steps,
            initial=beginning([request["init_image"]] * n, request["strength"]) if "init_image" in request else {},
            models={"small": self.model.describe()} if rendered else {},
        )
        maps = {i: torch.rand(n, k, 2, 3) for i in range(0, steps, 2)} if request["trace"] and k else {}
        renders = [[Image.new("RGB", (8, 8), (0, s % 256, 0)) for s in seed]] if rendered else []
        yield Finished(reports.Result([Image.new("RGB", size, (s % 256, 0, 0)) for s in seed], report, maps, renders))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """Every pipeline that is loaded is this one."""
    pipeline = StandIn()
    monkeypatch.setattr(Pipeline, "load", pipeline.load)
    return pipeline


@pytest.fixture
def run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`run("generate", ...)` in an empty folder; `generate` gets the usual prompt if it has none, unless `--` goes before it."""
    monkeypatch.chdir(tmp_path)

    def call(*args: str) -> Result:
        if args[0] == "--":
            args = args[1:]
        elif args[0] == "generate" and "--prompt" not in args:
            args = ("generate", "--prompt", PROMPT, *args[1:])
        return CliRunner().invoke(cli, args, prog_name="lsregen")

    return call


@pytest.fixture
def planned(run: Callable[..., Result]) -> Path:
    """A plan of two images."""
    assert run(*PLAN, "--guidance", "none", "--out", "plan.jsonl").exit_code == 0
    return Path("plan.jsonl")
