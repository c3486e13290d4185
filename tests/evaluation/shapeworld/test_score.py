"""Matching: each request at most one detection, each detection at most one request."""

import numpy as np
import pytest

from lsregen.evaluation.shapeworld import Box, Detection, ObjectResult, score_scene

LEFT: Box = (0.0, 0.0, 0.4, 0.4)
RIGHT: Box = (0.6, 0.6, 1.0, 1.0)
MASK = np.zeros((1, 1), dtype=np.bool_)


def found(phrase: str, box: Box = LEFT, score: float = 0.9) -> Detection:
    colour, shape = phrase.split()
    return Detection(colour, shape, box, score, MASK)


def test_each_level_of_success() -> None:
    detections = [found("red circle", LEFT), found("blue star", RIGHT, score=0.4), found("green ring", RIGHT)]
    phrases = ["red circle", "blue star", "green cross", "purple ring", "green ring"]
    boxes = [LEFT, RIGHT, LEFT, LEFT, LEFT]
    assert score_scene(detections, phrases, boxes) == [
        ObjectResult("red circle", present=True, right=True, centre_in_box=True, iou=1.0),
        ObjectResult("blue star", present=True, right=False, centre_in_box=False, iou=0.0),
        ObjectResult("green cross", present=True, right=False, centre_in_box=False, iou=0.0),
        ObjectResult("purple ring", present=False, right=False, centre_in_box=False, iou=0.0),
        ObjectResult("green ring", present=True, right=True, centre_in_box=False, iou=0.0),
    ]


def test_a_detection_is_used_once() -> None:
    results = score_scene([found("red circle")], ["red circle", "red circle"])
    assert [result.right for result in results] == [True, False]
    assert all(result.present for result in results)


def test_equal_phrases_take_the_nearest_detections() -> None:
    detections = [found("red circle", LEFT, 0.7), found("red circle", RIGHT, 0.95)]
    results = score_scene(detections, ["red circle", "red circle"], [RIGHT, LEFT])
    assert [result.iou for result in results] == [1.0, 1.0]


def test_without_boxes_only_what_is_there_counts() -> None:
    (result,) = score_scene([found("red circle")], ["a small red circle"])
    assert result == ObjectResult("a small red circle", True, True, False, 0.0)


def test_the_threshold_can_be_chosen() -> None:
    detections = [found("red circle", score=0.5)]
    assert not score_scene(detections, ["red circle"])[0].right
    assert score_scene(detections, ["red circle"], least_score=0.5)[0].right


def test_boxes_must_be_one_per_phrase() -> None:
    with pytest.raises(ValueError, match="2 phrases but 1 boxes"):
        score_scene([], ["red circle", "blue star"], [LEFT])
