"""Lists as their makers write them, for the tests of sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ZEROS = [0, 0, 0, 0]
NSR = [
    {
        "id": 3,
        "image_id": 1,
        "obj1": ["dog", [0, 0, 0.5, 1]],
        "obj2": ["cat", [0.5, 0, 0.5, 1]],
        "prompt": "a dog left of a cat",
        "relation": "left",
        "type": "template",
    },
    {
        "id": 4,
        "image_id": 2,
        "obj1": ["dog", ZEROS],
        "obj2": ["cat", ZEROS],
        "prompt": "a dog above a cat",
        "relation": "top",
        "type": "template",
    },
]
COUNTED = [{"id": 9, "object_list": [["zebra", [0, 0, 0.4, 1]], ["zebra", [0.5, 0, 0.4, 1]]], "prompt": "two zebras"}]


def write(path: Path, data: Any) -> Path:
    lines = path.suffix == ".jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in data) if lines else json.dumps(data))
    return path
