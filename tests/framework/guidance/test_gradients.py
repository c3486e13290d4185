"""Small gradients survive a float16 network, an overflow lowers the scale, a broken gradient is an error or a counted skip."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lsregen.framework.errors import NonFiniteError
from lsregen.framework.guidance.gradients import Backward, Summed, broken_samples
from lsregen.framework.guidance.run import Guidance, Term
from lsregen.framework.guidance.schedule import Schedule
from tests.near import near
from tests.toys import LinearDenoiser, Look, Measure, draw, make_run, sampled, square, start


def gradient_by(backward: Backward, energies: Tensor, leaf: Tensor) -> Tensor | None:
    (gradient,) = backward([Summed(energies)], leaf).values
    return gradient


def test_small_gradients_survive_half_precision() -> None:
    leaf = draw(1, 1, 2, 2, 2).requires_grad_()
    energies = (leaf.half() * 1e-4).float().sum(dim=(1, 2, 3)) * 1e-5  # 1e-9: below what float16 holds
    (lost,) = torch.autograd.grad(energies.sum(), leaf, retain_graph=True)
    assert not lost.any()
    gradient = gradient_by(Backward(torch.float16), energies, leaf)
    assert gradient is not None
    assert gradient.dtype == torch.float32
    assert torch.allclose(gradient, torch.full_like(gradient, 1e-9), rtol=2e-3)


def test_a_scale_that_overflows_is_given_up_for_the_sample_alone() -> None:
    """What others in the batch need changes nothing for a sample: its gradient is what it would be alone, now and later."""

    def gradients(places: list[int]) -> list[Tensor]:
        """Of two passes, of which the first breaks the third sample at every scale, and the second none."""
        backward, found = Backward(torch.float16), list[Tensor]()
        for third in (float("inf"), 1e-3):
            slopes = torch.tensor([1e-4, 8.0, third])[places].reshape(-1, 1, 1, 1)  # times 2^16, 8 overflows; 1e-9 needs it
            leaf = draw(1, len(places), 2, 2, 2).requires_grad_()
            energies = (leaf.half() * slopes.half()).float().sum(dim=(1, 2, 3)) * torch.tensor([1e-5, 1.0, 1.0])[places]
            gradient = gradient_by(backward, energies, leaf)
            assert gradient is not None
            found.append(gradient)
        return found

    first, second = gradients([0, 1, 2])
    assert broken_samples(first).tolist() == [False, False, True]
    for values, slope in ((first[0], 1e-9), (first[1], 8.0), (second[0], 1e-9), (second[1], 8.0), (second[2], 1e-3)):
        assert torch.allclose(values, torch.full_like(values, slope), rtol=2e-3)
    for i in range(3):
        for together, alone in zip((first, second), gradients([i]), strict=True):
            torch.testing.assert_close(together[i], alone[0], equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_need_no_scale(dtype: torch.dtype) -> None:
    leaf = draw(1, 1, 2, 2, 2).requires_grad_()
    energies = leaf.square().sum(dim=(1, 2, 3))
    (expected,) = torch.autograd.grad(energies.sum(), leaf, retain_graph=True)
    gradient = gradient_by(Backward(dtype), energies, leaf)
    assert gradient is not None
    assert torch.equal(gradient, expected)
    with pytest.raises(RuntimeError, match="second time"):  # the graph is gone
        torch.autograd.grad(energies.sum(), leaf)


def test_nothing_to_differentiate() -> None:
    leaf, other = (draw(i, 1, 2, 2, 2).requires_grad_() for i in (1, 2))
    assert gradient_by(Backward(torch.float16), other.sum(dim=(1, 2, 3)), leaf) is None


def test_broken_samples_are_found() -> None:
    gradient = draw(1, 3, 2, 2, 2)
    gradient[1, 0, 0, 0] = float("nan")
    gradient[2, 1, 1, 1] = float("-inf")
    assert broken_samples(gradient).tolist() == [False, True, True]


def steep(maps: Tensor) -> Tensor:
    """Finite everywhere; at 0 its slope is without bound."""
    return maps.abs().sqrt().flatten(1).sum(dim=1)


@pytest.mark.parametrize("site", ["before", "after"])
@pytest.mark.parametrize("normalise", ["none", "rms"])
def test_a_broken_gradient_is_an_error_or_a_counted_skip(site: str, normalise: str) -> None:
    z = draw(1, 3, 3, 2, 2)
    z[1] = 0

    def walk(policy: str) -> tuple[Tensor, Any]:
        run = make_run(LinearDenoiser(offset=0.0), z, count=2)
        schedule = Schedule(gamma=0.01, until=0.5, site=site, normalise=normalise, non_finite=policy)
        return sampled(run, Guidance([Term(Look("z"), Measure(steep), schedule, name="steep")]))

    with pytest.raises(NonFiniteError, match=r"term 'steep' at step 0 .*non_finite: skip"):
        walk("error")
    guided, pull = walk("skip")
    assert pull.skipped == 1
    assert [entry.updated for entry in pull.log] == [(True, False, True)]
    plain, _ = sampled(make_run(LinearDenoiser(offset=0.0), z, count=2), Guidance())
    assert near(guided[1], plain[1])
    for i in (0, 2):
        assert not torch.allclose(guided[i], plain[i])


def test_one_term_that_must_not_be_skipped_makes_it_an_error() -> None:
    run = make_run(LinearDenoiser(), torch.zeros(1, 3, 2, 2))
    lenient = Term(Look("z"), Measure(steep), Schedule(non_finite="skip"), name="lenient")
    strict = Term(Look("z"), Measure(square), Schedule(), name="strict")
    with pytest.raises(NonFiniteError, match="term 'lenient', 'strict'"):
        start([lenient, strict], run).before(run.z_T, run.steps[0])
