"""The memory that loading takes: a full-size SDXL UNet of random fp16 weights, in a fresh process, as they are and as fp32.

What is counted is private memory (`RssAnon` of Linux) above that of the process with everything imported: pages of a mapped file
that the system may drop at any time are not in it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import click
import torch

from benchmarks.records import Record, Row, print_rows
from benchmarks.subjects import UNETS, made_in
from lsregen.models.networks.unet import UNet
from lsregen.models.weights.checkpoint import fill, load_weights, save_component
from lsregen.models.weights.configs import unet_config
from lsregen.models.weights.weight_files import find_weights

FAMILY, GIB, GOAL = "SDXL", 2**30, 1.15
POLL = 0.002  # seconds
DTYPES = {"fp16": torch.float16, "fp32": torch.float32}


def private_bytes() -> int:
    """`RssAnon` of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


class Peak:
    """The most private memory while the block runs, above that at its beginning."""

    def __enter__(self) -> Peak:
        self.before = self.most = private_bytes()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        return self

    def _watch(self) -> None:
        while not self.done.wait(POLL):
            self.most = max(self.most, private_bytes())

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()
        self.most = max(self.most, private_bytes())

    @property
    def bytes(self) -> int:
        return self.most - self.before


def write(folder: Path) -> int:
    """The weights in a folder; how many bytes they are."""
    with made_in(torch.float16):
        unet = UNet(unet_config(UNETS[FAMILY], FAMILY))
    save_component(folder, dict(UNETS[FAMILY]), unet.state_dict(), "diffusion_pytorch_model", None)
    return sum(tensor.nbytes for tensor in unet.state_dict().values())


def load(folder: Path, dtype: str) -> int:
    """Load them by the production path; the peak of private memory."""
    with Peak() as peak:
        with torch.device("meta"):
            unet = UNet(unet_config(UNETS[FAMILY], FAMILY))
        weights = load_weights(find_weights(folder).paths)
        fill(unet, weights.tensors, weights.where, device=torch.device("cpu"), dtype=DTYPES[dtype])
        del weights
        float(unet.conv_in.weight.float().sum())
    return peak.bytes


@click.command()
@click.option("--json", "path", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--child", nargs=2, hidden=True)
def main(path: Path | None, child: tuple[str, str] | None) -> None:
    """Measure the peak of private memory while weights are loaded."""
    if child is not None:
        print(json.dumps(load(Path(child[0]), child[1])))
        return
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        size = write(Path(folder))
        rows.append(Row(FAMILY, "weights of the UNet, fp16", size / GIB, "GiB"))
        for dtype, larger in (("fp16", 1), ("fp32", 2)):
            command = [sys.executable, "-m", "benchmarks.load", "--child", folder, dtype]
            peak = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(Row(FAMILY, f"peak of private memory, loaded as {dtype}", peak / GIB, "GiB"))
            goal = GOAL if dtype == "fp16" else None
            rows.append(Row(FAMILY, f"peak / weights, loaded as {dtype}", peak / (larger * size), goal=goal))
    print_rows(rows)
    if path is not None:
        Record("load", rows, device="CPU").write(path)


if __name__ == "__main__":
    main()
