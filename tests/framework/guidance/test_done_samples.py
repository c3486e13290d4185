"""A sample that is done never stops its batch: no gradient goes into it, not even zero times an infinite slope."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework import Energy, Features, Schedule, Term, View
from tests.toys import LinearDenoiser, Look, Measure, draw, features, make_run, mean_square, start

PROMPTS = ("a", "b", "c")


@dataclass(frozen=True)
class Rooted(Look):
    """Its features have an infinite slope at 0."""

    def current(self, view: View, state: Any) -> Features:
        return features(view.z.abs().sqrt()[:, None], kind=self.kind)


def norm(maps: Tensor) -> Tensor:
    """Has an infinite slope at 0."""
    return maps.square().flatten(1).sum(dim=1).sqrt()


def root(maps: Tensor) -> Tensor:
    return maps.flatten(1).sum(dim=1).sqrt()


LOOKS = {"z": (Look(), root), "rooted": (Rooted(), mean_square), "z0": (Look("z0"), norm), "image": (Look("image"), norm)}
TOWARD_ONE = Measure(lambda maps: (maps - 1).square().flatten(1).sum(dim=1))


@pytest.mark.parametrize("done", [done for done in product((False, True), repeat=3) if not all(done)])
@pytest.mark.parametrize("site", ["before", "after"])
@pytest.mark.parametrize("name", LOOKS)
def test_any_samples_of_a_term_may_be_done_in_any_batch(name: str, site: str, done: tuple[bool, ...]) -> None:
    extractor, energy = LOOKS[name]
    z = draw(0, 3, 4, 3, 3).abs()
    z[torch.tensor(done)] = 0  # where the slope of the first term is infinite
    run = make_run(LinearDenoiser(offset=0.0, prompts=PROMPTS), z)
    schedule = Schedule(gamma=0.01, site=site, repeats=2 if site == "before" else 1)
    first, other = Term(extractor, Measure(energy), schedule), Term(Look(), TOWARD_ONE, schedule)

    def pulled(*terms: Term) -> Tensor:
        pull = start(terms, run)
        if terms[0] is first:
            pull.terms[0].stopped[:] = torch.tensor(done)
        if site == "before":
            return pull.before(z, run.steps[0])
        pull.predict(z, run.steps[0])
        return pull.after(z, run.steps[0])

    both, alone = pulled(first, other), pulled(other)
    assert bool(torch.isfinite(both).all())
    chosen = torch.tensor(done)
    torch.testing.assert_close(both[chosen], alone[chosen])
    assert not torch.allclose(both[~chosen], alone[~chosen], atol=1e-7), "the others are pulled by both"


@pytest.mark.parametrize("refined", [refined for refined in product((False, True), repeat=3) if any(refined)])
def test_the_energy_that_is_not_minimised_breaks_no_gradient(refined: tuple[bool, ...]) -> None:
    """`value` has an infinite slope in the samples that refine, and `refine` in the others: each takes its own."""
    samples = torch.tensor(refined)
    z = draw(0, 3, 4, 3, 3).abs() + 0.5
    z[samples] = 0
    run = make_run(LinearDenoiser(offset=0.0, prompts=PROMPTS), z)

    @dataclass(frozen=True)
    class Both(Measure):
        def __call__(self, current: Features, target: Features | None) -> Energy:
            maps = current.maps[0]
            energy = (maps - 1).square().flatten(1).sum(dim=1)
            watch = (maps == 0).flatten(1).all(dim=1).double()  # 1 for the samples that refine
            rooted = torch.where(samples.reshape(-1, 1, 1, 1, 1), 1, maps - z[:, None])
            return Energy(norm(maps), watch, energy + norm(rooted))

    pull = start([Term(Look(), Both(norm), Schedule(gamma=0.01, refine={0.0: (0.5, 1)}, final_update=False))], run)
    moved = pull.before(z, run.steps[0])
    expected = torch.where(samples.reshape(-1, 1, 1, 1), z - 0.02 * (z - 1), z - 0.01 * z / norm(z).reshape(-1, 1, 1, 1))
    torch.testing.assert_close(moved, expected)
