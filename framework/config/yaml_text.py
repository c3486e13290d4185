"""YAML as plain values, within limits. The only place that knows OmegaConf: it reads YAML and resolves references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import MappingNode, Node, ScalarNode, YAMLError
from yaml.error import Mark, MarkedYAMLError

from ..errors import ConfigError, shown
from ..files import MOST_LEVELS, read_text
from .arguments import checked

MOST_BYTES = 2**20
"""A larger file is refused, and so is one that grows larger by its aliases and references."""
REFERENCE = re.compile(r"\$\{\s*([\w.-]+)\s*\}")


@checked
def load_yaml(path: str | Path) -> dict[str, Any]:
    """A configuration file as plain values; `${key}` refers to other keys of the file, and nothing else is resolved.

    Raises:
        ConfigError: the file is missing, unreadable, too large, not YAML or not a mapping.
    """
    try:
        text = read_text(Path(path), "a YAML file", most=MOST_BYTES)
    except ConfigError as error:
        raise ConfigError(f"configuration {error}") from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str, placed: bool = True) -> dict[str, Any]:
    """YAML text as plain values; see `load_yaml`. `placed`: whether it is a file, of which errors say the line and column."""
    try:
        nodes = cast("Node | None", cast("Any", yaml).compose(text))
        if not isinstance(nodes, MappingNode | None):  # OmegaConf would take a lone word for a key
            raise ConfigError(f"{where}: expected a mapping with keys, such as steps: 20")
        if nodes is not None:
            _check_nodes(nodes, where)
        loaded = OmegaConf.create(text)
        plain = cast("dict[str, Any]", OmegaConf.to_container(loaded))
        _refuse_resolvers(plain, where)
        _References(plain, where).check()
        return cast("dict[str, Any]", OmegaConf.to_container(loaded, resolve=True))
    except (OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        what = "not a usable YAML file" if placed else "the value is not YAML"
        raise ConfigError(f"{where}: {what}: {_problem(error, placed)}") from None


def parse_value(text: str, where: str) -> Any:
    """One value that is written as YAML.

    Raises:
        ConfigError: it is not YAML, goes on with another key, or is nothing but a comment, which would mean the default.
    """
    values = parse_yaml(f"value: {text}", where, placed=False)
    if len(values) > 1:
        raise ConfigError(f"{where}: more than one value: also {', '.join(list(values)[1:])}; give each on its own")
    if values["value"] is None and text.strip() not in ("null", "~"):
        raise ConfigError(f"{where}: {text!r} is no value; write null where none is meant")
    return values["value"]


def _check_nodes(top: Node, where: str) -> None:
    """Refuse what is nested too deeply, and aliases (`*name`) that make more of a file than it has.

    Raises:
        ConfigError: it is; or an alias stands within what it means.
    """
    sizes: dict[int, int] = {}
    within: set[int] = set()

    def size(node: Node, level: int) -> int:
        if isinstance(node, ScalarNode):
            return 1 + len(cast("str", node.value))
        if id(node) in within:
            raise ConfigError(f"{where}: an alias stands within what it means")
        if level > MOST_LEVELS:
            raise ConfigError(f"{where}: nested deeper than {MOST_LEVELS} levels")
        if id(node) not in sizes:
            within.add(id(node))
            values = cast("list[Any]", node.value)
            inner = (
                child for value in values for child in (cast("tuple[Node, ...]", value) if type(value) is tuple else (value,))
            )
            sizes[id(node)] = 1 + sum(size(cast("Node", child), level + 1) for child in inner)
            within.discard(id(node))
        return sizes[id(node)]

    if size(top, 0) > MOST_BYTES:
        raise ConfigError(f"{where}: its aliases make more than {MOST_BYTES:,} values and characters of it")


def _refuse_resolvers(value: Any, where: str) -> None:
    """Refuse every `${...}` that is more than the name of another key: it could read the environment."""
    if isinstance(value, Mapping | list):
        inner = cast("Mapping[Any, Any] | list[Any]", value)
        for item in inner.values() if isinstance(inner, Mapping) else inner:
            _refuse_resolvers(item, where)
    elif isinstance(value, str) and "${" in REFERENCE.sub("", value):
        raise ConfigError(
            f"{where}: {shown(value)}: only references to other keys, such as ${{steps}}, are allowed, and no resolvers"
        )


class _References:
    """What a configuration would become if its references were resolved, in numbers of values and characters."""

    def __init__(self, top: Mapping[Any, Any], where: str) -> None:
        self.top, self.where = top, where
        self.sizes: dict[tuple[str, ...], int] = {}
        self.within: set[tuple[str, ...]] = set()

    def check(self) -> None:
        """Refuse references that lead to themselves, or make more of a file than `MOST_BYTES`.

        Raises:
            ConfigError: some do.
        """
        if self.size(self.top, ()) > MOST_BYTES:
            raise ConfigError(f"{self.where}: its references make more than {MOST_BYTES:,} values and characters of it")

    def size(self, value: Any, path: tuple[str, ...]) -> int:
        if path in self.within or len(path) > MOST_LEVELS:
            raise ConfigError(f"{self.where}: {'.'.join(path)}: its reference leads to itself")
        if path not in self.sizes:
            self.within.add(path)
            self.sizes[path] = self._size(value, path)
            self.within.discard(path)
        return self.sizes[path]

    def _size(self, value: Any, path: tuple[str, ...]) -> int:
        if isinstance(value, dict | list):
            return 1 + sum(self.size(child, (*path, key)) for key, child in _children(value).items())
        if not isinstance(value, str):
            return 1
        return 1 + len(value) + sum(self._size_at(self._meant(reference, path)) for reference in REFERENCE.findall(value))

    @staticmethod
    def _meant(reference: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """The path that a reference in the value at `path` names: each leading dot but the first leads one level up."""
        name = reference.lstrip(".")
        up = len(reference) - len(name)
        return (*(path[:-up] if up else ()), *name.split("."))

    def _size_at(self, path: tuple[str, ...]) -> int:
        """The size of what a path leads to, through references too; 0 where it leads to nothing."""
        value, at = cast("Any", self.top), tuple[str, ...]()
        for i, part in enumerate(path):
            if isinstance(value, str) and (whole := REFERENCE.fullmatch(value.strip())):
                if len(path) > MOST_LEVELS or at in self.within:
                    raise ConfigError(f"{self.where}: {'.'.join(at)}: its reference leads to itself")
                return self._size_at((*self._meant(whole[1], at), *path[i:]))
            children = _children(value)
            if part not in children:
                return 0
            value, at = children[part], (*at, part)
        return self.size(value, at)


def _children(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {str(key): child for key, child in cast("dict[Any, Any]", value).items()}
    return {str(i): child for i, child in enumerate(cast("list[Any]", value))} if isinstance(value, list) else {}


def _problem(error: Exception, placed: bool) -> str:
    """What is wrong with YAML, on one line; with `placed` where, lines and columns counted from 1."""
    if not isinstance(error, MarkedYAMLError) or not error.problem:
        return " ".join(str(error).split("\n")[:2]).strip()
    hint = {"\\t": "; indent with spaces", "<block": "; check the indentation"}
    problem = error.problem + next((mended for sign, mended in hint.items() if sign in error.problem), "")
    if not placed:
        return problem
    begun = f", {error.context} that begins in {_place(error.context_mark)}" if error.context and error.context_mark else ""
    return f"{_place(error.problem_mark)}: {problem}{begun}"


def _place(mark: Mark | None) -> str:
    return "an unknown line" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
