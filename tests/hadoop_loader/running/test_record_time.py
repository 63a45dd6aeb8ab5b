"""What time a split has come to, which closes directories: the records' own, or a field's."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.loads import FIRST_MS
from tests.support.split_runs import Record, SplitTopic

from millstream.hadoop_loader.job import Partitioning, ValueSettings
from millstream.hadoop_loader.tables import TableVersion, merge
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


def test_where_a_field_names_directories_its_time_is_what_counts(
    millstream_broker_session: TestBroker, tmp_path: Path
) -> None:
    """Old events that are sent now close nothing of their time; deletions are placed by when they were sent."""
    topic = SplitTopic(millstream_broker_session.bootstrap_servers, "field-time", tmp_path, partitions=2)
    now = FIRST_MS + 1_000 * HOUR_MS

    def event(at: object, country: str = "CH") -> bytes:
        return json.dumps({"at": at, "country": country}).encode()

    values = [event("2026-01-01T00:30:00Z"), event("2026-01-01T02:30:00+01:00", "DE"), event("soon"), None]
    topic.send([Record(one, timestamp_ms=now) for one in values])
    topic.send([Record(None, partition=1, timestamp_ms=now)])
    fields = [{"name": "at", "type": "string"}, {"name": "country", "type": "string"}]
    schema = json.dumps({"type": "record", "name": "Event", "fields": fields})
    partitioning = Partitioning(kind="time", pattern="dt=%Y-%m-%d/hour=%H", timestamp="at", fields=("country",))
    job = topic.job(
        value=ValueSettings(format="json", framing="none", schema=schema),
        partitioning=partitioning,
        metadata_columns=("offset",),
    )

    done = topic.run(job, merge(None, {0: schema}, topic=topic.name).version)

    sent = "country=__HIVE_DEFAULT_PARTITION__/dt=2026-02-11/hour=16"
    placed = {
        "country=CH/dt=2026-01-01/hour=00": ["2026-01-01T00:30:00Z"],
        "country=DE/dt=2026-01-01/hour=01": ["2026-01-01T02:30:00+01:00"],
        sent: [None, None],
    }
    for format_ in ("avro", "parquet"):
        found: dict[str, list[object]] = {}
        for directory, row in done.rows(format_):
            found.setdefault(directory, []).append(row["at"])
        assert found == placed
    assert [letter["error"] for letter in done.dead_letters()] == ["the field 'at' has no time that names a directory"]
    newest = {read.partition: read.max_timestamp_ms for read in done.result.read}
    assert newest == {0: FIRST_MS + 90 * 60_000, 1: -1}
