"""What is compared: the methods of one run or several, with all their finished pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from ...framework.errors import ConfigError
from ...framework.pipeline.report import weights
from ...framework.sampling.image_to_image import fingerprint
from ..runs.jobs import Job
from ..runs.plan import Method
from ..runs.run_folder import RunFolder
from .detectors import shown

APART = "use these runs one by one"


@dataclass(frozen=True)
class Entry:
    """A picture of a run; `image`: the hash of its pixels, once it is finished; `versions`: of the packages that made it."""

    run: RunFolder
    job: Job
    image: str = ""
    versions: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> Path:
        return self.run.image_path(self.job)

    def picture(self) -> Image.Image:
        """The picture, which must be the one that was made.

        Raises:
            ConfigError: it is gone, damaged or another one.
        """
        remedy = f"remove it, and {self.run.remedy}"
        picture = read_picture(self.path, remedy)
        if fingerprint(picture) != self.image:
            raise ConfigError(f"{self.path}: not the picture that the run made; {remedy}")
        return picture


def read_picture(path: Path, remedy: str) -> Image.Image:
    """A picture in RGB. `remedy`: how to mend it, in words.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        with Image.open(path) as picture:
            return picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        why = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigError(f"{path}: cannot be read as a picture ({why}); {remedy}") from None


@dataclass(frozen=True)
class Entrant:
    """A method with all its finished pictures, of one run or several.

    `failed`: how many jobs ended with an error; `missing`: how many were not finished when the pictures were listed.
    """

    name: str
    method: Method
    entries: tuple[Entry, ...]
    failed: int
    missing: int


def entrants_of(runs: Sequence[RunFolder], partial: bool = False) -> list[Entrant]:
    """The methods of some runs, pooled by their names: runs of several plans, such as the paper's two splits, may share them.

    Args:
        partial: take runs that are not finished, and leave out the methods that have no picture yet.

    Raises:
        ConfigError: a run is not finished, or there are no pictures; two runs differ in a method, hold the same picture, or
            asked for different things under the name of one item.
    """
    methods, together = methods_of(runs), Together()
    entries, failed, missing = dict[str, list[Entry]](), Counter[str](), Counter[str]()
    kinds: dict[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]] = {}  # of versions, each held once
    for run in runs:
        missing.update(_missing(run, partial))
        for record in run.records():
            if record.error is not None:
                failed[record.method] += 1
                continue
            used = tuple(dict[str, str](record.measured.get("versions", {})).items())
            entry = Entry(run, run.plan.jobs[record.job], record.image or "", kinds.setdefault(used, used))
            entries.setdefault(record.method, []).append(together.add(entry))
    found = [Entrant(name, method, tuple(entries.get(name, ())), failed[name], missing[name]) for name, method in methods.items()]
    if (empty := [each.name for each in found if not each.entries]) and (len(empty) == len(found) or not partial):
        others = "" if len(empty) == len(found) else ", or leave them out (--partial)"
        raise ConfigError(
            f"{', '.join(str(run.path) for run in runs)}: no job of {shown(empty)} has made a picture; `lsregen evaluate status` "
            f"tells why, `lsregen evaluate run` goes on, with --retry-failed also with those that failed{others}"
        )
    return [each for each in found if each.entries]


def opened(folders: Sequence[Path]) -> list[RunFolder]:
    """The runs of some folders.

    Raises:
        ConfigError: a folder holds none, or is given twice.
    """
    runs = [RunFolder.open(folder) for folder in folders]
    if len({run.path.resolve() for run in runs}) < len(runs):
        raise ConfigError("a run is given twice")
    return runs


def methods_of(runs: Sequence[RunFolder]) -> dict[str, Method]:
    """The methods of some runs by name.

    Raises:
        ConfigError: runs differ in one.
    """
    found: dict[str, tuple[Method, RunFolder]] = {}
    for run in runs:
        for name, method in run.plan.methods.items():
            first, where = found.setdefault(name, (method, run))
            if fault := _differing(first, method):
                raise ConfigError(f"method {name!r} is not the same in {where.path} and {run.path}: {fault}; {APART}")
    return {name: method for name, (method, _) in found.items()}


class Together:
    """Pictures of several runs, put beside each other by item, seed and method."""

    def __init__(self) -> None:
        self._items: dict[str, Entry] = {}
        self._taken: dict[tuple[str, str, int], RunFolder] = {}

    def add(self, entry: Entry) -> Entry:
        """One more; returns it with what it has in common with the others of its item held once: there may be a million.

        Raises:
            ConfigError: it is there already, or the others of its item were asked for otherwise.
        """
        job = entry.job
        key = job.method, job.item, job.seed
        if key in self._taken:
            raise ConfigError(
                f"item {job.item!r} with seed {job.seed} by {job.method!r} stands in both {self._taken[key].path} and "
                f"{entry.run.path}; {APART}"
            )
        self._taken[key] = entry.run
        first = self._items.setdefault(job.item, entry)
        check_alike(first, entry)
        one = first.job
        shared = {"item": one.item, "prompt": one.prompt, "negative": one.negative, "layout": one.layout, "expects": one.expects}
        return entry if first is entry else replace(entry, job=replace(job, **shared))


def check_alike(first: Entry, second: Entry) -> None:
    """Two pictures of one item must have been asked for alike: only such are compared with each other, or resampled together.

    Raises:
        ConfigError: they were not; says in what they differ.
    """
    one, other = first.job, second.job
    texts = {"prompt": (one.prompt, other.prompt), "negative": (one.negative, other.negative)}
    said = [f"{name} ({a[:60]!r} and {b[:60]!r})" for name, (a, b) in texts.items() if a != b]
    said += ["layout"] * (one.layout != other.layout) + ["expects"] * (one.expects != other.expects)
    if said:
        raise ConfigError(
            f"item {one.item!r} is not the same in {first.run.path} and {second.run.path}: another {said[0]}; compare runs of "
            "one source, and give the items of unlike lists names of their own"
        )


def _missing(run: RunFolder, partial: bool) -> Counter[str]:
    """How many jobs of each method are not finished.

    Raises:
        ConfigError: all of them are missing, or some, and a part is not what was asked for.
    """
    by_method = Counter(run.plan.named(number)[0] for number in run.missing())
    missing, total = by_method.total(), len(run.plan.jobs)
    if missing == total:
        raise ConfigError(f"{run.path}: none of its {total} jobs is finished; make them with `lsregen evaluate run`")
    if missing and not partial:
        raise ConfigError(
            f"{run.path}: {missing} of its {total} jobs are not finished; go on with `lsregen evaluate run`, or score those that "
            "are (--partial)"
        )
    return by_method


def _differing(first: Method, second: Method) -> str:
    """In what two methods of one name differ, in words; empty if in nothing that decides pictures."""
    for key in dict.fromkeys((*first.config, *second.config)):
        if first.config.get(key) != second.config.get(key):
            return f"config.{key} {first.config.get(key)!r} and {second.config.get(key)!r}"[:300]
    one, other = ([weights(each) for each in (method.described, *method.models.values())] for method in (first, second))
    if one != other:
        return "their models' weights"
    if first.size != second.size:
        return f"sizes by the policy {first.size!r} and {second.size!r}"
    return "" if (first.guidance, first.dtype) == (second.guidance, second.dtype) else "guidance or dtype"
