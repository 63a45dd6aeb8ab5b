"""Every call of a load's and a compaction's run, with every fault there and everything that others may do there.

Three matrices, in memory, each followed by new drivers and by the look of a reader after every single act:

    faults      at every act every fault, alone or beside a driver of the other role that is already at work
    late acts   every act times out and takes effect after so many runs of others, days later
    sleepers    at every call, reads included, the process sleeps while others do one run, or runs for days

MILLSTREAM_SOAK=1 runs all of them, else a seeded sample of each. Segments are of four numbers here, so that they are
filled, covered and removed while a sleeper still means to use them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

import pytest
from tests.support.commit_simulation import World

from millstream.hadoop_loader.commit import CommitError, CompactionConflictError, Role, names
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault

SAMPLE = 60
DIED = (SimulatedCrashError, CommitError, FileSystemError, FileNotFoundError)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)


def prepared(seed: int) -> World:
    """A world with two loads behind it, so that there is something to compact, and more to load."""
    world = World(seed=seed)
    for produced in (4, 9):
        world.produced = produced
        world.driver().run(Role.LOAD)
    world.produced = 14
    return world


def count(role: Role) -> tuple[int, int]:
    """How many acts and how many calls a run takes without faults."""
    calls: list[str] = []
    driver = prepared(0).driver(before_call=calls.append)
    driver.run(role)
    return len(driver.filesystem.journal), len(calls)


def with_fault(role: Role, act: int, fault: Fault, is_beside: bool) -> None:
    """A run with a fault, alone or beside one of the other role, whose claim is older and which commits after it."""
    world = prepared(seed=act)
    beside = world.driver()
    other = Role.LOAD if role is Role.COMPACT else Role.COMPACT
    claim = beside.log.claim(other, owner="beside", run_id="beside") if is_beside else None
    driver = world.driver({act: fault})
    with suppress(*DIED):
        driver.run(role)
    if claim is not None:
        with suppress(CompactionConflictError):
            beside.work(claim)
        claim.release()
    world.finish()


def with_late_act(role: Role, act: int, ends: bool, runs: int) -> None:
    """An act takes effect `runs` runs later, days after its driver went on or, with `ends`, died right there."""
    world = prepared(seed=act)
    world.late.is_held = True
    driver = world.driver({act: Fault.LATE, **({act + 1: Fault.CRASH_BEFORE} if ends else {})})
    with suppress(*DIED):
        driver.run(role)
    world.finish(runs_before_late=runs)


def with_sleep(role: Role, call: int, others: Sequence[Role], days: int) -> None:
    """At a call the process sleeps: others run at once, then for days."""
    world = prepared(seed=call)
    calls = 0

    def sleep(name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == call:
            for other in others:
                world.clock.wait(1)
                with suppress(*DIED):
                    world.driver().run(other)
            world.days_pass(days)

    driver = world.driver(before_call=sleep)
    with suppress(*DIED):
        driver.run(role)
    world.finish()


Case = tuple[Callable[..., None], tuple[object, ...]]


def faults() -> Iterator[Case]:
    for role in Role:
        for act in range(1, count(role)[0] + 1):
            for fault in Fault:
                for is_beside in (False, True):
                    yield with_fault, (role, act, fault, is_beside)


def late_acts() -> Iterator[Case]:
    for role in Role:
        for act in range(1, count(role)[0] + 1):
            for ends in (False, True):
                for runs in (0, 1, 2, 9):
                    yield with_late_act, (role, act, ends, runs)


def sleepers() -> Iterator[Case]:
    for role in Role:
        for call in range(1, count(role)[1] + 1):
            for others in ((Role.LOAD,), (Role.COMPACT,), (Role.COMPACT, Role.LOAD)):
                yield with_sleep, (role, call, others, 0)
            yield with_sleep, (role, call, (), 9)


def test_runs_without_faults() -> None:
    world = prepared(0)
    assert world.driver().run(Role.COMPACT) is not None
    assert world.driver().run(Role.LOAD) is not None
    world.finish()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("matrix", [faults, late_acts, sleepers], ids=lambda matrix: matrix.__name__)
def test_matrix(matrix: Callable[[], Iterator[Case]], soak: bool) -> None:
    every = list(matrix())
    chosen = every if soak else random.Random(7).sample(every, SAMPLE)
    failed = []
    for run, arguments in chosen:
        try:
            run(*arguments)
        except Exception as error:
            failed.append((*map(str, arguments), f"{type(error).__name__}: {error}"))
    assert not failed, f"{len(failed)} of {len(chosen)}, such as {failed[:5]}"
