"""One batch of a plan made into pictures and records: what every engine does, on whatever machine."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ...framework.errors import ConfigError, told_of
from .jobs import Job
from .model_weights import check_same, moving, settings_at
from .plan import Method, Plan
from .run_folder import Fault, Record

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from ...framework.config.merging import Config
    from ...framework.config.resolve import ResolvedConfig
    from ...framework.pipeline.pipeline import Pipeline


@dataclass(frozen=True)
class Made:
    """A finished job: its record, and its picture as a PNG file unless the record tells of an error.

    `broken`: its error broke the device, with which its worker can make nothing more.
    """

    record: Record
    image: bytes | None = None
    broken: bool = False


@dataclass(frozen=True)
class Workshop:
    """How a worker works. Pictures depend on it as far as devices and numbers of threads round otherwise, and no further.

    `device`: auto, cpu, cuda or mps. `threads`: of a worker on a CPU. `models`: other places of the methods' models, by the place
    that the plan names.
    """

    device: str = "auto"
    threads: int = 1
    models: Mapping[str, str] = field(default_factory=dict[str, str])


class Maker:
    """A worker: makes batches of a plan that `lsregen` of some version made, with one loaded model at a time."""

    def __init__(self, methods: Mapping[str, Method], lsregen: str, workshop: Workshop) -> None:
        self.methods = methods
        self.lsregen = lsregen
        self.workshop = workshop
        self._loaded: tuple[tuple[str, str], Pipeline] | None = None
        self._settings: dict[str, Config] = {}
        self._configs: dict[str, ResolvedConfig] = {}
        self._known: dict[str, dict[str, Any]] = {}  # what the methods' other models are, by place

    @classmethod
    def of(cls, plan: Plan, workshop: Workshop) -> Maker:
        return cls(plan.methods, plan.lsregen, workshop)

    def make(self, jobs: Sequence[Job]) -> list[Made]:
        """The jobs of one batch, made together; if that fails, each alone, so that an error is that of the job that has it.

        If a job breaks the device, all that are not made have its error.

        Raises:
            LsregenError: this is another version of lsregen, or the model cannot be loaded or is not the plan's.
        """
        pipeline = self.prepare(jobs[0].method)
        made = self._made(jobs, pipeline)
        if len(jobs) == 1 or made[0].record.error is None or made[0].broken:
            return made
        gc.collect()  # what the failed batch held
        made = list[Made]()
        for i, job in enumerate(jobs):
            made += self._made([job], pipeline, alone=True)
            if made[-1].broken:
                made += [replace(made[-1], record=replace(made[-1].record, **_named(each))) for each in jobs[i + 1 :]]
                break
        return made

    def prepare(self, method: str) -> Pipeline:
        """Load the model of a method, unless it is loaded. Raises as `make`."""
        self._check(method)
        return self._pipeline(self.methods[method])

    def _made(self, jobs: Sequence[Job], pipeline: Pipeline, *, alone: bool = False) -> list[Made]:
        from ...framework.pipeline.report import versions

        device = pipeline.model.device
        clock = time.process_time if device.type == "cpu" else time.perf_counter  # other work stretches a wall clock
        peak, start = watch(device), clock()
        fault, images, used = None, list["Image"](), versions()
        try:
            request = pipeline.request(
                [job.prompt for job in jobs],
                layout=[job.layout for job in jobs],
                negative=[job.negative for job in jobs],
                guidance=self._resolved(jobs[0].method, pipeline),
                seed=[job.seed for job in jobs],
                size=jobs[0].size,
            )
            result = pipeline(request)
            images += enlarged(result.images, self.methods[jobs[0].method].enlarged)
            used = dict(result.report.versions)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # whatever it is, it is theirs, sys.exit() too: the rest of the plan goes on
            fault = fault_of(error)
        measured = {
            "seconds": round((clock() - start) / len(jobs), 4),
            "peak_bytes": peak(),
            "device": str(device),
            "worker": f"{platform.node()}:{os.getpid()}",
            "versions": used,
        }
        if fault is not None:
            broken = not answers(device)
            return [failed(job, fault, measured, alone=alone, broken=broken) for job in jobs]
        return [_finished(job, image, measured, alone) for job, image in zip(jobs, images, strict=True)]

    def _check(self, name: str) -> None:
        """Once for each method: this version, and the models besides the main one, before that is loaded."""
        if name not in self._settings:
            check_version(self.lsregen)
            with told_of(f"method {name!r}"):
                self._settings[name] = settings_at(self.methods[name], self.workshop.models, self._known)

    def _resolved(self, name: str, pipeline: Pipeline) -> ResolvedConfig:
        """The configuration of a method, resolved once."""
        if name not in self._configs:
            resolved, _ = pipeline.resolve(settings := self._settings[name])
            self._configs[name] = replace(resolved, model=settings.get("model"))
        return self._configs[name]

    def _pipeline(self, method: Method) -> Pipeline:
        key = method.model, method.dtype
        if self._loaded is None or self._loaded[0] != key:
            self._loaded = None  # two models at once may be more than a device holds
            gc.collect()
            self._loaded = key, load(method, self.workshop)
        return self._loaded[1]


def enlarged(images: Sequence[Image], size: tuple[int, int] | None) -> list[Image]:
    """Images at a size, bicubic; as they are without one."""
    return [image if size is None else image.resize(size, 3) for image in images]  # 3: PIL's bicubic


def watch(device: torch.device) -> Callable[[], int | None]:
    """Begin to watch the memory; what is returned tells the most bytes that torch had allocated on the device since then.

    Weights are included. None where the device does not tell, as a CPU does not.
    """
    import torch

    module = torch.get_device_module(device)
    if not hasattr(module, "reset_peak_memory_stats"):
        return lambda: None
    module.reset_peak_memory_stats(device)
    return lambda: int(module.max_memory_allocated(device))


def fault_of(error: BaseException) -> Fault:
    """An error as a record tells of it. Whatever a plugin raised, its name and its message are read with care."""
    try:
        said = str(error)
    except Exception:  # an error whose own text fails
        said = ""
    if isinstance(error, SystemExit):
        said = f"a plugin, or something that it uses, ended the program (exit code {error.code})"
    return Fault(type(error).__name__, said or "no message")


def load(method: Method, workshop: Workshop) -> Pipeline:
    """The main model of a method, the one that the plan was made with.

    Raises:
        ConfigError: there is no such model, or its weights are others.
        CheckpointError: its files cannot be used.
    """
    import torch

    from ...framework.pipeline.pipeline import Pipeline

    place = workshop.models.get(method.model, method.model)
    with told_of(moving(method.model, place)):
        pipeline = Pipeline.load(place, device=workshop.device, dtype=method.dtype)
        check_same(place, method.described, pipeline.model.describe())
    if pipeline.model.device.type == "cpu":
        torch.set_num_threads(workshop.threads)  # sums that are split otherwise are rounded otherwise
    return pipeline


def check_version(planned: str) -> None:
    """Whether this lsregen is the one that made a plan: another may make other pictures of it.

    Raises:
        ConfigError: it is another.
    """
    from ...framework.pipeline.report import versions

    if (own := versions()["lsregen"]) != planned:
        raise ConfigError(f"the plan was made by lsregen {planned}, and this is {own}; make the plan again, or use that version")


def answers(device: torch.device) -> bool:
    """Whether a device still computes: an assertion or a wrong address in a kernel of CUDA breaks it for the whole process."""
    import torch

    try:
        return torch.ones(1, device=device).add(1).item() == 2
    except torch.OutOfMemoryError:
        return True
    except RuntimeError:
        return False


def failed(job: Job, fault: Fault, measured: Mapping[str, Any], *, alone: bool = False, broken: bool = False) -> Made:
    """A job that ended with an error."""
    return Made(Record(**_named(job), error=fault, alone=alone, measured=dict(measured)), broken=broken)


def _finished(job: Job, image: Image, measured: Mapping[str, Any], alone: bool) -> Made:
    from ...framework.layout.image_files import encode_picture
    from ...framework.sampling.image_to_image import fingerprint

    data = encode_picture(image, {"Software": "lsregen"})
    return Made(Record(**_named(job), image=fingerprint(image), alone=alone, measured=dict(measured)), data)


def _named(job: Job) -> dict[str, Any]:
    """What a record has of its job."""
    return {"job": job.number, "method": job.method, "item": job.item, "seed": job.seed}
