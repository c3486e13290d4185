"""The user study of the LSReGen paper (its Table 2): pairs of pictures by two methods, shown blind, and the answers.

A page shows the pairs; what a person answered comes back as a file. Which picture of a pair is whose stands in the page and in
the file as one opaque text, the study's key: so that nobody who looks at them sees it, and the files are enough to count.
"""

from __future__ import annotations

import base64
import json
import random
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from lsregen.evaluation.instruments.entrants import Entry, check_alike
from lsregen.evaluation.runs.records import digest
from lsregen.framework.config.options import convert
from lsregen.framework.errors import ConfigError, counted
from lsregen.framework.files import parse_json, read_json

ANSWERS = "lsregen-study-answers"
"""The `format` of a file of answers."""
SIDES = ("left", "right")
LONGEST_KEY = 2**24  # bytes that it is unpacked to: somebody else's may hold gigabytes
EXPECTED = "expected the file that a page of `lsregen study make` saves"


@dataclass(frozen=True)
class Question:
    """What is asked of every pair; `head` is the paper's name of it."""

    key: str
    head: str
    text: str


QUESTIONS = (
    Question("fidelity", "Visual Fidelity", "Which picture looks more real?"),
    Question("consistency", "Consistency", "Which picture keeps better to the layout: every thing inside its box?"),
    Question("preference", "User Preference", "In which picture do the things fit better into the scene behind them?"),
)
"""The paper's three: the realism of the images, consistency with the given layout, and realistic integration of the subject
into the background."""


@dataclass(frozen=True)
class Pair:
    """Two pictures of one item with one seed; `first_left`: whether the first method's stands on the left."""

    name: str
    first: Entry
    second: Entry
    first_left: bool

    @property
    def left(self) -> Entry:
        return self.first if self.first_left else self.second

    @property
    def right(self) -> Entry:
        return self.second if self.first_left else self.first


@dataclass(frozen=True)
class Study:
    """Pairs in the order in which they are shown. `first` and `second`: the names of the methods."""

    first: str
    second: str
    pairs: tuple[Pair, ...]

    @property
    def key(self) -> str:
        """Who is who, as an opaque text; `read_key` reads it."""
        images = [[pair.name, pair.first.image, pair.second.image] for pair in self.pairs]
        data = {
            "methods": [self.first, self.second],
            "first_left": {pair.name: pair.first_left for pair in self.pairs},
            "images": digest({"": images}),
        }
        return base64.b85encode(zlib.compress(json.dumps(data).encode(), 9)).decode()


def pairs_of(first: Sequence[Entry], second: Sequence[Entry], count: int, seed: int) -> tuple[Pair, ...]:
    """A study's pairs: drawn from what both methods made, in a random order, each method equally often on the left.

    Args:
        seed: decides all of that.

    Raises:
        ConfigError: the methods share fewer than `count` items, or one of them is not the same for both.
    """
    other = {(each.job.item, each.job.seed): each for each in second}
    shared = [(each, other[key]) for each in first if (key := (each.job.item, each.job.seed)) in other]
    if not shared:
        raise ConfigError(_nothing_shared(first, second))
    if len(shared) < count:
        raise ConfigError(
            f"{counted(count, 'pair')}: the methods have only {counted(len(shared), 'item')} in common; ask for fewer: --count "
            f"{len(shared)}"
        )
    for one, two in shared:
        check_alike(one, two)
    stream = random.Random(seed)
    chosen = stream.sample(shared, count)
    sides = [i % 2 == 0 for i in range(count)]
    stream.shuffle(sides)
    numbered = enumerate(zip(chosen, sides, strict=True), 1)
    return tuple(Pair(f"pair-{i:03}", one, two, left) for i, ((one, two), left) in numbered)


def _nothing_shared(first: Sequence[Entry], second: Sequence[Entry]) -> str:
    """Why two methods have no pictures of one item and seed, in words."""
    seeds = [{each.job.item: each.job.seed for each in entries} for entries in (first, second)]
    names = [f"{entries[0].job.method!r} of {entries[0].run.path}" for entries in (first, second)]
    if both := [item for item in seeds[0] if item in seeds[1]]:
        return (
            f"{names[0]} and {names[1]} have {counted(len(both), 'item')} in common, and none with the same seed: {both[0]!r} "
            f"has {seeds[0][both[0]]} and {seeds[1][both[0]]}; plan both methods with one --seed"
        )
    found = [
        f"{name} has {counted(len(items), 'item')} such as {next(iter(items))!r}"
        for name, items in zip(names, seeds, strict=True)
    ]
    return f"no item in common: {', '.join(found)}; a study needs pictures of the same items, of one plan or of one source"


@dataclass(frozen=True)
class Answers:
    """What one person said: by pair and question, whether the first method's picture was preferred."""

    path: Path
    rater: str
    first: str
    second: str
    preferred: Mapping[str, Mapping[str, bool]]
    lefts: int
    """How many answers were the left picture."""

    @property
    def count(self) -> int:
        return sum(map(len, self.preferred.values()))


def read_key(key: str, where: str) -> dict[str, Any]:
    """Who is who: `methods` and `first_left` by pair.

    Raises:
        ConfigError: no key.
    """
    try:
        text = zlib.decompressobj().decompress(
            base64.b85decode(key), LONGEST_KEY
        )  # a key of somebody else's may unpack to gigabytes
        found: object = parse_json(text.decode(), where)
    except (ValueError, zlib.error, ConfigError):
        found = None
    values = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    try:
        _ = (
            convert(values.get("methods"), tuple[str, str], "methods"),
            convert(values.get("first_left"), dict[str, bool], "first_left"),
        )
    except ConfigError:
        raise ConfigError(f"{where}: its key is damaged; {EXPECTED}") from None
    return values


def read_answers(paths: Sequence[Path], partial: bool = False) -> list[Answers]:
    """The files of one study's raters.

    Args:
        partial: take files in which answers are missing.

    Raises:
        ConfigError: a file is none of answers, of another study, of a rater who is there already, or incomplete.
    """
    found: list[Answers] = []
    key, raters = "", dict[str, Path]()
    for path in paths:
        data = _read(path)
        if key and data["key"] != key:
            raise ConfigError(f"{path}: the answers of another study than {paths[0]}; score each study by itself")
        key = data["key"]
        if data["id"] in raters:
            raise ConfigError(f"{path}: the same answers as {raters[data['id']]}; give each file once")
        raters[data["id"]] = path
        found.append(_answers(path, data, partial))
    return found


def _read(path: Path) -> dict[str, Any]:
    data: object = read_json(path, EXPECTED.removeprefix("expected "))
    values = cast("dict[str, Any]", data) if isinstance(data, dict) else {}
    if values.get("format") != ANSWERS:
        raise ConfigError(f"{path}: no answers of a study; {EXPECTED}")
    for name, kind in {"key": str, "id": str, "rater": str, "answers": dict}.items():
        if not isinstance(values.get(name), kind):
            raise ConfigError(f"{path}: {name!r} is missing or of another kind; {EXPECTED}")
    return values


def _answers(path: Path, data: Mapping[str, Any], partial: bool) -> Answers:
    key = read_key(data["key"], str(path))
    first_left: dict[str, bool] = key["first_left"]
    preferred: dict[str, dict[str, bool]] = {}
    missing, lefts = 0, 0
    for pair, is_left in first_left.items():
        given: Any = data["answers"].get(pair, {})
        for question in QUESTIONS:
            side = cast("dict[str, Any]", given).get(question.key) if isinstance(given, dict) else given
            if side is None:
                missing += 1
            elif side not in SIDES:
                raise ConfigError(f"{path}: answer {side!r} to {question.key!r} of {pair}; expected left or right")
            else:
                lefts += side == "left"
                preferred.setdefault(pair, {})[question.key] = (side == "left") == is_left
    if strange := [pair for pair in data["answers"] if pair not in first_left]:
        raise ConfigError(f"{path}: {strange[0]!r} is no pair of this study; {EXPECTED}")
    if missing and not partial:
        total = len(first_left) * len(QUESTIONS)
        raise ConfigError(f"{path}: {missing} of {total} answers are missing; let them be given, or count the others (--partial)")
    return Answers(path, data["rater"], key["methods"][0], key["methods"][1], preferred, lefts)


def scored(answers: Sequence[Answers]) -> dict[str, Any]:
    """For each question: how often the first method was preferred, of how many answers, and how far raters agree (`agreement`).

    With it stands the 95 % interval of a binomial share (Wilson's), which takes answers as independent;
    those of one person are not quite.

    Raises:
        ConfigError: there is no answer to one of the questions.
    """
    from scipy.stats import binomtest

    result: dict[str, Any] = {"first": answers[0].first, "second": answers[0].second, "raters": len(answers)}
    pairs = sorted({pair for each in answers for pair in each.preferred})
    questions: dict[str, Any] = {}
    for question in QUESTIONS:
        said = [[each.preferred.get(pair, {}).get(question.key) for each in answers] for pair in pairs]
        given = [value for row in said for value in row if value is not None]
        if not given:
            raise ConfigError(f"nobody answered {question.text!r}")
        interval: Any = binomtest(sum(given), len(given)).proportion_ci(0.95, method="wilson")
        questions[question.key] = {
            "preferred": sum(given),
            "answers": len(given),
            "value": sum(given) / len(given),
            "low": float(interval.low),
            "high": float(interval.high),
            "agreement": agreement(said),
        }
    result |= {"pairs": len(pairs), "questions": questions}
    result["left"] = sum(each.lefts for each in answers) / sum(each.count for each in answers)
    return result


def agreement(said: Sequence[Sequence[bool | None]]) -> float | None:
    """Krippendorff's alpha for names: 1 where raters always agree, 0 where they do as chance would, below where they do less.

    Args:
        said: by pair, what every rater said; None where one did not. None is returned if no pair has two answers, or if all
            answers are the same, which tells nothing of agreement.
    """
    rows = [[value for value in row if value is not None] for row in said]
    rows = [row for row in rows if len(row) > 1]
    total, firsts = sum(map(len, rows)), sum(map(sum, rows))
    seconds = total - firsts
    if firsts == 0 or seconds == 0:
        return None
    differing = sum(2 * sum(row) * (len(row) - sum(row)) / (len(row) - 1) for row in rows) / total
    return 1 - differing / (2 * firsts * seconds / (total * (total - 1)))


def markdown(result: Mapping[str, Any]) -> str:
    """The paper's Table 2: a line for the comparison, a column for each question."""
    questions = result["questions"]
    heads = ["Method", *(question.head for question in QUESTIONS)]
    values = [
        f"{100 * found['value']:.1f} % [{100 * found['low']:.1f} to {100 * found['high']:.1f}]"
        for found in (questions[question.key] for question in QUESTIONS)
    ]
    alphas = [questions[question.key]["agreement"] for question in QUESTIONS]
    lines = [
        heads,
        ["---"] * len(heads),
        [f"{result['first']} over {result['second']}", *values],
        ["agreement (Krippendorff's alpha)", *("" if alpha is None else f"{alpha:.2f}" for alpha in alphas)],
    ]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    counts = " / ".join(str(questions[question.key]["answers"]) for question in QUESTIONS)
    shown = f"{counted(result['pairs'], 'pair')}, {counted(result['raters'], 'rater')}, {counts} answers"
    return (
        f"{table}\n\n{shown}. In brackets: 95 % intervals of a binomial share (Wilson). The left picture was preferred in "
        f"{100 * result['left']:.0f} % of the answers.\n"
    )
