"""The fault matrices on the local disk and on the real HDFS, and real processes killed at the protocol's fault points.

MILLSTREAM_SOAK=1 runs all of them, else a seeded few. The looks of readers after each act are taken here as well.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.support import commit_matrices
from tests.support.commit_matrices import WORLDS, Case, prepare, run_cases
from tests.support.commit_simulation import Task, World
from tests.support.killed_driver import POINTS, kills, world_of

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.testing.hdfs import MiniHdfs

CHECKOUT = Path(__file__).parents[3]
# There each case waits for half a second for each file that is closed; on a disk they only take turns.
AT_ONCE_ON_HDFS = 40
PROCESSES_AT_ONCE = 16
MATRICES = (commit_matrices.faults, commit_matrices.late_acts, commit_matrices.sleepers)


class Roots(NamedTuple):
    """Gives a new table root each time; how many cases go at a time there."""

    new: Callable[[], str]
    at_once: int


@pytest.fixture(params=["local", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def roots(request: pytest.FixtureRequest, tmp_path: Path) -> Roots:
    numbers = count()
    if request.param == "hdfs":
        hdfs: MiniHdfs = request.getfixturevalue("hdfs")
        return Roots(lambda: f"{hdfs.uri}/{tmp_path.name}/root-{next(numbers)}", AT_ONCE_ON_HDFS)
    return Roots(lambda: f"{tmp_path.as_uri()}/root-{next(numbers)}", 1)


Cases = Sequence[tuple[str, Case]]


def run_all(cases: Cases, roots: Roots) -> None:
    """Run cases, each in a world of its kind at a root of its own, of which nothing is left where it passes."""

    @contextmanager
    def world_at(seed: int) -> Iterator[World]:
        kind, _ = cases[seed]
        root = roots.new()
        with open_filesystem(root, FileSystemSettings()) as destination:
            yield world_of(kind, destination, seed)
        parent, _, name = root.rpartition("/")
        with open_filesystem(parent, FileSystemSettings()) as above:
            above.delete(name, recursive=True)

    run_cases([case for _, case in cases], world_at, at_once=roots.at_once)


def whole(matrix: Callable[..., Iterator[Case]], kind: str) -> Cases:
    """A matrix in a kind of world."""
    return [(kind, case) for case in matrix(kind, world_of)]


def few() -> Cases:
    """One case of each matrix, and none of others that run for days; of open directories one of a compaction."""
    chosen = []
    for kind in ("closed", "open"):
        for matrix in MATRICES:
            every = [case for case in whole(matrix, kind) if case[1][1][-1] in {0, 1, 2}]
            short = [case for case in every if kind == "closed" or case[1][1][0] is Task.COMPACT]
            chosen.append(random.Random(matrix.__name__).choice(short))
    return chosen


# Each matrix by itself where they run whole, so that each tells its outcome when it has one.
SHARES: dict[str, Callable[[], Cases]] = (
    {f"{matrix.__name__}-{kind}": partial(whole, matrix, kind) for kind in WORLDS for matrix in MATRICES}
    if os.environ.get("MILLSTREAM_SOAK") == "1"
    else {"few": few}
)


@pytest.mark.slow
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("share", SHARES)
def test_matrices(roots: Roots, share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    run_all(SHARES[share](), roots)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_killed_processes(roots: Roots, soak: bool) -> None:
    every = list(kills())
    chosen = every if soak else random.Random(3).sample(every, 2)
    cases: Cases = [(kind, (with_kill, (point, when, task, kind))) for point, when, task, kind in chosen]
    run_all(cases, roots._replace(at_once=min(roots.at_once, PROCESSES_AT_ONCE)))


def with_kill(world: World, point: str, when: str, task: Task, kind: str) -> None:
    """The run of a task by a process of its own, which is killed at a fault point that the run has."""
    prepare(world, task)
    command = [sys.executable, "-m", "tests.support.killed_driver", world.disk.uri, task, kind, when, POINTS[point]]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    world.look()
    world.finish()
