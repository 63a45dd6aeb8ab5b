"""Every client that the interop tests speak through, behind one small interface: produce to, and read by assignment.

A client here is the real library (or the real Java client, in a JVM that stays up); what it reads comes back as `Row`s,
so that two clients are compared byte for byte.
"""

import asyncio
import base64
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import aiokafka
import confluent_kafka
import kafka

import millstream
from millstream.testing.kafka import Java

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
DEADLINE_S = 150.0

Headers = tuple[tuple[str, bytes | None], ...]


class Row(NamedTuple):
    """What a record is to a user."""

    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()


class ReadRow(NamedTuple):
    """A record as read, with the place it was found at."""

    offset: int
    row: Row


class KafkaClient(Protocol):
    """Produces whole lists of rows to one partition, and reads partitions by assignment."""

    name: str
    # What some clients' own checks refuse: a record with neither key nor value, and a header whose value is null.
    null_records: bool
    null_header_values: bool

    def produce(
        self, bootstrap: str, topic: str, partition: int, rows: Sequence[Row], *, codec: str, idempotent: bool
    ) -> list[int]:
        """Send the rows in order with acks=all and return the offsets the broker acknowledged."""
        ...

    def read(self, bootstrap: str, topic: str, counts: Mapping[int, int]) -> dict[int, list[ReadRow]]:
        """From offset 0 of each partition read as many records as `counts` says, by assignment, in order."""
        ...


def by_assignment(bootstrap: str, **settings: object) -> confluent_kafka.Consumer:
    """A librdkafka consumer for `assign`: no group is joined, nothing committed, checksums are checked."""
    return confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "enable.auto.commit": False,
            "check.crcs": True,
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            **settings,
        }
    )


class ConfluentKafka:
    """librdkafka."""

    name = "confluent-kafka"
    null_records = True
    null_header_values = True

    def produce(
        self, bootstrap: str, topic: str, partition: int, rows: Sequence[Row], *, codec: str, idempotent: bool
    ) -> list[int]:
        offsets: list[int] = []
        errors: list[object] = []

        def delivered(error: object, message: Any) -> None:
            (errors.append(error) if error else offsets.append(message.offset()))

        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": bootstrap,
                "acks": "all",
                "compression.type": codec,
                "enable.idempotence": idempotent,
                "max.in.flight.requests.per.connection": 5 if idempotent else 1,
                "linger.ms": 5,
                "message.timeout.ms": int(DEADLINE_S * 1000),
            }
        )
        for row in rows:
            producer.produce(
                topic,
                partition=partition,
                key=row.key,
                value=row.value,
                timestamp=row.timestamp,
                headers=list(row.headers),
                on_delivery=delivered,
            )
        left = producer.flush(DEADLINE_S)
        assert not errors, errors[:3]
        assert left == 0, f"{left} of {len(rows)} records were never acknowledged"
        return offsets

    def read(self, bootstrap: str, topic: str, counts: Mapping[int, int]) -> dict[int, list[ReadRow]]:
        consumer = by_assignment(bootstrap)
        found: dict[int, list[ReadRow]] = {partition: [] for partition in counts}
        try:
            consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0) for partition in counts])
            deadline = time.monotonic() + DEADLINE_S
            while any(len(found[p]) < count for p, count in counts.items()) and time.monotonic() < deadline:
                messages: list[Any] = list(consumer.consume(1000, 0.2))
                for message in messages:
                    assert message.error() is None, message.error()
                    rows = found[message.partition()]
                    kind, timestamp = message.timestamp()
                    assert kind == confluent_kafka.TIMESTAMP_CREATE_TIME
                    rows.append(
                        ReadRow(
                            message.offset(),
                            Row(timestamp, message.key(), message.value(), tuple(message.headers() or ())),
                        )
                    )
        finally:
            consumer.close()
        return found


class KafkaPython:
    """kafka-python, the pure Python client."""

    name = "kafka-python"
    null_records = False
    null_header_values = False

    def produce(
        self, bootstrap: str, topic: str, partition: int, rows: Sequence[Row], *, codec: str, idempotent: bool
    ) -> list[int]:
        producer = kafka.KafkaProducer(
            bootstrap_servers=bootstrap,
            acks="all",
            compression_type=None if codec == "none" else codec,
            enable_idempotence=idempotent,
            max_in_flight_requests_per_connection=1,
            linger_ms=5,
        )
        try:
            futures = [
                producer.send(
                    topic,
                    partition=partition,
                    key=row.key,
                    value=row.value,
                    timestamp_ms=row.timestamp,
                    headers=list(row.headers),
                )
                for row in rows
            ]
            return [future.get(DEADLINE_S).offset for future in futures]
        finally:
            producer.close(timeout=5)

    def read(self, bootstrap: str, topic: str, counts: Mapping[int, int]) -> dict[int, list[ReadRow]]:
        consumer = kafka.KafkaConsumer(
            bootstrap_servers=bootstrap, enable_auto_commit=False, group_id=None, check_crcs=True
        )
        found: dict[int, list[ReadRow]] = {partition: [] for partition in counts}
        try:
            partitions = [kafka.TopicPartition(topic, partition) for partition in counts]
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, 0)
            deadline = time.monotonic() + DEADLINE_S
            while any(len(found[p]) < count for p, count in counts.items()) and time.monotonic() < deadline:
                for partition, messages in consumer.poll(timeout_ms=200).items():
                    found[partition.partition].extend(
                        ReadRow(m.offset, Row(m.timestamp, m.key, m.value, tuple(m.headers))) for m in messages
                    )
        finally:
            consumer.close()
        return found


class AioKafka:
    """aiokafka, whose requests are the oldest any client here speaks."""

    name = "aiokafka"
    null_records = False
    null_header_values = False

    def produce(
        self, bootstrap: str, topic: str, partition: int, rows: Sequence[Row], *, codec: str, idempotent: bool
    ) -> list[int]:
        async def run() -> list[int]:
            producer = aiokafka.AIOKafkaProducer(
                bootstrap_servers=bootstrap,
                acks="all",
                compression_type=None if codec == "none" else codec,
                enable_idempotence=idempotent,
                linger_ms=5,
                max_request_size=2_000_000,
            )
            await producer.start()
            try:
                futures = [
                    await producer.send(
                        topic,
                        partition=partition,
                        key=row.key,
                        value=row.value,
                        timestamp_ms=row.timestamp,
                        headers=list(row.headers),
                    )
                    for row in rows
                ]
                return [metadata.offset for metadata in await asyncio.gather(*futures)]
            finally:
                await producer.stop()

        return asyncio.run(asyncio.wait_for(run(), DEADLINE_S))

    def read(self, bootstrap: str, topic: str, counts: Mapping[int, int]) -> dict[int, list[ReadRow]]:
        async def run() -> dict[int, list[ReadRow]]:
            consumer = aiokafka.AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, check_crcs=True)
            found: dict[int, list[ReadRow]] = {partition: [] for partition in counts}
            await consumer.start()
            try:
                partitions = [aiokafka.TopicPartition(topic, partition) for partition in counts]
                consumer.assign(partitions)
                for partition in partitions:
                    consumer.seek(partition, 0)
                while any(len(found[p]) < count for p, count in counts.items()):
                    for partition, messages in (await consumer.getmany(timeout_ms=200)).items():
                        found[partition.partition].extend(
                            ReadRow(m.offset, Row(m.timestamp, m.key, m.value, tuple(m.headers))) for m in messages
                        )
            finally:
                await consumer.stop()
            return found

        return asyncio.run(asyncio.wait_for(run(), DEADLINE_S))


class MillstreamClient:
    """Our own, the face without await."""

    name = "millstream"
    null_records = True
    null_header_values = True

    def produce(
        self, bootstrap: str, topic: str, partition: int, rows: Sequence[Row], *, codec: str, idempotent: bool
    ) -> list[int]:
        with millstream.Producer(
            bootstrap,
            acks="all",
            compression_type=codec,
            enable_idempotence=idempotent,
            max_in_flight_requests_per_connection=5 if idempotent else 1,
            max_request_size=2_000_000,
        ) as producer:
            handles = [
                producer.send(
                    topic,
                    row.value,
                    key=row.key,
                    partition=partition,
                    timestamp_ms=row.timestamp,
                    headers=row.headers,
                )
                for row in rows
            ]
            return [handle.result(DEADLINE_S).offset for handle in handles]

    def read(self, bootstrap: str, topic: str, counts: Mapping[int, int]) -> dict[int, list[ReadRow]]:
        found: dict[int, list[ReadRow]] = {partition: [] for partition in counts}
        configs: dict[str, Any] = {"auto_offset_reset": "earliest", "isolation_level": "read_committed"}
        with millstream.Consumer(bootstrap, **configs) as consumer:
            consumer.assign((topic, partition) for partition in counts)
            deadline = time.monotonic() + DEADLINE_S
            while any(len(found[p]) < count for p, count in counts.items()) and time.monotonic() < deadline:
                for record in consumer.poll_records(0.2):
                    row = Row(record.timestamp, record.key, record.value, tuple(record.headers))
                    found[record.partition].append(ReadRow(record.offset, row))
        return found


class JavaClient:
    """Kafka's own Java client: RecordTool.java in one JVM, driven over its standard input and output."""

    name = "java"
    null_records = True
    null_header_values = True

    def __init__(self, jars: Path) -> None:
        self._java = Java(jars)
        self._folder = tempfile.TemporaryDirectory()
        classes = Path(self._folder.name)
        self._java.compile(Path(__file__).with_name("RecordTool.java"), classes)
        command = self._java.command("RecordTool")
        command[command.index("-cp") + 1] += f":{classes}"
        self._errors = (classes / "stderr").open("wb+")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True
        )

    def close(self) -> None:
        """End the JVM by closing its input."""
        self._process.communicate(timeout=90)
        self._errors.close()
        self._folder.cleanup()

    def _call(self, command: Sequence[object], lines: Sequence[str] = ()) -> list[str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("".join(f"{line}\n" for line in ("\t".join(map(str, command)), *lines)))
        self._process.stdin.flush()
        status, _, rest = self._process.stdout.readline().rstrip("\n").partition("\t")
        if status != "ok":
            self._errors.seek(0)
            raise RuntimeError(f"{command[0]}: {status} {rest}\n{self._errors.read().decode()[-2000:]}")
        return [self._process.stdout.readline().rstrip("\n") for _ in range(int(rest))]

    def produce(
        self, bootstrap: str, topic: str, partition: int, rows: Sequence[Row], *, codec: str, idempotent: bool
    ) -> list[int]:
        command = ("produce", bootstrap, topic, partition, codec, str(idempotent).lower(), len(rows))
        return [int(line) for line in self._call(command, [_line(row) for row in rows])]

    def read(self, bootstrap: str, topic: str, counts: Mapping[int, int]) -> dict[int, list[ReadRow]]:
        wanted = ",".join(f"{partition}:{count}" for partition, count in counts.items())
        found: dict[int, list[ReadRow]] = {partition: [] for partition in counts}
        for line in self._call(("read", bootstrap, topic, wanted)):
            partition, offset, rest = line.split("\t", 2)
            found[int(partition)].append(ReadRow(int(offset), _row(rest)))
        return found


def _text(data: bytes | None) -> str:
    return "-" if data is None else "=" + base64.b64encode(data).decode()


def _data(text: str) -> bytes | None:
    return None if text == "-" else base64.b64decode(text[1:])


def _line(row: Row) -> str:
    headers = ";".join(f"{_text(name.encode())}:{_text(value)}" for name, value in row.headers)
    return f"{row.timestamp}\t{_text(row.key)}\t{_text(row.value)}\t{headers}"


def _row(line: str) -> Row:
    timestamp, key, value, headers = line.split("\t")
    pairs = [header.split(":") for header in headers.split(";") if header]
    named = tuple(((_data(name) or b"").decode(), _data(content)) for name, content in pairs)
    return Row(int(timestamp), _data(key), _data(value), named)
