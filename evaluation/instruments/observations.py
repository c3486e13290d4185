"""Instruments, and what they say of every picture of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...framework.plugins.detection import LoadedDetector
from ..metrics import measures
from ..metrics.bootstrap import Floats
from ..metrics.measures import Seen
from ..runs.jobs import Job
from . import passes
from .clip import Clip
from .detectors import labels_for
from .entrants import Entrant
from .features import FeatureNetwork


@dataclass(frozen=True)
class Instruments:
    """What measures, loaded; what is None measures nothing.

    `detector_name`: what it is called; `detector_package`: the version of the package that it comes from, if that is not lsregen;
    `renamed`: labels by category, where it calls one otherwise. `threshold`: the score from which an object counts as there; the
    detector's own if None.
    """

    detector: LoadedDetector | None = None
    detector_name: str = ""
    detector_package: Mapping[str, str] = field(default_factory=dict[str, str])
    renamed: Mapping[str, str] = field(default_factory=dict[str, str])
    threshold: float | None = None
    features: FeatureNetwork | None = None
    reference: Path | None = None
    clip: Clip | None = None

    @property
    def least(self) -> float:
        return self.threshold if self.threshold is not None else self.detector.threshold if self.detector else 0.0


@dataclass(frozen=True)
class Looked:
    """What the instruments said of one entrant's pictures, in their order; what was not measured is None."""

    entrant: Entrant
    seen: tuple[Seen, ...] | None = None
    attributes: Sequence[list[bool]] | None = None
    features: Floats | None = None
    clip: Floats | None = None

    @property
    def jobs(self) -> list[Job]:
        return [each.job for each in self.entrant.entries]


def by_crops(entrants: Sequence[Entrant], tools: Instruments) -> bool | None:
    """How attributes are measured: False if the detector knows the phrases (`red car`), True by CLIP on crops of the nouns, None
    if not at all."""
    jobs = [each.job for entrant in entrants for each in entrant.entries]
    phrases = {attribute.phrase.casefold() for job in jobs for attribute in job.expects.attributes}
    if not phrases or tools.detector is None:
        return None
    known = {label.casefold() for label in tools.detector.classes or ()}
    if phrases <= known:
        return False
    return True if tools.clip is not None else None


def labels(entrants: Sequence[Entrant], tools: Instruments) -> dict[str, str]:
    """What the detector calls every category that the plans name; empty without a detector.

    Raises:
        ConfigError: it does not know one of them.
    """
    if tools.detector is None:
        return {}
    how = by_crops(entrants, tools)
    needed: dict[str, None] = {}
    for job in (each.job for entrant in entrants for each in entrant.entries):
        needed.update(dict.fromkeys(measures.categories_of(job)))
        if how is not None:
            needed.update(dict.fromkeys(each.noun if how else each.phrase for each in job.expects.attributes))
    return labels_for(tools.detector, list(needed), tools.renamed, tools.detector_name)


def look(
    entrant: Entrant,
    tools: Instruments,
    known: Mapping[str, str],
    crops: bool | None,
    choices: Mapping[str, Sequence[str]],
    **how: Any,
) -> Looked:
    """Let every instrument look at every picture.

    Args:
        known: see `labels`.
        crops: see `by_crops`.
        choices: of all methods; see `passes.choices_of`.
        how: `batch` and `on_done`, as of `passes.looked`.
    """
    entries = entrant.entries
    seen: tuple[Seen, ...] | None = None
    right: list[list[bool]] | None = None
    if tools.detector is not None:
        wanted = [[*dict.fromkeys(known[name] for name in _asked(each.job, crops))] for each in entries]
        rows = passes.detections(entries, tools.detector_name, tools.detector, tools.detector_package, wanted, **how)
        seen = tuple(Seen(each.job, row, known) for each, row in zip(entries, rows, strict=True))
        if crops is False:
            right = [[bool(one.there(each.phrase, tools.least)) for each in one.job.expects.attributes] for one in seen]
        elif crops and tools.clip is not None:
            right = passes.crops_right(entries, seen, choices, tools.least, tools.clip, **how)
    features = passes.feature_rows(entries, tools.features, **how) if tools.features is not None else None
    clips = np.array(passes.clip_scores(entries, tools.clip, **how)) if tools.clip is not None else None
    return Looked(entrant, seen, right, features, clips)


def _asked(job: Job, crops: bool | None) -> list[str]:
    attributes = [] if crops is None else [each.noun if crops else each.phrase for each in job.expects.attributes]
    return [*measures.categories_of(job), *attributes]
