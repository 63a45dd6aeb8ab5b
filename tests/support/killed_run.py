"""A command of the loader in a process of its own that is killed at one act on its destination:

    python -m tests.support.killed_run COMMAND JOB ACT before|after

JOB is a pickled job. Prints the acts it came through where it is not killed.
"""

from __future__ import annotations

import itertools
import os
import pickle
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from millstream.hadoop_loader.commit import CommitSettings
from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.anew import load_anew
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.directories import close_directories, drop_tables, expire_directories
from millstream.hadoop_loader.driver.replay import replay_dead_letters
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.driver.verify import verify_destination
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import LoadJob
from millstream.testing.faulty_filesystem import FaultyFileSystem

QUICK: Final = CommitSettings(claim_timeout_s=1.0, renewal_interval_s=0.2)
"""For runs that are to take over from one that was killed."""
EXPIRED_BEFORE_MS: Final = 1_767_312_000_000  # 2026-01-02T00:00:00Z
NEW_TABLE: Final = "anew"
"""Of the job's topic, once that is loaded anew."""
WHEN: Final = ("before", "after")
CHECKOUT: Final = Path(__file__).parents[2]

COMMANDS: Final[dict[str, Callable[[LoadJob, Surroundings], Any]]] = {
    "load": lambda job, world: run_load(job, surroundings=world),
    "compact": lambda job, world: run_compaction(job, surroundings=world),
    "close": lambda job, world: close_directories(job, surroundings=world),
    "expire": lambda job, world: expire_directories(job, before_ms=EXPIRED_BEFORE_MS, surroundings=world),
    "anew": lambda job, world: load_anew(job, job.source.topics[0], NEW_TABLE, surroundings=world),
    "drop": lambda job, world: drop_tables(job, job.source.topics, surroundings=world),
    "replay": lambda job, world: replay_dead_letters(job, surroundings=world),
    "repair": lambda job, world: verify_destination(job, offline=True, repair=True, surroundings=world),
}


def killed(command: str, job: LoadJob, folder: Path, act: int, when: str) -> bool:
    """Run a command that is killed at an act, if it comes there; returns whether it was."""
    path = folder / "job"
    path.write_bytes(pickle.dumps(job))
    ended = subprocess.run(
        [sys.executable, "-m", __name__, command, str(path), str(act), when],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == -signal.SIGKILL or ended.stdout, ended.stderr
    return ended.returncode == -signal.SIGKILL


def acts_of(command: str, job: LoadJob) -> int:
    """How many acts a command takes that nobody kills, renewals of its claim among them; it runs in this process."""
    opened: list[FaultyFileSystem] = []

    def open_counting(job: LoadJob) -> FileSystem:
        opened.append(FaultyFileSystem(open_filesystem(job.destination.uri, job.destination.filesystem)))
        return opened[-1]

    COMMANDS[command](job, Surroundings(open_filesystem=open_counting, commit_settings=QUICK))
    return sum(one.acts for one in opened)


def kill_points(command: str, job: LoadJob, sample: int | None, seed: int) -> Iterator[tuple[int, str]]:
    """Acts at which to kill a command, each before and after: so many of those that `job` takes, in its last
    two thirds, where it commits; or (None) all from the first, without an end: stop where one is not come to.
    """
    if sample is None:
        yield from ((act, when) for act in itertools.count(1) for when in WHEN)
        return
    acts = acts_of(command, job)
    points = [(act, when) for act in range(acts // 3, acts + 1) for when in WHEN]
    yield from random.Random(seed).sample(points, sample)


def main(command: str, job_path: str, act: int, when: str) -> None:
    job: LoadJob = pickle.loads(Path(job_path).read_bytes())
    opened: list[FaultyFileSystem] = []

    def look(_name: str) -> None:
        # Before the call the act is not counted yet; and another may have begun meanwhile, such as a renewal.
        if sum(one.acts for one in opened) >= (act - 1 if when == "before" else act):
            os.kill(os.getpid(), signal.SIGKILL)

    def open_counting(job: LoadJob) -> FileSystem:
        filesystem = open_filesystem(job.destination.uri, job.destination.filesystem)
        is_before = when == "before"
        opened.append(
            FaultyFileSystem(filesystem, before_call=look if is_before else None, after_act=None if is_before else look)
        )
        return opened[-1]

    ended = COMMANDS[command](job, Surroundings(open_filesystem=open_counting, commit_settings=QUICK))
    print(sum(one.acts for one in opened), ended)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
