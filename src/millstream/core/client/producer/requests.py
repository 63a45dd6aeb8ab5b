"""Produce requests, and what their answers say of each batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from millstream.core.client.cluster import NO_NODE, TopicPartition
from millstream.core.client.producer.batch import Batch
from millstream.core.client.producer.effects import Outcome
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.produce import (
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)

VERSION_MAX: Final = 12
"""From 13 on topics go by their id."""


def produce_request(batches: Iterable[Batch], *, acks: int, timeout_ms: int) -> ProduceRequest:
    """Return the request that carries `batches`, one of each partition."""
    topics: dict[str, TopicProduceData] = {}
    for batch in batches:
        topic = topics.get(batch.topic)
        if topic is None:
            topic = topics[batch.topic] = TopicProduceData(name=batch.topic)
        topic.partition_data.append(PartitionProduceData(index=batch.partition, records=batch.stamped()))
    return ProduceRequest(transactional_id=None, acks=acks, timeout_ms=timeout_ms, topic_data=list(topics.values()))


def outcomes(response: ProduceResponse) -> Mapping[TopicPartition, Outcome]:
    """Return what an answer says of each partition."""
    return {
        (tp := TopicPartition(topic.name, partition.index)): _outcome(tp, partition)
        for topic in response.responses
        for partition in topic.partition_responses
    }


def _outcome(tp: TopicPartition, partition: PartitionProduceResponse) -> Outcome:
    if partition.error_code == ErrorCode.NONE:
        return Outcome(None, partition.base_offset, partition.log_append_time_ms)
    leader = partition.current_leader
    return Outcome(
        _error(tp, partition),
        leader=leader.leader_id if leader is not None else NO_NODE,
        leader_epoch=leader.leader_epoch if leader is not None else -1,
    )


def _error(tp: TopicPartition, partition: PartitionProduceResponse) -> KafkaError:
    code = error_code(partition.error_code)
    reason = (partition.error_message or code.sentence).rstrip(".")
    if partition.record_errors:
        first = partition.record_errors[0]
        detail = first.batch_index_error_message or reason
        reason = f"record {first.batch_index} of the batch: {detail.rstrip('.')}"
    return KafkaError(code, f"{tp} took no records: {reason}")
