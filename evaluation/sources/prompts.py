"""Prompts without boxes: the lists of Attend-and-Excite and of GenEval, with what their prompts say of the images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from ...framework.errors import ConfigError, LayoutError, nearest
from ...framework.layout.matching import occurrences
from ...framework.layout.regions import Layout, Region
from ...framework.layout_files.coco_instances import spoken
from ...framework.layout_files.item import Item, entries_of, fields, parse_json, read_text, text_of, whole
from ..runs.expects import RELATIONS, Attribute, Expects, Relation
from .base import Asked, Entry, Source, finished

HALVES = re.compile(r" (?:and|with) ")
ARTICLE = re.compile(r"^(?:an?|the) ", re.IGNORECASE)


def read_attend_and_excite(asked: Asked) -> Source:
    """The prompts by group: JSON, a mapping from groups to lists of prompts, or of mappings with `prompt` and `indices`.

    A prompt names two things, joined by `and` or `with`. The phrases are their last words, which are what the published indices
    point to; the words between the article and the noun are its attribute: `a red car` is a car, and red.

    Raises:
        LayoutError: not such a file, or a prompt of another form.
    """
    where, entries = str(asked.file), list[Entry]()
    data = parse_json(read_text(asked.file), where)
    if not isinstance(data, dict):
        raise LayoutError(f"{where}: expected a mapping from groups to lists of prompts, got {type(data).__name__}")
    for group, prompts in cast("dict[str, object]", data).items():
        for i, given in enumerate(entries_of(prompts, f"{where}, {group}"), 1):
            at = f"{where}, {group}, prompt {i}"
            entry = {"prompt": given} if isinstance(given, str) else fields(given, at, ("prompt", "indices"), ("prompt",))
            entries.append(_pair(f"ae-{group}-{i}", text_of(entry, "prompt", at), at))
    return finished("attend-and-excite", asked, entries, files=[asked.file])


def _pair(name: str, prompt: str, where: str) -> Entry:
    halves = HALVES.split(prompt)
    if len(halves) != 2 or not all(half.strip() for half in halves):
        raise LayoutError(f"{where}: {prompt!r}: expected two things joined by 'and' or 'with', such as 'a cat and a red car'")
    things = [ARTICLE.sub("", half.strip()) for half in halves]
    nouns = [thing.split()[-1] for thing in things]
    attributes = tuple(
        Attribute(thing, noun, thing.removesuffix(noun).strip())
        for thing, noun in zip(things, nouns, strict=True)
        if thing != noun
    )
    phrases = [noun if nouns.count(noun) == 1 else f"{noun}#{i}" for i, noun in enumerate(nouns, 1)]
    layout = Layout(tuple(map(Region, phrases)))
    classes = dict(zip(phrases, nouns, strict=True))
    return Entry(name, Item(prompt, layout, name=name), Expects(attributes=attributes, classes=classes))


def read_geneval(asked: Asked) -> Source:
    """GenEval's `evaluation_metadata.jsonl`: a mapping a line with `tag`, `prompt`, `include`, and `exclude` where it counts.

    `include` lists things with `class`, `count`, and maybe `color`, or `position`: a relation and the number of the thing that it
    is to. Counts are expected where GenEval checks them exactly (the tag `counting`).

    Raises:
        LayoutError: not such a file, or a class that its prompt does not name.
    """
    entries: list[Entry] = []
    for i, line in enumerate(read_text(asked.file).split("\n"), 1):
        if line.strip():
            where = f"{asked.file}, line {i}"
            data = fields(parse_json(line, where), where, ("tag", "prompt", "include", "exclude"), ("tag", "prompt", "include"))
            entries.append(_geneval(f"geneval-{i - 1:05}", data, where))
    return finished("geneval", asked, entries, files=[asked.file])


def _geneval(name: str, data: Mapping[str, Any], where: str) -> Entry:
    prompt = text_of(data, "prompt", where)
    things = [
        fields(thing, f"{where}, thing {i}", ("class", "count", "color", "position"), ("class", "count"))
        for i, thing in enumerate(entries_of(data["include"], where), 1)
    ]
    names = [text_of(thing, "class", where) for thing in things]
    classes: dict[str, str] = {}
    for category in names:
        phrase = spoken(category, prompt)
        if not occurrences(phrase, prompt):
            raise LayoutError(f"{where}: the prompt {prompt!r} does not name {category!r}")
        classes[phrase] = category
    counting = data["tag"] == "counting"
    counts = {category: whole(thing["count"], where, "count") for category, thing in zip(names, things, strict=True)}
    expects = Expects(_relations(names, things, where), counts if counting else {}, _colours(names, things, where), classes)
    return Entry(name, Item(prompt, Layout(tuple(map(Region, classes))), name=name), expects)


def _colours(names: Sequence[str], things: Sequence[Mapping[str, Any]], where: str) -> tuple[Attribute, ...]:
    coloured = [(name, text_of(thing, "color", where)) for name, thing in zip(names, things, strict=True) if "color" in thing]
    return tuple(Attribute(f"{colour} {name}", name, colour) for name, colour in coloured)


def _relations(names: Sequence[str], things: Sequence[Mapping[str, Any]], where: str) -> tuple[Relation, ...]:
    found: list[Relation] = []
    for name, thing in zip(names, things, strict=True):
        if "position" not in thing:
            continue
        relation, other = (*entries_of(thing["position"], where), None, None)[:2]
        if not isinstance(other, int) or not 0 <= other < len(names):
            raise LayoutError(f"{where}: position {thing['position']!r}: expected a relation and the number of a thing, from 0")
        try:
            found.append(Relation(name, str(relation), names[other]))
        except ConfigError:
            near = nearest(str(relation), RELATIONS)
            raise LayoutError(f"{where}: position {relation!r}: expected one of {', '.join(RELATIONS)}{near}") from None
    return tuple(found)
