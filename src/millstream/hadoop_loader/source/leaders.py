"""Asking the leaders of many partitions at once, where one that does not answer keeps nothing from the others.

`core.client`'s own calls raise for the first partition that fails; a load goes on with the partitions that answer and
names the rest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, TypeVar

from millstream.core.client import Client, TopicPartition
from millstream.core.client.offsets import list_offsets_request
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.list_offsets import ListOffsetsResponse
from millstream.core.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from millstream.hadoop_loader.source.snapshot import EpochEnd

T = TypeVar("T")

# How long partitions without a leader are waited for: an election takes a moment, an offline disk for ever.
LEADER_WAIT_S: Final = 15.0

Answers = Iterable[tuple[TopicPartition, int, T]]


class Asked(Generic[T]):
    """What partitions answered, and why the others did not."""

    def __init__(self) -> None:
        self.found: dict[TopicPartition, T] = {}
        self.errors: dict[TopicPartition, KafkaError] = {}


async def ask_leaders(
    client: Client,
    partitions: Iterable[TopicPartition],
    request_of: Callable[[list[TopicPartition]], Any],
    answers_of: Callable[[Any], Answers[T]],
    *,
    timeout_s: float,
    wait_s: float = LEADER_WAIT_S,
) -> Asked[T]:
    """Send each leader one request for all its partitions, again for those that have to be, and return what came.

    `timeout_s` bounds one request, `wait_s` the tries.
    """
    asked: Asked[T] = Asked()
    pending = list(dict.fromkeys(partitions))
    give_up_at = time.monotonic() + min(wait_s, timeout_s)
    failures = 0
    while pending:
        by_node: dict[int, list[TopicPartition]] = {}
        for tp in pending:
            try:
                by_node.setdefault(client.cluster.leader(tp), []).append(tp)
            except KafkaError as error:
                asked.errors[tp] = error

        async def ask(node: int, tps: list[TopicPartition]) -> None:
            try:
                connection = await client.connection(node)
                response = await connection.request(request_of(tps), timeout_s=timeout_s)
            except KafkaError as error:
                asked.errors.update(dict.fromkeys(tps, error))
                return
            for tp, code, answer in answers_of(response):
                if code == ErrorCode.NONE:
                    asked.found[tp] = answer
                    asked.errors.pop(tp, None)
                else:
                    asked.errors[tp] = KafkaError(error_code(code), f"{tp}: {error_code(code).sentence}")

        await asyncio.gather(*(ask(node, tps) for node, tps in by_node.items()))
        pending = [tp for tp in pending if tp not in asked.found and _may_come(asked.errors, tp)]
        failures += 1
        pause_s = client.backoff.pause_s(failures)
        if not pending or time.monotonic() + pause_s >= give_up_at:
            break
        await asyncio.sleep(pause_s)
        await client.metadata({tp.topic for tp in pending}, timeout_ms=round(timeout_s * 1000))
    return asked


async def ask_offsets(
    client: Client, timestamps: Mapping[TopicPartition, int], *, read_committed: bool, timeout_s: float
) -> Asked[int]:
    """Return offsets at timestamps in ms, or at LATEST, EARLIEST; -1 where no record is that young."""

    def answers_of(response: ListOffsetsResponse) -> Answers[int]:
        for topic in response.topics:
            for partition in topic.partitions:
                tp = TopicPartition(topic.name, partition.partition_index)
                yield tp, partition.error_code, partition.offset

    def request_of(tps: list[TopicPartition]) -> Any:
        return list_offsets_request({tp: timestamps[tp] for tp in tps}, read_committed=read_committed)

    return await ask_leaders(client, timestamps, request_of, answers_of, timeout_s=timeout_s)


async def ask_epoch_ends(
    client: Client, epochs: Mapping[TopicPartition, int], *, timeout_s: float, wait_s: float = LEADER_WAIT_S
) -> Asked[EpochEnd]:
    """Return where leader epochs end in the logs as they are now (KIP-320)."""

    def request_of(tps: list[TopicPartition]) -> Any:
        topics: dict[str, OffsetForLeaderTopic] = {}
        for tp in tps:
            topic = topics.setdefault(tp.topic, OffsetForLeaderTopic(topic=tp.topic))
            topic.partitions.append(OffsetForLeaderPartition(partition=tp.partition, leader_epoch=epochs[tp]))
        return OffsetForLeaderEpochRequest(replica_id=-1, topics=list(topics.values()))

    def answers_of(response: OffsetForLeaderEpochResponse) -> Answers[EpochEnd]:
        for topic in response.topics:
            for partition in topic.partitions:
                tp = TopicPartition(topic.topic, partition.partition)
                yield tp, partition.error_code, EpochEnd(partition.leader_epoch, partition.end_offset)

    return await ask_leaders(client, epochs, request_of, answers_of, timeout_s=timeout_s, wait_s=wait_s)


def _may_come(errors: Mapping[TopicPartition, KafkaError], tp: TopicPartition) -> bool:
    error = errors.get(tp)
    return error is None or error.code.retriable
