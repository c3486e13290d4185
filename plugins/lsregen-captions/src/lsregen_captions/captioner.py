"""Captions written by an image-to-text model of transformers, from a folder on this machine: BLIP-2, BLIP, GIT, and their like.

An image with two objects is asked LSReGen's question, how they are related; one with a single object, none. A model that takes no
text captions images only.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, cast

from lsregen.evaluation.instruments.network_folders import load_folder, load_part
from lsregen.evaluation.sources import Asked
from lsregen.evaluation.sources.captions import parse_lines
from lsregen.evaluation.sources.coco import read_images
from lsregen.framework.errors import ConfigError, LayoutError, counted
from lsregen.framework.files import decoded, is_file, is_there, locked, make_folder, read_bytes, reason

if TYPE_CHECKING:
    from PIL.Image import Image

QUESTION = "Question: what is the relationship between {first} and {second}? Answer:"
"""LSReGen's question in the form that BLIP-2 is asked questions in; `first` is the larger object."""
LONGEST = 40  # tokens of a caption
BEGINNING = b'{"id": '
"""Of every line that is written: what else stands at the end of a file was written by somebody else, and stays."""
TOKENIZERS = ("tokenizer", "qformer_tokenizer")
WHAT, EXPECTED = "--model", "expected an image-to-text model of transformers"


@dataclass(frozen=True)
class Picture:
    """An image to be captioned. `question`: what is asked about it, or nothing."""

    id: int | str
    path: Path
    question: str = ""


class Captioner:
    """A loaded model. `device`: by torch's name, or auto for an accelerator if there is one.

    Raises:
        ConfigError: no such folder, or a device that this machine does not have.
        CheckpointError: the folder is not such a model, or has no weights in safetensors.
    """

    def __init__(self, folder: Path, device: str = "auto") -> None:
        classes = ("AutoModelForImageTextToText", "AutoProcessor")
        self._model, found = load_folder(WHAT, folder, device, classes, EXPECTED, dtype="auto")
        self._processor = found if hasattr(found, "image_processor") else _ImagesOnly(folder)

    @property
    def takes_text(self) -> bool:
        return not isinstance(self._processor, _ImagesOnly)

    def caption(self, images: Sequence[Image], questions: Sequence[str]) -> list[str]:
        """What the model says of each image; the beginning that it was given is left out.

        Nothing is padded: many decoders read a shorter question wrongly then, and a folder may pad on either side.

        Args:
            questions: one of each image, all of one `length`.

        Raises:
            ConfigError: the model takes images of different sizes as different numbers of tokens.
        """
        import torch

        given: dict[str, Any] = {"images": [image.convert("RGB") for image in images], "return_tensors": "pt"}
        if any(questions):
            given |= {"text": list(questions), "padding": False}
        try:
            inputs = self._processor(**given).to(self._model.device)
        except ValueError as error:
            if len(images) < 2:
                raise
            raise ConfigError(
                f"this model cannot take these {len(images)} images at once; give --batch 1 ({_brief(error)})"
            ) from None
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
        begun = cast("Any", inputs["input_ids"] if "input_ids" in inputs else [[]] * len(images))
        asked, said = self._decoded(begun), self._decoded(tokens)
        return [_answer(*pair) for pair in zip(said, asked, strict=True)]

    def length(self, question: str) -> tuple[int, ...]:
        """How many tokens a question has for each of the model's tokenizers (InstructBLIP has two); none where nothing is asked.

        Questions of one length can be asked together.
        """
        if not question:
            return ()
        found = (getattr(self._processor, name, None) for name in TOKENIZERS)
        return tuple(len(each(question)["input_ids"]) for each in found if each is not None)

    def _decoded(self, tokens: Any) -> list[str]:
        return self._processor.batch_decode(tokens, skip_special_tokens=True)


class _ImagesOnly:
    """What a processor is for a model that is not given text."""

    def __init__(self, folder: Path) -> None:
        self._images = load_part(WHAT, folder, "AutoImageProcessor", EXPECTED)
        self.batch_decode = load_part(WHAT, folder, "AutoTokenizer", EXPECTED).batch_decode

    def __call__(self, **given: Any) -> Any:
        return self._images(**given)


def _answer(text: str, asked: str) -> str:
    """Some models repeat what they were given, as their tokenizer writes it, and then go on."""
    return " ".join(text.removeprefix(asked).split())


def pictures_of(asked: Asked, images: Path, question: str = QUESTION) -> list[Picture]:
    """The images of a split of COCO, with the question about the two objects of those that have two or more.

    Raises:
        LayoutError: the annotations cannot be used, or images of the split are missing in the folder.
        ConfigError: a question with other places than `{first}` and `{second}`.
    """
    found, _ = read_images(asked, for_captions=True)
    pictures: list[Picture] = []
    for image, _ in found:
        if image.item.name is None:
            raise LayoutError(f"{asked.path}: image {image.id!r} has no file_name; expected the name of its file in {images}")
        if not is_within(image.item.name):
            raise LayoutError(
                f"{asked.path}: image {image.id!r}: file_name {image.item.name!r} leads out of {images}; expected a file in it"
            )
        names = [*image.categories, "", ""]
        try:
            said = question.format(first=names[0], second=names[1]) if len(image.categories) > 1 else ""
        except (KeyError, IndexError, ValueError):
            raise ConfigError(f"--question {question!r}: expected a text with {{first}} and {{second}} in it") from None
        pictures.append(Picture(image.id, images / image.item.name, said))
    if missing := [picture.path for picture in pictures if not is_file(picture.path)]:
        raise LayoutError(f"{len(missing)} of {len(pictures)} images are missing; the first is {missing[0]}")
    return pictures


def write_captions(
    captioner: Captioner,
    pictures: Sequence[Picture],
    path: Path,
    *,
    batch: int = 8,
    on_done: Callable[[int], None] = lambda count: None,
) -> int:
    """Add a line to the file for each picture that has none yet, and say how many that were. Interrupt and repeat at will.

    Raises:
        ConfigError: the model takes no questions, or the file cannot be written.
        LayoutError: what is in the file are no captions, a picture cannot be read, or the model said nothing of some.
    """
    if not captioner.takes_text and any(picture.question for picture in pictures):
        raise ConfigError("this model is given images and no text; give --question '' to caption without a question")
    try:
        done = _found(path) if is_there(path) else {}
        length = path.stat().st_size if is_there(path) else 0
        on_done(sum(picture.id in done for picture in pictures))
        missing = [picture for picture in pictures if picture.id not in done]
        silent: list[Picture] = []
        groups: dict[tuple[int, ...], list[Picture]] = {}
        for each in missing:
            groups.setdefault(captioner.length(each.question), []).append(each)
        make_folder(path.parent)
        with locked(path, f"{path}: another process is captioning into it; wait for it"), path.open("ab", buffering=0) as file:
            if file.tell() != length:
                raise ConfigError(f"{path}: another process added captions meanwhile; the same command goes on from there")
            for _, group in sorted(groups.items()):
                for start in range(0, len(group), batch):
                    chosen = group[start : start + batch]
                    said = list(zip(chosen, _captions(captioner, chosen), strict=True))
                    silent += [picture for picture, caption in said if not caption]
                    file.write(b"".join(_line(*pair) for pair in said if pair[1]))
                    os.fsync(file.fileno())
                    on_done(len(chosen))
    except OSError as error:
        raise ConfigError(f"{path}: captions cannot be written ({reason(error)}); what was written before stays") from None
    if silent:
        raise LayoutError(
            f"the model said nothing of {counted(len(silent), 'image')}, the first is {silent[0].path}; the others have their "
            f"captions in {path}: give another --question, or another model, for the rest"
        )
    return len(missing)


def is_within(name: str) -> bool:
    """Whether a path of somebody else's stays in the folder that it is joined to."""
    parts = PurePath(name).parts
    return bool(parts) and ".." not in parts and not PurePath(name).is_absolute() and "\0" not in name


def _captions(captioner: Captioner, pictures: Sequence[Picture]) -> list[str]:
    from PIL import Image as PILImage

    images: list[PILImage.Image] = []
    for picture in pictures:
        try:
            with PILImage.open(picture.path) as image:
                images.append(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError, PILImage.DecompressionBombError) as error:
            raise LayoutError(f"{picture.path}: not a picture that can be read ({_brief(error)})") from None
    return captioner.caption(images, [picture.question for picture in pictures])


def _line(picture: Picture, caption: str) -> bytes:
    asked = {"question": picture.question} if picture.question else {}
    return (json.dumps({"id": picture.id, "caption": caption, **asked}, ensure_ascii=False) + "\n").encode()


def _found(path: Path) -> dict[int | str, str]:
    """The captions of a file. Of its last line, one that an interruption broke is cut off, and a whole one gets its end.

    Nothing is touched before all the rest was read as captions.
    """
    data = read_bytes(path, "captions", LayoutError)
    end = data.rfind(b"\n") + 1
    last = data[end:]
    if _is_broken(last):
        found = parse_lines(path, decoded(data[:end], str(path), "captions", LayoutError))
        os.truncate(path, end)
        return found
    found = parse_lines(path, decoded(data, str(path), "captions", LayoutError))
    if last:
        with path.open("ab", buffering=0) as file:
            file.write(b"\n")
    return found


def _is_broken(line: bytes) -> bool:
    """Whether this is the beginning of a line as `_line` writes it."""
    if not line or line[: len(BEGINNING)] != BEGINNING[: len(line)]:
        return False
    try:
        json.loads(line)
    except ValueError:
        return True
    return False


def _brief(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
