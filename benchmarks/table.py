"""`docs/performance.md`, from the figures in `benchmarks/results`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.records import Record

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs" / "performance.md"
HEAD = """# Performance

Made by `python -m benchmarks.table` from the files in `benchmarks/results`; nothing in the tables is written by hand.

A guided step is a gradient pass and a denoising pass. In the gradient pass the conditional branch runs alone, with frozen
parameters; attention is explicit in the tapped layers only, in fp32, and fused elsewhere; the pass ends at the last tapped map.
The reference is diffusers' UNet with its own Attend-and-Excite processors: every attention explicit, the forward to its end, the
same layers read (those of layout-guidance), the same energy. What is kept for the backward is a matter of the memory dial, the
gradient is not: `fast` computes only the gates of feed-forwards again, `balanced` whole feed-forwards and the normalised inputs
of convolutions, `low` the insides of every resnet and transformer block.

**Counted** figures come from shapes alone and are the same on every machine: floating point operations of matrix products,
convolutions and attention (two for a multiplication with its addition); bytes kept for the backward, each storage once, without
parameters; the peak of all live activations, forward and backward, without what a kernel takes for itself. What `lsregen` is
pulled toward is made once an image, and not in its step: the render, its encoding, its inversion; what works element by element
counts as nothing, so 1.000 says that no network pass is added.
**Loading**: private memory (`RssAnon`) above that of a fresh process with everything imported.
**Timed** figures alternate the pieces of work, every other round backward, and are medians of times, and of ratios within a
round: wall time on a GPU, processor time on a CPU. How much the machine varied is in the rows of the slowest and fastest
repetition. Attention is a small part of the step of SDXL at 512 pixels: counted at 1024 pixels a guided step is .95 of the
reference's, so .70 is out of its reach. A preset that names a model is timed on that model, each against plain sampling of
the same one; what is rendered for it is in its time.

On busy cores, threads that wait for each other by spinning make a run several times slower. The command `lsregen` sets
`OMP_WAIT_POLICY=PASSIVE` by itself, so that they sleep. A Python program has to find it in its environment before it starts; for
small models `OMP_NUM_THREADS=1` does as well.
"""
WORDS = {
    "count": "Counted",
    "load": "Memory of loading",
    "step": "A step of {family}, timed",
    "image": "Whole images, timed",
    "gpu": "On a card",
}
CARD = """`make gpu` runs, in at most eight minutes on one card, what only a machine with a card can show; it writes
`benchmarks/results/gpu.json` and this page. The file is written after every part, so a run that is cut off keeps what it has, and
`make gpu GPU_OPTIONS=--resume` makes the rest. The error of a part that fails is written down, and the others go on.

- **Presets**: each in fp32, fp16 and bf16, beside fp32 on the CPU, in a run of 20 steps. The *first energy* is computed from the
  same latent in every run. The *first step* (relative to the way it goes) and the *last latent* (relative to its size) should, in
  fp32, be no further from those of the CPU than the CPU's own are when the weights of the first convolution are moved by 1e-5, or
  1e-4. The last latent has that goal only where as many updates were made: a stop rule at its threshold may fall the other way.
  In half precision such decisions, and which cell of a map is the largest, differ so often that only the first energy has a goal.
  Convolutions of fp32 are computed in fp32 here; PyTorch's default is TF32, whose differences have rows of their own.
- **Batches**: eight images together beside each of them alone, and the batch made twice.
- **Steps** of full-size SD 1.5 and SDXL with random weights against diffusers, side by side: gradients in fp32, times and memory
  in fp16; and a step of Attend-and-Excite against that of diffusers' pipeline, for one image and for eight. The memory that was
  allocated at most is given with the weights, and without (*peak*).
- **Images** per second of SD 1.5 in a batch of eight against diffusers, one at a time; the goal is five times as many.

A Python that has PyTorch for the card already is taken with `make gpu GPU_PYTHON=python3`; nothing is installed into it. For a
machine without a network, `make gpu-wheels` on another one puts what is not usually there, as wheels for any machine, into
`build/gpu-wheels`; copied along with the repository, they are used from `build/gpu-site`.
"""


def page(records: list[Record]) -> str:
    """The page of some records, in the order of `WORDS`."""
    order = list(WORDS)
    sections = ["\n".join(_section(record)) for record in sorted(records, key=lambda r: order.index(r.benchmark))]
    if all(record.benchmark != "gpu" for record in records):
        sections.append(f"## {WORDS['gpu']}\n\n{CARD}\nIt has not been run yet, for want of a card.\n")
    return "\n".join([HEAD, *sections])


def _section(record: Record) -> Iterator[str]:
    family = record.rows[0].subject.partition(",")[0] if record.rows else ""
    yield f"## {WORDS[record.benchmark].format(family=family)}\n"
    if record.benchmark == "gpu":
        yield CARD
    versions = ", ".join(f"{package} {number}" for package, number in record.versions.items())
    command = f"python -m benchmarks.{record.benchmark}" + (f' --family "{family}"' if record.benchmark == "step" else "")
    yield f"`{command}`, {record.date}, {record.device}; {versions}.{record.note and ' ' + record.note}\n"
    for subject in dict.fromkeys(row.subject for row in record.rows):
        yield f"| {subject} | goal | reached | |"
        yield "|---|---|---|---|"
        for row in record.rows:
            if row.subject == subject:
                _, quantity, goal, reached, verdict = row.shown
                yield f"| {quantity} | {goal} | {reached} | {verdict} |"
        yield ""
    if record.unfinished:
        yield "Not finished:\n"
        yield from (f"- {part}: {why}" for part, why in record.unfinished.items())
        yield ""


def main() -> None:
    PAGE.write_text(page([Record.read(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")
    print(f"{PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}")


if __name__ == "__main__":
    main()
