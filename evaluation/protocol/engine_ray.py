"""The engine for many machines: a pool of workers that Ray places, restarts and feeds. Ray is imported when it is used.

Each worker is an actor that holds a model, with a GPU or a share of a CPU of its own. When a worker or its node dies, Ray starts
it anew, wherever there is room, and gives it its batch once more; a batch that goes on killing workers is the error of its jobs.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, cast

from ...framework.errors import ConfigError, LsregenError
from .maker import Made, Maker, Workshop, failed
from .plan import Plan
from .run_folder import Fault

STORE = 1 << 28
"""Bytes of Ray's own memory on this machine, where pictures wait for being written."""
PATIENCE = 10.0
"""Seconds until a cluster answers."""
RETRIES = 3
"""How often a batch is made again after its worker died."""


@dataclass(frozen=True)
class Cluster:
    """Where and with how many workers.

    `address`: of a running cluster (`auto` for the one this machine belongs to); None for a Ray of this machine alone, which ends
    with the run. `workers`: None for one on each GPU, or, without GPUs, on each share of `cpus`. `cpus`, `gpus`: of each worker;
    None for a whole GPU where the cluster has any.
    """

    address: str | None = None
    workers: int | None = None
    cpus: float = 1
    gpus: float | None = None


def make(plan: Plan, batches: Sequence[range], workshop: Workshop, cluster: Cluster) -> Iterator[list[Made]]:
    """The jobs of each batch, in the order in which they are finished.

    Raises:
        ConfigError: Ray is not installed or cannot be reached, or has no room for the workers.
        LsregenError: as `Maker.make`.
    """
    with _connected(cluster) as ray:
        count, gpus = _room(ray.cluster_resources(), cluster)
        options = {"num_cpus": cluster.cpus, "num_gpus": gpus, "max_restarts": -1, "max_task_retries": RETRIES}
        worker = ray.remote(Maker).options(**options)
        workers = [worker.remote(plan.methods, plan.lsregen, workshop) for _ in range(min(count, len(batches)))]
        yield from _spread(plan, batches, workers, ray)


def _spread(plan: Plan, batches: Sequence[range], workers: Sequence[Any], ray: Any) -> Iterator[list[Made]]:
    """Each batch to a worker that is free, by Ray's own pool."""
    from ray.util import ActorPool  # pyright: ignore[reportMissingTypeStubs]

    at_work: dict[int, range] = {}

    def begin(worker: Any, numbers: range) -> Any:
        at_work[numbers.start] = numbers
        return worker.make.remote([plan.jobs[number] for number in numbers])

    pool, errors = cast("Any", ActorPool(list(workers))), ray.exceptions
    for numbers in batches:
        pool.submit(begin, numbers)
    back = 0
    while pool.has_next():
        try:
            made = cast("list[Made]", pool.get_next_unordered())
        except errors.RayTaskError as error:
            if isinstance(error.cause, LsregenError):
                raise error.cause from None
            raise
        except (errors.RayActorError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError):
            continue  # its batch stays at work: nobody came back from it
        except errors.RayError as error:
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConfigError(f"Ray ended ({said}); what was finished is kept: the same command goes on from there") from None
        del at_work[made[0].record.job]
        back += 1
        yield made
        if back + len(at_work) == len(batches):
            while (idle := pool.pop_idle()) is not None:
                ray.kill(idle)  # a worker whose node died may need its place
    if back + len(at_work) < len(batches):
        raise ConfigError(
            f"all {len(workers)} workers are lost, and {len(batches) - back} batches are not made; look at the nodes"
        )
    fault = Fault("WorkerDied", f"the worker died {RETRIES + 1} times while it made this batch")
    for numbers in at_work.values():
        yield [failed(plan.jobs[number], fault, {}) for number in numbers]


def _room(resources: dict[str, float], cluster: Cluster) -> tuple[int, float]:
    """How many workers, and the GPUs of each.

    Raises:
        ConfigError: the cluster has no room for them.
    """
    all_cpus, all_gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    gpus = (1.0 if all_gpus >= 1 else 0.0) if cluster.gpus is None else cluster.gpus
    most = min(int(all_cpus / cluster.cpus), int(all_gpus / gpus) if gpus else int(all_cpus / cluster.cpus))
    count = most if cluster.workers is None else cluster.workers
    if count > most or most < 1:
        raise ConfigError(
            f"{max(count, 1)} workers with {cluster.cpus:g} CPUs and {gpus:g} GPUs each: the cluster has {all_cpus:g} CPUs and "
            f"{all_gpus:g} GPUs, room for {most}; ask for fewer workers, or for less of each"
        )
    return count, gpus


def _knock(address: str | None) -> None:
    """Whether anybody is at an address, which Ray itself would try to find out for minutes.

    Raises:
        OSError: nobody is.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=PATIENCE).close()


@contextmanager
def _connected(cluster: Cluster) -> Generator[Any]:
    """Ray's module, connected; what was started here is ended at the end."""
    try:
        import ray
    except ImportError:
        raise ConfigError("the engine ray needs Ray; install it with: pip install 'lsregen[ray]'") from None
    module = cast("Any", ray)
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        room = {} if cluster.workers is None else {"num_cpus": max(1, ceil(cluster.workers * cluster.cpus))}
        options = {"address": "local", "object_store_memory": STORE, **room, **quiet}
    else:
        options = {"address": cluster.address, **{key: value for key, value in quiet.items() if key != "include_dashboard"}}
    try:
        _knock(cluster.address)
        module.init(**options)
    except (ConnectionError, RuntimeError, ValueError, OSError, TimeoutError) as error:
        where = "on this machine" if cluster.address is None else f"at {cluster.address!r}"
        said = str(error).strip().splitlines()
        raise ConfigError(
            f"Ray {where} cannot be reached ({said[0] if said else type(error).__name__}); start it there "
            "(`ray start --head`), or give the address that this printed"
        ) from None
    try:
        yield module
    finally:
        module.shutdown()
