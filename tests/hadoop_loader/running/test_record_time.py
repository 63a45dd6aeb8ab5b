"""What record time a split has come to, which closes directories."""

from __future__ import annotations

from pathlib import Path

from tests.support.loads import FIRST_MS
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.job import Partitioning, ValueSettings
from millstream.hadoop_loader.tables import TableVersion
from millstream.testing import TestBroker

HOUR_MS = 3_600_000


def test_a_time_that_no_calendar_has_moves_nothing(millstream_broker_session: TestBroker, tmp_path: Path) -> None:
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, "record-time", tmp_path, partitions=2)
    microseconds = FIRST_MS * 1000  # for milliseconds, as some producers have it
    times = [(0, FIRST_MS), (0, FIRST_MS + HOUR_MS), (0, microseconds), (0, FIRST_MS), (1, microseconds)]
    topic.send([Record(b"%d" % n, partition=tp, timestamp_ms=time) for n, (tp, time) in enumerate(times)])
    job = topic.job(
        formats={"avro"},
        value=ValueSettings(format="raw"),
        partitioning=Partitioning(kind="time", pattern="hourly"),
    )

    done = topic.run(job, TableVersion(topic.name, topic.name))

    assert sorted(row["value"] for _, row in done.rows("avro")) == [b"0", b"1", b"3"]
    found = {read.partition: (read.bad, read.max_timestamp_ms) for read in done.result.read}
    assert found == {0: (1, FIRST_MS + HOUR_MS), 1: (1, -1)}
