"""Turns: programs that do the same work one after the other, round by round, and what ours must reach beside them.

A series may be made of several runs, each of some rows: its turns are kept in a file, a line of JSON each, which every
run adds to and which the page is written from.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.load import report

OURS = "millstream"
BROKERS = ("millstream", "kafka")


@dataclass(frozen=True)
class Goal:
    """What our figure must reach: so much of `peer`'s, or so much where there is no peer."""

    figure: str
    comparison: str
    value: float
    peer: str = ""

    def __str__(self) -> str:
        return f"{self.comparison} {report.number(self.value)}" + (f"x {self.peer}" if self.peer else "")

    def met(self, ours: float, theirs: float | None) -> bool | None:
        """Whether it is reached; None where the peer was not measured."""
        if self.peer and theirs is None:
            return None
        bound = self.value * (theirs if theirs is not None and self.peer else 1)
        return ours >= bound if self.comparison == ">=" else ours <= bound


@dataclass(frozen=True)
class Turn:
    """What one program came to in one round of a row."""

    row: str
    broker: str
    program: str
    round: int
    figures: Mapping[str, float]
    # Which run of a series it was of, by the time of its start, and what was run.
    run: str = ""
    command: str = ""
    destination: str = ""


class Turns:
    """All turns of a series, those of its file among them."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.started = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        self.all: list[Turn] = []
        if path is not None and path.exists():
            self.all += [Turn(**json.loads(line)) for line in path.read_text().splitlines()]

    def keep(self, turn: Turn) -> None:
        """Note a turn, in the series' file as well."""
        self.all.append(turn)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(asdict(turn)) + "\n")

    def of(self, row: str, broker: str, program: str = "", destination: str = "") -> list[Turn]:
        """Return the turns of a row at one place, those of one program or of all."""
        return [
            one
            for one in self.all
            if (one.row, one.broker, one.destination) == (row, broker, destination)
            and (not program or one.program == program)
        ]

    def median(self, row: str, broker: str, program: str, figure: str, destination: str = "") -> float | None:
        """Return the median of a figure's rounds."""
        turns = self.of(row, broker, program, destination)
        found = [one.figures[figure] for one in turns if figure in one.figures]
        return statistics.median(found) if found else None

    def rounds_to_come(self, count: int, row: str, broker: str, destination: str = "") -> range:
        """Return the numbers of so many rounds, behind those that earlier runs of the series did."""
        before = max((one.round + 1 for one in self.of(row, broker, destination=destination)), default=0)
        return range(before, before + count)

    def when(self) -> str:
        """Say when it was measured, by which runs."""
        runs = sorted({one.run for one in self.all})
        if len(runs) < 2:
            return f"on {''.join(runs) or 'no day'}"
        return f"by {len(runs)} runs between {runs[0]} and {runs[-1]}; which is of which stands at the end"


def in_turn(programs: Sequence[str], number: int) -> list[str]:
    """Return them in the order of a round: another one is first in each."""
    at = number % len(programs) if programs else 0
    return [*programs[at:], *programs[:at]]


def judged(goals: Sequence[Goal], ours: float | None, peers: Mapping[str, float | None]) -> tuple[str, str]:
    """Return the goals of a figure as they are shown, and whether each is met, by the peers' figures."""
    found = [goal.met(ours, peers.get(goal.peer)) for goal in goals] if ours is not None else []
    met = ", ".join("" if one is None else "yes" if one else "**no**" for one in found)
    return "; ".join(map(str, goals)), met


def last_line(command: Sequence[str], what: str, timeout_s: float, environ: Mapping[str, str] | None = None) -> Any:
    """Run a program to its end, and return the JSON of the last line that it printed. Raises RuntimeError."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, env=environ)
    if done.returncode:
        raise RuntimeError(f"{what}: {done.stderr[-2000:] or done.stdout[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
