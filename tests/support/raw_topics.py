"""A topic of plain values, sent in transactions or not, and the loads of it: files hold what its readers are shown.

Values are running numbers. What is expected comes from another client, so that a record which ours passes over shows.
"""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import confluent_kafka
import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
from tests.support.inline_engine import InlineEngine
from tests.support.loads import FIRST_MS, KEPT, make_anew

from millstream import Admin
from millstream.hadoop_loader.driver import LoadReport, run_load
from millstream.hadoop_loader.driver.surroundings import Surroundings
from millstream.hadoop_loader.filesystem import FileSystem, FileSystemSettings, open_filesystem
from millstream.hadoop_loader.filesystem.settings import DEADLINE_S_DEFAULT
from millstream.hadoop_loader.job import DestinationSettings, LoadJob, Partitioning, SourceSettings, ValueSettings
from millstream.hadoop_loader.source import read_source
from millstream.hadoop_loader.splits import Progress
from millstream.testing.kafka import wait_until

TIMEOUT_S: Final = 60.0

Row = tuple[int, int, bytes]  # partition, offset, value

_numbers = count(1)


class RawTopic:
    """A topic, and jobs that load it to `root`, a path or an address, as Parquet."""

    def __init__(self, bootstrap: str, root: Path | str, *, partitions: int = 1, **configs: str) -> None:
        self.bootstrap = bootstrap
        # The address of the destination.
        self.uri = root if isinstance(root, str) else root.as_uri()
        self.partitions = partitions
        self.name = f"raw-{os.getpid()}-{next(_numbers)}"
        self._sent = 0
        with Admin(bootstrap) as admin:
            admin.create_topic(self.name, partitions=partitions, configs=KEPT | configs)

    def make_anew(self) -> None:
        """Delete the topic and make another of its name, without records."""
        make_anew(self.bootstrap, self.name, self.partitions)

    def producer(
        self, transactional_id: str | None = None, *, batch_messages: int = 10_000
    ) -> confluent_kafka.Producer:
        """Another project's producer; with an id its transactions are initialized, which fences earlier ones."""
        configs: dict[str, Any] = {"bootstrap.servers": self.bootstrap, "batch.num.messages": batch_messages}
        if transactional_id is None:
            return confluent_kafka.Producer(configs)
        producer = confluent_kafka.Producer({**configs, "transactional.id": transactional_id})
        producer.init_transactions(TIMEOUT_S)
        return producer

    def send(
        self, count: int, producer: confluent_kafka.Producer | None = None, *, partition: int = 0, size: int = 0
    ) -> None:
        """Send so many values to a partition, one minute of record time apart, each of `size` bytes at least."""
        producer = producer or self.producer()
        for number in range(self._sent, self._sent + count):
            value = b"%d" % number
            while True:
                try:
                    producer.produce(
                        self.name, value.ljust(size), partition=partition, timestamp=FIRST_MS + number * 60_000
                    )
                    break
                except BufferError:
                    producer.poll(1.0)
        self._sent += count
        assert not producer.flush(TIMEOUT_S)

    def wait_for_markers(self) -> None:
        """Wait until no transaction is open: their markers are written after `commit_transaction` has returned."""

        def is_over() -> bool:
            (now,) = read_source(self.job().source, {}, {}).topics.values()
            return all(each.end_offset == each.high_watermark for each in now.partitions)

        wait_until(is_over, TIMEOUT_S, "the transactions' markers")

    def job(self, *, changes: dict[str, Any] | None = None, **source: Any) -> LoadJob:
        """A job for the topic; `source` are settings of it, `changes` of the job."""
        settings: dict[str, Any] = {
            "name": "raw",
            "workers": 1,
            "source": SourceSettings(bootstrap_servers=self.bootstrap, topics=(self.name,), **source),
            "value": ValueSettings(format="raw"),
            "metadata_columns": ("partition", "offset"),
            "partitioning": Partitioning(kind="none"),
            "destination": DestinationSettings(uri=self.uri),
            **(changes or {}),
        }
        return LoadJob(**settings)

    def rows(
        self, name: str = "parquet", *, missing_ok: bool = False, deadline_s: float = DEADLINE_S_DEFAULT
    ) -> Counter[Row]:
        """What the files of a format hold, late records among it, as readers of plain directories see them.

        A directory that is being compacted is away for a moment: a file that was listed may be gone (`missing_ok`).
        A destination that is away does not answer for `deadline_s`.
        """
        return rows_of(self.uri, self.name, name, missing_ok=missing_ok, deadline_s=deadline_s)

    def shown(self, isolation_level: str = "read_committed") -> Counter[Row]:
        """What another client's consumer is shown, from the first offset to the end."""
        seen: Counter[Row] = Counter()
        consumer = confluent_kafka.Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "what is shown",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "isolation.level": isolation_level,
            }
        )
        try:
            consumer.assign(
                [
                    confluent_kafka.TopicPartition(self.name, partition, confluent_kafka.OFFSET_BEGINNING)
                    for partition in range(self.partitions)
                ]
            )
            at_end: set[int] = set()
            while len(at_end) < self.partitions:
                message = consumer.poll(TIMEOUT_S)
                assert message is not None, f"{self.name} was not read to its end"
                error, at, offset = message.error(), message.partition(), message.offset()
                assert at is not None
                if error is None:
                    assert offset is not None
                    seen[at, offset, message.value() or b""] += 1
                else:
                    assert error.code() == confluent_kafka.KafkaError._PARTITION_EOF, error
                    at_end.add(at)
        finally:
            consumer.close()
        return seen


def rows_of(
    uri: str, table: str, name: str, *, missing_ok: bool = False, deadline_s: float = DEADLINE_S_DEFAULT
) -> Counter[Row]:
    """What readers of plain directories see of a table with such values, as `RawTopic.rows`."""
    held: Counter[Row] = Counter()
    with open_filesystem(uri, FileSystemSettings(deadline_s=deadline_s)) as filesystem:
        for path in _files(filesystem, ""):
            if path.endswith(f".{name}") and path.partition("/")[0] in (table, f"{table}.late"):
                with suppress(FileNotFoundError) if missing_ok else nullcontext():
                    held += _rows(filesystem, path)
    return held


def _files(filesystem: FileSystem, folder: str) -> Iterator[str]:
    try:
        listed = filesystem.list(folder)
    except FileNotFoundError:
        return
    for status in listed:
        if not status.is_directory:
            yield status.path
        elif status.name != "_millstream":
            yield from _files(filesystem, status.path)


def _rows(filesystem: FileSystem, path: str) -> Counter[Row]:
    with filesystem.open(path) as file:
        data = file.read_at(0, file.size)
    if path.endswith(".avro"):
        records: Iterable[Any] = fastavro.reader(io.BytesIO(data))
        return Counter((one["_kafka_partition"], one["_kafka_offset"], one["value"]) for one in records)
    columns = pq.ParquetFile(pa.BufferReader(data)).read().to_pydict()
    return Counter(zip(columns["_kafka_partition"], columns["_kafka_offset"], columns["value"], strict=True))


def run_inline(job: LoadJob, *, in_the_middle: Callable[[], object] | None = None, **surroundings: Any) -> LoadReport:
    """Run a load with its splits in this process; `in_the_middle` is called once, when a split has read a part."""
    opened: list[FileSystem] = []
    left = [] if in_the_middle is None else [in_the_middle]

    def open_one(job: LoadJob) -> FileSystem:
        opened.append(open_filesystem(job.destination.uri, job.destination.filesystem))
        return opened[0]

    def handle_progress(_: Progress) -> None:
        if left:
            left.pop()()

    def open_inline(job: LoadJob) -> InlineEngine:
        return InlineEngine(job, opened[0], handle_progress)

    report = run_load(job, surroundings=Surroundings(open_filesystem=open_one, open_engine=open_inline, **surroundings))
    assert not left, f"nothing was read: {report}"
    return report


def assert_held(topic: RawTopic, *formats: str, but: Iterable[Row] = ()) -> None:
    """Assert that each format (Parquet) holds each record that readers are shown once, and `but` those of before."""
    expected = topic.shown() + Counter(but)
    for name in formats or ("parquet",):
        missing, surplus = expected - (held := topic.rows(name)), held - expected
        assert not missing, f"{name}: {sum(missing.values())} are missing, such as {list(missing)[:3]}"
        assert not surplus, f"{name}: {sum(surplus.values())} are too many, such as {list(surplus)[:3]}"
