"""The engine without a cluster: its options, the room that it asks for, and what is said where Ray cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from click.testing import Result
from lsregen_ray import engine

from lsregen.framework.errors import ConfigError

Run = Callable[..., Result]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "why"),
    [
        ("gpus=1.5", "1 CPUs and 1.5 GPUs for each worker: expected"),
        ("address=127.0.0.1:1", "Ray at '127.0.0.1:1' cannot be reached"),
        ("cpus=.nan", "nan"),
        ("cpus=.inf", "inf"),
        ("gpus=.nan", "nan"),
        ("gpus=many", "many"),
        ("workers=0", "workers: 0 is out of range"),
        ("workers=1000000000000", "1000000000000"),
        ("worker=2", "did you mean 'workers'?"),
    ],
)
def test_what_is_refused_leaves_nothing(run: Run, planned: Path, option: str, why: str) -> None:
    result = run("evaluate", "run", str(planned), "--out", "run", "--engine", "ray", "--engine-option", option)
    assert result.exit_code == 2
    assert why in result.output
    assert not Path("run").exists()


@pytest.mark.slow
def test_a_ray_that_does_not_start(run: Run, planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise Exception("The current node timed out during startup.\nMore.")

    monkeypatch.setattr(ray, "init", init)
    result = run("evaluate", "run", str(planned), "--out", "run", "--engine", "ray")
    assert result.exit_code == 2
    assert "Ray cannot be started on this machine (The current node timed out during startup.); give it more" in result.output


def test_a_cluster_without_room() -> None:
    room = engine._room  # pyright: ignore[reportPrivateUsage]
    cluster = engine.Ray
    big = {"CPU": 8.0, "GPU": 3.0}
    assert room(big, big, cluster()) == (3, 1.0)
    assert room(big, {"CPU": 8.0, "GPU": 1.0}, cluster()) == (1, 1.0)
    assert room({"CPU": 8.0}, {"CPU": 8.0}, cluster(cpus=4)) == (2, 0.0)
    assert room({"CPU": 0.3}, {"CPU": 0.3}, cluster(cpus=0.1)) == (3, 0.0)
    assert room(big, {"CPU": 8.0, "GPU": 1.0}, cluster(workers=4, gpus=0.25)) == (4, 0.25)
    refused = [
        ({"CPU": 2.0}, {"CPU": 2.0}, cluster(workers=3), "0 of 0 GPUs, room for 2"),
        (big, {"CPU": 2.0, "GPU": 1.0}, cluster(workers=2), "2 of 8 CPUs and 1 of 3 GPUs, room for 1"),
        (big, {"CPU": 8.0}, cluster(), "8 of 8 CPUs and 0 of 3 GPUs, room for 0"),
        ({}, {}, cluster(), "room for 0"),
    ]
    for whole, free, asked, why in refused:
        with pytest.raises(ConfigError, match=rf"workers with .* free in the cluster are .*{why}; ask for fewer workers"):
            room(whole, free, asked)


@pytest.mark.parametrize("shares", [{"gpus": 1.5}, {"gpus": 0.00001}, {"cpus": 0.00001}])
def test_shares_that_ray_does_not_know(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="for each worker: expected at most four digits, and a whole number of GPUs"):
        engine.Ray(**shares)


@pytest.mark.parametrize("values", [{"gpus": -1.0}, {"cpus": 0}, {"workers": 0}, {"workers": "two"}])
def test_values_out_of_their_range_are_refused_by_name(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        engine.Ray(**values)
