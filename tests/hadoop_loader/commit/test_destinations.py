"""The fault matrices on the local disk and on the real HDFS, and real processes killed at the protocol's fault points.

MILLSTREAM_SOAK=1 runs all of them, else a seeded few. The looks of readers after each act are taken here as well.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from tests.support import commit_matrices
from tests.support.commit_matrices import WORLDS, Case, prepare, run_cases
from tests.support.commit_simulation import SETTINGS, World
from tests.support.killed_driver import POINTS

from millstream.hadoop_loader.commit import Role, names
from millstream.hadoop_loader.filesystem import FileSystemSettings, open_filesystem
from millstream.testing.hdfs import MiniHdfs

# Real clocks stamp what is in trash: it is kept for no time here, and goes with the next claim.
REAL = replace(SETTINGS, snapshot_retention_s=0)
CHECKOUT = Path(__file__).parents[3]
KILLS = [(point, when, role) for point in POINTS for when in ("before", "after") for role in ("load", "compact")]

Roots = Callable[[], str]


@pytest.fixture(params=["local", pytest.param("hdfs", marks=pytest.mark.hdfs)])
def roots(request: pytest.FixtureRequest, tmp_path: Path) -> Roots:
    """Gives a new table root each time."""
    numbers = count()
    if request.param == "hdfs":
        hdfs: MiniHdfs = request.getfixturevalue("hdfs")
        return lambda: f"{hdfs.uri}/{tmp_path.name}/root-{next(numbers)}"
    return lambda: f"{tmp_path.as_uri()}/root-{next(numbers)}"


def few(roots: Roots, local: int) -> int:
    """How many cases are run without soak: fewer where each takes long."""
    return local if roots().startswith("file:") else max(local // 2, 1)


def world_at(uri: str, seed: int = 0, kind: str = "closed") -> World:
    # One partition and one format: on HDFS each file that is closed takes half a second.
    destination = open_filesystem(uri, FileSystemSettings())
    return World(
        seed=seed,
        settings=REAL,
        destination=destination,
        partitions=1,
        formats=("parquet",),
        **WORLDS[kind],  # type: ignore[arg-type]
    )


@pytest.mark.slow
@pytest.mark.timeout(14_400)
@pytest.mark.parametrize("kind", ["closed", "open"])
@pytest.mark.parametrize("matrix", ["faults", "late_acts", "sleepers"])
def test_matrix(roots: Roots, matrix: str, kind: str, soak: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)
    cases: Callable[[str], Iterator[Case]] = getattr(commit_matrices, matrix)
    every = list(cases(kind))
    # The few leave out those in which others run for days, and of open directories are of compactions alone.
    short = [case for case in every if case[1][-1] in {0, 1, 2} and (kind == "closed" or case[1][0] is Role.COMPACT)]
    chosen = every if soak else random.Random(matrix).sample(short, few(roots, 2 if kind == "closed" else 1))
    run_cases(chosen, lambda seed: world_at(roots(), seed, kind))


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_killed_processes(roots: Roots, soak: bool) -> None:
    killed = 0
    chosen = KILLS if soak else random.Random(3).sample(KILLS, few(roots, 6))
    for point, when, role in chosen:
        uri = roots()
        world = world_at(uri)
        prepare(world)
        command = [sys.executable, "-m", "tests.support.killed_driver", uri, role, str(world.produced), when]
        ended = subprocess.run([*command, POINTS[point]], cwd=CHECKOUT, capture_output=True, timeout=120)
        assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr.decode()
        killed += ended.returncode == -signal.SIGKILL
        try:
            world.look("the kill")
            world.finish()
        except Exception as error:
            raise AssertionError(f"a {role} killed {when} {point} at {uri}") from error
    # Some points are only of the other role's runs.
    assert killed * 2 >= len(chosen), killed
