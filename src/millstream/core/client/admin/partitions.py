"""What leaders of partitions are asked: offsets, moving the start of a log (KIP-107), active producers (KIP-664)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from millstream.core.client.admin.results import ask_leaders, by_topic, error_of
from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.offsets import LogOffset, delete_records_request, list_offsets_request
from millstream.core.wire import KafkaError
from millstream.core.wire.messages import describe_producers as producers_wire
from millstream.core.wire.messages.delete_records import DeleteRecordsResponse
from millstream.core.wire.messages.list_offsets import ListOffsetsResponse


class ActiveProducer(NamedTuple):
    """A producer that a partition remembers; a field is -1 where there is nothing to say."""

    producer_id: int
    epoch: int
    last_sequence: int
    last_timestamp_ms: int
    coordinator_epoch: int
    transaction_start_offset: int


async def list_offsets(
    client: Client, timestamps: Mapping[TopicPartition, int], *, read_committed: bool, timeout_ms: int
) -> dict[TopicPartition, LogOffset | KafkaError]:
    """Return per partition the first offset at or after a time in ms, or at LATEST, EARLIEST, MAX_TIMESTAMP."""

    async def ask(node: int, led: Sequence[TopicPartition]) -> dict[TopicPartition, LogOffset | KafkaError]:
        request = list_offsets_request({tp: timestamps[tp] for tp in led}, read_committed=read_committed)
        response: ListOffsetsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        return {
            (tp := TopicPartition(topic.name, one.partition_index)): error_of(one.error_code, None, f"offsets of {tp}")
            or LogOffset(one.offset, one.timestamp, one.leader_epoch)
            for topic in response.topics
            for one in topic.partitions
        }

    return await ask_leaders(client, timestamps, ask, timeout_ms)


async def delete_records(
    client: Client, offsets: Mapping[TopicPartition, int], *, timeout_ms: int
) -> dict[TopicPartition, int | KafkaError]:
    """Drop per partition every record before an offset (LATEST: every record); return where each log starts now."""

    async def ask(node: int, led: Sequence[TopicPartition]) -> dict[TopicPartition, int | KafkaError]:
        request = delete_records_request({tp: offsets[tp] for tp in led}, timeout_ms=timeout_ms)
        response: DeleteRecordsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        results: dict[TopicPartition, int | KafkaError] = {}
        for topic in response.topics:
            for one in topic.partitions:
                tp = TopicPartition(topic.name, one.partition_index)
                error = error_of(one.error_code, None, f"records of {tp} before {offsets[tp]} were not deleted")
                results[tp] = one.low_watermark if error is None else error
        return results

    return await ask_leaders(client, offsets, ask, timeout_ms)


async def describe_producers(
    client: Client, partitions: Iterable[TopicPartition], *, timeout_ms: int
) -> dict[TopicPartition, tuple[ActiveProducer, ...] | KafkaError]:
    """Return the producers that each partition's leader remembers, by id."""

    async def ask(
        node: int, led: Sequence[TopicPartition]
    ) -> dict[TopicPartition, tuple[ActiveProducer, ...] | KafkaError]:
        request = producers_wire.DescribeProducersRequest(
            topics=[
                producers_wire.TopicRequest(name=topic, partition_indexes=indexes)
                for topic, indexes in by_topic(led).items()
            ]
        )
        response: producers_wire.DescribeProducersResponse = await client.request(
            request, node=node, timeout_ms=timeout_ms
        )
        results: dict[TopicPartition, tuple[ActiveProducer, ...] | KafkaError] = {}
        for topic in response.topics:
            for one in topic.partitions:
                tp = TopicPartition(topic.name, one.partition_index)
                error = error_of(one.error_code, one.error_message, f"producers of {tp}")
                results[tp] = tuple(sorted(map(_producer, one.active_producers))) if error is None else error
        return results

    return await ask_leaders(client, partitions, ask, timeout_ms)


def _producer(state: producers_wire.ProducerState) -> ActiveProducer:
    return ActiveProducer(
        state.producer_id,
        state.producer_epoch,
        state.last_sequence,
        state.last_timestamp,
        state.coordinator_epoch,
        state.current_txn_start_offset,
    )
