"""Tries every case and prints the counts: `python -m tests.bad_input [--only TEXT] [--processes N] [--all]`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.bad_input import files, pool
from tests.bad_input.case import RIGHT, VERDICTS, Case, Outcome
from tests.bad_input.worker import Bench, cases


def spread(ids: list[str], count: int) -> list[str]:
    """So many of them, evenly, the same ones every time."""
    return ids if count >= len(ids) else [ids[i * len(ids) // count] for i in range(count)]


def table(outcomes: dict[str, list[Outcome]]) -> str:
    """The counts of each verdict, by where the cases come from."""
    lines = [f"| | cases | {' | '.join(VERDICTS)} |", f"| --- | ---: | {' | '.join('---:' for _ in VERDICTS)} |"]
    for door, found in outcomes.items():
        counts = Counter(outcome.verdict for outcome in found)
        lines.append(f"| {door} | {len(found)} | {' | '.join(str(counts[verdict]) for verdict in VERDICTS)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="cases whose id holds this text")
    parser.add_argument("--door", choices=("commands", "python"), help="only those")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--processes", type=int, default=50, help="commands that are tried as processes too")
    parser.add_argument("--count", type=int, default=10**9, help="so many cases, evenly spread")
    parser.add_argument("--list", action="store_true", help="only say which cases there are")
    parser.add_argument("--files", type=Path, help="a folder that keeps the files of the base lines for the next time")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        template = (given.files or Path(home, "template")).resolve()
        if not template.exists():
            template.mkdir(parents=True)
            files.build(template)
        known = cases(template)
        wanted = {None: (True, False), "commands": (True,), "python": (False,)}[given.door]
        chosen = [name for name, case in known.items() if given.only in name and bool(case.args) in wanted]
        chosen = spread(chosen, given.count)
        if given.list:
            print("\n".join(map(ascii, chosen)), f"\n{len(chosen)} cases")
            return 0
        outcomes = tried(known, chosen, Path(home), template, given.workers, given.processes)
    wrong = [outcome for found in outcomes.values() for outcome in found if outcome.verdict != RIGHT]
    print(table(outcomes))
    return 1 if wrong else 0


def tried(
    known: dict[str, Case], chosen: list[str], home: Path, template: Path, workers: int, processes: int
) -> dict[str, list[Outcome]]:
    """The outcomes of the chosen cases: of commands, of Python, and of some commands as processes."""
    done = 0

    def on_done(outcome: Outcome) -> None:
        nonlocal done
        done += 1
        if outcome.verdict != RIGHT:
            print(ascii(str(outcome))[1:-1], flush=True)
        if done % 100 == 0:
            print(f"{done} of {len(chosen)}", file=sys.stderr)

    found = pool.attempt_all(chosen, template, home, workers, on_done)
    bench = Bench(template, home / "processes")
    some = spread([case for case in chosen if known[case].printable], processes)
    processes_of = [pool.attempt_as_process(known[case], bench) for case in some]
    for outcome in processes_of:
        if outcome.verdict != RIGHT:
            print(ascii(f"as a process: {outcome}")[1:-1], flush=True)
    return {
        "commands": [outcome for outcome in found if known[outcome.case].args],
        "Python": [outcome for outcome in found if not known[outcome.case].args],
        "commands as processes": processes_of,
    }


if __name__ == "__main__":
    sys.exit(main())
