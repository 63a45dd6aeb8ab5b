"""The local engine with workers that do as told: every task ends in one event, whatever becomes of its worker."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from millstream.hadoop_loader.engines import AttemptFailed, AttemptFinished, AttemptProgressed, EngineError, EngineEvent
from millstream.hadoop_loader.engines.local import LocalEngine
from millstream.hadoop_loader.engines.task_runner import WORKER_ENVIRONMENT, stall_bound_s
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, SourceSettings, ValueSettings
from millstream.hadoop_loader.splits import Split, SplitTask

DEADLINE_S = 60.0


def task(number: int, script: str, attempt: int = 0) -> SplitTask:
    job: Any = None  # no scripted runner looks at it
    return SplitTask(job, Split(number, ()), attempt, "staging", script, {})


def ends(engine: LocalEngine, count: int) -> list[AttemptFinished | AttemptFailed]:
    """Wait for so many attempts to end."""
    found: list[AttemptFinished | AttemptFailed] = []
    deadline = time.monotonic() + DEADLINE_S
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} attempts ended"
        found += [event for event in engine.events(0.5) if not isinstance(event, AttemptProgressed)]
    return found


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(2, worker_module="tests.support.scripted_worker")
    yield made
    made.stop()


def test_tasks_run_on_so_many_processes(engine: LocalEngine) -> None:
    engine.submit([task(number, "finish") for number in range(20)])

    found = ends(engine, 20)

    assert {event.result.split for event in found if isinstance(event, AttemptFinished)} == set(range(20))
    assert len(engine.worker_pids()) <= 2
    assert os.getpid() not in engine.worker_pids()


def test_workers_take_memory_as_they_are_told_where_the_user_says_nothing(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in WORKER_ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    engine.submit([task(0, "wait for stop")])

    [pid] = engine.worker_pids()
    environment = psutil.Process(pid).environ()

    assert {name: environment[name] for name in WORKER_ENVIRONMENT} == {**WORKER_ENVIRONMENT, "MALLOC_ARENA_MAX": "7"}
    assert int(environment["MALLOC_TRIM_THRESHOLD_"]) <= 32 << 20


def test_progress_comes_before_the_end(engine: LocalEngine) -> None:
    engine.submit([task(1, "finish")])

    told: list[EngineEvent] = []
    deadline = time.monotonic() + DEADLINE_S
    while not any(isinstance(event, AttemptFinished) for event in told):
        assert time.monotonic() < deadline
        told += engine.events(0.5)

    assert [type(event) for event in told] == [AttemptProgressed, AttemptFinished]


def test_a_worker_that_dies_fails_its_task_only(engine: LocalEngine) -> None:
    engine.submit([task(0, "die"), *(task(number, "finish") for number in range(1, 6))])

    found = ends(engine, 6)

    died = [event for event in found if isinstance(event, AttemptFailed)]
    assert [event.split for event in died] == [0]
    assert died[0].is_retriable
    assert "SIGKILL" in died[0].error
    assert "on its way out" in died[0].detail


def test_another_worker_takes_the_next_attempt(engine: LocalEngine) -> None:
    engine.submit([task(0, "die once")])
    assert isinstance(ends(engine, 1)[0], AttemptFailed)

    engine.submit([task(0, "die once", attempt=1)])

    [end] = ends(engine, 1)
    assert isinstance(end, AttemptFinished)
    assert end.result.attempt == 1


@pytest.mark.parametrize("script", ["hang", "hang in the middle"])
def test_a_worker_that_says_nothing_is_killed(script: str) -> None:
    engine = LocalEngine(1, stall_s=1.0, worker_module="tests.support.scripted_worker")
    try:
        engine.submit([task(0, script)])
        [end] = ends(engine, 1)
    finally:
        engine.stop()

    assert isinstance(end, AttemptFailed)
    assert "nothing was heard" in end.error


def test_a_worker_that_is_frozen_holds_nobody_up() -> None:
    engine = LocalEngine(1, stall_s=1.0, worker_module="tests.support.scripted_worker")
    try:
        engine.submit([task(0, "finish")])
        assert isinstance(ends(engine, 1)[0], AttemptFinished)
        [frozen] = engine.worker_pids()
        os.kill(frozen, signal.SIGSTOP)
        # More than the socket holds: who sends it waits for the one who reads.
        engine.submit([task(1, "finish" + " " * 20_000_000)])
        [end] = ends(engine, 1)

        assert isinstance(end, AttemptFailed)
        assert "nothing was heard" in end.error
        assert not psutil.pid_exists(frozen)
        engine.submit([task(1, "finish", attempt=1)])
        assert isinstance(ends(engine, 1)[0], AttemptFinished)
    finally:
        engine.stop()


@pytest.mark.parametrize("script", ["wait for stop", "finish"])
def test_stop_leaves_no_process(engine: LocalEngine, script: str) -> None:
    engine.submit([task(0, script), task(1, script)])
    engine.events(DEADLINE_S)
    processes = [psutil.Process(pid) for pid in engine.worker_pids()]

    engine.stop()

    assert processes
    assert not any(process.is_running() for process in processes)


def test_workers_end_with_their_driver(engine: LocalEngine) -> None:
    engine.submit([task(0, "hang")])
    engine.events(DEADLINE_S)
    [pid] = engine.worker_pids()[:1]
    process = psutil.Process(pid)

    for worker in engine._workers:  # as the end of this process would
        worker.hang_up()

    process.wait(DEADLINE_S)


def test_workers_that_cannot_start_are_an_error() -> None:
    engine = LocalEngine(1, worker_module="tests.support.broken_worker")
    engine.submit([task(0, "finish")])
    try:
        with pytest.raises(EngineError, match="nothing works here"):
            ends(engine, 1)
    finally:
        engine.stop()


def test_workers_that_are_never_ready_are_an_error() -> None:
    engine = LocalEngine(1, start_s=0.5, worker_module="tests.support.silent_worker")
    engine.submit([task(0, "finish")])
    try:
        with pytest.raises(EngineError, match="not ready within"):
            ends(engine, 1)
    finally:
        engine.stop()


def test_a_job_with_long_waits_is_left_to_wait() -> None:
    def job(deadline_s: float = 60.0, timeout_s: float = 60.0, request_ms: str = "30000") -> LoadJob:
        return LoadJob(
            name="patient",
            value=ValueSettings(format="raw"),
            source=SourceSettings(
                bootstrap_servers="127.0.0.1:9",
                topics=("t",),
                timeout_s=timeout_s,
                client={"request.timeout.ms": request_ms},
            ),
            destination=DestinationSettings(uri="file:///lake", deadline_s=deadline_s),
        )

    assert stall_bound_s(job()) == 600.0
    assert stall_bound_s(job(deadline_s=900.0)) == 1_800.0
    assert stall_bound_s(job(timeout_s=700.0, request_ms="800000")) == 1_600.0
