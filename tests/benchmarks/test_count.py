"""The counts are pinned: they depend on nothing but the code and the version of PyTorch."""

from __future__ import annotations

import pytest
import torch

from benchmarks.count import SUBJECTS, Comparison, Ours
from benchmarks.outline import counted
from benchmarks.records import Record
from benchmarks.reference import Reference
from benchmarks.subjects import LAYOUT, PROMPT, Subject, Words, one_run, with_random_weights
from benchmarks.table import PAGE, RESULTS, page
from tests.toys import sampled, start

pytestmark = pytest.mark.slow

GIB = 2**30


# By setting of the memory dial: floating point operations, GiB kept for the backward, GiB alive at most.
PINNED = {
    "fast": (868_265_984_032, 0.5625, 0.5680),
    "balanced": (923_630_796_832, 0.3757, 0.3916),
    "low": (1_164_777_717_792, 0.1180, 0.2108),
}


def test_the_gradient_pass_of_sd15_costs_what_it_did() -> None:
    ours = Ours(SUBJECTS["sd15"][0])
    for memory, (flops, saved, peak) in PINNED.items():
        cost = ours.gradient(memory)
        assert cost.flops == flops
        assert cost.saved / GIB == pytest.approx(saved, abs=0.0002)
        assert cost.peak / GIB == pytest.approx(peak, abs=0.0002)
    assert ours.plain().flops == 1_606_546_882_560


def test_the_figures_that_are_shown_meet_their_goals_and_are_those_of_the_code() -> None:
    rows = Record.read(RESULTS / "count.json").rows
    assert [(row.subject, row.quantity) for row in rows if row.met is False] == []
    assert sum(row.met is True for row in rows) >= 17
    reached = {row.quantity: row.reached for row in rows if row.subject == str(SUBJECTS["sd15"][0])}
    for memory, (flops, saved, peak) in PINNED.items():
        assert reached[f"gradient pass, {memory}"] * 1e12 == pytest.approx(flops, rel=1e-9)
        assert reached[f"kept for the backward, {memory}"] == pytest.approx(saved, abs=0.0002)
        assert reached[f"peak of live activations, {memory}"] == pytest.approx(peak, abs=0.0002)
    assert {str(subject) for subject, _ in SUBJECTS.values()} == {row.subject for row in rows}


@pytest.mark.long
@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_every_figure_that_is_shown_is_that_of_a_fresh_count(name: str) -> None:
    subject, goals = SUBJECTS[name]
    shown = [row for row in Record.read(RESULTS / "count.json").rows if row.subject == str(subject)]
    fresh = Comparison(subject, goals).rows()
    assert [(row.quantity, row.unit, row.goal) for row in fresh] == [(row.quantity, row.unit, row.goal) for row in shown]
    assert [row.reached for row in fresh] == pytest.approx([row.reached for row in shown], rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize("name", ["sdxl-1536", "sdxl-1920x1440"])
def test_the_peak_of_large_pictures_is_that_of_a_fresh_count(name: str) -> None:
    """The figure of theirs that has a goal; all of them take minutes."""
    subject = SUBJECTS[name][0]
    shown = {row.quantity: row.reached for row in Record.read(RESULTS / "count.json").rows if row.subject == str(subject)}
    peak = Ours(subject).gradient("low").peak / GIB
    assert peak == pytest.approx(shown["peak of live activations, low"], rel=1e-3)


def test_a_whole_image_costs_its_steps_and_its_passes(narrow: Subject) -> None:
    ours = Ours(narrow)
    run, terms = one_run(ours.model, "layout-guidance", sets=("steps=5",))
    with counted([*ours.model.unet.parameters(), run.z_T]) as cost:
        _, pull = sampled(run, terms)
    assert pull.passes == 5
    assert cost.flops == 5 * (ours.plain().flops + ours.gradient().flops)
    assert ours.image() == (50, 50)


def test_the_pull_of_lsregen_looks_at_latents_alone(narrow: Subject) -> None:
    ours = Ours(narrow)
    pulled, plain = ours.latents(), ours.plain()
    assert pulled.flops == plain.flops
    assert pulled.saved > plain.saved == 0  # it was made


def test_the_reference_takes_the_same_gradient_and_the_same_step(narrow: Subject) -> None:
    model = with_random_weights(narrow, torch.device("cpu"))
    theirs = Reference.with_weights_of(narrow, model)
    run, terms = one_run(model, "layout-guidance", sets=("guidance.layout.repeats=1",))
    pull, step = start(terms, run), run.steps[0]
    with torch.no_grad():
        ours = (run.z_T - pull.before(run.z_T, step)) / (1 - step.alpha_bar)
        plain = pull.predict(run.z_T, step).eps
    gradient = theirs.gradient(run.z_T, step.t)
    assert len(theirs.store.maps) == len(pull.terms[0].points) == 4
    assert float((ours - gradient).norm() / gradient.norm()) < 1e-4
    assert float((plain - theirs.predict(run.z_T, step.t)).norm() / plain.norm()) < 1e-4


def test_the_reference_costs_the_most(narrow: Subject) -> None:
    comparison = Comparison(narrow, SUBJECTS["sd15"][1])
    (gradient, plain), ours = comparison.reference, comparison.ours.gradient()
    assert gradient.flops > ours.flops
    assert gradient.saved > 2 * ours.saved
    assert gradient.peak > gradient.saved
    assert plain.flops == comparison.plain.flops
    assert plain.peak > comparison.plain.peak


def test_words_stand_where_they_are_in_the_prompt() -> None:
    table = Words(SUBJECTS["sd15"][0], torch.device("cpu")).tokens(PROMPT)
    assert table.length == 77
    assert [table.span(phrase) for phrase in LAYOUT.phrases] == [(2, 3), (6, 7)]


def test_the_page_is_made_of_the_figures() -> None:
    assert PAGE.read_text(encoding="utf-8") == page([Record.read(path) for path in sorted(RESULTS.glob("*.json"))])
