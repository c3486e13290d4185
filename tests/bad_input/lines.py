"""For every command a line that works, and good values of its other options: the only part that is written by hand.

From a good value the harness knows what an option takes: a file or a folder that is there, or a place for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tests.bad_input.files import BOX, MODEL, PROMPT

Good: TypeAlias = "str | tuple[str, ...]"


@dataclass(frozen=True)
class Use:
    """How an option is tried that the line does not have: what goes with it, what it stands instead of, what it may hold.

    Attributes:
        fine: values of the tables that are right here.
        more: further values that are wrong here.
        text: any text is meant, so that no name is unknown.
        any_text: of a file, whose text may say anything.
        damaged: of a folder, whether it is tried with a damaged file; not where another command has the same reader.
    """

    good: Good = ""
    beside: Mapping[str, Good] = field(default_factory=dict[str, Good])
    instead_of: tuple[str, ...] = ()
    fine: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    text: bool = False
    any_text: bool = False
    damaged: bool = True


@dataclass(frozen=True)
class Line:
    """`given`: the line, by the names of its parameters; `uses`: of other options, and of its own where they need one."""

    given: Mapping[str, Good] = field(default_factory=dict[str, Good])
    uses: Mapping[str, Use] = field(default_factory=dict[str, Use])


COMPARED = {"objects": "1", "count": "1", "steps": "1", "device": "cpu", "result": "new.json", "folder": "new-folder"}
PLACE = Use("new.png")
RECORDS = Use("new.jsonl.gz")
CONFIGURATION = Use("mine.yaml", fine=("bad/mapping.yaml", "bad/empty.yaml"))  # they leave everything as it is
UNREAD = ("scores/*", "tokenizer/vocab.json", "generation_config.json")
"""What stands in a folder and need not be read: what was seen before, a second form of the tokenizer, defaults."""
DEFAULTS = {
    "mapping": ("lsregen.json", "scheduler_config.json", "tokenizer_config.json"),
    "mapping of nulls": ("scheduler_config.json", "tokenizer_config.json"),
    "half a character": ("scheduler_config.json", "tokenizer_config.json"),
}
"""Files whose every setting has a default, by the contents that leave these as they are; others' may hold further keys."""
MODEL_FOLDER = Use("model", damaged=False)
CLASSES = Use("classes.txt", any_text=True)

LINES: dict[str, Line] = {
    "caption": Line(
        {
            "instances": "world/annotations/instances_eval.json",
            "images": "world/images",
            "model": "captioner",
            "out": "new.jsonl",
            "device": "cpu",
        },
        {"question": Use("and {first} or {second}", text=True, fine=("", " "))},
    ),
    "convert": Line({"source": "one.safetensors", "out": "new-folder"}, {"out": Use(more=("a-folder",))}),
    "evaluate attention": Line(
        {"models": MODEL, "guidance": "layout-guidance", **COMPARED},
        {"picture": PLACE, "records": RECORDS, "models": MODEL_FOLDER},
    ),
    "evaluate page": Line(
        {"runs": "run", "out": "new.html"}, {"items": Use("shapeworld-0", instead_of=("count",)), "methods": Use("none")}
    ),
    "evaluate plan": Line(
        {"source": "list", "file": "prompts.jsonl", "out": "new.jsonl", "guidances": "none", "steps": "1", "device": "cpu"},
        {
            "guidances": CONFIGURATION,
            "methods": Use("methods.yaml", instead_of=("guidances", "steps")),
            "model": MODEL_FOLDER,
            "size": Use("64x64"),
            "sets": Use("steps=1"),
            "vary": Use("steps=1"),
            "captions": Use(
                "world/annotations/captions_eval.json", {"source": "coco", "file": "world/annotations/instances_eval.json"}
            ),
            "objects": Use("1", {"source": "shapeworld", "count": "1"}, ("file",)),
            "count": Use("1", {"source": "shapeworld"}, ("file",)),
            "first": Use("1", {"source": "shapeworld", "count": "1"}, ("file",)),
        },
    ),
    "evaluate plot": Line(
        {"files": "scored.json", "metrics": "map50", "out": "new.png"},
        {"against": Use("guidance.layout.gamma"), "methods": Use("layout-guidance,strong")},
    ),
    "evaluate run": Line(
        {"plan_file": "plan.jsonl", "folder": "new-folder", "device": "cpu"},
        {"models": Use(f"{MODEL}=model"), "options": Use("workers=2")},
    ),
    "evaluate score": Line(
        {"runs": "run", "detector": "shapeworld", "device": "cpu", "out": "new.json"},
        {
            "options": Use("threshold=0.5", {"detector": "detector"}),
            "renamed": Use("red square=red square"),
            "features": Use("shapeworld", {"reference": "world/images"}),
            "reference": Use("world/images", {"features": "shapeworld"}),
            "clip": Use("clip"),
        },
    ),
    "evaluate shapeworld": Line(
        {"guidances": "none", **COMPARED},
        {
            "guidances": CONFIGURATION,
            "rows": Use("rows.yaml", instead_of=("guidances",)),
            "size": Use("64x64"),
            "model": MODEL_FOLDER,
            "sets": Use("steps=1"),
            "vary": Use("steps=1"),
            "records": RECORDS,
        },
    ),
    "evaluate status": Line({"folder": "run"}),
    "evaluate table": Line({"files": "result.json"}, {"metrics": Use("right"), "baseline": Use("a"), "html": Use("new.html")}),
    "generate": Line(  # of the picture that is begun again only the text is read, which the first half has
        {"prompt": PROMPT, "box": BOX, "steps": "1", "trace": "0", "device": "cpu", "out": "new-folder"},
        {
            "prompt": Use(text=True),
            "mask": Use("red circle=mask.png", instead_of=("box",)),
            "phrase": Use("red circle", instead_of=("box",)),
            "negative": Use("a red circle", text=True, fine=("", " ")),
            "layout": Use("layout.json", instead_of=("box",)),
            "prompts": Use("prompts.jsonl", instead_of=("prompt", "box")),
            "from_image": Use(
                "picture.png", instead_of=("prompt", "box", "steps"), fine=("bad/first-half.png",)
            ),  # read: its text
            "init_image": Use("picture.png", {"guidance": "none", "steps": "4"}, ("box",)),
            "strength": Use("0.5", {"init_image": "picture.png", "guidance": "none", "steps": "4"}, ("box",)),
            "model": Use("model"),
            "variant": Use(beside={"model": "model"}, fine=("",)),
            "vae": Use("model/vae"),
            "grounding": Use("0.3", {"model": "shapeworld-gligen"}),
            "tile": Use("64", {"tiling": "on"}),
            "guidance": replace(CONFIGURATION, instead_of=("box",)),
            "sets": Use("guidance.layout.gamma=20"),
            "size": Use("64x64"),
            "name": Use("x", text=True),
        },
    ),
    "inspect": Line({"model": "model"}, {"model": MODEL_FOLDER}),
    "layout convert": Line(
        {"source": "yolo", "target": "new.jsonl", "classes": "classes.txt", "size": "64x64"},
        {
            "from_": Use("yolo"),
            "to": Use("jsonl"),
            "classes": CLASSES,
            "target": Use(fine=("a-folder",)),
        },  # files of YOLO beside others
    ),
    "layout show": Line(
        {"source": "yolo", "classes": "classes.txt", "size": "64x64"}, {"from_": Use("yolo"), "classes": CLASSES}
    ),
    "plugins": Line(),
    "presets": Line({}, {"name": Use("layout-guidance")}),
    "show": Line({"run": "made"}, {"out": Use("new.html")}),
    "study make": Line({"runs": "run", "first": "none", "second": "layout-guidance", "count": "1", "out": "new.html"}),
    "study score": Line({"files": "answers.json"}, {"out": Use("new.json")}),
    "tokens": Line({"prompt": PROMPT}, {"prompt": Use(text=True), "model": MODEL_FOLDER}),
}
