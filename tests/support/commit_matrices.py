"""The matrices of faults, late acts and sleepers that a load's and a compaction's run go through, on any destination.

    faults      at every act every fault, alone or beside a driver of the other role that is already at work
    late acts   every act times out and takes effect after so many runs of others, days later
    sleepers    at every call, reads included, the process sleeps while others do one run, or runs for days

A case is a function and its arguments; it is run on a world made for it, and raises whatever promise was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from tests.support.commit_simulation import World

from millstream.hadoop_loader.commit import CommitError, CompactionConflictError, Role
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault

DIED = (SimulatedCrashError, CommitError, FileSystemError, FileNotFoundError)


def prepare(world: World) -> None:
    """Two loads, so that there is something to compact, and more to load."""
    for produced in (4, 9):
        world.produced = produced
        world.driver().run(Role.LOAD)
    world.produced = 14


WORLDS: dict[str, dict[str, bool]] = {
    "closed": {},
    # Directories that never close: files are replaced one by one.
    "open": {"closes": False, "compacts_open": True},
    # Both, and directories that close after files of theirs were replaced.
    "both": {"compacts_open": True},
}
"""What kinds of worlds there are, as World takes them."""


def count(role: Role, kind: str) -> tuple[int, int]:
    """How many acts and how many calls a run takes without faults."""
    calls: list[str] = []
    world = World(**WORLDS[kind])  # type: ignore[arg-type]
    prepare(world)
    driver = world.driver(before_call=calls.append)
    driver.run(role)
    return len(driver.filesystem.journal), len(calls)


def with_fault(world: World, role: Role, act: int, fault: Fault, is_beside: bool) -> None:
    """A run with a fault, alone or beside one of the other role, whose claim is older and which commits after it."""
    prepare(world)
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


def with_late_act(world: World, role: Role, act: int, ends: bool, runs: int) -> None:
    """An act takes effect `runs` runs later, days after its driver went on or, with `ends`, died right there."""
    prepare(world)
    world.late.is_held = True
    driver = world.driver({act: Fault.LATE, **({act + 1: Fault.CRASH_BEFORE} if ends else {})})
    with suppress(*DIED):
        driver.run(role)
    world.finish(runs_before_late=runs)


def with_sleep(world: World, role: Role, call: int, others: Sequence[Role], days: int) -> None:
    """At a call the process sleeps: others run at once, then for days."""
    prepare(world)
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


def run_cases(cases: Sequence[Case], world: Callable[[int], World]) -> None:
    """Run each on the world made for its seed; raise one error that names those that failed."""
    failed = []
    for seed, (run, arguments) in enumerate(cases):
        try:
            run(world(seed), *arguments)
        except Exception as error:
            failed.append((*map(str, arguments), f"seed {seed}: {type(error).__name__}: {error}"))
    assert not failed, f"{len(failed)} of {len(cases)}, such as {failed[:5]}"


def faults(kind: str = "closed") -> Iterator[Case]:
    for role in Role:
        for act in range(1, count(role, kind)[0] + 1):
            for fault in Fault:
                for is_beside in (False, True):
                    yield with_fault, (role, act, fault, is_beside)


def late_acts(kind: str = "closed") -> Iterator[Case]:
    for role in Role:
        for act in range(1, count(role, kind)[0] + 1):
            for ends in (False, True):
                for runs in (0, 1, 2, 9):
                    yield with_late_act, (role, act, ends, runs)


def sleepers(kind: str = "closed") -> Iterator[Case]:
    for role in Role:
        for call in range(1, count(role, kind)[1] + 1):
            for others in ((Role.LOAD,), (Role.COMPACT,), (Role.COMPACT, Role.LOAD)):
                yield with_sleep, (role, call, others, 0)
            yield with_sleep, (role, call, (), 9)
