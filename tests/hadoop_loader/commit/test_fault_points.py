"""Every act of a load's and a compaction's commit, with every fault there, followed by new drivers; in memory.

MILLSTREAM_SOAK=1 runs all of them; otherwise a seeded sample does.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from tests.support.commit_simulation import World

from millstream.hadoop_loader.commit import CommitError, Role
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault

SAMPLE = 120


def prepared(seed: int) -> World:
    """A world with two loads behind it, so that there is something to compact, and more to load."""
    world = World(seed=seed)
    for produced in (4, 9):
        world.produced = produced
        world.driver().run(Role.LOAD)
    world.produced = 14
    return world


def acts_of(role: Role) -> int:
    """How many acts a run takes without faults."""
    driver = prepared(0).driver()
    driver.run(role)
    return driver.filesystem.acts  # type: ignore[attr-defined, no-any-return]


def run_with_fault(role: Role, act: int, fault: Fault) -> None:
    world = prepared(seed=act)
    driver = world.driver({act: fault})
    with suppress(SimulatedCrashError, CommitError, FileSystemError):
        driver.run(role)
    world.finish()


def points() -> list[tuple[Role, int, Fault]]:
    return [(role, act, fault) for role in Role for act in range(1, acts_of(role) + 1) for fault in Fault]


def test_a_run_without_faults() -> None:
    world = prepared(0)
    assert world.driver().run(Role.COMPACT) is not None
    assert world.driver().run(Role.LOAD) is not None
    world.finish()


@pytest.mark.slow
def test_every_fault_at_every_act(soak: bool) -> None:
    every = points()
    chosen = every if soak else random.Random(7).sample(every, SAMPLE)
    failed = []
    for role, act, fault in chosen:
        try:
            run_with_fault(role, act, fault)
        except Exception as error:
            failed.append((role.value, act, fault.name, f"{type(error).__name__}: {error}"))
    assert not failed, f"{len(failed)} of {len(chosen)}, such as {failed[:5]}"
