"""Transactions that librdkafka wrote to Apache Kafka: what a reader of committed records sees, and what one of all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import confluent_kafka
import pytest

from millstream.core.client import Client, NewTopic, TopicPartition, create_topics, list_offsets
from millstream.core.client.consumer import Consumer
from millstream.core.client.offsets import EARLIEST, LATEST
from millstream.testing.kafka import ApacheKafka

DEADLINE_S = 90.0
_numbers = itertools.count()


class Transactions:
    """Writes records, each with its number as value, in transactions that end as asked."""

    def __init__(self, bootstrap: str, topic: str, codec: str) -> None:
        self._bootstrap, self._topic, self._codec = bootstrap, topic, codec
        self._values: Iterator[int] = itertools.count()
        self.committed: list[bytes] = []
        self.written: list[bytes] = []
        self.open: list[confluent_kafka.Producer] = []

    def write(self, count: int, how: str) -> None:
        producer = confluent_kafka.Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "transactional.id": f"{self._topic}-{how}-{next(_numbers)}",
                "compression.type": self._codec,
                # Several batches in a transaction.
                "batch.num.messages": 3,
                "linger.ms": 0,
                "log_level": 0,
            }
        )
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        values = [b"%d" % next(self._values) for _ in range(count)]
        for value in values:
            producer.produce(self._topic, value, partition=0)
        assert producer.flush(DEADLINE_S) == 0
        self.written += values
        if how == "commit":
            producer.commit_transaction(DEADLINE_S)
            self.committed += values
        elif how == "abort":
            producer.abort_transaction(DEADLINE_S)
        else:
            self.open.append(producer)


async def values_up_to(reader: Consumer, tp: TopicPartition, end: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    async with asyncio.timeout(DEADLINE_S):
        while (reader.position(tp) or 0) < end:
            found += [record.value for record in await reader.poll_records(0.2)]
    return found


@pytest.mark.java
@pytest.mark.parametrize("codec", ["none", "zstd"])
async def test_aborted_and_open_transactions(apache_kafka: ApacheKafka, codec: str) -> None:
    bootstrap = apache_kafka.bootstrap_servers
    topic = f"transactions-{codec}-{next(_numbers)}"
    tp = TopicPartition(topic, 0)
    async with Client(bootstrap) as client:
        assert await create_topics(client, [NewTopic(topic, 1)]) == {topic: None}
        await list_offsets(client, {tp: EARLIEST})
        writer = Transactions(bootstrap, topic, codec)
        loop = asyncio.get_running_loop()
        decided = 0
        for count, how in ((10, "commit"), (7, "abort"), (1, "abort"), (12, "commit"), (5, "abort"), (4, "commit")):
            await loop.run_in_executor(None, writer.write, count, how)
            # The marker that ends it comes after the answer that says it has ended.
            decided += count + 1
            async with asyncio.timeout(DEADLINE_S):
                while (await list_offsets(client, {tp: LATEST}, read_committed=True))[tp].offset < decided:  # noqa: ASYNC110  it has no event
                    await asyncio.sleep(0.01)
        await loop.run_in_executor(None, writer.write, 6, "open")
        end = (await list_offsets(client, {tp: LATEST}))[tp].offset
    for bytes_max in (1_048_576, 150):
        configs: dict[str, Any] = {"auto_offset_reset": "earliest", "fetch_max_wait_ms": 50}
        configs["max_partition_fetch_bytes"] = bytes_max
        async with Consumer(bootstrap, isolation_level="read_committed", **configs) as committed:
            committed.assign([tp])
            assert await values_up_to(committed, tp, decided) == writer.committed
            # The marker of the last transaction is passed as well; the open one holds everything behind it back.
            assert committed.position(tp) == decided
            assert await committed.end_offsets([tp]) == {tp: decided}
            assert await committed.lag() == {tp: 0}
            assert list(await committed.poll_records(0.1)) == []
            # Beginning inside of an aborted transaction makes its rest no less aborted.
            committed.seek(tp, 13)
            assert await values_up_to(committed, tp, decided) == writer.committed[10:]
        async with Consumer(bootstrap, **configs) as every:
            every.assign([tp])
            assert await values_up_to(every, tp, end) == writer.written
    for producer in writer.open:
        await loop.run_in_executor(None, producer.abort_transaction, DEADLINE_S)
