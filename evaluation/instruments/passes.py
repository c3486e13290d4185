"""Passes over a run's pictures: each looks at every picture once, and keeps what it saw, so that scoring can be interrupted."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...framework.errors import ConfigError
from ...framework.hashes import file_hash
from ...framework.pipeline.report import versions
from ...framework.plugins.calls import calling
from ...framework.plugins.detection import Detected, LoadedDetector
from ..metrics.measures import Seen
from ..runs.jobs import Job
from ..runs.records import Records, digest
from .clip import Clip, crop
from .entrants import Entry, read_picture
from .features import FeatureNetwork

Done: TypeAlias = Callable[[int], None]
Look: TypeAlias = Callable[[Sequence[int], Sequence[Image.Image]], Sequence[Any]]
FOLDER = "scores"
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "gray")
"""GenEval's (Ghosh et al. 2023), and the gray of Attend-and-Excite's prompts: a colour is told from these."""
LIBRARIES = ("lsregen", "torch", "transformers", "tokenizers", "torchmetrics", "numpy", "scipy", "pillow")
"""What looks: another version of one of them may see something else, so that it looks again."""
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")


def looked(
    entries: Sequence[Entry],
    kind: str,
    settings: Mapping[str, Any],
    look: Look,
    given: Sequence[Any] | None = None,
    *,
    batch: int,
    on_done: Done,
) -> list[Any]:
    """What `look` says of every picture, in order, as JSON types; what it said before is read from `scores/` of the runs.

    Args:
        kind: what it looks for, for the name of the file.
        settings: what decides what it says of all pictures, besides `LIBRARIES`; `given`: of each one, besides the picture.
        look: gets some places in `entries`, and their pictures.
        batch: of the pictures that are looked at together.
        on_done: told how many pictures are done.
    """
    said: list[Any] = [None] * len(entries)
    beside = list(given) if given is not None else [None] * len(entries)
    runs = {id(each.run): each.run for each in entries}
    for key, run in runs.items():
        kept = Records(run.path / FOLDER, kind, {**settings, "versions": versions(LIBRARIES)}, key="job")
        with kept.held():
            known = kept.read()
            waiting: list[int] = []
            for place in (i for i, each in enumerate(entries) if id(each.run) == key):
                found = known.get(entries[place].job.number)
                if found is not None and (found["image"], found["given"]) == (entries[place].image, beside[place]):
                    said[place] = found["said"]
                    on_done(1)
                else:
                    waiting.append(place)
            for first in range(0, len(waiting), batch):
                chosen = waiting[first : first + batch]
                answers = look(chosen, [entries[place].picture() for place in chosen])
                rows: list[dict[str, Any]] = []
                for place, answer in zip(chosen, answers, strict=True):
                    each, said[place] = entries[place], answer
                    rows.append({"job": each.job.number, "image": each.image, "given": beside[place], "said": answer})
                kept.append(rows)
                on_done(len(chosen))
    return said


def detections(
    entries: Sequence[Entry],
    name: str,
    detector: LoadedDetector,
    package: Mapping[str, str],
    wanted: Sequence[Sequence[str]],
    **how: Any,
) -> list[tuple[Detected, ...]]:
    """Everything that a detector finds.

    Args:
        package: the version of what it comes from, if that is not lsregen.
        wanted: labels for every picture, for a detector that looks for any words.
    """
    own = {"sha256": dict(detector.sha256), "settings": dict(detector.settings)}
    settings = {"detector": name, **own, "package": dict(package)}
    given = [list(words) for words in wanted] if detector.classes is None else None

    def look(places: Sequence[int], pictures: Sequence[Image.Image]) -> list[Any]:
        with calling("--detector", "detector", detector):
            rows = detector(pictures, [wanted[place] for place in places])
            return [[[found.label, *map(float, found.box), float(found.score)] for found in row] for row in rows]

    said = looked(entries, "detections", settings, look, given, **how)
    return [tuple(Detected(label, cast("Any", tuple(box)), score) for label, *box, score in row) for row in said]


def feature_rows(entries: Sequence[Entry], network: FeatureNetwork, **how: Any) -> NDArray[np.float64]:
    """Features `[n d]`."""
    settings = {"features": network.name, "sha256": network.sha256, "resize": network.resize}
    said = looked(entries, "features", settings, lambda _, pictures: [_packed(row) for row in network(pictures)], **how)
    return np.array([_unpacked(row) for row in said])


def _packed(row: NDArray[np.float32]) -> str:
    return b64encode(row.astype("<f4").tobytes()).decode()


def _unpacked(text: str) -> NDArray[np.float64]:
    return np.frombuffer(b64decode(text), dtype="<f4").astype(np.float64)


def clip_scores(entries: Sequence[Entry], clip: Clip, **how: Any) -> list[float]:
    """The CLIP score of every picture with its prompt."""

    def look(places: Sequence[int], pictures: Sequence[Image.Image]) -> list[float]:
        return [clip.score(picture, entries[i].job.prompt) for i, picture in zip(places, pictures, strict=True)]

    return looked(entries, "clip", {"clip": clip.path.name, "sha256": clip.sha256}, look, **how)


def choices_of(jobs: Iterable[Job]) -> dict[str, tuple[str, ...]]:
    """What every attribute that the jobs name is told from: a colour from `COLOURS`, any other from all others that they name."""
    named = sorted({each.attribute for job in jobs for each in job.expects.attributes})
    others = tuple(each for each in named if each not in COLOURS)
    return {each: COLOURS if each in COLOURS else others for each in named}


def crops_right(
    entries: Sequence[Entry],
    seen: Sequence[Seen],
    choices: Mapping[str, Sequence[str]],
    threshold: float,
    clip: Clip,
    **how: Any,
) -> list[list[bool]]:
    """Of the attributes of every picture: whether the surest object of its noun looks like it, by CLIP on the crop.

    A noun that is not there has no attribute. An attribute that is told from no other one is left out: it could not be wrong.

    Args:
        choices: see `choices_of`.
    """

    def right(one: Seen, picture: Image.Image) -> list[bool]:
        answers: list[bool] = []
        for wanted in one.job.expects.attributes:
            among = choices[wanted.attribute]
            if len(among) < 2:
                continue
            label = one.labels[wanted.noun]
            there = [found for found in one.found if found.label == label and found.score >= threshold]
            if not there:
                answers.append(False)
                continue
            surest = max(there, key=lambda found: found.score)
            texts = [f"a photo of a {choice} {wanted.noun}" for choice in among]
            answers.append(among[clip.nearest(crop(picture, surest.box), texts)] == wanted.attribute)
        return answers

    def look(places: Sequence[int], pictures: Sequence[Image.Image]) -> list[Any]:
        return [right(seen[i], picture) for i, picture in zip(places, pictures, strict=True)]

    settings = {"clip": clip.sha256, "threshold": threshold, "choices": {name: list(among) for name, among in choices.items()}}
    return looked(entries, "attributes", settings, look, list(map(_told_by, seen)), **how)


def _told_by(one: Seen) -> str:
    """A hash of all that decides what is cut out of a picture: what was found, and what the detector calls the nouns."""
    nouns = {each.noun: one.labels[each.noun] for each in one.job.expects.attributes}
    return digest({"found": [[*each.box, each.score, each.label] for each in one.found], "nouns": nouns})


def reference_features(folder: Path, network: FeatureNetwork, keep: Path, *, batch: int, on_done: Done) -> NDArray[np.float64]:
    """Features `[m d]` of all pictures of a folder, and of the folders in it; kept in the folder `keep`.

    Raises:
        ConfigError: there are no pictures, or one cannot be read.
    """
    paths = reference_pictures(folder)
    names = [[str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    settings = {
        "features": network.sha256,
        "resize": network.resize,
        "folder": str(folder.resolve()),
        "files": digest({"": names}),
        "versions": versions(LIBRARIES),
    }
    kept = Records(keep, "reference", settings, key="file")
    with kept.held():
        known = {number: _unpacked(each["said"]) for number, each in kept.read().items()}
        waiting = [i for i in range(len(paths)) if i not in known]
        mend = "remove it from --reference, or put one there that can"
        on_done(len(paths) - len(waiting))
        for first in range(0, len(waiting), batch):
            chosen = waiting[first : first + batch]
            rows = network([read_picture(paths[i], mend) for i in chosen])
            packed = [_packed(row) for row in rows]
            kept.append([{"file": i, "said": text} for i, text in zip(chosen, packed, strict=True)])
            known.update(zip(chosen, map(_unpacked, packed), strict=True))
            on_done(len(chosen))
    return np.array([known[i] for i in range(len(paths))])


def reference_digest(folder: Path) -> str:
    """A hash of what the pictures of a folder hold, whatever they are called; raises as `reference_pictures`."""
    return digest({"": sorted(file_hash(path) for path in reference_pictures(folder))})


def reference_pictures(folder: Path) -> list[Path]:
    """The pictures of a folder, and of the folders in it, in the order of their names.

    Raises:
        ConfigError: there are none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICTURES and path.is_file())
    if not found:
        raise ConfigError(f"--reference {folder}: no pictures in it ({', '.join(PICTURES)}); expected a folder of real ones")
    return found
