"""Topics to load, jobs that load them, and the rule that holds after whatever went wrong: what the files hold is what
the topics hold, each committed record once.

    events = Events(bootstrap, schemas.url, "events")     # a topic of Avro under the registry
    events.send(1_000)
    report = run_load(job_for(events, tmp_path))
    assert_same(events, tmp_path, "parquet", "avro")

Each record has a running `id`, so that a record that is missing, doubled or changed has a name.
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import cramjam
import fastavro
import fastavro._read
import pyarrow as pa
import pyarrow.parquet as pq

from millstream import Admin, Consumer, KafkaError, Producer, TopicPartition
from millstream.hadoop_loader.commit import Snapshot
from millstream.hadoop_loader.filesystem import open_filesystem
from millstream.hadoop_loader.job import (
    DestinationSettings,
    LoadJob,
    Partitioning,
    RegistrySettings,
    SourceSettings,
)
from millstream.schemas.avro import AvroEncoder
from millstream.schemas.client import RegistryClient
from millstream.testing.kafka import wait_until

FIRST_MS: Final = 1_767_225_600_000  # 2026-01-01T00:00:00Z
STEP_MS: Final = 60_000
# Records of that time are past the retention that a broker has by default: its next round would delete them.
KEPT: Final = {"retention.ms": "-1"}

SCHEMA_1: Final = json.dumps(
    {
        "type": "record",
        "name": "Event",
        "namespace": "example",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "user", "type": "string"},
            {"name": "amount", "type": ["null", "double"], "default": None},
        ],
    }
)
SCHEMA_2: Final = json.dumps(
    {
        "type": "record",
        "name": "Event",
        "namespace": "example",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "user", "type": "string"},
            {"name": "amount", "type": ["null", "double"], "default": None},
            {"name": "country", "type": "string", "default": "?"},
        ],
    }
)


def _zstandard_block(file: Any) -> io.BytesIO:
    data: Any = fastavro.schemaless_reader(file, "bytes", None)
    return io.BytesIO(bytes(cramjam.zstd.decompress(data)))


# fastavro reads such blocks with a package that is in Python's own library only from 3.14 on.
fastavro._read.BLOCK_READERS["zstandard"] = _zstandard_block

Row = tuple[int, int, int, str]  # partition, offset, id, user


def make_anew(bootstrap: str, topic: str, partitions: int) -> None:
    """Delete a topic and make another of its name, without records."""
    with Admin(bootstrap) as admin:
        before = admin.describe_topic(topic).topic_id

        def is_known() -> bool:
            found = admin.describe_topics([topic])[topic]
            return not isinstance(found, KafkaError) and found.topic_id != before

        admin.delete_topic(topic)
        admin.create_topic(topic, partitions=partitions, configs=KEPT)
        # A broker learns of it after the controller: what is sent before that goes to the old topic, and with it.
        wait_until(is_known, 60.0, "the broker to know the new topic")


class Events:
    """A topic of Avro records with running ids."""

    def __init__(
        self, bootstrap: str, registry_url: str, topic: str = "events", *, partitions: int = 3, **configs: str
    ) -> None:
        self.bootstrap = bootstrap
        self.registry_url = registry_url
        self.topic = topic
        self.partitions = partitions
        # The next id; also how many records were sent.
        self.next_id = 0
        with Admin(bootstrap) as admin:
            admin.create_topic(topic, partitions=partitions, configs=KEPT | configs)

    def make_anew(self) -> None:
        """Another topic of the same name, without records; ids go on."""
        make_anew(self.bootstrap, self.topic, self.partitions)

    def send(self, count: int, schema: str = SCHEMA_1, **configs: Any) -> None:
        """Send so many records, over all partitions in turn, one minute of record time apart."""
        ids = range(self.next_id, self.next_id + count)
        self.next_id += count
        with RegistryClient(self.registry_url) as registry:
            schema_id = registry.register(f"{self.topic}-value", schema)
        values = AvroEncoder(schema, schema_id).encode(_table(ids, schema))
        with Producer(self.bootstrap, **configs) as producer:
            sent = producer.send_batch(
                self.topic,
                pa.table(
                    {
                        "value": values,
                        "partition": pa.array([one % self.partitions for one in ids], pa.int32()),
                        "timestamp": pa.array([FIRST_MS + one * STEP_MS for one in ids], pa.timestamp("ms")),
                    }
                ),
                value="value",
                partition="partition",
                timestamp="timestamp",
            )
            sent.result(60)

    def framed(self, ids: Sequence[int], schema: str = SCHEMA_1) -> list[bytes]:
        """The values of records, for whoever sends them otherwise."""
        with RegistryClient(self.registry_url) as registry:
            schema_id = registry.register(f"{self.topic}-value", schema)
        values: list[bytes] = AvroEncoder(schema, schema_id).encode(_table(ids, schema)).to_pylist()
        return values

    def send_raw(self, *values: bytes | None, partition: int = 0) -> None:
        """Send records as they are given."""
        with Producer(self.bootstrap) as producer:
            for value in values:
                producer.send(self.topic, value, partition=partition, timestamp_ms=FIRST_MS).result(60)

    def rows(self) -> Counter[Row]:
        """Every committed Avro record of the topic, as a consumer of it sees them."""
        found: Counter[Row] = Counter()
        schemas: dict[int, Any] = {}
        with (
            RegistryClient(self.registry_url) as registry,
            Consumer(self.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest") as consumer,
        ):
            tps = [TopicPartition(self.topic, number) for number in range(self.partitions)]
            consumer.assign(tps)
            ends = consumer.end_offsets(tps)
            while any((consumer.position(tp) or 0) < ends[tp] for tp in tps):
                for record in consumer.poll_records(0.5):
                    value = bytes(record.value or b"")
                    if len(value) < 5 or value[0] != 0:
                        continue
                    schema_id = int.from_bytes(value[1:5], "big")
                    if schema_id not in schemas:
                        schemas[schema_id] = fastavro.parse_schema(json.loads(registry.schema(schema_id).text))
                    datum: Any = fastavro.schemaless_reader(io.BytesIO(value[5:]), schemas[schema_id], None)
                    found[record.partition, record.offset, datum["id"], datum["user"]] += 1
        return found


def _table(ids: Sequence[int], schema: str) -> pa.Table:
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.int64()),
        "user": pa.array([f"user-{one % 7}" for one in ids]),
        "amount": pa.array([None if one % 5 == 0 else one / 4 for one in ids], pa.float64()),
    }
    if schema == SCHEMA_2:
        columns["country"] = pa.array([f"c{one % 3}" for one in ids])
    return pa.table(columns)


def job_for(events: Events | Iterable[Events], root: Path | str, **changes: Any) -> LoadJob:
    """A job that loads the topics into both formats at `root`, with the columns that the checks need.

    `changes` are fields of the job; those of `source` and `destination` as mappings.
    """
    all_events = [events] if isinstance(events, Events) else list(events)
    first = all_events[0]
    source = {
        "bootstrap_servers": first.bootstrap,
        "topics": tuple(one.topic for one in all_events),
        **changes.pop("source", {}),
    }
    uri = root if isinstance(root, str) else root.as_uri()
    destination = {"uri": uri, "formats": frozenset({"avro", "parquet"}), **changes.pop("destination", {})}
    settings: dict[str, Any] = {
        "name": "events",
        "source": SourceSettings(**source),
        "registry": RegistrySettings(urls=(first.registry_url,)),
        "destination": DestinationSettings(**destination),
        "partitioning": Partitioning(kind="time", pattern="hourly"),
        "metadata_columns": ("partition", "offset"),
        "workers": 2,
        "split_bytes": 2**20,
        **changes,
    }
    return LoadJob(**settings)


def local_rows(root: Path, table: str, *formats: str) -> dict[str, Counter[Row]]:
    """What the files of a table hold, its late ones included, by format, as readers of plain directories see them."""
    return {name: Counter(_rows(_files(root, table, name), name)) for name in formats}


def stored_rows(job: LoadJob, table: str, name: str) -> Counter[Row]:
    """What the files of a table hold that the log names, wherever they are."""
    with open_filesystem(job.destination.uri, job.destination.filesystem) as filesystem:
        snapshot = Snapshot(filesystem)
        files = []
        for file in snapshot.files(table, name, with_late=True):
            with filesystem.open(file.path) as stored:
                files.append(stored.read_at(0, stored.size))
    return Counter(_rows(files, name))


def assert_same(events: Events, root: Path, *formats: str, tables: Iterable[str] = ()) -> None:
    """Assert that each format holds what the topic holds: every committed record once, at its offset."""
    expected = events.rows()
    assert sum(expected.values()) == len(expected)
    for name in formats:
        held: Counter[Row] = Counter()
        for table in (events.topic, *tables):
            held += local_rows(root, table, name)[name]
        missing, surplus = expected - held, held - expected
        assert not missing, f"{name}: {sum(missing.values())} are missing, such as {list(missing)[:3]}"
        assert not surplus, f"{name}: {sum(surplus.values())} are too many, such as {list(surplus)[:3]}"


def _files(root: Path, table: str, name: str) -> Iterator[bytes]:
    for folder in (root / table / name, root / f"{table}.late" / name):
        for path in sorted(folder.rglob(f"*.{name}")):
            yield path.read_bytes()


def _rows(files: Iterable[bytes], name: str) -> Iterator[Row]:
    for data in files:
        records: Iterable[Mapping[str, Any]]
        if name == "avro":
            records = fastavro.reader(io.BytesIO(data))  # type: ignore[assignment]
        else:
            records = pq.ParquetFile(pa.BufferReader(data)).read().to_pylist()
        for record in records:
            yield record["_kafka_partition"], record["_kafka_offset"], record["id"], record["user"]
