"""What groups have committed: fetched for several groups at once, set and forgotten for one (KIP-496)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.coordinators import check, error_of, final_error, of_coordinator, of_coordinators
from millstream.core.wire import ApiKey, KafkaError
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from millstream.core.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

_SEVERAL_GROUPS_VERSION: Final = 8  # of OffsetFetch
_NO_OFFSET: Final = -1


class CommittedOffset(NamedTuple):
    """What a group committed for a partition: the next offset it wants to read."""

    offset: int
    leader_epoch: int = -1
    metadata: str = ""


async def fetch_offsets(
    client: Client,
    groups: Mapping[str, Iterable[TopicPartition] | None],
    *,
    require_stable: bool = False,
    timeout_ms: int | None = None,
) -> dict[str, dict[TopicPartition, CommittedOffset]]:
    """Return what groups committed for the given partitions (None: for all); a partition without is left out.

    A group that does not exist has committed nothing. Raises KafkaError for the first group that has an error.
    """
    wanted = {group: None if tps is None else list(tps) for group, tps in groups.items()}

    async def ask(node: int, ids: list[str]) -> dict[str, dict[TopicPartition, CommittedOffset]]:
        several = (await client.connection(node)).version(ApiKey.OFFSET_FETCH) >= _SEVERAL_GROUPS_VERSION
        found: dict[str, dict[TopicPartition, CommittedOffset]] = {}
        for batch in [ids] if several else [[group_id] for group_id in ids]:
            asked = [OffsetFetchRequestGroup(group_id=one, topics=_fetched_topics(wanted[one])) for one in batch]
            request = OffsetFetchRequest(
                group_id=batch[0],
                topics=_alone(asked[0].topics),
                groups=asked,
                require_stable=require_stable,
            )
            response: OffsetFetchResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
            if not several:
                check(response.error_code, None, f"offsets of group {batch[0]!r}", batch[0])
                found[batch[0]] = _committed(batch[0], response.topics)
            for group in response.groups:
                check(group.error_code, None, f"offsets of group {group.group_id!r}", group.group_id)
                found[group.group_id] = _committed(group.group_id, group.topics)
        return found

    return await of_coordinators(client, wanted, ask, timeout_ms)


async def commit_offsets(
    client: Client, group_id: str, offsets: Mapping[TopicPartition, CommittedOffset], *, timeout_ms: int | None = None
) -> None:
    """Set what a group without members has committed. Raises KafkaError, also for the first partition refused."""
    results = await alter_offsets(client, group_id, offsets, timeout_ms=timeout_ms)
    for error in results.values():
        if error is not None:
            raise error


def commit_topics(offsets: Mapping[TopicPartition, CommittedOffset]) -> list[OffsetCommitRequestTopic]:
    """Return what an OffsetCommit says of `offsets`."""
    topics: dict[str, OffsetCommitRequestTopic] = {}
    for tp, committed in offsets.items():
        topics.setdefault(tp.topic, OffsetCommitRequestTopic(name=tp.topic)).partitions.append(
            OffsetCommitRequestPartition(
                partition_index=tp.partition,
                committed_offset=committed.offset,
                committed_leader_epoch=committed.leader_epoch,
                committed_metadata=committed.metadata,
            )
        )
    return list(topics.values())


async def alter_offsets(
    client: Client, group_id: str, offsets: Mapping[TopicPartition, CommittedOffset], *, timeout_ms: int | None = None
) -> dict[TopicPartition, KafkaError | None]:
    """Set what a group without members has committed; return per partition None or why not. Raises KafkaError."""
    request = OffsetCommitRequest(group_id=group_id, topics=commit_topics(offsets))

    async def ask(node: int) -> dict[TopicPartition, KafkaError | None]:
        response: OffsetCommitResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        return {
            (tp := TopicPartition(topic.name, partition.partition_index)): final_error(
                partition.error_code, None, f"offset of {tp} was not committed", group_id
            )
            for topic in response.topics
            for partition in topic.partitions
        }

    return await of_coordinator(client, group_id, ask, timeout_ms)


async def delete_offsets(
    client: Client, group_id: str, partitions: Iterable[TopicPartition], *, timeout_ms: int | None = None
) -> dict[TopicPartition, KafkaError | None]:
    """Forget what a group committed for partitions; return per partition None or why not. Raises KafkaError."""
    topics: dict[str, OffsetDeleteRequestTopic] = {}
    for tp in partitions:
        topics.setdefault(tp.topic, OffsetDeleteRequestTopic(name=tp.topic)).partitions.append(
            OffsetDeleteRequestPartition(partition_index=tp.partition)
        )
    request = OffsetDeleteRequest(group_id=group_id, topics=list(topics.values()))

    async def ask(node: int) -> dict[TopicPartition, KafkaError | None]:
        response: OffsetDeleteResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        check(response.error_code, None, f"offsets of group {group_id!r} were not deleted", group_id)
        return {
            (tp := TopicPartition(topic.name, partition.partition_index)): error_of(
                partition.error_code, None, f"the offset of {tp} was not deleted", group_id
            )
            for topic in response.topics
            for partition in topic.partitions
        }

    return await of_coordinator(client, group_id, ask, timeout_ms)


def _fetched_topics(partitions: list[TopicPartition] | None) -> list[OffsetFetchRequestTopics] | None:
    if partitions is None:
        return None
    topics: dict[str, OffsetFetchRequestTopics] = {}
    for tp in partitions:
        topics.setdefault(tp.topic, OffsetFetchRequestTopics(name=tp.topic)).partition_indexes.append(tp.partition)
    return list(topics.values())


def _alone(topics: list[OffsetFetchRequestTopics] | None) -> list[OffsetFetchRequestTopic] | None:
    """The same, as versions with one group a request say it."""
    if topics is None:
        return None
    return [OffsetFetchRequestTopic(name=topic.name, partition_indexes=topic.partition_indexes) for topic in topics]


def _committed(
    group_id: str, topics: Iterable[OffsetFetchResponseTopic | OffsetFetchResponseTopics]
) -> dict[TopicPartition, CommittedOffset]:
    found: dict[TopicPartition, CommittedOffset] = {}
    for topic in topics:
        for partition in topic.partitions:
            tp = TopicPartition(topic.name, partition.partition_index)
            check(partition.error_code, None, f"the offset of {tp} in group {group_id!r}", group_id)
            if partition.committed_offset != _NO_OFFSET:
                found[tp] = CommittedOffset(
                    partition.committed_offset, partition.committed_leader_epoch, partition.metadata or ""
                )
    return found
