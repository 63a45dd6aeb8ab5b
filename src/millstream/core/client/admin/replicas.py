"""Where replicas lie: leader elections (KIP-460), moves between brokers (KIP-455) and log directories (KIP-113)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from millstream.core.client.admin.results import by_topic, check, error_of
from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.wire import KafkaError
from millstream.core.wire.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignableTopic,
)
from millstream.core.wire.messages.alter_replica_log_dirs import (
    AlterReplicaLogDir,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopic,
)
from millstream.core.wire.messages.describe_log_dirs import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
)
from millstream.core.wire.messages.elect_leaders import ElectLeadersRequest, ElectLeadersResponse, TopicPartitions
from millstream.core.wire.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    ListPartitionReassignmentsTopics,
)


class Replica(NamedTuple):
    """A copy of a partition: which broker holds it."""

    topic: str
    partition: int
    broker: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition} on broker {self.broker}"


class ReplicaInLogDir(NamedTuple):
    """A replica in a directory. `is_future` is one that is being moved there; `offset_lag` how far it has to go."""

    size_bytes: int
    offset_lag: int
    is_future: bool


@dataclass(frozen=True, slots=True)
class LogDirDescription:
    """A log directory and what lies in it; bytes of its volume are -1 where the broker does not say."""

    path: str
    total_bytes: int
    usable_bytes: int
    replicas: Mapping[TopicPartition, ReplicaInLogDir]

    @property
    def size_bytes(self) -> int:
        """What its replicas take."""
        return sum(replica.size_bytes for replica in self.replicas.values())


class Reassignment(NamedTuple):
    """A move that is under way; `replicas` are those there are now, old and new."""

    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]


async def describe_log_dirs(
    client: Client,
    brokers: Iterable[int] | None = None,
    partitions: Iterable[TopicPartition] | None = None,
    *,
    timeout_ms: int,
) -> dict[int, dict[str, LogDirDescription | KafkaError] | KafkaError]:
    """Return the log directories of brokers (None: all) by path, with these partitions' replicas or all."""
    cluster = await client.metadata([], timeout_ms=timeout_ms)
    topics = (
        None
        if partitions is None
        else [
            DescribableLogDirTopic(topic=topic, partitions=indexes) for topic, indexes in by_topic(partitions).items()
        ]
    )
    found: dict[int, dict[str, LogDirDescription | KafkaError] | KafkaError] = {}
    for node in sorted(cluster.brokers if brokers is None else set(brokers)):
        try:
            response: DescribeLogDirsResponse = await client.request(
                DescribeLogDirsRequest(topics=topics), node=node, timeout_ms=timeout_ms
            )
            check(response.error_code, None, f"log directories of broker {node}")
        except KafkaError as error:
            found[node] = error
        else:
            found[node] = {result.log_dir: _log_dir(result) for result in response.results}
    return found


async def alter_replica_log_dirs(
    client: Client, moves: Mapping[Replica, str], *, timeout_ms: int
) -> dict[Replica, KafkaError | None]:
    """Have replicas moved to other log directories of their brokers; return per replica None or why not.

    None means that the move has begun: describe_log_dirs shows how far it is.
    """
    results: dict[Replica, KafkaError | None] = {}
    await client.metadata([], timeout_ms=timeout_ms)
    for node in sorted({replica.broker for replica in moves}):
        dirs: dict[str, list[TopicPartition]] = {}
        mine = {replica: path for replica, path in moves.items() if replica.broker == node}
        for replica, path in mine.items():
            dirs.setdefault(path, []).append(TopicPartition(replica.topic, replica.partition))
        request = AlterReplicaLogDirsRequest(
            dirs=[
                AlterReplicaLogDir(
                    path=path,
                    topics=[
                        AlterReplicaLogDirTopic(name=topic, partitions=indexes)
                        for topic, indexes in by_topic(partitions).items()
                    ],
                )
                for path, partitions in dirs.items()
            ]
        )
        try:
            response: AlterReplicaLogDirsResponse = await client.request(request, node=node, timeout_ms=timeout_ms)
        except KafkaError as error:
            results.update(dict.fromkeys(mine, error))
            continue
        for topic in response.results:
            for one in topic.partitions:
                replica = Replica(topic.topic_name, one.partition_index, node)
                results[replica] = error_of(one.error_code, None, f"{replica} was not moved")
    return results


async def elect_leaders(
    client: Client, partitions: Iterable[TopicPartition] | None, *, unclean: bool, timeout_ms: int
) -> dict[TopicPartition, KafkaError | None]:
    """Have leaders elected: the preferred replicas, or, `unclean`, any where none in sync is left."""
    request = ElectLeadersRequest(
        election_type=1 if unclean else 0,
        topic_partitions=None
        if partitions is None
        else [TopicPartitions(topic=topic, partitions=indexes) for topic, indexes in by_topic(partitions).items()],
        timeout_ms=timeout_ms,
    )
    response: ElectLeadersResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    check(response.error_code, None, "no leaders were elected")
    return {
        (tp := TopicPartition(topic.topic, one.partition_id)): error_of(
            one.error_code, one.error_message, f"no leader of {tp} was elected"
        )
        for topic in response.replica_election_results
        for one in topic.partition_result
    }


async def alter_partition_reassignments(
    client: Client, replicas: Mapping[TopicPartition, Sequence[int] | None], *, timeout_ms: int
) -> dict[TopicPartition, KafkaError | None]:
    """Have partitions moved to these brokers, or (None) a move that is under way given up."""
    topics: dict[str, list[ReassignablePartition]] = {}
    for (topic, index), brokers in replicas.items():
        topics.setdefault(topic, []).append(
            ReassignablePartition(partition_index=index, replicas=None if brokers is None else list(brokers))
        )
    request = AlterPartitionReassignmentsRequest(
        timeout_ms=timeout_ms,
        topics=[ReassignableTopic(name=topic, partitions=listed) for topic, listed in topics.items()],
    )
    response: AlterPartitionReassignmentsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    check(response.error_code, response.error_message, "no partition was moved")
    return {
        (tp := TopicPartition(topic.name, one.partition_index)): error_of(
            one.error_code, one.error_message, f"{tp} was not moved"
        )
        for topic in response.responses
        for one in topic.partitions
    }


async def list_partition_reassignments(
    client: Client, partitions: Iterable[TopicPartition] | None, *, timeout_ms: int
) -> dict[TopicPartition, Reassignment]:
    """Return the moves that are under way, of these partitions or of all."""
    request = ListPartitionReassignmentsRequest(
        timeout_ms=timeout_ms,
        topics=None
        if partitions is None
        else [
            ListPartitionReassignmentsTopics(name=topic, partition_indexes=indexes)
            for topic, indexes in by_topic(partitions).items()
        ],
    )
    response: ListPartitionReassignmentsResponse = await client.request_controller(request, timeout_ms=timeout_ms)
    check(response.error_code, response.error_message, "moves of partitions were not listed")
    return {
        TopicPartition(topic.name, one.partition_index): Reassignment(
            tuple(one.replicas), tuple(one.adding_replicas), tuple(one.removing_replicas)
        )
        for topic in response.topics
        for one in topic.partitions
    }


def _log_dir(result: DescribeLogDirsResult) -> LogDirDescription | KafkaError:
    if error := error_of(result.error_code, None, f"log directory {result.log_dir}"):
        return error
    return LogDirDescription(
        path=result.log_dir,
        total_bytes=result.total_bytes,
        usable_bytes=result.usable_bytes,
        replicas={
            TopicPartition(topic.name, one.partition_index): ReplicaInLogDir(
                one.partition_size, one.offset_lag, one.is_future_key
            )
            for topic in result.topics
            for one in topic.partitions
        },
    )
