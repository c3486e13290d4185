"""The files that the base lines work on, made by lsregen itself, and bad ones of every kind."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import sys
import zlib
from pathlib import Path

from click.testing import CliRunner
from PIL import Image
from safetensors.torch import save_file

from lsregen.apps.cli import cli
from lsregen.framework.layout.regions import Layout
from lsregen.framework.plugins.registry import discover
from recipes.shapeworld.export_coco import export_coco
from tests.evaluation import networks, tiny
from tests.models import narrow_files

PROMPT = "a red circle and a blue square"
BOX = "red circle=0.1,0.1,0.5,0.5"
MODEL = "shapeworld-base"
PLACED = Layout.from_boxes({"red circle": (0.1, 0.1, 0.5, 0.5)})


def _png(width: int, height: int) -> bytes:
    """The head of a picture of that size, and no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + chunk(b"IEND", b"")


METHODS = """methods:
  none: {guidance: none, steps: 1}
  layout-guidance: {guidance: layout-guidance, steps: 1}
  strong: {guidance: layout-guidance, steps: 1, sets: [guidance.layout.gamma=50]}
"""

CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "binary": random.Random(0).randbytes(4096),
    "nuls": bytes(1000),
    "deep lists": b"[" * 100_000,
    "deep mappings": b'{"a":' * 100_000,
    "null": b"null",
    "number": b"3",
    "text": b'"x"',
    "list": b"[]",
    "mapping": b"{}",
    "list of nulls": b"[null, null]\n",
    "mapping of nulls": b'{"prompt": null, "format": null, "rows": null, "images": null, "methods": null, "guidance": null}\n',
    "digits": b"[" + b"9" * 5000 + b"]",
    "infinite": b'{"a": 1e400, "b": NaN}',
    "half a character": b'{"prompt": "\\ud800"}',
    "not UTF-8": "a r\xe9d circle".encode("latin-1"),
    "yaml tag": b"a: !!python/object/apply:os.system ['true']\n",
    "yaml bomb": b"a: &a [x, x]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (c + 1, c + 1, c, c) for c in range(97, 121)),
    "huge picture": _png(2**31 - 1, 2**31 - 1),
    "picture without pixels": _png(64, 64),
    "huge header": struct.pack("<Q", 2**62) + b"{}",
}
"""What may stand in a file, of whatever ending."""


def build(folder: Path) -> None:
    """Everything that the base lines name, in an empty folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        _build()
    finally:
        os.chdir(before)


def _build() -> None:
    lsregen = _lsregen
    export_coco(Path("world"), count=2, objects=2)
    Path("methods.yaml").write_text(METHODS)
    lsregen("evaluate plan shapeworld --count 2 --methods methods.yaml --batch 2 --out plan.jsonl")
    lsregen("evaluate run plan.jsonl --out run")
    lsregen("evaluate score run --detector shapeworld --json scored.json")
    Path("rows.yaml").write_text("rows: {a: {guidance: none}, b: {guidance: layout-guidance}}\n")
    lsregen("evaluate shapeworld --rows rows.yaml --count 1 --steps 1 --json result.json --out kept")
    shutil.rmtree("kept")
    lsregen("generate --steps 1 --trace 1 --out made --name x --prompt", PROMPT, "--box", BOX)
    shutil.copy("made/x-0.png", "picture.png")
    Path("layout.json").write_text(json.dumps(PLACED.to_json()))
    lsregen("study make run --first none --second layout-guidance --count 1 --out study.html")
    _answers(Path("study.html").read_text())
    Path("study.html").unlink()
    Image.new("L", (64, 64), 255).save("mask.png")
    Path("mine.yaml").write_text("steps: 1\nguidance: {}\n")
    Path("classes.txt").write_text("red circle\nblue square\n")
    Path("yolo").mkdir()
    Path("yolo/000.txt").write_text("0 0.3 0.3 0.2 0.2\n")
    Path("prompts.jsonl").write_text(json.dumps({"prompt": PROMPT, "seed": 3, **PLACED.to_json()}) + "\n")
    save_file(narrow_files.state("sd1"), "one.safetensors")
    Path("a-folder").mkdir()
    Path("a-folder/precious.txt").write_text("precious\n")
    Path("a-file").write_text("precious\n")
    for suffix in ("json", "html", "png", "jsonl", "gz"):
        Path(f"precious.{suffix}").write_text("precious\n")
    home, _ = discover().embedded_models()[MODEL]
    _linked(home, Path("model"))
    networks.clip(Path("clip"))
    networks.yolos(Path("detector"), ("red square", "orange star", "green square", "purple star"))
    tiny.blip2(Path("captioner"))
    _odd(Path("odd"))


def _lsregen(line: str, *more: str) -> None:
    result = CliRunner().invoke(cli, [*line.split(), *more], prog_name="lsregen")
    if result.exit_code:
        raise RuntimeError(f"lsregen {line}: {result.output}")


def _answers(page: str) -> None:
    """What a rater would save of the page."""
    data = json.loads(page.partition('id="data">')[2].partition("</script>")[0])
    given = {key: dict.fromkeys(data["questions"], "left") for key in data["pairs"]}
    saved = {**data, "rater": "Ada", "id": "1", "order": data["pairs"], "answers": given, "seconds": dict.fromkeys(given, 1.0)}
    Path("answers.json").write_text(json.dumps({key: value for key, value in saved.items() if key not in ("pairs", "questions")}))


def _linked(source: Path, target: Path) -> None:
    """A folder of links to the files of another."""
    for path in source.rglob("*"):
        if path.is_file():
            link = target / path.relative_to(source)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path.resolve())


def _odd(folder: Path) -> None:
    """What may stand where a file or a folder is expected."""
    folder.mkdir()
    (folder / "empty-folder").mkdir()
    (folder / "broken").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "zero").symlink_to("/dev/zero")


def bad_file(folder: Path, content: str, like: Path) -> Path:
    """The file of a bad content with the ending of a good one; made where it is not there yet."""
    if content == "first half":
        data = like.read_bytes()
        data = data[: len(data) // 2]
    else:
        data = CONTENTS[content]
    path = folder / f"{content.replace(' ', '-')}{like.suffix}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    build(Path(sys.argv[1]))
