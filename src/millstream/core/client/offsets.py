"""Offsets in logs: either end, by timestamp (KIP-79, KIP-734); and moving the start of a log (KIP-107)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.delete_records import (
    DeleteRecordsPartition,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopic,
)
from millstream.core.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3


class LogOffset(NamedTuple):
    """An offset with the timestamp and the leader epoch of its record; each -1 where there is none."""

    offset: int
    timestamp: int
    leader_epoch: int


async def list_offsets(
    client: Client,
    timestamps: Mapping[TopicPartition, int],
    *,
    read_committed: bool = False,
    timeout_ms: int | None = None,
) -> dict[TopicPartition, LogOffset]:
    """Return, per partition, the first offset at or after its timestamp in ms, or LATEST, EARLIEST, MAX_TIMESTAMP.

    Where no record is that young the offset is -1. Raises KafkaError for the first partition that has an error.
    """
    found: dict[TopicPartition, LogOffset] = {}

    async def ask_the_rest() -> dict[TopicPartition, LogOffset]:
        rest = [tp for tp in timestamps if tp not in found]
        for node, partitions in (await client.leaders(rest, timeout_ms=timeout_ms)).items():
            await _ask(client, node, {tp: timestamps[tp] for tp in partitions}, found, read_committed, timeout_ms)
        return found

    await client.retried(ask_the_rest, timeout_ms=timeout_ms)
    return {tp: found[tp] for tp in timestamps}


def list_offsets_request(timestamps: Mapping[TopicPartition, int], *, read_committed: bool) -> ListOffsetsRequest:
    """Return what asks a leader for the first offset at or after each time, or at LATEST, EARLIEST, MAX_TIMESTAMP."""
    topics: dict[str, ListOffsetsTopic] = {}
    for tp, timestamp in timestamps.items():
        topic = topics.setdefault(tp.topic, ListOffsetsTopic(name=tp.topic))
        topic.partitions.append(ListOffsetsPartition(partition_index=tp.partition, timestamp=timestamp))
    return ListOffsetsRequest(replica_id=-1, isolation_level=1 if read_committed else 0, topics=list(topics.values()))


def delete_records_request(offsets: Mapping[TopicPartition, int], *, timeout_ms: int) -> DeleteRecordsRequest:
    """Return what has a leader drop every record before each offset (KIP-107)."""
    topics: dict[str, DeleteRecordsTopic] = {}
    for tp, offset in offsets.items():
        topic = topics.setdefault(tp.topic, DeleteRecordsTopic(name=tp.topic))
        topic.partitions.append(DeleteRecordsPartition(partition_index=tp.partition, offset=offset))
    return DeleteRecordsRequest(topics=list(topics.values()), timeout_ms=timeout_ms)


async def _ask(
    client: Client,
    node: int,
    timestamps: Mapping[TopicPartition, int],
    found: dict[TopicPartition, LogOffset],
    read_committed: bool,
    timeout_ms: int | None,
) -> None:
    request = list_offsets_request(timestamps, read_committed=read_committed)
    response: ListOffsetsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
    failed: KafkaError | None = None
    for answered in response.topics:
        for partition in answered.partitions:
            tp = TopicPartition(answered.name, partition.partition_index)
            code = error_code(partition.error_code)
            if code is ErrorCode.NONE:
                found[tp] = LogOffset(partition.offset, partition.timestamp, partition.leader_epoch)
            else:
                client.forget([tp.topic])
                failed = failed or KafkaError(code, f"offsets of {tp}: {code.sentence}")
    if failed is not None:
        raise failed


async def delete_records(
    client: Client, offsets: Mapping[TopicPartition, int], *, timeout_ms: int | None = None
) -> dict[TopicPartition, int]:
    """Drop, per partition, every record before an offset (LATEST: every record); return where each log starts now.

    Raises KafkaError for the first partition that has an error; others may have been changed.
    """
    starts: dict[TopicPartition, int] = {}

    async def ask_the_rest() -> dict[TopicPartition, int]:
        rest = [tp for tp in offsets if tp not in starts]
        for node, partitions in (await client.leaders(rest, timeout_ms=timeout_ms)).items():
            await _delete(client, node, {tp: offsets[tp] for tp in partitions}, starts, timeout_ms)
        return starts

    return await client.retried(ask_the_rest, timeout_ms=timeout_ms)


async def _delete(
    client: Client,
    node: int,
    offsets: Mapping[TopicPartition, int],
    starts: dict[TopicPartition, int],
    timeout_ms: int | None,
) -> None:
    wait_ms = client.request_timeout_ms if timeout_ms is None else timeout_ms
    request = delete_records_request(offsets, timeout_ms=wait_ms)
    response: DeleteRecordsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
    failed: KafkaError | None = None
    for answered in response.topics:
        for partition in answered.partitions:
            tp = TopicPartition(answered.name, partition.partition_index)
            code = error_code(partition.error_code)
            if code is ErrorCode.NONE:
                starts[tp] = partition.low_watermark
                continue
            client.forget([tp.topic])
            sentence = code.sentence
            if code is ErrorCode.OFFSET_OUT_OF_RANGE:
                sentence = f"offset {offsets[tp]} is past its end; `millstream offsets` shows what is there"
            failed = failed or KafkaError(code, f"records of {tp} were not deleted: {sentence}")
    if failed is not None:
        raise failed
