"""The consumer against Millstream and Apache Kafka, partitions given by hand: what one delivers, so does the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import pytest
from tests.support.topic_contents import TopicWriter

from millstream.core.client import (
    Client,
    CommittedOffset,
    ConfigOperation,
    ConfigResource,
    ConfigResourceType,
    NewTopic,
    TopicPartition,
    alter_configs,
    create_topics,
    delete_records,
    delete_topics,
    list_offsets,
)
from millstream.core.client.consumer import (
    Consumer,
    ConsumerInterceptor,
    ConsumerRecord,
    ConsumerStateError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    PinnedMemoryError,
)
from millstream.core.client.offsets import EARLIEST
from millstream.core.records import BatchBuilder, Compression, RecordColumns
from millstream.core.wire import ErrorCode, KafkaError

NOW_MS = 1_790_000_000_000
DEADLINE_S = 90.0


@pytest.fixture
async def client(bootstrap: str) -> AsyncIterator[Client]:
    async with Client(bootstrap, request_timeout_ms=20_000) as connected:
        yield connected


@pytest.fixture
async def topic(client: Client, topic_name: Callable[[], str]) -> str:
    """A topic of three partitions that are served."""
    name = topic_name()
    assert await create_topics(client, [NewTopic(name, 3)]) == {name: None}
    await list_offsets(client, {TopicPartition(name, index): EARLIEST for index in range(3)})
    return name


@pytest.fixture
def consumer(bootstrap: str) -> Callable[..., Consumer]:
    """consumer(**configs): one that begins at the start."""

    def make(**configs: Any) -> Consumer:
        return Consumer(bootstrap, **{"auto_offset_reset": "earliest", "fetch_max_wait_ms": 50, **configs})

    return make


async def write(
    client: Client, tp: TopicPartition, values: Iterable[bytes | None], *, codec: Compression = Compression.NONE
) -> None:
    """Append values, each with its index as key, in batches of about a kilobyte."""
    async with TopicWriter(client, compression=codec, batch_bytes=1_000) as writer:
        for index, value in enumerate(values):
            writer.append(tp, b"%d" % index, value, timestamp=NOW_MS + index)


async def read(consumer: Consumer, count: int, *, max_records: int | None = None) -> list[ConsumerRecord]:
    """Poll until so many records have come."""
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(records) < count:
            records += await consumer.poll_records(1.0, max_records)
    return records


async def until(condition: Callable[[], bool | Awaitable[bool]], consumer: Consumer | None = None) -> None:
    """Wait for a condition, polling the consumer meanwhile, which has to give nothing."""
    async with asyncio.timeout(DEADLINE_S):
        while not (met := condition()) or (not isinstance(met, bool) and not await met):
            if consumer is None:
                await asyncio.sleep(0.01)
            else:
                assert list(await consumer.poll(0.01)) == []


@pytest.mark.parametrize("codec", list(Compression))
async def test_records_come_as_they_were_written(
    client: Client, topic: str, consumer: Callable[..., Consumer], codec: Compression
) -> None:
    sent: dict[int, list[tuple[Any, ...]]] = {0: [], 1: [], 2: []}
    async with TopicWriter(client, compression=codec, batch_bytes=5_000) as writer:
        for index in range(3_000):
            partition = index % 3
            key = None if index % 5 == 0 else f"key-{index}".encode()
            value = None if index % 7 == 0 else b"value " * (index % 11)
            headers = (("trace", b"%d" % index), ("empty", None)) if index % 13 == 0 else ()
            writer.append(TopicPartition(topic, partition), key, value, timestamp=NOW_MS + index, headers=headers)
            sent[partition].append((len(sent[partition]), NOW_MS + index, key, value, headers))
    for faces in ({}, {"max_partition_fetch_bytes": 6_000, "max_poll_records": 7}, {"check_crcs": False}):
        async with consumer(**faces) as reader:
            reader.assign(TopicPartition(topic, index) for index in range(3))
            records = await read(reader, 3_000)
        found: dict[int, list[tuple[Any, ...]]] = {0: [], 1: [], 2: []}
        for record in records:
            assert (record.topic, record.timestamp_type) == (topic, 0)
            assert record.leader_epoch >= 0
            found[record.partition].append((record.offset, record.timestamp, record.key, record.value, record.headers))
        assert found == sent


@pytest.mark.parametrize("codec", [Compression.NONE, Compression.ZSTD])
async def test_pieces_hold_the_same_records_and_no_more_than_asked_for(
    client: Client, topic: str, consumer: Callable[..., Consumer], codec: Compression
) -> None:
    tp = TopicPartition(topic, 0)
    values = [b"%d" % index for index in range(2_000)]
    await write(client, tp, values, codec=codec)
    columns = RecordColumns(16)
    for most in (None, 1, 77):
        async with consumer() as reader:
            reader.assign([tp])
            reader.seek(tp, 5)
            found: list[bytes] = []
            async with asyncio.timeout(DEADLINE_S):
                while len(found) < (100 if most == 1 else 1_995):
                    pieces = await reader.poll(1.0, max_records=most)
                    count = 0
                    for piece in pieces:
                        assert piece.topic_partition == tp
                        for buffer, located, start, end in piece.locate(columns):
                            for row in range(start, end):
                                at, size = located.value_positions[row], located.value_sizes[row]
                                found.append(bytes(buffer[at : at + size]))
                            count += end - start
                        piece.release()
                    assert most is None or count <= most
                    assert reader.position(tp) == 5 + len(found)
            assert found == values[5 : 5 + len(found)]
            assert reader.metrics()["fetch_buffer_held_bytes"] == 0 or most == 1


async def test_large_records_come_whole(client: Client, topic: str, consumer: Callable[..., Consumer]) -> None:
    """A batch that is larger than every bound comes all the same."""
    tp = TopicPartition(topic, 0)
    values = [bytes([65 + index]) * 1_000_000 for index in range(4)]
    for value in values:
        await write(client, tp, [value])
    async with consumer(max_partition_fetch_bytes=1_000, fetch_max_bytes=1_000, buffer_memory=10_000) as reader:
        reader.assign([tp])
        assert [record.value for record in await read(reader, 4)] == values


async def test_one_record_at_a_time_and_the_rest_later(
    client: Client, topic: str, consumer: Callable[..., Consumer]
) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(100)])
    async with consumer() as reader:
        reader.assign([tp])
        seen = []
        async with asyncio.timeout(DEADLINE_S):
            async for record in reader:
                seen.append(record.offset)
                assert reader.position(tp) == record.offset + 1
                if record.offset == 9:
                    break
            async for record in reader:
                seen.append(record.offset)
                if record.offset == 19:
                    reader.seek(tp, 50)
                if record.offset == 59:
                    break
            seen += [record.offset for record in await read(reader, 40)]
    assert seen == [*range(20), *range(50, 100)]


async def test_what_is_written_later_comes(client: Client, topic: str, consumer: Callable[..., Consumer]) -> None:
    partitions = [TopicPartition(topic, index) for index in range(3)]
    async with consumer() as reader:
        reader.assign(partitions)
        assert list(await reader.poll_records(0.01)) == []
        for round_ in range(6):
            tp = partitions[round_ % 3]
            await write(client, tp, [b"%d" % round_])
            (record,) = await read(reader, 1)
            assert (record.partition, record.value) == (tp.partition, b"%d" % round_)


async def test_a_paused_partition_keeps_what_it_has(
    client: Client, topic: str, consumer: Callable[..., Consumer]
) -> None:
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    for tp in (first, second):
        await write(client, tp, [b"%d" % index for index in range(50)])
    async with consumer() as reader:
        reader.assign([first, second])
        records = await read(reader, 10, max_records=10)
        paused = TopicPartition(topic, records[-1].partition)
        other = second if paused == first else first
        reader.pause(paused)
        assert reader.paused() == {paused}
        rest = await read(reader, 50 - sum(record.partition == other.partition for record in records))
        assert {record.partition for record in rest} == {other.partition}
        assert list(await reader.poll_records(0.05)) == []
        reader.resume(paused)
        records += await read(reader, 50 - sum(record.partition == paused.partition for record in records))
        assert [record.offset for record in records if record.partition == paused.partition] == list(range(50))


async def test_seeking(client: Client, topic: str, consumer: Callable[..., Consumer]) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(100)])
    async with consumer() as reader:
        reader.assign([tp])
        assert (await read(reader, 1, max_records=1))[0].offset == 0
        reader.seek(tp, 40)
        assert reader.position(tp) == 40
        assert (await read(reader, 1, max_records=1))[0].offset == 40
        await reader.seek_to_timestamp({tp: NOW_MS + 70})
        assert (await read(reader, 1, max_records=1))[0].offset == 70
        reader.seek(tp, CommittedOffset(20, 0))
        assert (await read(reader, 1, max_records=1))[0].offset == 20
        reader.seek_to_beginning()
        assert (await read(reader, 1, max_records=1))[0].offset == 0
        reader.seek_to_end(tp)
        await until(lambda: reader.position(tp) == 100, reader)
        await reader.seek_to_timestamp({tp: NOW_MS + 10_000})
        await until(lambda: reader.position(tp) == 100, reader)
        with pytest.raises(ValueError, match="-2 is no offset"):
            reader.seek(tp, -2)
        with pytest.raises(ValueError, match="-1 is no offset to read until"):
            reader.seek(tp, 5, until=-1)
        assert reader.position(tp) == 100
        with pytest.raises(ConsumerStateError, match="is not assigned"):
            reader.seek(TopicPartition(topic, 1), 0)


async def test_where_reading_begins(client: Client, topic: str, consumer: Callable[..., Consumer]) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"old"])
    async with consumer(auto_offset_reset="latest") as latest, consumer(auto_offset_reset="by_duration:PT1H") as recent:
        for reader in (latest, recent):
            reader.assign([tp])
        await until(lambda: recent.position(tp) is not None)
        await until(lambda: latest.position(tp) == 1, latest)
    async with consumer(auto_offset_reset="none") as nowhere:
        nowhere.assign([tp])
        for _ in range(2):
            with pytest.raises(NoOffsetForPartitionError, match=f"{tp} has no committed offset"):
                await nowhere.poll(DEADLINE_S)
        nowhere.seek(tp, 0)
        assert [record.value for record in await read(nowhere, 1)] == [b"old"]


async def test_by_duration_begins_that_long_ago(client: Client, topic: str, consumer: Callable[..., Consumer]) -> None:
    tp = TopicPartition(topic, 0)
    now_ms = int(time.time() * 1000)
    async with TopicWriter(client, batch_bytes=1) as writer:
        for hours in (5, 3, 1):
            writer.append(tp, None, b"%d" % hours, timestamp=now_ms - hours * 3_600_000)
    async with consumer(auto_offset_reset="by_duration:PT4H") as reader:
        reader.assign([tp])
        assert [record.value for record in await read(reader, 2)] == [b"3", b"1"]
    async with consumer(auto_offset_reset="by_duration:PT30M") as reader:
        reader.assign([tp])
        await until(lambda: reader.position(tp) == 3, reader)


async def test_an_offset_out_of_range_goes_by_the_policy(
    client: Client, topic: str, consumer: Callable[..., Consumer]
) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(20)])
    await delete_records(client, {tp: 10})
    async with consumer() as reader:
        reader.assign([tp])
        reader.seek(tp, 3)
        assert (await read(reader, 10))[0].offset == 10
        reader.seek(tp, 1_000)
        assert (await read(reader, 10))[0].offset == 10
    async with consumer(auto_offset_reset="none") as strict:
        strict.assign([tp])
        strict.seek(tp, 3)
        with pytest.raises(OffsetOutOfRangeError, match=f"offset 3 of {tp} is not in its log") as raised:
            await strict.poll(DEADLINE_S)
        assert (raised.value.topic_partition, raised.value.offset) == (tp, 3)
        strict.seek(tp, 15)
        assert (await read(strict, 5))[0].offset == 15


async def test_gaps_of_a_compacted_log_are_passed_over(
    client: Client, topic_name: Callable[[], str], consumer: Callable[..., Consumer]
) -> None:
    """The cleaner leaves batches with records missing, and offsets without any batch."""
    name = topic_name()
    configs = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.01",
        "segment.ms": "100",
        "max.compaction.lag.ms": "1",
        "delete.retention.ms": "0",
    }
    assert await create_topics(client, [NewTopic(name, 1, configs=configs)]) == {name: None}
    tp = TopicPartition(name, 0)
    await list_offsets(client, {tp: EARLIEST})
    for _ in range(3):
        async with TopicWriter(client) as writer:
            for index in range(30):
                writer.append(tp, b"%d" % (index % 10 if index % 3 else index), b"%d" % index)
    async with consumer() as reader:
        reader.assign([tp])
        latest: dict[bytes | None, int] = {}
        for record in await read(reader, 10):
            latest[record.key] = record.offset
        await until_read(reader, 90, latest)
        assert reader.position(tp) == 90
        offsets = sorted(latest.values())
        reader.seek_to_beginning()
        again: dict[bytes | None, int] = {}
        await until_read(reader, 90, again)
        assert sorted(again.values()) == offsets


async def until_read(reader: Consumer, end: int, latest: dict[bytes | None, int]) -> None:
    (tp,) = reader.assignment()
    last = -1
    async with asyncio.timeout(DEADLINE_S):
        while (reader.position(tp) or 0) < end:
            for record in await reader.poll_records(0.5):
                assert record.offset > last
                last = record.offset
                latest[record.key] = record.offset


async def test_offsets_positions_and_lag(client: Client, topic: str, consumer: Callable[..., Consumer]) -> None:
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    await write(client, first, [b"%d" % index for index in range(30)])
    await delete_records(client, {first: 4})
    async with consumer() as reader:
        assert await reader.beginning_offsets([first, second]) == {first: 4, second: 0}
        assert await reader.end_offsets([first, second]) == {first: 30, second: 0}
        found = await reader.offsets_for_times({first: NOW_MS + 20, second: NOW_MS})
        at = found[first]
        assert at is not None
        assert at[:2] == (20, NOW_MS + 20)
        assert found[second] is None
        reader.assign([first])
        assert reader.position(first) is None
        assert reader.current_lag(first) is None
        await read(reader, 10, max_records=10)
        assert reader.position(first) == 14
        assert reader.current_lag(first) == 16
        assert await reader.lag() == {first: 16}
        assert [info.partition for info in await reader.partitions_for(topic)] == [0, 1, 2]
        assert topic in await reader.topics()
        metrics = reader.metrics()
        assert metrics["records_consumed_total"] == 10
        assert metrics["records_lag_max"] == 16
        assert metrics["bytes_consumed_total"] > 0
        with pytest.raises(KafkaError) as raised:
            await reader.partitions_for(f"{topic}-not-there")
        assert raised.value.code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_a_topic_made_again_is_read_from_its_start(
    client: Client, topic: str, consumer: Callable[..., Consumer]
) -> None:
    """Its leader epochs begin anew, and its id is another one (KIP-516)."""
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"old"] * 30)
    # Asking after the topic while it is gone must not make it.
    async with consumer(metadata_max_age_ms=200, allow_auto_create_topics=False) as reader:
        reader.assign([tp])
        await read(reader, 30)
        assert await delete_topics(client, [topic]) == {topic: None}
        await until(lambda: is_unknown(client, topic))
        assert await create_topics(client, [NewTopic(topic, 3)]) == {topic: None}
        await list_offsets(client, {tp: EARLIEST})
        await write(client, tp, [b"new"] * 5)
        records = await read(reader, 5)
        assert [(record.offset, record.value) for record in records] == [(index, b"new") for index in range(5)]


async def is_unknown(client: Client, topic: str) -> bool:
    return topic not in (await client.metadata()).topics


async def test_subscribing_and_assigning_in_turn(
    client: Client, topic: str, consumer: Callable[..., Consumer], topic_name: Callable[[], str]
) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(10)])
    group = topic_name()
    async with consumer(group_id=group, enable_auto_commit=False) as reader:
        for _ in range(2):
            reader.assign([tp])
            reader.seek_to_beginning()
            await read(reader, 10)
            await reader.commit({tp: 3})
            await reader.unsubscribe()
            reader.subscribe([topic])
            assert (await read(reader, 1, max_records=1))[0].offset == 3
            await reader.commit({tp: 4})
            await reader.unsubscribe()
            assert (await reader.committed([tp]))[tp] == CommittedOffset(4, -1, "")


async def test_timestamps_of_the_broker_are_said_to_be(
    client: Client, topic: str, consumer: Callable[..., Consumer]
) -> None:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic)
    await alter_configs(client, resource, [("message.timestamp.type", ConfigOperation.SET, "LogAppendTime")])
    tp = TopicPartition(topic, 0)
    for codec in (Compression.NONE, Compression.LZ4):
        await write(client, tp, [b"x"], codec=codec)
    async with consumer() as reader:
        reader.assign([tp])
        records = await read(reader, 2)
    assert [record.timestamp_type for record in records] == [1, 1]
    assert all(record.timestamp != NOW_MS for record in records)


async def test_commits_without_a_membership(
    client: Client, topic: str, consumer: Callable[..., Consumer], topic_name: Callable[[], str]
) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(20)])
    group = topic_name()
    async with consumer(group_id=group, enable_auto_commit=False) as reader:
        reader.assign([tp])
        await read(reader, 5, max_records=5)
        await reader.commit()
        found = (await reader.committed([tp]))[tp]
        assert found is not None
        assert found.offset == 5
        done: asyncio.Future[KafkaError | None] = asyncio.get_running_loop().create_future()
        reader.commit_soon({tp: 7}, lambda offsets, error: done.set_result(error))
        assert await asyncio.wait_for(done, DEADLINE_S) is None
    async with consumer(group_id=group, max_poll_records=4) as reader:
        reader.assign([tp, TopicPartition(topic, 1)])
        assert (await read(reader, 4))[0].offset == 7
        assert (await reader.committed([TopicPartition(topic, 1)])) == {TopicPartition(topic, 1): None}
    async with consumer(group_id=group) as reader:
        # Closing committed what had been handed over.
        reader.assign([tp])
        assert (await read(reader, 9))[0].offset == 11
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with consumer(group_id=group) as reader:
            reader.assign([tp])
            reader.seek(tp, 11)
            async with asyncio.timeout(DEADLINE_S):
                async for record in reader:
                    if record.offset == 15:
                        raise ZeroDivisionError
    async with consumer(group_id=group) as reader:
        # The record whose processing failed comes again.
        reader.assign([tp])
        assert (await read(reader, 5))[0].offset == 15


class Recording(ConsumerInterceptor):
    """Counts, changes what is handed over, and fails where it can."""

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.committed: list[Mapping[TopicPartition, CommittedOffset]] = []
        self.is_closed = False

    def on_consume(self, records: Sequence[Any]) -> Sequence[Any]:
        self.seen += [record.offset for record in records]
        return [record for record in records if record.offset % 2 == 0]

    def on_commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        self.committed.append(offsets)
        raise ValueError("an interceptor's own trouble")

    def close(self) -> None:
        self.is_closed = True


async def test_interceptors_see_and_change_what_passes(
    client: Client, topic: str, bootstrap: str, topic_name: Callable[[], str]
) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(10)])
    recording = Recording()
    configs = {"group.id": topic_name(), "auto.offset.reset": "earliest", "bootstrap.servers": bootstrap}
    async with Consumer(configs, interceptors=[recording]) as reader:
        reader.assign([tp])
        assert [record.offset for record in await read(reader, 5)] == [0, 2, 4, 6, 8]
        assert recording.seen == list(range(10))
        await reader.commit()
        assert [offsets[tp].offset for offsets in recording.committed] == [10]
    assert recording.is_closed


async def test_leaving_iteration_keeps_the_rest_with_interceptors_too(
    client: Client, bootstrap: str, topic: str
) -> None:
    tp = TopicPartition(topic, 0)
    await write(client, tp, [b"%d" % index for index in range(10)])
    async with Consumer(bootstrap, auto_offset_reset="earliest", interceptors=[ConsumerInterceptor()]) as reader:
        reader.assign([tp])
        async with asyncio.timeout(DEADLINE_S):
            async for record in reader:
                if record.offset == 3:
                    break
        assert reader.position(tp) == 4
        assert [record.offset for record in await read(reader, 6)] == list(range(4, 10))


async def test_a_consumer_is_used_as_it_can_be(bootstrap: str, topic: str, topic_name: Callable[[], str]) -> None:
    async with Consumer(bootstrap) as reader:
        with pytest.raises(ConsumerStateError, match="nothing is subscribed to or assigned"):
            await reader.poll()
        with pytest.raises(ConsumerStateError, match="subscribe needs group_id"):
            reader.subscribe([topic])
        with pytest.raises(ConsumerStateError, match="commits need group_id"):
            await reader.commit({TopicPartition(topic, 0): 1})
        reader.assign([(topic, 0)])
        waiting = asyncio.create_task(reader.poll(None))
        # A task runs until it waits for something.
        await asyncio.sleep(0)
        with pytest.raises(ConsumerStateError, match="another task polls"):
            await reader.poll()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert repr(reader) == "<Consumer, open, 1 partitions>"
        await reader.unsubscribe()
        assert reader.assignment() == frozenset()
    with pytest.raises(ConsumerStateError, match="closed"):
        await reader.poll()
    with pytest.raises(ConsumerStateError, match="closed"):
        reader.assign([(topic, 0)])
    by_hand = Consumer(bootstrap, group_id=topic_name())
    by_hand.assign([(topic, 0)])
    with pytest.raises(ConsumerStateError, match="reads partitions assigned by hand, and cannot read topics"):
        by_hand.subscribe([topic])
    await by_hand.close()


async def test_memory_stays_in_its_bound_and_the_holder_is_told(
    client: Client, topic: str, consumer: Callable[..., Consumer]
) -> None:
    partitions = [TopicPartition(topic, index) for index in range(3)]
    builder = BatchBuilder()
    for index in range(100):
        builder.append(NOW_MS + index, None, b"x" * 100)
    batch = builder.build()
    async with TopicWriter(client) as writer:
        for tp in partitions:
            for _ in range(30):
                await writer.send_batch(tp, batch)
    bound = 100_000
    async with consumer(buffer_memory=bound, max_partition_fetch_bytes=20_000) as reader:
        reader.assign(partitions)
        kept = []
        with pytest.raises(PinnedMemoryError, match="release them"):  # noqa: PT012
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    kept += await reader.poll(0.5)
                    assert reader.metrics()["fetch_buffer_held_bytes"] <= bound + 2 * len(batch)
        for piece in kept:
            piece.release()
        columns = RecordColumns(1_000)
        count = sum(end - start for piece in kept for _, _, start, end in piece.locate(columns))
        # Whoever drops the pieces gives the memory back as well.
        kept.clear()
        async with asyncio.timeout(DEADLINE_S):
            while count < 9_000:
                for piece in await reader.poll(1.0):
                    count += sum(end - start for _, _, start, end in piece.locate(columns))
                del piece
        assert count == 9_000
