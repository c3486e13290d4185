"""Did an image show what was asked for? Detections matched to requested phrases and boxes."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics.bootstrap import box_overlap
from .detect import Detection
from .geometry import Box

LEAST_SCORE = 0.65
"""A detection with a lower score shows no shape of this world."""


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
    detections: Sequence[Detection],
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
    kinds = [tuple(phrase.split()[-2:]) for phrase in phrases]
    candidates = [
        (box_overlap(found.box, boxes[index]) if boxes is not None else 0.0, found.score, index, number)
        for index, kind in enumerate(kinds)
        for number, found in enumerate(detections)
        if (found.colour, found.shape) == kind and found.score >= least_score
    ]
    matched: dict[int, tuple[Detection, float]] = {}
    used: set[int] = set()
    for overlap, _, index, number in sorted(candidates, key=lambda item: (-item[0], -item[1], item[2:])):
        if index not in matched and number not in used:
            matched[index] = detections[number], overlap
            used.add(number)
    colours = {found.colour for found in detections}
    results: list[ObjectResult] = []
    for index, phrase in enumerate(phrases):
        present = kinds[index][0] in colours
        if index in matched:
            found, overlap = matched[index]
            centred = boxes is not None and _centred(found.box, boxes[index])
            results.append(ObjectResult(phrase, present, True, centred, overlap))
        else:
            results.append(ObjectResult(phrase, present, False, False, 0.0))
    return results


def _centred(found: Box, wanted: Box) -> bool:
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    return wanted[0] <= x <= wanted[2] and wanted[1] <= y <= wanted[3]
