"""TaskRunner: what it keeps between the tasks of one job, and what another job or a failure makes it let go of."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millstream.hadoop_loader import running
from millstream.hadoop_loader.engines import AttemptFailed, AttemptFinished
from millstream.hadoop_loader.engines.task_runner import TaskRunner
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, Partitioning, SourceSettings, ValueSettings
from millstream.hadoop_loader.splits import Split, SplitResult, SplitTask


class Runs:
    """In the place of `run_split`: notes what each split was read with, and fails those that are to fail."""

    def __init__(self) -> None:
        self.buffers: list[running.ReadingBuffers] = []
        self.fail_next = False

    def run_split(self, task: SplitTask, filesystem: Any, *, buffers: running.ReadingBuffers, **_: Any) -> SplitResult:
        self.buffers.append(buffers)
        if self.fail_next:
            self.fail_next = False
            raise ConnectionError("the broker is gone")
        return SplitResult(task.split.number, task.attempt, (), ())


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    made = Runs()
    monkeypatch.setattr(running, "run_split", made.run_split)
    return made


def task(root: Path, job_name: str = "one") -> SplitTask:
    job = LoadJob(
        name=job_name,
        source=SourceSettings(bootstrap_servers="127.0.0.1:9", topics=("orders",)),
        destination=DestinationSettings(uri=root.as_uri()),
        value=ValueSettings(format="raw", framing="none"),
        partitioning=Partitioning(kind="none"),
    )
    return SplitTask(job, Split(0, ()), 0, "staging", "run", {})


def run(runner: TaskRunner, given: SplitTask) -> AttemptFinished | AttemptFailed:
    return runner.run(given, threading.Event(), lambda _: None)


def test_splits_of_one_job_are_read_with_the_same_memory(tmp_path: Path, runs: Runs) -> None:
    runner = TaskRunner()
    for number in range(3):
        assert isinstance(run(runner, replace(task(tmp_path), attempt=number)), AttemptFinished)
    runner.close()

    assert len(runs.buffers) == 3
    assert len(set(map(id, runs.buffers))) == 1


@pytest.mark.parametrize("between", ["another job", "a failure", "close"])
def test_memory_is_new_after(tmp_path: Path, runs: Runs, between: str) -> None:
    runner = TaskRunner()
    run(runner, task(tmp_path))
    if between == "another job":
        run(runner, task(tmp_path, "two"))
    elif between == "a failure":
        runs.fail_next = True
        assert isinstance(run(runner, task(tmp_path)), AttemptFailed)
    else:
        runner.close()
    run(runner, task(tmp_path))
    runner.close()

    assert runs.buffers[-1] is not runs.buffers[0]


def test_a_process_of_somebody_else_keeps_none(tmp_path: Path, runs: Runs) -> None:
    runner = TaskRunner(keeps_buffers=False)
    run(runner, task(tmp_path))
    run(runner, task(tmp_path))
    runner.close()

    assert runs.buffers[0] is not runs.buffers[1]
