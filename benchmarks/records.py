"""What a benchmark found: rows beside their goals, written as JSON with the device, the versions and the date."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "diffusers", "transformers")


@dataclass(frozen=True)
class Row:
    """One figure. `goal`: what it should be at most, or at least if `more_is_better`; None where there is none. `of`: the
    repetitions that it is the median of."""

    subject: str
    quantity: str
    reached: float
    unit: str = ""
    goal: float | None = None
    more_is_better: bool = False
    of: tuple[float, ...] = ()

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached, by the figure as it is and not as it is shown."""
        if self.goal is None:
            return None
        return self.reached >= self.goal if self.more_is_better else self.reached <= self.goal

    @property
    def shown(self) -> tuple[str, str, str, str, str]:
        """Subject, quantity, goal, figure, verdict."""
        sign = ">=" if self.more_is_better else "<="
        goal = "" if self.goal is None else f"{sign} {self.goal:g}{self.unit and ' '}{self.unit}"
        verdict = {None: "", True: "met", False: "missed"}[self.met]
        figure = f"{self.reached:.1e}" if 0 < abs(self.reached) < 0.001 else f"{self.reached:.3f}"
        return self.subject, self.quantity, goal, f"{figure}{self.unit and ' '}{self.unit}", verdict


@dataclass(frozen=True)
class Record:
    """All rows of one benchmark, and where and when they were found.

    `note`: what a reader must know of the circumstances. Of a benchmark in parts: `seconds` of each that was finished, and why
    the others are `unfinished`.
    """

    benchmark: str
    rows: Sequence[Row]
    device: str
    date: str = field(default_factory=lambda: datetime.datetime.now(datetime.UTC).date().isoformat())
    versions: Mapping[str, str] = field(default_factory=lambda: {package: _version(package) for package in PACKAGES})
    note: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    unfinished: Mapping[str, str] = field(default_factory=dict[str, str])

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Record:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{**values, "rows": tuple(Row(**{**row, "of": tuple(row.get("of", ()))}) for row in values["rows"])})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def device_name(device: torch.device) -> str:
    """What is measured on, for the record."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s)"


def print_rows(rows: Sequence[Row]) -> None:
    """Goal and figure side by side."""
    cells = [("subject", "quantity", "goal", "reached", ""), *(row.shown for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(5)]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip(), flush=True)
