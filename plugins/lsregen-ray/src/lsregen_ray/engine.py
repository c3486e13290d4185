"""The engine for many machines: workers that Ray places and watches. Ray is imported when a run begins.

Each worker is an actor that holds a model, with a GPU or a share of a CPU of its own. When Ray tells that a worker or its node
died, its batch goes to another, and a new worker is asked for; a batch that goes on killing workers is the error of its jobs.
"""

from __future__ import annotations

import re
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any, cast

from lsregen.evaluation.runs.plan import Plan
from lsregen.evaluation.runs.run_folder import Fault
from lsregen.evaluation.runs.worker import Made, Maker, Workshop, failed
from lsregen.framework import option
from lsregen.framework.config.constraints import Range
from lsregen.framework.config.options import check_options
from lsregen.framework.errors import ConfigError, LsregenError

LONGEST = 300
"""Characters of what Ray says."""
STORE = 1 << 28
"""Bytes of Ray's own memory on this machine, where pictures wait for being written."""
PATIENCE = 10.0
"""Seconds until a cluster answers, and until what a run before this one held is free again."""
MOST_WORKERS = 100_000
RETRIES = 3
"""How often a batch is made again after its worker died, and in a row one is asked for when a worker cannot be created."""
KILLING = Fault("WorkerDied", f"the worker died {RETRIES + 1} times while it made this batch")


@dataclass(frozen=True)
class Ray:
    """Workers that Ray places and watches, on this machine or on a cluster.

    Raises:
        ConfigError: a value of another type or out of its range, or shares that Ray does not know.
    """

    address: str | None = option(None, "of a running cluster, or auto; a Ray of this machine alone by default")
    workers: Annotated[int, Range(1, MOST_WORKERS)] | None = option(
        None, "how many; one for each GPU, or, without GPUs, for each share of the CPUs"
    )
    cpus: Annotated[float, Range(above=0)] = option(1.0, "of each worker")
    gpus: Annotated[float, Range(0)] | None = option(
        None, "of each worker, a whole number or a part of one; a whole one where the cluster has any"
    )

    def __post_init__(self) -> None:
        check_options(self)
        gpus = self.gpus or 0.0
        if (gpus > 1 and gpus % 1) or any(share != round(share, 4) for share in (self.cpus, gpus)):
            raise ConfigError(
                f"{self.cpus:g} CPUs and {gpus:g} GPUs for each worker: expected at most four digits, and a whole number of "
                "GPUs, or a part of one"
            )

    def make(self, plan: Plan, batches: Sequence[range], workshop: Workshop) -> Iterator[list[Made]]:
        """The jobs of each batch, in the order in which they are finished.

        Raises:
            ConfigError: Ray cannot be reached, or has no room for the workers.
            LsregenError: as `Maker.make`.
        """
        with _connected(self) as ray:
            count, gpus = _free_room(ray, self)
            actor = ray.remote(Maker).options(num_cpus=self.cpus, num_gpus=gpus)  # never restarted: `_spread` asks for another
            yield from _spread(plan, batches, lambda: actor.remote(plan.methods, plan.lsregen, workshop), count, ray)


class _Lost(Exception):
    """A worker that is no more, with what Ray says of it."""


def _spread(plan: Plan, batches: Sequence[range], create: Callable[[], Any], count: int, ray: Any) -> Iterator[list[Made]]:
    """Each batch to a worker that is free; another worker for each that is lost, as long as some can be created."""
    waiting, left, deaths, stillborn = deque(batches), len(batches), Counter[int](), 0
    awaited: dict[Any, tuple[Any, range | None]] = {}  # a worker with its batch, or with none while it is being created

    def hire() -> None:
        if waiting and stillborn <= RETRIES:
            worker = create()
            awaited[worker.__ray_ready__.remote()] = worker, None

    for _ in range(min(count, left)):
        hire()
    while left:
        [back], _ = ray.wait(list(awaited))
        worker, numbers = awaited.pop(back)
        try:
            made = _result(back, ray)
        except _Lost as error:
            ray.kill(worker)  # it may have been out of reach only
            stillborn = stillborn + 1 if numbers is None else 0
            if numbers is not None and deaths[numbers.start] < RETRIES:
                deaths[numbers.start] += 1
                waiting.append(numbers)
            elif numbers is not None:
                left -= 1
                yield [failed(plan.jobs[number], KILLING, {}) for number in numbers]
            hire()
            if left and not awaited:
                raise ConfigError(
                    f"no worker can be created ({error}), and {left} batches are not made; once that is mended, the same command "
                    "goes on with them"
                ) from None
            continue
        stillborn = 0
        if made and made[-1].broken:
            ray.kill(worker)
            hire()
        elif waiting:
            chosen = waiting.popleft()
            awaited[worker.make.remote([plan.jobs[number] for number in chosen])] = worker, chosen
        else:
            ray.kill(worker)  # its place may be needed by one that follows a lost one
        if numbers is not None:
            left -= 1
            yield made


def _result(back: Any, ray: Any) -> list[Made]:
    """What a worker came back with; nothing from one that was created.

    Raises:
        _Lost: it died.
        ConfigError: Ray itself ended.
        LsregenError: as `Maker.make`.
    """
    errors = ray.exceptions
    try:
        found = ray.get(back)
    except errors.RayTaskError as error:
        if isinstance(error.cause, LsregenError):
            raise error.cause from None
        raise
    except (errors.RayActorError, errors.OutOfMemoryError, errors.NodeDiedError, errors.ObjectLostError) as error:
        raise _Lost(_brief(error)) from None
    except errors.RayError as error:
        raise ConfigError(
            f"Ray ended ({_brief(error)}); what was finished is kept: the same command goes on from there"
        ) from None
    return cast("list[Made]", found) if isinstance(found, list) else []


def _brief(error: Exception) -> str:
    """Ray's line that says why: of an error in the creation of an actor the last one, else the first after names and numbers."""
    lines = [line for line in re.sub(r"\x1b\[\d*m", "", str(error)).splitlines() if line.strip()] or [type(error).__name__]
    if getattr(error, "actor_init_failed", False):
        return lines[-1].strip()[:LONGEST]
    after = [line for line in lines[1:] if not line.startswith("\t")]
    return (after or lines)[0].strip()[:LONGEST]


def _free_room(ray: Any, cluster: Ray) -> tuple[int, float]:
    """As `_room`; what a run that was killed held is free only after a moment."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _room(ray.cluster_resources(), ray.available_resources(), cluster)
        except ConfigError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def _room(whole: Mapping[str, float], free: Mapping[str, float], cluster: Ray) -> tuple[int, float]:
    """How many workers, and the GPUs of each, by what the whole cluster has and what of it is free.

    Raises:
        ConfigError: there is no room for them.
    """
    gpus = (1.0 if whole.get("GPU", 0.0) >= 1 else 0.0) if cluster.gpus is None else cluster.gpus
    shares = [(free.get(kind, 0.0), share) for kind, share in (("CPU", cluster.cpus), ("GPU", gpus)) if share]
    most = min(int(there / share + 1e-6) for there, share in shares)
    count = most if cluster.workers is None else cluster.workers
    if count > most or most < 1:
        has = " and ".join(f"{free.get(kind, 0.0):g} of {whole.get(kind, 0.0):g} {kind}s" for kind in ("CPU", "GPU"))
        raise ConfigError(
            f"{max(count, 1)} workers with {cluster.cpus:g} CPUs and {gpus:g} GPUs each: free in the cluster are {has}, room for "
            f"{most}; ask for fewer workers, or for less of each"
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
def _connected(cluster: Ray) -> Generator[Any]:
    """Ray's module, connected; what was started here is ended at the end."""
    import ray

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
    except Exception as error:  # Ray raises what it likes, by version, and a plain one if the machine is too busy for it
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:LONGEST]
        if cluster.address is None:
            raise ConfigError(
                f"Ray cannot be started on this machine ({said}); give it more room or time, and begin again"
            ) from None
        raise ConfigError(
            f"Ray at {cluster.address!r} cannot be reached ({said}); start it there (`ray start --head`), or give the address "
            "that this printed"
        ) from None
    try:
        yield module
    finally:
        module.shutdown()
