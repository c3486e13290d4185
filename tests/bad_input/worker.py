"""A process that tries cases, one after the other, each in an untouched folder: `python -m tests.bad_input.worker FOLDER`.

It reads the ids of cases from its standard input, a line each, and answers each with an outcome as JSON.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from lsregen.apps.cli import cli
from lsregen.framework.errors import LsregenError
from tests.bad_input import callables, commands, values
from tests.bad_input.case import ACCEPTED, RIGHT, TRACEBACK, UNCLEAR, WRITTEN, Case, Outcome
from tests.bad_input.files import CONTENTS

MEMORY = 8 << 30
"""Bytes of addresses that the process may have: what reads without end fails instead of filling the machine."""

State = Mapping[str, tuple[int, int, int]]


def cases(folder: Path) -> dict[str, Case]:
    """All cases by their ids."""
    found = [*commands.cases(folder), *callables.cases()]
    known = {case.id: case for case in found}
    if len(known) < len(found):
        ids = [case.id for case in found]
        raise LookupError(f"two cases with one id: {sorted({each for each in ids if ids.count(each) > 1})[:5]}")
    return known


def state(folder: Path) -> State:
    """What stands in a folder, so that any change of it shows."""
    found: dict[str, tuple[int, int, int]] = {}
    for home, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = os.path.join(home, name)
            status = os.lstat(path)
            is_folder = os.path.isdir(path) and not os.path.islink(path)
            found[path] = (status.st_mode, 0, 0) if is_folder else (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


class Bench:
    """A copy of the files in which cases are tried; made again after one that has changed it."""

    def __init__(self, template: Path, folder: Path) -> None:
        self.template, self.folder = template, folder
        self.fresh()

    def fresh(self) -> None:
        os.chdir("/")
        shutil.rmtree(self.folder, ignore_errors=True)
        copy(self.template, self.folder)
        os.chdir(self.folder)
        self.before = state(self.folder)

    def damage(self, inside: str, content: str) -> None:
        path = self.folder / inside
        path.unlink()
        path.write_bytes(CONTENTS[content])
        self.before = state(self.folder)

    def changed(self) -> str:
        """What stands there that did not, or does not any longer."""
        after = state(self.folder)
        differ = [path for path in {**self.before, **after} if self.before.get(path) != after.get(path)]
        return ", ".join(os.path.relpath(path, self.folder) for path in sorted(differ))


def copy(source: Path, target: Path) -> None:
    """A folder with its links and pipes as they are."""
    target.mkdir(parents=True)
    for entry in os.scandir(source):
        to = target / entry.name
        if entry.is_symlink():
            to.symlink_to(os.readlink(entry.path))
        elif entry.is_dir():
            copy(Path(entry.path), to)
        elif entry.is_file():
            shutil.copy2(entry.path, to)
        else:
            os.mkfifo(to)


def attempt(case: Case, bench: Bench) -> Outcome:
    """Try a case, and judge what became of it."""
    if case.damage is not None:
        bench.damage(*case.damage)
    begun = time.process_time()
    verdict, said = _command(case) if case.args else _python(case)
    seconds = time.process_time() - begun
    changed = bench.changed()
    if changed and verdict in (RIGHT, UNCLEAR):
        verdict, said = WRITTEN, f"{changed}: {said}"
    if verdict == ACCEPTED and case.lawful:
        verdict = RIGHT
    if changed or case.damage is not None:
        bench.fresh()
    return Outcome(case.id, verdict, said, seconds)


def _command(case: Case) -> tuple[str, str]:
    result = CliRunner().invoke(cli, case.args, prog_name="lsregen")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return TRACEBACK, f"{type(result.exception).__name__}: {result.exception}"
    return judged(case, result.exit_code, result.stdout, result.stderr)


def judged(case: Case, code: int, stdout: str, stderr: str) -> tuple[str, str]:
    """The verdict on what a command printed and ended with."""
    if "Traceback (most recent call last)" in stderr:
        return TRACEBACK, stderr
    if code == 0:
        return ACCEPTED, stdout + stderr
    errors = re.findall(r"^Error: ", stderr, flags=re.MULTILINE)
    said = stderr[stderr.find("Error: ") :] if errors else stderr
    if code not in (1, 2):
        return UNCLEAR, f"exit code {code}: {stdout}{stderr}"
    if len(errors) != 1 or stdout:
        return UNCLEAR, f"not one message on stderr alone: {stdout}{stderr}"
    if not any(name in said for name in case.named):
        return UNCLEAR, f"names neither {' nor '.join(case.named[:3])}: {said}"
    return RIGHT, said


def _python(case: Case) -> tuple[str, str]:
    try:
        made = callables.called(case)
    except LsregenError as error:
        said = str(error)
        if values.HALF_A_CHARACTER in said:
            return UNCLEAR, f"no terminal can show it: {said!r}"
        if not (case.lawful or any(name in said for name in case.named)):
            return UNCLEAR, f"names nothing of it: {said}"
        return RIGHT, said
    except (Exception, SystemExit) as error:  # whatever it raises is what is looked for
        if case.lawful and isinstance(error, OSError) and error.filename is not None:
            return RIGHT, str(error)
        return TRACEBACK, f"{type(error).__name__}: {error}"
    return ACCEPTED, f"made {_shown(made)}"


def _shown(made: Any) -> str:
    try:
        return f"{made!r}"[:200]
    except Exception as error:  # a value that was accepted may not even have a representation
        return f"a {type(made).__name__} whose representation fails: {error}"[:200]


def main(template: Path, folder: Path) -> None:
    """Answer until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nothing else is an answer
    known = cases(template)
    bench = Bench(template, folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in sys.stdin:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            outcome = attempt(known[json.loads(line)], bench)
        answers.write(json.dumps({**asdict(outcome), "said": outcome.said[:2000]}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
