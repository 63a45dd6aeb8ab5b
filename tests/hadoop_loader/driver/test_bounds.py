"""Where runs begin and end: what the job says of it, topics and partitions that come later, other loaders' offsets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.support.loads import FIRST_MS, KEPT
from tests.support.raw_topics import RawTopic, assert_held, rows_of, run_inline

from millstream import Admin, TopicPartition
from millstream.core.client.group_offsets import CommittedOffset
from millstream.hadoop_loader.driver import LoadReport, Outcome
from millstream.hadoop_loader.job import LoadJob
from millstream.testing import TestBroker
from millstream.testing.kafka import wait_until

MINUTE_MS = 60_000  # between records


@pytest.fixture
def topic(millstream_broker_session: TestBroker, tmp_path: Path) -> RawTopic:
    return RawTopic(millstream_broker_session.bootstrap_servers, tmp_path / "lake", partitions=2)


def send(topic: RawTopic, count: int) -> None:
    """Send so many to each partition: those of the first one are the earlier ones."""
    for partition in range(topic.partitions):
        topic.send(count, partition=partition)


def offsets(topic: RawTopic) -> dict[int, list[int]]:
    """What was loaded, by partition."""
    found: dict[int, list[int]] = {}
    for partition, offset, _ in sorted(topic.rows().elements()):
        found.setdefault(partition, []).append(offset)
    return found


def loaded(job: LoadJob) -> int:
    """Run it, and return the rows of the run."""
    report = run_inline(job)
    assert (report.errors, report.exit_code) == ([], 0)
    return report.rows


@pytest.mark.parametrize(
    ("start", "first"),
    [("earliest", {0: 0, 1: 0}), ("latest", {0: 10, 1: 10}), (FIRST_MS + 13 * MINUTE_MS, {0: 10, 1: 3})],
)
def test_a_topic_starts_where_the_job_says(topic: RawTopic, start: str | int, first: dict[int, int]) -> None:
    send(topic, 10)
    job = topic.job(start=start)

    assert loaded(job) == sum(10 - each for each in first.values())
    send(topic, 5)

    assert loaded(job) == 10
    assert offsets(topic) == {partition: list(range(each, 15)) for partition, each in first.items()}


def test_runs_stop_where_the_job_says_and_the_next_one_goes_on_there(topic: RawTopic) -> None:
    send(topic, 10)
    stops: list[tuple[dict[str, Any], dict[int, int]]] = [
        ({"stop_offsets": {topic.name: {0: 3, 1: 4}}}, {0: 3, 1: 4}),
        ({"stop": FIRST_MS + 8 * MINUTE_MS}, {0: 8, 1: 4}),
        ({"stop": FIRST_MS + 18 * MINUTE_MS, "stop_offsets": {topic.name: {1: 6}}}, {0: 10, 1: 6}),
        ({}, {0: 10, 1: 10}),
    ]
    before = 0
    for stop, ends in stops:
        assert loaded(topic.job(**stop)) == sum(ends.values()) - before
        before = sum(ends.values())
        assert offsets(topic) == {partition: list(range(end)) for partition, end in ends.items()}
    assert_held(topic)


def test_a_pattern_finds_topics_and_partitions_that_are_added_between_runs(topic: RawTopic) -> None:
    send(topic, 5)
    later = f"{topic.name}-later"
    job = topic.job()
    pattern = f"{topic.name}|{topic.name}-.*"
    # Of a topic that was loaded, a partition that comes is never begun at its end.
    source = replace(job.source, topics=(), topics_pattern=pattern, exclude_pattern=".*-not", start="latest")
    job = replace(job, source=source)
    assert loaded(job) == 0

    with Admin(topic.bootstrap) as admin:
        admin.create_topic(later, partitions=1, configs=KEPT)
        admin.create_topic(f"{topic.name}-not", partitions=1, configs=KEPT)
        admin.create_partitions({topic.name: 3})
        wait_until(lambda: len(admin.describe_topic(topic.name).partitions) == 3, 60.0, "the partition")
        topic.partitions = 3
        assert loaded(job) == 0
        send(topic, 2)
        producer = topic.producer()
        for name in (later, f"{topic.name}-not"):
            producer.produce(name, b"0", partition=0, timestamp=FIRST_MS)
        assert not producer.flush(60)

    assert loaded(job) == 3 * 2 + 1
    assert offsets(topic) == {0: [5, 6], 1: [5, 6], 2: [0, 1]}
    assert sum(rows_of(topic.uri, later, "parquet").values()) == 1


def commit(topic: RawTopic, group: str, at: dict[int, int]) -> None:
    """Commit as another loader does."""
    with Admin(topic.bootstrap) as admin:
        committed = {TopicPartition(topic.name, partition): CommittedOffset(offset) for partition, offset in at.items()}
        assert set(admin.alter_group_offsets(group, committed).values()) == {None}


def test_where_another_loader_ended_this_one_begins(topic: RawTopic) -> None:
    send(topic, 10)
    group = f"connect-{topic.name}"
    commit(topic, group, {0: 4, 1: 9})
    given = topic.job(start_group=group, start_offsets={topic.name: {1: 7}})

    assert loaded(given) == 6 + 3
    send(topic, 2)
    # The group means nothing any more.
    commit(topic, group, {0: 12, 1: 12})

    assert loaded(given) == 4
    assert offsets(topic) == {0: list(range(4, 12)), 1: list(range(7, 12))}


def test_a_group_that_nobody_knows_loads_nothing_twice(topic: RawTopic) -> None:
    send(topic, 3)

    def run(**source: Any) -> LoadReport:
        return run_inline(topic.job(**source))

    unknown = run(start_group="conect")
    beyond = run(start_offsets={topic.name: {0: 3, 1: 4}})

    assert [(one.outcome, one.exit_code) for one in (unknown, beyond)] == [(Outcome.FAILED, 1)] * 2
    assert f"group conect has committed nothing of topic {topic.name}" in unknown.errors[0]
    assert "source.start_offsets is 4, and its log ends at 3" in beyond.errors[0]
    assert topic.rows().total() == 0
    assert run(start_offsets={topic.name: {0: 3, 1: 2}}).rows == 1
    assert offsets(topic) == {1: [2]}
