"""The matrices of faults, late acts and sleepers that the runs of each task go through, on any destination.

    faults      at every act every fault, alone or beside a driver of the other role that is already at work
    late acts   every act times out and takes effect after so many runs of others, days later
    sleepers    at every call, reads included, the process sleeps while others do one run, or runs for days

The tasks are to load, to compact, to close directories by hand, to expire closed ones and to give back lost marks.

A case is a function and its arguments; it is run on a world made for it, and raises whatever promise was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress

from tests.support.commit_simulation import Task, World

from millstream.hadoop_loader.commit import CommitError, CompactionConflictError, Role
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault

DIED = (SimulatedCrashError, CommitError, FileSystemError, FileNotFoundError)


# Records of each partition by the time that a case begins.
PRODUCED = 14


def prepare(world: World, task: Task | Role = Task.LOAD) -> None:
    """Two loads, so that there is something to compact, and more to load; a reader that begins behind them.

    Marks are lost where they are to be given back.
    """
    for produced in (4, 9):
        world.produced = produced
        world.driver().run(Role.LOAD)
    world.produced = PRODUCED
    world.pin()
    if task is Task.REPAIR:
        world.lose_marks()


WORLDS: dict[str, dict[str, bool]] = {
    "closed": {},
    # Directories that never close: files are replaced one by one.
    "open": {"closes": False, "compacts_open": True},
    # Both, and directories that close after files of theirs were replaced.
    "both": {"compacts_open": True},
}
"""What kinds of worlds there are, as World takes them."""


TASKS: dict[str, tuple[Task, ...]] = {
    "closed": (Task.LOAD, Task.COMPACT, Task.EXPIRE, Task.REPAIR),
    "open": (Task.LOAD, Task.COMPACT, Task.CLOSE, Task.EXPIRE),
    "both": tuple(Task),
}
"""What processes may come for in each of them."""


Kinds = Callable[[str], World]


def _world(kind: str) -> World:
    return World(**WORLDS[kind])  # type: ignore[arg-type]


def count(task: Task, world: World) -> tuple[int, int]:
    """How many acts and how many calls a run takes without faults."""
    calls: list[str] = []
    prepare(world, task)
    driver = world.driver(before_call=calls.append)
    driver.run(task)
    return len(driver.filesystem.journal), len(calls)


def with_fault(world: World, task: Task, act: int, fault: Fault, is_beside: bool) -> None:
    """A run with a fault, alone or beside one of the other role, whose claim is older and which commits after it."""
    prepare(world, task)
    beside = world.driver()
    other = Role.LOAD if task.role is Role.COMPACT else Role.COMPACT
    claim = beside.log.claim(other, owner="beside", run_id="beside") if is_beside else None
    driver = world.driver({act: fault})
    with suppress(*DIED):
        driver.run(task)
    if claim is not None:
        with suppress(CompactionConflictError):
            beside.work(claim)
        claim.release()
    world.finish()


def with_late_act(world: World, task: Task, act: int, ends: bool, runs: int) -> None:
    """An act takes effect `runs` runs later, days after its driver went on or, with `ends`, died right there."""
    prepare(world, task)
    world.late.is_held = True
    driver = world.driver({act: Fault.LATE, **({act + 1: Fault.CRASH_BEFORE} if ends else {})})
    with suppress(*DIED):
        driver.run(task)
    world.finish(runs_before_late=runs)


def with_sleep(world: World, task: Task, call: int, others: Sequence[Task], days: int) -> None:
    """At a call the process sleeps: others run at once, then for days."""
    prepare(world, task)
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
        driver.run(task)
    world.finish()


Case = tuple[Callable[..., None], tuple[object, ...]]


def run_cases(
    cases: Sequence[Case], world: Callable[[int], AbstractContextManager[World]], *, at_once: int = 1
) -> None:
    """Run each in the world made for its seed; raise one error that names those that failed.

    `at_once` is how many: on a destination that is waited for, each waits for its own.
    """
    failed: list[tuple[str, ...]] = []

    def run_case(seed: int) -> None:
        run, arguments = cases[seed]
        try:
            with world(seed) as made:
                run(made, *arguments)
        except Exception as error:
            failed.append((*map(str, arguments), f"seed {seed}: {type(error).__name__}: {error}"))

    with ThreadPoolExecutor(at_once) as threads:
        list(threads.map(run_case, range(len(cases))))
    assert not failed, f"{len(failed)} of {len(cases)}, such as {failed[:5]}"


def faults(kind: str, world: Kinds = _world) -> Iterator[Case]:
    """The cases of a kind; how many acts there are is counted in a world in memory."""
    for task in TASKS[kind]:
        for act in range(1, count(task, world(kind))[0] + 1):
            for fault in Fault:
                for is_beside in (False, True):
                    yield with_fault, (task, act, fault, is_beside)


def late_acts(kind: str, world: Kinds = _world) -> Iterator[Case]:
    """As `faults`."""
    for task in TASKS[kind]:
        for act in range(1, count(task, world(kind))[0] + 1):
            for ends in (False, True):
                for runs in (0, 1, 2, 9):
                    yield with_late_act, (task, act, ends, runs)


def sleepers(kind: str, world: Kinds = _world) -> Iterator[Case]:
    """As `faults`, of calls."""
    others = [(Task.LOAD,), (Task.COMPACT,), (Task.COMPACT, Task.LOAD), *((task,) for task in TASKS[kind][2:])]
    for task in TASKS[kind]:
        for call in range(1, count(task, world(kind))[1] + 1):
            for meanwhile in others:
                yield with_sleep, (task, call, meanwhile, 0)
            yield with_sleep, (task, call, (), 9)
