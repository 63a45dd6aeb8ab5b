"""The producer through a network that drops, cuts, delays and keeps silent: every record once, in order, none lost."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest
from tests.core.client.producer.test_against_brokers import read
from tests.support.topic_contents import made_topic

from millstream.core.client import Client
from millstream.core.client.producer import Producer, RecordHandle
from millstream.testing.fault_proxy import FaultProxy
from millstream.testing.faults import RandomFaults

SEEDS = range(20 if os.environ.get("MILLSTREAM_SOAK") == "1" else 2)
RECORDS = 3_000
DEADLINE_S = 120


@pytest.mark.parametrize("seed", SEEDS)
async def test_every_record_is_written_once_and_in_order(
    bootstrap: str, topic_name: Callable[[], str], seed: int
) -> None:
    async with Client(bootstrap) as client:
        topic = await made_topic(client, topic_name())
        with FaultProxy(bootstrap) as proxy:
            producer = Producer(
                proxy.bootstrap_servers,
                request_timeout_ms=1_000,
                batch_size=1_000,
                linger_ms=1,
                compression_type=("none", "lz4")[seed % 2],
                retry_backoff_ms=10,
            )
            await producer.start()
            await producer.partitions_for(topic)
            proxy.faults = RandomFaults(f"{seed}", rate=0.05)
            try:
                handles: list[RecordHandle] = []
                async with asyncio.timeout(DEADLINE_S):
                    while len(handles) < RECORDS or not proxy.counts:
                        number = len(handles)
                        handles.append(await producer.send_soon(topic, b"%d" % number, partition=number % 3))
                        if not proxy.counts and number % 100 == 0:
                            await producer.flush()  # a request more, for something to go wrong with
                flushed = asyncio.create_task(producer.flush())
                await asyncio.wait([flushed], timeout=5)
                proxy.heal()
                async with asyncio.timeout(DEADLINE_S):
                    await flushed
            finally:
                proxy.heal()
                await producer.close(DEADLINE_S)
            assert all(handle.done() for handle in handles)
            offsets = [handle.result().offset for handle in handles]
        found = await read(client, topic)
    for partition, records in enumerate(found):
        assert [record.value for record in records] == [b"%d" % number for number in range(partition, len(offsets), 3)]
    for number, offset in enumerate(offsets):
        assert offset in {number // 3, -1}
