"""The fault matrices on the local disk and on the real HDFS, and real processes killed at the protocol's fault points.

MILLSTREAM_SOAK=1 runs all of them, else a seeded few. The looks of readers after each act are taken here as well. On
HDFS all are those of the kind of world in which every task comes and every act is there: in the others tasks choose
other directories, and ask nothing else of a file system.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from tests.support import commit_matrices
from tests.support.commit_matrices import WORLDS, Case, prepare, run_cases
from tests.support.commit_simulation import Task, World
from tests.support.killed_driver import POINTS, kills, world_of

from millstream.hadoop_loader.commit import names
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.testing.hdfs import MiniHdfs

CHECKOUT = Path(__file__).parents[3]
# Cases at a time: on HDFS each waits for half a second for each file that is closed.
AT_ONCE = 16
MATRICES = (commit_matrices.faults, commit_matrices.late_acts, commit_matrices.sleepers)

Roots = Callable[[], str]


@pytest.fixture(params=["local", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def roots(request: pytest.FixtureRequest, tmp_path: Path) -> Roots:
    """Gives a new table root each time."""
    numbers = count()
    if request.param == "hdfs":
        hdfs: MiniHdfs = request.getfixturevalue("hdfs")
        return lambda: f"{hdfs.uri}/{tmp_path.name}/root-{next(numbers)}"
    return lambda: f"{tmp_path.as_uri()}/root-{next(numbers)}"


def run_all(cases: Sequence[tuple[str, Case]], roots: Roots) -> None:
    """Run cases, each in a world of its kind at a root of its own."""

    def world_at(seed: int) -> World:
        kind, _ = cases[seed]
        return world_of(kind, open_filesystem(roots(), FileSystemSettings()), seed)

    run_cases([case for _, case in cases], world_at, at_once=AT_ONCE)


def few_of(matrix: Callable[..., Iterator[Case]], kind: str) -> Sequence[tuple[str, Case]]:
    """One case, and none of others that run for days; of open directories one of a compaction."""
    every = [case for case in matrix(kind, world_of) if case[1][-1] in {0, 1, 2}]
    short = [case for case in every if kind == "closed" or case[1][0] is Task.COMPACT]
    return [(kind, random.Random(matrix.__name__).choice(short))]


@pytest.mark.slow
@pytest.mark.timeout(14_400)
def test_matrices(roots: Roots, soak: bool, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    if soak:
        kinds = ["both"] if request.node.callspec.params["roots"] == "hdfs" else list(WORLDS)
        chosen = [(kind, case) for kind in kinds for matrix in MATRICES for case in matrix(kind, world_of)]
    else:
        chosen = [case for kind in ("closed", "open") for matrix in MATRICES for case in few_of(matrix, kind)]
    run_all(chosen, roots)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_killed_processes(roots: Roots, soak: bool) -> None:
    every = list(kills())
    chosen = every if soak else random.Random(3).sample(every, 2)
    run_all([(kind, (with_kill, (point, when, task, kind))) for point, when, task, kind in chosen], roots)


def with_kill(world: World, point: str, when: str, task: Task, kind: str) -> None:
    """The run of a task by a process of its own, which is killed at a fault point that the run has."""
    prepare(world, task)
    command = [sys.executable, "-m", "tests.support.killed_driver", world.disk.uri, task, kind, when, POINTS[point]]
    ended = subprocess.run(command, cwd=CHECKOUT, capture_output=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    world.look()
    world.finish()
