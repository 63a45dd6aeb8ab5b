"""A driver in a process of its own that kills itself, with SIGKILL, before or after the first act of a name.

    python -m tests.support.killed_driver URI TASK KIND before|after PATTERN

What it would do otherwise is one run of `commit_simulation.Driver`, for a task, in a world of a kind that is prepared
for it. It ends with 0 if no act had that name.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from tests.support.commit_matrices import PRODUCED, TASKS, WORLDS, prepare
from tests.support.commit_simulation import SETTINGS, Driver, Task, World

from millstream.hadoop_loader.filesystem import FileSystem, FileSystemSettings, open_filesystem
from millstream.testing.faulty_filesystem import FaultyFileSystem
from millstream.testing.memory_filesystem import MemoryFileSystem

# The fault points of the protocol, by what their acts are called.
POINTS = {
    "the claim's counter": r"create _millstream/renewals",
    "the temporary entry": r"create _millstream/publishing",
    "its bytes": r"write _millstream/publishing",
    "its sync": r"sync _millstream/publishing",
    "its end": r"close _millstream/publishing",
    "publishing the claim": r"rename _millstream/publishing/\d+\+killed.* -> _millstream/log",
    "the epoch's staging": r"make_child _millstream/staging/\d+-\w+$",
    "cleaning staging": r"rename _millstream/staging/\d+-\w+ -> _millstream/discarded",
    "emptying discarded": r"delete _millstream/discarded",
    "a renewal": r"rename _millstream/renewals",
    "a split's staging": r"make_child _millstream/staging/\d+-\w+/",
    "a staged file": r"write _millstream/staging",
    "a staged file's end": r"close _millstream/staging",
    "an empty directory": r"make_directory _millstream/staging",
    "the directories": r"make_directory orders",
    "a file's move": r"rename _millstream/staging/[^ ]+ -> orders/[^ ]+\+\d+\.",
    "_SUCCESS": r"create orders/[^ ]+/_SUCCESS",
    "room in trash": r"make_directory _millstream/trash",
    "a compacted file's name": r"rename _millstream/staging/[^ ]+ -> _millstream/staging",
    "a directory into trash": r"rename orders/[^+ ]+ -> _millstream/trash",
    "a replaced file into trash": r"rename orders/[^ ]+\+\d+\.\w+ -> _millstream/trash",
    "a compacted directory in": r"rename _millstream/staging/[^ ]+ -> orders/[^+]+$",
    "a compacted file in": r"rename _millstream/staging/[^ ]+ -> orders/[^ ]+\+c0\+",
    "the mark that it is applied": r"create _millstream/applied",
    "a run of the inventory": r"close _millstream/inventory",
    "the checkpoint": r"rename [^ ]+ -> _millstream/checkpoints",
    "giving the claim back": r"delete _millstream/renewals",
}


def world_of(kind: str, destination: FileSystem | None = None, seed: int = 0) -> World:
    """A world of a kind, as small as can be: on HDFS each file that is closed takes half a second.

    Real clocks stamp what is in trash: it is kept for no time here, and goes with the next claim.
    """
    settings = replace(SETTINGS, entries_per_checkpoint=2, snapshot_retention_s=0)
    few = {"partitions": 1, "formats": ("parquet",), "settings": settings, **WORLDS[kind]}
    return World(seed=seed, destination=destination, **few)  # type: ignore[arg-type]


def kills() -> Iterator[tuple[str, str, Task, str]]:
    """Every fault point that the run of a task has: its name, the moment, the task and the kind of world."""
    for kind, tasks in TASKS.items():
        for task in tasks:
            # Each act has a time of its own, as on a disk: what a run lays into trash is younger than its claim.
            world = world_of(kind, MemoryFileSystem(now_ms=count(time.time_ns() // 1_000_000).__next__))
            prepare(world, task)
            filesystem = FaultyFileSystem(world.disk)
            _driver(world, filesystem).run(task)
            for point, pattern in POINTS.items():
                if any(re.match(pattern, name) for name in filesystem.journal):
                    for when in ("before", "after"):
                        yield point, when, task, kind


def _driver(world: World, filesystem: FaultyFileSystem) -> Driver:
    return Driver(world, filesystem, f"killed-{time.time_ns()}", random.Random())


def main(uri: str, task: str, kind: str, when: str, pattern: str) -> int:
    """Run until killed."""

    def die(name: str, moment: str) -> None:
        if moment == when and re.match(pattern, name):
            os.kill(os.getpid(), signal.SIGKILL)

    world = world_of(kind, open_filesystem(uri, FileSystemSettings()))
    world.produced = PRODUCED
    filesystem = FaultyFileSystem(
        world.disk,
        before_call=lambda name: die(name, "before"),
        after_act=lambda name: die(name, "after"),
    )
    _driver(world, filesystem).run(Task(task))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
