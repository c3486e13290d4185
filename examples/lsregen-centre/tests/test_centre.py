"""The distance against the contract, alone, and through a whole run."""

from pathlib import Path

import pytest
import torch
from lsregen_centre import Centre, centre_of

from lsregen.framework import Features, Layout, Pipeline, discover
from lsregen.framework.testing import DISTANCE_PROPERTIES, check_distance


@pytest.mark.parametrize("name", DISTANCE_PROPERTIES)
def test_it_works_with_everybody_elses(name: str) -> None:
    check_distance(Centre(), only=[name])


def features(maps: torch.Tensor) -> Features:
    b, _, k = maps.shape[:3]
    present = torch.ones(b, k, dtype=torch.bool)
    return Features((maps,), "attention", present, torch.arange(k).expand(b, k))


def test_centre_of_one_cell_is_its_middle() -> None:
    maps = torch.zeros(1, 1, 1, 4, 8)
    maps[..., 1, 6] = 3.0
    assert centre_of(maps).flatten().tolist() == [1.5 / 4, 6.5 / 8]


def test_centre_of_an_empty_map_is_the_middle() -> None:
    assert centre_of(torch.zeros(1, 1, 1, 4, 8)).flatten().tolist() == [0.5, 0.5]


def test_energy_is_zero_on_target_and_the_squared_way_elsewhere() -> None:
    here, there = torch.zeros(1, 1, 1, 4, 4), torch.zeros(1, 1, 1, 4, 4)
    here[..., 0, 0], there[..., 0, 2] = 1.0, 1.0
    assert Centre()(features(here), features(here)).value.item() == 0
    assert Centre()(features(there), features(here)).value.item() == 0.25


def test_it_is_found_by_its_entry_point() -> None:
    found = discover().distances["centre"]
    assert found.cls is Centre
    assert found.package == "lsregen-centre"


def test_it_lowers_its_energy_in_a_run() -> None:
    pipeline = Pipeline.load("shapeworld-base", device="cpu")
    layout = Layout.from_boxes({"red circle": (0.5, 0.5, 0.9, 0.9)})
    config = Path(__file__).parents[1] / "centre.yaml"
    report = pipeline("a red circle", layout=layout, guidance=config, steps=10, seed=0).report
    energies = [entry.energy[0] for entry in report.energies]
    assert len(energies) == 2 * 5
    assert energies[-1] < energies[0]
