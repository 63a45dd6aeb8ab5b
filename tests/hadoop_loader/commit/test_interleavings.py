"""Several drivers at once, of all tasks, in seeded orders, some of them with faults or asleep for days.

Segments are of four numbers here, so that they are filled, covered and removed while a sleeper still means to use them.
MILLSTREAM_SOAK=1 runs many more seeds. To replay one: `-k test_drivers_at_once` with its seed in SEEDS.
"""

from __future__ import annotations

import os
import random
from contextlib import suppress
from dataclasses import replace

import pytest
from tests.support.commit_matrices import TASKS, WORLDS
from tests.support.commit_simulation import SETTINGS, Driver, Task, World
from tests.support.interleaving import Interleaving

from millstream.hadoop_loader.commit import CommitError, Role, names
from millstream.hadoop_loader.filesystem import FileSystemError
from millstream.testing.faulty_disk import SimulatedCrashError
from millstream.testing.faulty_filesystem import Fault

SEEDS = range(1500 if os.environ.get("MILLSTREAM_SOAK") == "1" else 40)
DIED = (SimulatedCrashError, CommitError, FileSystemError, FileNotFoundError, LookupError)


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "ENTRIES_PER_SEGMENT", 4)


def run_at_once(seed: int) -> None:
    rng = random.Random(seed)
    settings = replace(SETTINGS, entries_per_checkpoint=rng.choice((2, 5)))
    kind = rng.choice(list(WORLDS))
    world = World(seed=seed, settings=settings, produced=4, **WORLDS[kind])  # type: ignore[arg-type]
    world.driver().run(Role.LOAD)
    world.pin()
    turns = Interleaving(seed, freeze_chance=rng.choice((0.0, 0.02, 0.05)))

    def lives_on(task: Task) -> None:
        # One scheduled job: run after run, each a new process, with time between them.
        for _ in range(rng.randint(1, 4)):
            driver = one_driver()
            world.produced += rng.choice((0, 1, 3))
            if task is Task.REPAIR:
                world.lose_marks()
            with suppress(*DIED):
                driver.run(task)
            world.clock.wait(rng.choice((1, 100, settings.snapshot_retention_s)))

    def one_driver() -> Driver:
        faults = {rng.randint(1, 90): rng.choice(list(Fault)) for _ in range(rng.choice((0, 0, 1, 2)))}
        return world.driver(faults, before_call=turns.yield_)

    tasks = [Task.LOAD, Task.COMPACT, *rng.choices(TASKS[kind], k=rng.randint(0, 2))]
    turns.run([lambda task=task: lives_on(task) for task in tasks])  # type: ignore[misc]
    world.finish()


@pytest.mark.slow
def test_drivers_at_once() -> None:
    failed = []
    for seed in SEEDS:
        try:
            run_at_once(seed)
        except Exception as error:
            failed.append((seed, f"{type(error).__name__}: {error}"))
    assert not failed, f"{len(failed)} of {len(SEEDS)} seeds, such as {failed[:5]}"
