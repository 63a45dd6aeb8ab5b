"""A load in a process of its own that is killed at one act on its destination: `python -m ... JOB ACT before|after`.

JOB is a pickled job. Prints the acts it came through where it is not killed.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from pathlib import Path

from millstream.hadoop_loader.commit import CommitSettings
from millstream.hadoop_loader.driver import run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import FileSystem, open_filesystem
from millstream.hadoop_loader.job import LoadJob
from millstream.testing.faulty_filesystem import FaultyFileSystem

QUICK = CommitSettings(claim_timeout_s=1.0, renewal_interval_s=0.2)


def main(job_path: str, act: int, when: str) -> None:
    job: LoadJob = pickle.loads(Path(job_path).read_bytes())
    opened: list[FaultyFileSystem] = []

    def open_counting(job: LoadJob) -> FileSystem:
        def look(_name: str) -> None:
            # Before the call the act is not counted yet.
            done = opened[0].acts if opened else 0
            if done == (act - 1 if when == "before" else act):
                os.kill(os.getpid(), signal.SIGKILL)

        filesystem = open_filesystem(job.destination.uri, job.destination.filesystem)
        is_before = when == "before"
        opened.append(
            FaultyFileSystem(filesystem, before_call=look if is_before else None, after_act=None if is_before else look)
        )
        return opened[0]

    report = run_load(job, surroundings=Surroundings(open_filesystem=open_counting, commit_settings=QUICK))
    print(opened[0].acts, report.outcome, report.errors)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
