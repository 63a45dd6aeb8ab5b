"""One client at one work, in a process of its own: what it got done, and the CPU-seconds that it took.

    python -m bench.load.clients consume confluent-kafka --bootstrap 127.0.0.1:9092 --topic t --records 1000000

Works: `arrow` (consume to Arrow; the other clients by their fastest call), `consume` (record by record, value and
offset looked at), `table` (send_batch from Arrow), `send` (one call and one handle or callback a record), `latency`
(one record at a time, acks=all), `memory-consume` and `memory-send` (growth over what the process had imported).

CPU-seconds are those of the whole process, all threads, from the making of the client to its close; imports are not
counted, since a short run of the same work comes first. Prints {"records", "seconds", "cpu_seconds"}, or p50 and p99
in ms, or MB.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.load.brokers import peak_memory_mb

VALUE = b"x" * 100
PARTITIONS = 4
LINGER_MS = 5
BATCH_BYTES = 1_000_000
TABLE_ROWS = 100_000
# Records of the short run that comes first, or of the first ones that are not timed.
WARM_UP = 200
MEMORY_BOUND_BYTES = 32 << 20

Result = dict[str, float]


@contextlib.contextmanager
def counted(found: Result, records: int) -> Iterator[None]:
    """Put what the block took into `found`."""
    cpu, started = _cpu_seconds(), time.monotonic()
    yield
    found |= {"records": records, "seconds": time.monotonic() - started, "cpu_seconds": _cpu_seconds() - cpu}


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def percentiles(latencies_s: Sequence[float]) -> Result:
    """The middle and the tail, in ms."""
    cuts = statistics.quantiles(latencies_s, n=100)
    return {"p50": cuts[49] * 1e3, "p99": cuts[98] * 1e3}


class Millstream:
    """This project's client, the face without await."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        import pyarrow as pa

        from millstream import Consumer, Producer

        self._pa, self._producer, self._consumer = pa, Producer, Consumer
        self._bootstrap, self._topic = bootstrap, topic

    def _reader(self, **configs: Any) -> Any:
        consumer = self._consumer(self._bootstrap, auto_offset_reset="earliest", **configs)
        consumer.assign([(self._topic, partition) for partition in range(PARTITIONS)])
        return consumer

    def arrow(self, records: int) -> Result:
        found: Result = {}
        with counted(found, records), self._reader() as consumer:
            taken = 0
            while taken < records:
                taken += consumer.poll_arrow(30.0).num_rows
        return found

    def consume(self, records: int) -> Result:
        found: Result = {}
        with counted(found, records), self._reader() as consumer:
            size = 0
            for taken, record in enumerate(consumer, 1):
                size += len(record.value) + (record.offset & 0)
                if taken == records:
                    break
        assert size >= records
        return found

    def table(self, records: int) -> Result:
        found: Result = {}
        rows = min(records, TABLE_ROWS)
        data = self._pa.table({"value": self._pa.array([VALUE] * rows, self._pa.binary())})
        with counted(found, records), self._producer(self._bootstrap, batch_size=BATCH_BYTES) as producer:
            handles = [producer.send_batch(self._topic, data, value="value") for _ in range(records // rows)]
            for handle in handles:
                handle.result(60)
        return found

    def send(self, records: int) -> Result:
        found: Result = {}
        producer = self._producer(self._bootstrap, batch_size=BATCH_BYTES, linger_ms=LINGER_MS)
        with counted(found, records), producer:
            send, topic = producer.send, self._topic
            handles = [send(topic, VALUE) for _ in range(records)]
            producer.flush(60)
        assert all(handle.done() for handle in handles)
        return found

    def latency(self, records: int) -> Result:
        with self._producer(self._bootstrap, linger_ms=0) as producer:
            return timed(lambda: producer.send(self._topic, VALUE, partition=0).result(30), records)

    def memory_consume(self, seconds: float) -> Result:
        baseline = _forget_peak()
        deadline = time.monotonic() + seconds
        with self._reader(buffer_memory=MEMORY_BOUND_BYTES) as consumer:
            while time.monotonic() < deadline:
                if not consumer.poll_arrow(1.0).num_rows:
                    consumer.seek_to_beginning()
        return {"MB over the bound": (_peak_bytes() - baseline - MEMORY_BOUND_BYTES) / 1e6}

    def memory_send(self, seconds: float) -> Result:
        baseline = _forget_peak()
        deadline = time.monotonic() + seconds
        with self._producer(self._bootstrap, buffer_memory=MEMORY_BOUND_BYTES, batch_size=BATCH_BYTES) as producer:
            while time.monotonic() < deadline:
                for _ in range(1_000):
                    producer.send(self._topic, VALUE)
        return {"MB over the bound": (_peak_bytes() - baseline - MEMORY_BOUND_BYTES) / 1e6}


class ConfluentKafka:
    """librdkafka behind Python objects."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        import confluent_kafka

        self._kafka = confluent_kafka
        self._bootstrap, self._topic = bootstrap, topic

    def _read(self, records: int, look: Callable[[Any], int]) -> Result:
        found: Result = {}
        with counted(found, records):
            consumer = self._kafka.Consumer(
                {
                    "bootstrap.servers": self._bootstrap,
                    "group.id": "unused",
                    "enable.auto.commit": False,
                    "check.crcs": True,
                    "queued.min.messages": 1_000_000,
                }
            )
            consumer.assign([self._kafka.TopicPartition(self._topic, index, 0) for index in range(PARTITIONS)])
            taken = 0
            while taken < records:
                # Which waits for all that it is asked for.
                taken += look(consumer.consume(min(10_000, records - taken), 30.0))
            consumer.close()
        return found

    def arrow(self, records: int) -> Result:
        return self._read(records, len)

    def consume(self, records: int) -> Result:
        def look(messages: Any) -> int:
            assert sum(len(message.value()) + (message.offset() & 0) for message in messages) >= len(messages)
            return len(messages)

        return self._read(records, look)

    def _writer(self, linger_ms: int) -> Any:
        settings = {"bootstrap.servers": self._bootstrap, "acks": "all", "linger.ms": linger_ms}
        return self._kafka.Producer(
            {
                **settings,
                "enable.idempotence": True,
                "batch.size": BATCH_BYTES,
                "batch.num.messages": 10_000,
                "queue.buffering.max.messages": 1_000_000,
            }
        )

    def send(self, records: int) -> Result:
        found: Result = {}
        ended: list[int] = []

        def delivered(error: object, message: Any) -> None:
            assert error is None, error
            ended.append(message.offset())

        with counted(found, records):
            producer = self._writer(LINGER_MS)
            for number in range(records):
                producer.produce(self._topic, VALUE, on_delivery=delivered)
                if number % 1_000 == 0:
                    producer.poll(0)
            producer.flush(60)
        assert len(ended) == records, f"{len(ended)} of {records}"
        return found

    def latency(self, records: int) -> Result:
        producer = self._writer(0)

        def one() -> None:
            producer.produce(self._topic, VALUE, partition=0)
            assert producer.flush(30) == 0

        return timed(one, records)


class KafkaPython:
    """kafka-python."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        import kafka

        self._kafka = kafka
        self._bootstrap, self._topic = bootstrap, topic

    def _reader(self) -> Any:
        consumer = self._kafka.KafkaConsumer(
            bootstrap_servers=self._bootstrap, auto_offset_reset="earliest", group_id=None, enable_auto_commit=False
        )
        consumer.assign([self._kafka.TopicPartition(self._topic, index) for index in range(PARTITIONS)])
        return consumer

    def arrow(self, records: int) -> Result:
        found: Result = {}
        with counted(found, records), contextlib.closing(self._reader()) as consumer:
            taken = 0
            while taken < records:
                taken += sum(map(len, consumer.poll(30_000, max_records=10_000).values()))
        return found

    def consume(self, records: int) -> Result:
        found: Result = {}
        with counted(found, records), contextlib.closing(self._reader()) as consumer:
            size = 0
            for taken, record in enumerate(consumer, 1):
                size += len(record.value) + (record.offset & 0)
                if taken == records:
                    break
        assert size >= records
        return found

    def _writer(self, linger_ms: int) -> Any:
        return self._kafka.KafkaProducer(
            bootstrap_servers=self._bootstrap, acks="all", linger_ms=linger_ms, batch_size=BATCH_BYTES
        )

    def send(self, records: int) -> Result:
        found: Result = {}
        with counted(found, records), contextlib.closing(self._writer(LINGER_MS)) as producer:
            futures = [producer.send(self._topic, VALUE) for _ in range(records)]
            producer.flush(60)
        assert all(future.succeeded() for future in futures)
        return found

    def latency(self, records: int) -> Result:
        with contextlib.closing(self._writer(0)) as producer:
            return timed(lambda: producer.send(self._topic, VALUE, partition=0).get(30), records)


class AioKafka:
    """aiokafka."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        import aiokafka

        self._kafka = aiokafka
        self._bootstrap, self._topic = bootstrap, topic

    async def _read(self, records: int, look: Callable[[Any], int]) -> None:
        consumer = self._kafka.AIOKafkaConsumer(
            bootstrap_servers=self._bootstrap, auto_offset_reset="earliest", enable_auto_commit=False
        )
        await consumer.start()
        try:
            consumer.assign([self._kafka.TopicPartition(self._topic, index) for index in range(PARTITIONS)])
            taken = 0
            while taken < records:
                found = await consumer.getmany(timeout_ms=30_000, max_records=10_000)
                taken += sum(map(look, found.values()))
        finally:
            await consumer.stop()

    def arrow(self, records: int) -> Result:
        found: Result = {}
        with counted(found, records):
            asyncio.run(self._read(records, len))
        return found

    def consume(self, records: int) -> Result:
        def look(messages: Any) -> int:
            assert sum(len(message.value) + (message.offset & 0) for message in messages) >= len(messages)
            return len(messages)

        found: Result = {}
        with counted(found, records):
            asyncio.run(self._read(records, look))
        return found

    def _writer(self, linger_ms: int) -> Any:
        return self._kafka.AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            linger_ms=linger_ms,
            max_batch_size=BATCH_BYTES,
            enable_idempotence=True,
        )

    def send(self, records: int) -> Result:
        async def run() -> None:
            async with self._writer(LINGER_MS) as producer:
                futures = [await producer.send(self._topic, VALUE) for _ in range(records)]
                await producer.flush()
                assert all(future.done() for future in futures)

        found: Result = {}
        with counted(found, records):
            asyncio.run(run())
        return found

    def latency(self, records: int) -> Result:
        async def run() -> list[float]:
            async with self._writer(0) as producer:
                took = []
                for _ in range(records + WARM_UP):
                    started = time.perf_counter()
                    await producer.send_and_wait(self._topic, VALUE, partition=0)
                    took.append(time.perf_counter() - started)
                return took[WARM_UP:]

        return percentiles(asyncio.run(run()))


def timed(one: Callable[[], object], count: int) -> Result:
    """Do one thing `count` times, after a warm-up, and say how long each took."""
    for _ in range(WARM_UP):
        one()
    took = []
    for _ in range(count):
        started = time.perf_counter()
        one()
        took.append(time.perf_counter() - started)
    return percentiles(took)


def _forget_peak() -> int:
    """Have the peak begin anew, whatever the warm-up took; returns the bytes resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _peak_bytes() -> int:
    """The most that was resident since then."""
    return round(peak_memory_mb(os.getpid()) * 1e6)


CLIENTS: dict[str, Callable[[str, str], Any]] = {
    "millstream": Millstream,
    "confluent-kafka": ConfluentKafka,
    "kafka-python": KafkaPython,
    "aiokafka": AioKafka,
}
WORKS = ("arrow", "consume", "table", "send", "latency", "memory-consume", "memory-send")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=WORKS)
    parser.add_argument("client", choices=CLIENTS)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a work about memory goes on")
    given = parser.parse_args()
    client = CLIENTS[given.client](given.bootstrap, given.topic)
    amount = given.seconds if given.work.startswith("memory") else given.records
    work = getattr(client, given.work.replace("-", "_"))
    # What a client imports on first use is no work of its own.
    if given.work.startswith("memory"):
        getattr(client, {"memory-consume": "arrow", "memory-send": "send"}[given.work])(WARM_UP)
    elif given.work != "latency":
        work(WARM_UP)
    print(json.dumps(work(amount)))


if __name__ == "__main__":
    main()
