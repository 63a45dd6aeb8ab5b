"""Two jobs with one root: what one of them does with tables it does with its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.support.commit_commands import job_of
from tests.support.inline_engine import InlineEngine
from tests.support.loads import Events, assert_same, job_for

from millstream.hadoop_loader.catalogs import known_tables
from millstream.hadoop_loader.commit import CommitSettings, LoadDraft, Role
from millstream.hadoop_loader.driver import Outcome, run_load
from millstream.hadoop_loader.driver.compacting import run_compaction
from millstream.hadoop_loader.driver.failures import remember_failure
from millstream.hadoop_loader.driver.replay import replay_dead_letters
from millstream.hadoop_loader.driver.report import LoadReport
from millstream.hadoop_loader.driver.status import status_of
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import CompactionSettings, LoadJob
from millstream.testing.memory_filesystem import MemoryFileSystem

COMPACTION = CompactionSettings(open_directories=True, files_min=2)


def inline(job: LoadJob) -> InlineEngine:
    return InlineEngine(job, open_filesystem(job.destination.uri, job.destination.filesystem))


def test_a_compaction_and_the_catalogs_leave_the_tables_of_another_job_alone(
    new_events: Callable[..., Events], tmp_path: Path
) -> None:
    world = Surroundings(open_engine=inline)
    mine, theirs = new_events(partitions=2), new_events(partitions=2)
    jobs = [replace(job_for(events, tmp_path), compaction=COMPACTION) for events in (mine, theirs)]
    for events, job in zip((mine, theirs), jobs, strict=True):
        events.send(300)
        assert run_load(job, surroundings=world).outcome is Outcome.LOADED

    wrong = run_compaction(jobs[0], tables=[theirs.topic])
    compacted = run_compaction(jobs[0])

    assert wrong.outcome is Outcome.FAILED
    assert f"{theirs.topic}: no such table of this job" in wrong.errors[0]
    assert f"there are {mine.topic}" in wrong.errors[0]
    assert (compacted.outcome, compacted.errors) == (Outcome.LOADED, [])
    assert {one.directory.partition("/")[0] for one in compacted.done} == {mine.topic}
    assert {one.directory.partition("/")[0] for one in run_compaction(jobs[1]).done} == {theirs.topic}
    with open_filesystem(jobs[0].destination.uri, jobs[0].destination.filesystem) as lake:
        state = world.commit_log(jobs[0], lake).read()
        assert [{table.topic for table in known_tables(job, state)} for job in jobs] == [{mine.topic}, {theirs.topic}]
    assert_same(mine, tmp_path, "avro", "parquet")
    assert_same(theirs, tmp_path, "avro", "parquet")


def test_a_job_neither_counts_nor_replays_the_letters_of_another(
    new_events: Callable[..., Events], tmp_path: Path
) -> None:
    world = Surroundings(open_engine=inline)
    mine, theirs = new_events(partitions=1), new_events(partitions=1)
    jobs = [job_for(events, tmp_path) for events in (mine, theirs)]
    mine.send(3)
    theirs.send(3)
    theirs.send_raw(b"no Avro at all")
    left = [run_load(job, surroundings=world).dead_letters for job in reversed(jobs)]

    counted = replay_dead_letters(jobs[0], dry_run=True)
    replayed = replay_dead_letters(jobs[0])
    asked_for = replay_dead_letters(jobs[0], topics=[theirs.topic])

    assert left == [{theirs.topic: 1}, {}]
    assert (counted.topics, replayed.topics, replayed.outcome) == ([], [], Outcome.NOTHING_NEW)
    assert asked_for.outcome is Outcome.FAILED
    assert f"{theirs.topic}: no topic of job" in asked_for.errors[0]
    assert [(one.topic, one.letters) for one in replay_dead_letters(jobs[1]).topics] == [(theirs.topic, 1)]


def test_what_a_job_left_out_is_red_until_its_own_next_run(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    other = replace(job, name="clicks")
    filesystem = MemoryFileSystem()
    # So that all of it goes through checkpoints.
    world = Surroundings(
        open_filesystem=lambda _job: filesystem, commit_settings=CommitSettings(entries_per_checkpoint=5)
    )
    log = world.commit_log(job, filesystem)

    def commit(job: LoadJob, report: dict[str, object]) -> int:
        claim = log.claim(Role.LOAD, owner="a", run_id=world.run_id())
        number = log.commit(claim, LoadDraft(report={"job": job.name, **report})).number
        claim.release()
        return number

    def red(job: LoadJob) -> list[str]:
        return [one.what for one in status_of(job, offline=True, surroundings=world).red]

    topics = {"orders": {"reason": "too many bad records"}}
    first = commit(job, {"outcome": "partial", "audit": {}, "topics": topics})
    failed = LoadReport(
        "r", job.name, "memory://", engine="local", started="2026-01-01T00:00:00+00:00", errors=["boom"]
    )
    remember_failure(filesystem, failed, first)
    is_red = [
        f"entry {first} left topic orders out: too many bad records",
        "the last run of orders committed nothing (2026-01-01T00:00:00+00:00): boom",
    ]
    assert (red(job), red(other)) == (is_red, [])

    # Neither what follows of other kinds, however much, nor a run of another job mends it.
    for _ in range(25):
        commit(job, {"outcome": "replayed"})
    commit(other, {"outcome": "loaded", "audit": {}})
    assert (red(job), red(other)) == (is_red, [])
    assert status_of(job, offline=True, surroundings=world).runs[0].number == first

    commit(job, {"outcome": "loaded", "audit": {}})
    assert (red(job), red(other)) == ([], [])
