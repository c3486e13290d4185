"""Did an image show what was asked for? Detections matched to requested phrases and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..metrics.bootstrap import box_overlap
from .detect import Detection
from .geometry import Box
from .render import masks
from .scene import Scene

LEAST_SCORE = 0.65
"""A detection with a lower score shows no shape of this world."""


class Found(Protocol):
    """One found object: its colour and its shape as the `label` (`red circle`), its box in [0, 1] and its score."""

    @property
    def label(self) -> str: ...

    @property
    def box(self) -> Box: ...

    @property
    def score(self) -> float: ...


@dataclass(frozen=True)
class ObjectResult:
    """What became of one requested object.

    `present`: its colour was found anywhere, in any shape and whatever the score (one patch of colour may
    count for several requests). `right`: a detection with its colour and its shape and at least the
    threshold's score is matched to it; no detection is matched twice. `centre_in_box`: it is right, and the
    centre of the matched detection's box lies in the requested box. `iou`: intersection over union of the two
    boxes, in [0, 1]; 0 if not right. Without a requested box, `centre_in_box` is False and `iou` is 0.
    """

    phrase: str
    present: bool
    right: bool
    centre_in_box: bool
    iou: float


def score_scene(
    detections: Sequence[Found],
    phrases: Sequence[str],
    boxes: Sequence[Box] | None = None,
    *,
    least_score: float = LEAST_SCORE,
) -> list[ObjectResult]:
    """One result per phrase (`red circle`; a size word or article before it is ignored), in their order.

    `boxes`: the requested boxes, `(left, top, right, bottom)` in [0, 1], one per phrase. Where several
    detections answer to a phrase, pairs are matched by falling intersection over union, then by falling
    score.
    """
    if boxes is not None and len(boxes) != len(phrases):
        raise ValueError(f"{len(phrases)} phrases but {len(boxes)} boxes")
    kinds = [" ".join(phrase.split()[-2:]) for phrase in phrases]
    candidates = [
        (box_overlap(found.box, boxes[index]) if boxes is not None else 0.0, found.score, index, number)
        for index, kind in enumerate(kinds)
        for number, found in enumerate(detections)
        if found.label == kind and found.score >= least_score
    ]
    matched: dict[int, tuple[Found, float]] = {}
    used: set[int] = set()
    for overlap, _, index, number in sorted(candidates, key=lambda item: (-item[0], -item[1], item[2:])):
        if index not in matched and number not in used:
            matched[index] = detections[number], overlap
            used.add(number)
    colours = {found.label.split()[0] for found in detections}
    results: list[ObjectResult] = []
    for index, phrase in enumerate(phrases):
        present = kinds[index].split()[0] in colours
        if index in matched:
            found, overlap = matched[index]
            centred = boxes is not None and _centred(found.box, boxes[index])
            results.append(ObjectResult(phrase, present, True, centred, overlap))
        else:
            results.append(ObjectResult(phrase, present, False, False, 0.0))
    return results


def mask_overlaps(scene: Scene, found: Sequence[Detection]) -> list[float]:
    """Of every object of the scene: the overlap (intersection over union) of its true mask with all that was found of its kind.

    Everything of the right colour and shape whose score shows a shape of this world counts, so that a second copy lowers it; 0 if
    there is none. The images must have the scene's size.
    """
    overlaps: list[float] = []
    for item, true in zip(scene.objects, masks(scene), strict=True):
        seen = np.zeros_like(true)
        for other in found:
            if other.label == item.phrase and other.score >= LEAST_SCORE:
                seen |= other.mask
        overlaps.append(float(np.count_nonzero(seen & true) / max(1, np.count_nonzero(seen | true))))
    return overlaps


def _centred(found: Box, wanted: Box) -> bool:
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    return wanted[0] <= x <= wanted[2] and wanted[1] <= y <= wanted[3]
