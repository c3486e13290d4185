"""Times and memory of work that alternates, so that a busy machine slows all of it alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch


@dataclass
class Timing:
    """Seconds of each repetition, and the most bytes that were allocated in one (CUDA; 0 elsewhere): `peak` beyond what was there
    before, `allocated` with it."""

    seconds: list[float] = field(default_factory=list[float])
    peak: int = 0
    allocated: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """How many times the fastest repetition the slowest one took: what the machine adds to one and the same work."""
        return max(self.seconds) / min(self.seconds)


def quotient(one: Timing, other: Timing) -> float:
    """The median over the rounds of `one` / `other`: both of a round met the same machine, which drifts from round to round."""
    return statistics.median(a / b for a, b in zip(one.seconds, other.seconds, strict=True))


def alternating(work: Mapping[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, Timing]:
    """Do every piece of work once to warm up, then all of them in turn, `repeats` times.

    Every other round goes backward: no piece always follows the same one, which leaves its memory behind.
    """
    timings = {name: Timing() for name in work}
    for repeat in range(repeats + 1):
        for name in reversed(work) if repeat % 2 else work:
            seconds, before, most = _once(work[name], device)
            if repeat > 0:
                timings[name].seconds.append(seconds)
                timings[name].peak = max(timings[name].peak, most - before)
                timings[name].allocated = max(timings[name].allocated, most)
    return timings


def _once(do: Callable[[], object], device: torch.device) -> tuple[float, int, int]:
    """Seconds, and the bytes that were allocated before and at most."""
    gc.collect()
    if device.type != "cuda":
        # Processor time: on a shared machine the wall clock measures the neighbours.
        start = time.process_time()
        do()
        return time.process_time() - start, 0, 0
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before, start = torch.cuda.memory_allocated(device), time.perf_counter()
    do()
    torch.cuda.synchronize(device)
    return time.perf_counter() - start, before, torch.cuda.max_memory_allocated(device)
