"""Training runs of few steps: the recipes as they are, on a handful of images."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from lsregen.framework import Pipeline
from lsregen.models import EMBEDDED
from recipes.shapeworld import latents, train_autoencoder, train_base, train_large
from recipes.shapeworld.training import Learner

FEW = 8  # images of each pool, at most
BATCH = 2


@dataclass(frozen=True)
class Update:
    """One step of a training: its number, its loss, and all parameters of the networks that learn, before it and after it."""

    step: int
    loss: float
    before: dict[str, Tensor] = field(repr=False)
    after: dict[str, Tensor] = field(repr=False)


@dataclass(frozen=True)
class Starter:
    """Starts the training `main` as the command line does, until `steps` steps are made; returns the updates of this start."""

    images: Path
    updates: list[Update]

    def __call__(self, main: Callable[[], None], folder: Path, steps: int, *given: str) -> list[Update]:
        self.updates.clear()
        options = {"--folder": folder, "--images": self.images, "--steps": steps, "--batch": BATCH}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["train", *(str(part) for option in options.items() for part in option), *given])
            main()
        return list(self.updates)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Starter]:
    updates: list[Update] = []
    update = Learner.update

    def watched(learner: Learner, step: int, loss: Tensor) -> None:
        before = parameters(learner)
        update(learner, step, loss)
        updates.append(Update(step, loss.item(), before, parameters(learner)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "update", watched)
        patch.setattr(torch.cuda, "is_available", lambda: False)  # the recipes take a GPU that is there
        for pools in (train_base.SIZES, train_large.POOLS):  # the model that sees boxes learns from the base's images
            for size in pools:
                patch.setitem(pools, size, FEW)
        patch.setattr(train_large, "COARSE", FEW)
        for size, (_, side) in latents.IMAGES.items():
            patch.setitem(latents.IMAGES, size, (FEW, side))
        for patch_side, (_, side, crop) in train_autoencoder.IMAGES.items():
            patch.setitem(train_autoencoder.IMAGES, patch_side, (FEW, side, crop))
        yield Starter(tmp_path_factory.mktemp("images"), updates)


def parameters(learner: Learner) -> dict[str, Tensor]:
    named = ((f"{key}.{name}", p) for key, module in learner.modules.items() for name, p in module.named_parameters())
    return {name: p.detach().clone() for name, p in named}


def check_updates(
    start: Starter, main: Callable[[], None], folder: Path, *given: str, networks: set[str], idle: tuple[str, ...] = ()
) -> None:
    """One step, and then the same command for one more, which goes on where the first stopped.

    `networks` learn: each of their parameters but the `idle`, which are named by how they begin.
    """
    (first,), (second,) = start(main, folder, 1, *given), start(main, folder, 2, *given)
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in logged if "loss" in line] == [1, 2]
    assert all(math.isfinite(line["loss"]) for line in logged if "loss" in line)
    assert (first.step, second.step) == (0, 1)
    assert {name.split(".")[0] for name in first.before} == networks
    for update in (first, second):
        assert 0 < update.loss < 100
        assert all(torch.isfinite(p).all() for p in update.after.values())
    assert all(torch.equal(p, second.before[name]) for name, p in first.after.items())
    same = {name for name, p in first.before.items() if torch.equal(p, second.after[name])}
    assert same == {name for name in first.before if name.startswith(idle)}


def check_model(out: Path, ships: str, run: Path) -> None:
    """An exported folder is configured as the model that ships, loads with the averaged weights of `run`, and draws."""
    shipped = EMBEDDED / ships
    assert {path.relative_to(out) for path in out.rglob("*")} == {path.relative_to(shipped) for path in shipped.rglob("*")}
    for part in ("unet", "vae"):
        made, wanted = (json.loads((folder / part / "config.json").read_text()) for folder in (out, shipped))
        # The factor of the latents is measured, and on other images here.
        assert {**made, "scaling_factor": None} == {**wanted, "scaling_factor": None}
    pipeline = Pipeline.load(out, device="cpu", dtype="fp32")
    model, state = cast("Any", pipeline.model), torch.load(run / "last.pt", weights_only=True)
    names = [name for name, _ in model.unet.named_parameters()]
    means = [mean.half().float() for mean in state["average"][: len(names)]]  # the UNet is the first of the modules
    assert all(torch.equal(p, mean) for p, mean in zip(model.unet.parameters(), means, strict=True))
    assert not all(torch.equal(state["unet"][name].half().float(), mean) for name, mean in zip(names, means, strict=True))
    assert pipeline("a red circle", steps=1).image.size == model.default_size
