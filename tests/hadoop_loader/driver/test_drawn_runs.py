"""Runs over drawn topics: records and partitions that come between them, ranges that are cut, transactions, deletions.

However a topic was filled and its load cut, into splits and into runs, each format holds after each run what another
client is shown up to where the run came, each record once, in the directory of its time.
"""

from __future__ import annotations

import datetime
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import confluent_kafka
import fastavro
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.support.drawing import drawn
from tests.support.loads import FIRST_MS
from tests.support.raw_topics import TIMEOUT_S, RawTopic, run_inline

from millstream import Admin
from millstream.hadoop_loader.driver import LoadReport, load
from millstream.hadoop_loader.job import FileLimits, LateSettings, LoadJob, Partitioning
from millstream.hadoop_loader.planning import Plan, plan_splits
from millstream.hadoop_loader.splits import OffsetRange
from millstream.testing.kafka import wait_until

pytestmark = pytest.mark.from_kafka(soak=True)

HOUR_MS: Final = 3_600_000
FORMATS: Final = "avro", "parquet"
SMALL_BYTES: Final = 150
"""Of a split: a partition with more than a record or two is cut."""

NewTopic = Callable[[int], RawTopic]
Row = tuple[int, int, bytes | None, str]  # partition, offset, value, directory


class Sending(NamedTuple):
    """Records sent in one go; in a transaction where the broker has any."""

    how: Literal["plain", "committed", "aborted"]
    # Partition (of those there are), hours behind the first time; None for the value: a deletion.
    records: list[tuple[int, int, int | None]]


sendings = st.lists(
    st.builds(
        Sending,
        how=st.sampled_from(["plain", "plain", "committed", "aborted"]),
        records=st.lists(
            st.tuples(st.integers(0, 4), st.integers(0, 30), st.none() | st.integers(0, 200)), min_size=1, max_size=12
        ),
    ),
    max_size=5,
)
jobs = st.fixed_dictionaries(
    {
        "tombstones": st.sampled_from(["row", "skip"]),
        "limits": st.builds(FileLimits, rows=st.none() | st.integers(1, 7)),
        "partitioning": st.sampled_from(
            [Partitioning(kind="none"), Partitioning(kind="kafka"), Partitioning(pattern="dt=%Y-%m-%d/hour=%H")]
        ),
        "late": st.builds(
            LateSettings,
            close_after_s=st.sampled_from([0.0, 7_200.0]),
            policy=st.sampled_from(["separate", "append"]),
            idle_partitions=st.sampled_from(["ignore", "wait"]),
        ),
    }
)
_numbers = itertools.count()


@pytest.fixture
def new_topic(broker_kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> NewTopic:
    kind = "millstream_broker_session" if broker_kind == "millstream" else "apache_kafka"
    bootstrap: str = request.getfixturevalue(kind).bootstrap_servers

    def made(partitions: int) -> RawTopic:
        return RawTopic(bootstrap, tmp_path_factory.mktemp("lake"), partitions=partitions)

    return made


def send(topic: RawTopic, sendings: Sequence[Sending], *, has_transactions: bool) -> None:
    """Send all of it, each value another one."""
    transactional = None
    for how, records in sendings:
        if how == "plain" or not has_transactions:
            producer = topic.producer()
        else:
            producer = transactional = transactional or topic.producer(f"{topic.name}-{next(_numbers)}")
            producer.begin_transaction()
        for partition, hours, size in records:
            value = None if size is None else b"%d" % next(_numbers) + b"." * size
            producer.produce(
                topic.name, value, partition=partition % topic.partitions, timestamp=FIRST_MS + hours * HOUR_MS
            )
        assert not producer.flush(TIMEOUT_S)
        if producer is not transactional:
            continue
        if how == "committed":
            producer.commit_transaction(TIMEOUT_S)
        else:
            producer.abort_transaction(TIMEOUT_S)
    topic.wait_for_markers()


def shown(topic: RawTopic, isolation_level: str, directory: Callable[[int, int], str]) -> Counter[Row]:
    """What another client's consumer is shown, with the `directory` of its partition and time."""
    configs = {"bootstrap.servers": topic.bootstrap, "group.id": "drawn", "fetch.wait.max.ms": 10}
    consumer = confluent_kafka.Consumer({**configs, "enable.partition.eof": True, "isolation.level": isolation_level})
    found: Counter[Row] = Counter()
    try:
        at_begin = confluent_kafka.OFFSET_BEGINNING
        consumer.assign([confluent_kafka.TopicPartition(topic.name, one, at_begin) for one in range(topic.partitions)])
        left = topic.partitions
        while left:
            message = consumer.poll(TIMEOUT_S)
            assert message is not None, "the topic was not read to its end"
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            if message.error() is not None:
                left -= 1
                continue
            time_ms = message.timestamp()[1]
            found[partition, offset, message.value(), directory(partition, time_ms)] += 1
    finally:
        consumer.close()
    return found


def held(topic: RawTopic, name: str) -> Counter[Row]:
    """What the files of a format hold, late records among it."""
    root = Path(topic.uri.removeprefix("file://"))
    found: Counter[Row] = Counter()
    for table in (topic.name, f"{topic.name}.late"):
        folder = root / table / name
        for path in folder.rglob(f"*.{name}"):
            place = str(path.parent.relative_to(folder))
            found.update((*row, "" if place == "." else place) for row in rows_of(path))
    return found


def rows_of(path: Path) -> list[tuple[int, int, bytes | None]]:
    rows: list[Any]
    if path.suffix == ".avro":
        with path.open("rb") as file:
            rows = list(fastavro.reader(file))
    else:
        rows = pq.ParquetFile(path).read().to_pylist()
    return [(row["_kafka_partition"], row["_kafka_offset"], row["value"]) for row in rows]


def cut_into(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have runs cut ranges into splits of so many bytes, of which a job's are a million at the least."""

    def planned(ranges: Sequence[OffsetRange], *, workers: int, split_bytes: int) -> Plan:
        plan = plan_splits(ranges, workers=workers, split_bytes=size)
        pieces = Counter(one.partition for split in plan.splits for one in split.ranges)
        for one in ranges:
            offsets = one.end_offset - one.start_offset
            assert pieces[one.partition] > 1 or offsets == 1 or one.estimated_bytes <= size, (one, plan)
        return plan

    monkeypatch.setattr(load, "plan_splits", planned)


def directory_of(partitioning: Partitioning) -> Callable[[int, int], str]:
    def named(partition: int, time_ms: int) -> str:
        if partitioning.kind != "time":
            return f"partition={partition}" if partitioning.kind == "kafka" else ""
        return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).strftime(partitioning.time_pattern)

    return named


def add_partitions(topic: RawTopic, count: int) -> None:
    if not count:
        return
    with Admin(topic.bootstrap) as admin:
        topic.partitions += count
        admin.create_partitions({topic.name: topic.partitions})
        wait_until(
            lambda: len(admin.describe_topic(topic.name).partitions) == topic.partitions, 60.0, "the new partitions"
        )


@drawn(3, soaked=150)
@given(
    before=sendings,
    between=sendings,
    partitions=st.integers(1, 3),
    added=st.integers(0, 2),
    changes=jobs,
    isolation_level=st.sampled_from(["read_committed", "read_uncommitted"]),
    split_bytes=st.sampled_from([SMALL_BYTES, SMALL_BYTES, 1_000, 1_000_000]),
    run_bytes_max=st.sampled_from([None, 300, 3_000]),
)
@example(
    before=[Sending("plain", [(0, hour, 50) for hour in range(8)]), Sending("aborted", [(0, 9, 9)] * 3)],
    between=[Sending("committed", [(at % 3, 12 - at, None if at == 4 else 50) for at in range(12)])],
    partitions=1,
    added=2,
    changes={"partitioning": Partitioning(pattern="dt=%Y-%m-%d/hour=%H"), "late": LateSettings(close_after_s=0.0)},
    isolation_level="read_committed",
    split_bytes=SMALL_BYTES,
    run_bytes_max=300,
)
def test_after_each_run_the_files_hold_what_the_topic_shows(
    broker_kind: str,
    new_topic: NewTopic,
    monkeypatch: pytest.MonkeyPatch,
    before: list[Sending],
    between: list[Sending],
    partitions: int,
    added: int,
    changes: dict[str, Any],
    isolation_level: str,
    split_bytes: int,
    run_bytes_max: int | None,
) -> None:
    topic = new_topic(partitions)
    cut_into(monkeypatch, split_bytes)
    job = topic.job(changes=changes, isolation_level=isolation_level, run_bytes_max=run_bytes_max)
    job = replace(job, destination=replace(job.destination, formats=frozenset(FORMATS)))
    directory = directory_of(job.partitioning)
    reached: Counter[int] = Counter()

    def run(job: LoadJob, rows: Counter[Row]) -> LoadReport:
        report = run_inline(job)
        assert (report.errors, report.exit_code) == ([], 0)
        for of_topic in report.topics:
            reached.update({one.partition: one.next_offset - reached[one.partition] for one in of_topic.partitions})
        expected = Counter(
            row for row in rows if row[1] < reached[row[0]] and (row[2] is not None or job.tombstones == "row")
        )
        for name in FORMATS:
            assert held(topic, name) == expected, name
        return report

    has_transactions = broker_kind == "kafka"
    send(topic, before, has_transactions=has_transactions)
    run(job, shown(topic, isolation_level, directory))
    add_partitions(topic, added)
    send(topic, between, has_transactions=has_transactions)
    rows = shown(topic, isolation_level, directory)
    assert set(rows.values()) <= {1}
    run(job, rows)
    last = run(replace(job, source=replace(job.source, run_bytes_max=None)), rows)
    assert last.audit["lag"] == 0
    assert all(offset < reached[partition] for partition, offset, *_ in rows)
    assert run(job, rows).rows == 0
