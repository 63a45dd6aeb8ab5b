"""A whole consumer against brokers that do on demand what real ones do rarely: damage, cuts, moves, followers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.support.batches import raw_batch
from tests.support.calm_brokers import TP, calm_brokers, fill, flip
from tests.support.model_broker import ModelBrokers, log_of

from millstream.core.client.consumer import (
    Consumer,
    ConsumerRecord,
    CorruptBatchError,
    LogTruncationError,
    RefusedPartitionError,
)
from millstream.core.records import HEADER_SIZE, Compression
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.fetch import FetchRequest, FetchResponse

DEADLINE_S = 90.0


@pytest.fixture
async def brokers() -> AsyncIterator[ModelBrokers]:
    async with calm_brokers() as running:
        yield running


def consumer(brokers: ModelBrokers, **configs: Any) -> Consumer:
    made = Consumer(
        brokers.bootstrap_servers,
        **{"auto_offset_reset": "earliest", "retry_backoff_ms": 5, "metadata_max_age_ms": 500, **configs},
    )
    made.assign([TP])
    return made


async def read(reader: Consumer, count: int) -> list[ConsumerRecord]:
    records: list[ConsumerRecord] = []
    async with asyncio.timeout(DEADLINE_S):
        while len(records) < count:
            records += await reader.poll_records(1.0, count - len(records))
    return records


async def read_to_error(reader: Consumer) -> tuple[list[int], KafkaError]:
    """Return the offsets read before a poll raises, and what it raises."""
    offsets: list[int] = []
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                offsets += [record.offset for record in await reader.poll_records(1.0)]
            except KafkaError as error:
                return offsets, error


@pytest.mark.parametrize(
    "damage",
    [flip(HEADER_SIZE + 5), flip(17, 4), flip(16), flip(8, 2), flip(23), flip(57)],
    ids=["record", "crc", "magic", "length", "last offset", "count"],
)
async def test_a_damaged_batch_is_named_and_stepped_over(
    brokers: ModelBrokers, damage: Callable[[bytes], bytes]
) -> None:
    fill(brokers, 5)
    bad = log_of(brokers.cluster).batches[2]
    bad.data = damage(bad.data)
    async with consumer(brokers) as reader:
        offsets, error = await read_to_error(reader)
        assert offsets == list(range(20))
        assert isinstance(error, CorruptBatchError)
        assert (error.topic, error.partition, error.offset) == ("t", 0, 20)
        assert error.code is ErrorCode.CORRUPT_MESSAGE
        # It goes on failing until it is stepped over.
        with pytest.raises(CorruptBatchError):
            await reader.poll(DEADLINE_S)
        assert reader.position(TP) == 20
        assert await reader.step_over(TP) == 30
        assert [record.offset for record in await read(reader, 20)] == list(range(30, 50))
        with pytest.raises(KafkaError, match="no damaged batch to step over"):
            await reader.step_over(TP)


async def test_damage_on_the_way_is_no_damage(brokers: ModelBrokers) -> None:
    """What fails its CRC is fetched once more: the log's bytes are right."""
    fill(brokers, 3)
    damaged = 0

    def damage_once(node: int, request: FetchRequest, response: FetchResponse) -> FetchResponse:
        nonlocal damaged
        for topic in response.responses:
            for data in topic.partitions:
                if data.records and not damaged:
                    damaged += 1
                    data.records = flip(HEADER_SIZE + 3)(bytes(data.records))
        return response

    brokers.on_fetch = damage_once
    async with consumer(brokers) as reader:
        assert [record.offset for record in await read(reader, 30)] == list(range(30))
    assert damaged == 1


@pytest.mark.parametrize("codec", [Compression.GZIP, Compression.SNAPPY, Compression.LZ4, Compression.ZSTD])
async def test_a_batch_that_cannot_be_decompressed_is_named(brokers: ModelBrokers, codec: Compression) -> None:
    fill(brokers, 2, codec)
    log = log_of(brokers.cluster)
    log.append([b"x"] * 10, Compression.NONE)
    log.batches[-1].data = raw_batch(
        b"this is no stream of any codec", base_offset=20, attributes=int(codec), last_offset_delta=9, count=10
    )
    fill(brokers, 2, codec)
    async with consumer(brokers) as reader:
        offsets, error = await read_to_error(reader)
        assert offsets == list(range(20))
        assert isinstance(error, CorruptBatchError)
        assert error.offset == 20
        assert f"its {codec.name.lower()} batch cannot be opened" in error.message
        assert await reader.step_over(TP) == 30
        assert [record.offset for record in await read(reader, 20)] == list(range(30, 50))


async def test_a_batch_whose_records_are_none_is_named(brokers: ModelBrokers) -> None:
    """Its CRC is right, so whoever wrote it was wrong."""
    fill(brokers, 1)
    log = log_of(brokers.cluster)
    log.append([b"x"] * 3, Compression.NONE)
    log.batches[-1].data = raw_batch(b"\xff" * 40, base_offset=10, last_offset_delta=2, count=3)
    fill(brokers, 1)
    async with consumer(brokers) as reader:
        offsets, error = await read_to_error(reader)
        assert offsets == list(range(10))
        assert isinstance(error, CorruptBatchError)
        assert error.offset == 10
        assert await reader.step_over(TP) == 13
        assert [record.offset for record in await read(reader, 10)] == list(range(13, 23))


@pytest.mark.parametrize("size", [1, 2, 10, 37])
async def test_damage_that_only_the_broker_sees_is_stepped_over(brokers: ModelBrokers, size: int) -> None:
    """Millstream never serves a damaged batch: it answers CORRUPT_MESSAGE at each of its offsets."""
    log = log_of(brokers.cluster)
    fill(brokers, 2)
    log.append([b"bad"] * size, Compression.NONE)
    fill(brokers, 3)

    def refuse(node: int, request: FetchRequest, response: FetchResponse) -> FetchResponse:
        for topic in response.responses:
            for data in topic.partitions:
                asked = brokers.cluster.sessions.get(response.session_id)
                offset = asked[2][TP][0] if asked else request.topics[0].partitions[0].fetch_offset
                if 20 <= offset < 20 + size:
                    data.records, data.error_code = b"", ErrorCode.CORRUPT_MESSAGE
                elif offset < 20:
                    data.records = log.read(offset, 20, 2**31)
        return response

    brokers.on_fetch = refuse
    async with consumer(brokers) as reader:
        offsets, error = await read_to_error(reader)
        assert offsets == list(range(20))
        assert isinstance(error, CorruptBatchError)
        assert error.next_offset is None
        assert await reader.step_over(TP) == 20 + size
        assert [record.offset for record in await read(reader, 30)] == list(range(20 + size, 50 + size))


async def test_a_leader_that_moves_is_followed(brokers: ModelBrokers) -> None:
    fill(brokers, 2)
    async with consumer(brokers) as reader:
        await read(reader, 20)
        for epoch, node in enumerate((1, 2, 0), start=1):
            log_of(brokers.cluster).lead(node, epoch)
            fill(brokers, 1)
            records = await read(reader, 10)
            assert {record.leader_epoch for record in records} == {epoch}
            assert reader.position(TP) == 20 + 10 * epoch
    asked = {type(request).__name__ for _, request in brokers.requests}
    assert "OffsetForLeaderEpochRequest" in asked


async def test_a_log_that_was_cut_is_read_again_from_there(brokers: ModelBrokers) -> None:
    fill(brokers, 5)
    async with consumer(brokers) as reader:
        await read(reader, 50)
        log_of(brokers.cluster).lead(1, 1, cut_to=30)
        fill(brokers, 3)
        records = await read(reader, 30)
    assert [(record.offset, record.leader_epoch) for record in records] == [(offset, 1) for offset in range(30, 60)]


async def test_a_log_that_was_cut_is_said_where_nothing_resets(brokers: ModelBrokers) -> None:
    fill(brokers, 5)
    async with consumer(brokers, auto_offset_reset="none") as reader:
        reader.seek(TP, 0)
        await read(reader, 50)
        log_of(brokers.cluster).lead(1, 1, cut_to=30)
        fill(brokers, 3)
        offsets, error = await read_to_error(reader)
        assert offsets == []
        assert isinstance(error, LogTruncationError)
        assert (error.offset, error.divergent_offset) == (50, 30)
        assert "differs from offset 30 on" in error.message
        reader.seek(TP, 30)
        assert [record.offset for record in await read(reader, 30)] == list(range(30, 60))


async def test_a_lost_session_is_begun_anew(brokers: ModelBrokers) -> None:
    async with consumer(brokers) as reader:
        for round_ in range(5):
            fill(brokers, 1)
            assert [record.offset for record in await read(reader, 10)] == list(range(10 * round_, 10 * round_ + 10))
            brokers.cluster.sessions.clear()
    fetches = [request for _, request in brokers.requests if isinstance(request, FetchRequest)]
    assert sum(request.session_epoch == 0 for request in fetches) >= 5


async def test_a_session_is_used_and_closed(brokers: ModelBrokers) -> None:
    async with consumer(brokers) as reader:
        for _ in range(3):
            fill(brokers, 1)
            await read(reader, 10)
        assert len(brokers.cluster.sessions) == 1
    fetches = [request for _, request in brokers.requests if isinstance(request, FetchRequest)]
    assert fetches[0].session_epoch == 0
    assert fetches[1].session_epoch == 1
    assert fetches[-1].session_epoch == -1
    assert brokers.cluster.sessions == {}


async def test_a_follower_is_read_from_while_it_holds_what_is_wanted(brokers: ModelBrokers) -> None:
    """KIP-392: the leader names it, the rack goes along, and the leader is gone back to where it lags."""
    fill(brokers, 3)
    log = log_of(brokers.cluster)
    log.follower, log.follower_end_offset = 2, 20
    racks = set()

    def recommend(node: int, request: FetchRequest, response: FetchResponse) -> FetchResponse:
        racks.add(request.rack_id)
        for topic in response.responses:
            for data in topic.partitions:
                if node == 0 and data.records and log.follower == 2:
                    data.records, data.preferred_read_replica = b"", 2
        return response

    brokers.on_fetch = recommend
    async with consumer(brokers, client_rack="here") as reader:
        assert [record.offset for record in await read(reader, 20)] == list(range(20))
        log.follower = -1
        assert [record.offset for record in await read(reader, 10)] == list(range(20, 30))
    assert racks == {"here"}
    fetched = [node for node, request in brokers.requests if isinstance(request, FetchRequest) and request.topics]
    assert fetched[:2] == [0, 2]


async def test_a_seek_does_not_wait_for_a_fetch_that_waits(brokers: ModelBrokers) -> None:
    """The broker holds the Fetch at the end of the log for longer than this test may take."""
    fill(brokers, 3)
    async with consumer(brokers) as reader:
        await read(reader, 30)
        brokers.wait_s = 10 * DEADLINE_S
        asked = len(brokers.requests)
        async with asyncio.timeout(DEADLINE_S):
            while len(brokers.requests) == asked:
                assert list(await reader.poll(0.01)) == []
        reader.seek(TP, 17)
        assert [record.offset for record in await read(reader, 13)] == list(range(17, 30))


async def test_a_topic_that_may_not_be_read_is_said_and_tried_again(brokers: ModelBrokers) -> None:
    fill(brokers, 1)
    is_denied = True

    def deny(node: int, request: FetchRequest, response: FetchResponse) -> FetchResponse:
        for topic in response.responses:
            for data in topic.partitions:
                if is_denied:
                    data.records, data.error_code = b"", ErrorCode.TOPIC_AUTHORIZATION_FAILED
        return response

    brokers.on_fetch = deny
    async with consumer(brokers) as reader:
        with pytest.raises(RefusedPartitionError, match="fetch of t-0 at offset 0") as raised:
            await reader.poll(DEADLINE_S)
        assert raised.value.code is ErrorCode.TOPIC_AUTHORIZATION_FAILED
        told = pickle.loads(pickle.dumps(raised.value))
        assert (told.topic_partition, told.offset, str(told)) == (TP, 0, str(raised.value))
        is_denied = False
        assert len(await read(reader, 10)) == 10
