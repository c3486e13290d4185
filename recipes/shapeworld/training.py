"""What every training run shares: ranks, averaged gradients, learning rates, resumable checkpoints, a log of JSON lines.

Start one process or several (`torchrun --nproc-per-node 2 -m recipes.shapeworld.train_base`); on a CPU two processes of one
thread each are faster than one of two. Starting the same command again resumes from the last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor, nn


def arguments(
    doc: str | None, name: str, *, steps: int, batch: int, each: str = "samples", save_every: int | None = None
) -> argparse.ArgumentParser:
    """What every training takes: `runs/NAME` to work in, the pools of images, how many steps and how many of each per process.

    Args:
        save_every: of one whose rate is constant at first: its `--decay` and `--save-every` can be given too.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs") / name)
    parser.add_argument("--images", type=Path, default=Path("runs/images"))
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch, help=f"{each} per process")
    if save_every is not None:
        parser.add_argument("--decay", type=float, default=0.4, help="share of the steps over which the rate falls to 0")
        parser.add_argument("--save-every", type=int, default=save_every)
    return parser


def write_preprocessor(out: Path, kind: str, **settings: Any) -> None:
    """Beside a network that transformers loads: how its pictures are prepared, their values brought to [-1, 1]."""
    scaled = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    written = json.dumps({"image_processor_type": kind, **settings, **scaled}, indent=2)
    (out / "preprocessor_config.json").write_text(written + "\n")


class Ranks:
    """The processes of one run; a single process needs no set-up."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cpu" and self.count > 1:
            torch.set_num_threads(1)
        if self.count > 1:
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")

    @property
    def first(self) -> bool:
        return self.rank == 0

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        if self.count == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        parts = flat.div_(self.count).split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def barrier(self) -> None:
        if self.count > 1:
            dist.barrier()

    def close(self) -> None:
        if self.count > 1:
            dist.destroy_process_group()


def cosine(step: int, total: int, *, warmup: int, flat: float = 0.0) -> float:
    """Factor of the learning rate: linear warm-up, constant until the fraction `flat` of the run, then a cosine to 0."""
    if step < warmup:
        return (step + 1) / warmup
    start = max(warmup, int(flat * total))
    if step < start:
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - start) / max(1, total - start))))


class Average:
    """An exponential moving average of a module's weights."""

    def __init__(self, modules: Iterable[nn.Module], decay: float) -> None:
        self.decay = decay
        self.sources = [p for m in modules for p in m.parameters()]
        self.shadow = [p.detach().clone() for p in self.sources]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.shadow, [p.detach() for p in self.sources], 1 - decay)


class Run:
    """The folder of one training run: `log.jsonl`, `last.pt`, and whatever the recipe exports beside them."""

    def __init__(self, folder: Path, ranks: Ranks) -> None:
        self.folder, self.ranks = folder, ranks
        self.started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)

    def log(self, **values: Any) -> None:
        if self.ranks.first:
            line = json.dumps({"seconds": round(time.monotonic() - self.started, 1), **values})
            with (self.folder / "log.jsonl").open("a") as file:
                file.write(line + "\n")
            print(line, flush=True)

    def save(self, state: dict[str, Any], name: str = "last.pt") -> None:
        if self.ranks.first:
            temporary = self.folder / (name + ".tmp")
            torch.save(state, temporary)
            temporary.replace(self.folder / name)

    def load(self, name: str = "last.pt") -> dict[str, Any] | None:
        path = self.folder / name
        return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None


LossOf: TypeAlias = "Callable[[int, torch.Generator], Tensor | tuple[Tensor, Mapping[str, Tensor]]]"
"""Gives the loss of a step, by the number of the step and its own draws, and what the log shows of it: the loss by default."""


class Learner:
    """Networks that learn together: AdamW, a rate that is constant and then falls, clipped gradients, averaged weights.

    Takes up the last checkpoint of its run; `steps_left` are the steps still to make, and `learn` makes them.

    Args:
        decay: share of the steps over which the rate falls; 1 for all that come after the warm-up.
        average: decay of the averaged weights; None for none.
    """

    def __init__(
        self,
        run: Run,
        modules: Mapping[str, nn.Module],
        *,
        rate: float,
        steps: int,
        decay: float = 1.0,
        average: float | None = None,
        warmup: int = 150,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.01,
    ) -> None:
        self.run, self.modules, self.rate, self.steps, self.decay = run, modules, rate, steps, decay
        self.warmup = warmup
        self.parameters = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
        self.average = None if average is None else Average(modules.values(), average)
        self.optimiser = torch.optim.AdamW(self.parameters, lr=rate, betas=betas, weight_decay=weight_decay)
        self.steps_left = range(self._restore(), steps)

    def learn(self, base: int, loss_of: LossOf, *, log: int = 50, save: int = 250) -> None:
        """The training loop. `base`: of the seeds of the draws. A line of the log, of means, every `log` steps."""
        recent: list[Mapping[str, Tensor]] = []
        for step in self.steps_left:
            found = loss_of(step, generator(base, step, self.run.ranks.rank))
            loss, shown = found if isinstance(found, tuple) else (found, {"loss": found})
            self.update(step, loss)
            recent.append({name: value.detach() for name, value in shown.items()})
            if (step + 1) % log == 0 or step + 1 == self.steps:
                means = {name: torch.stack([each[name] for each in recent]).mean(dim=0) for name in recent[0]}
                self.run.log(step=step + 1, **{name: _rounded(mean.tolist()) for name, mean in means.items()})
                recent.clear()
            self.keep(step, save)

    def update(self, step: int, loss: Tensor) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * cosine(step, self.steps, warmup=self.warmup, flat=1 - self.decay)
        self.optimiser.zero_grad()
        loss.backward()
        self.run.ranks.average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        if self.average is not None:
            self.average.update(step)

    def keep(self, step: int, every: int) -> None:
        """Save after every `every` steps, and after the last; `constant.pt` is the last checkpoint before the rate decays."""
        if (step + 1) % every and step + 1 != self.steps:
            return
        weights = {name: module.state_dict() for name, module in self.modules.items()}
        averaged = {} if self.average is None else {"average": self.average.shadow}
        state = {**weights, **averaged, "optimiser": self.optimiser.state_dict(), "step": step + 1}
        self.run.save(state)
        if step + 1 <= (1 - self.decay) * self.steps:
            self.run.save(state, "constant.pt")  # copy it to last.pt to prolong a run that has decayed already

    def _restore(self) -> int:
        """Take up the last checkpoint, if there is one; the step to go on with."""
        state = self.run.load()
        if state is None:
            return 0
        for name, module in self.modules.items():
            module.load_state_dict(state[name])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            for shadow, saved in zip(self.average.shadow, state["average"], strict=True):
                shadow.copy_(saved)
        return int(state["step"])


def _rounded(value: float | list[float]) -> float | list[float]:
    return [round(each, 5) for each in value] if isinstance(value, list) else round(value, 5)


def sample_seed(base: int, step: int, rank: int) -> int:
    """A seed for the draws of one step on one rank, so that a resumed run goes on with fresh draws."""
    return (base * 1_000_003 + step) * 64 + rank


def generator(base: int, step: int, rank: int) -> torch.Generator:
    return torch.Generator().manual_seed(sample_seed(base, step, rank))
