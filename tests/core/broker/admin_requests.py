"""Short ways to write admin requests, for stories that are told to two brokers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from millstream.core.wire.messages import (
    alter_client_quotas,
    alter_partition_reassignments,
    alter_replica_log_dirs,
    alter_user_scram_credentials,
    describe_client_quotas,
    describe_topic_partitions,
    describe_user_scram_credentials,
    elect_leaders,
    list_config_resources,
    list_partition_reassignments,
)

TIMEOUT_MS = 10_000
Partitions = tuple[str, Sequence[int]]


def elect(kind: int, topics: Sequence[Partitions] | None) -> Any:
    return elect_leaders.ElectLeadersRequest(
        election_type=kind,
        topic_partitions=None
        if topics is None
        else [elect_leaders.TopicPartitions(topic=name, partitions=list(indexes)) for name, indexes in topics],
        timeout_ms=TIMEOUT_MS,
    )


def reassign(*topics: tuple[str, list[tuple[int, list[int] | None]]]) -> Any:
    return alter_partition_reassignments.AlterPartitionReassignmentsRequest(
        timeout_ms=TIMEOUT_MS,
        topics=[
            alter_partition_reassignments.ReassignableTopic(
                name=name,
                partitions=[
                    alter_partition_reassignments.ReassignablePartition(partition_index=index, replicas=replicas)
                    for index, replicas in partitions
                ],
            )
            for name, partitions in topics
        ],
    )


def reassignments(topics: Sequence[Partitions] | None) -> Any:
    wanted = list_partition_reassignments.ListPartitionReassignmentsTopics
    return list_partition_reassignments.ListPartitionReassignmentsRequest(
        timeout_ms=TIMEOUT_MS,
        topics=None
        if topics is None
        else [wanted(name=name, partition_indexes=list(indexes)) for name, indexes in topics],
    )


def page(*names: str, limit: int = 2000, cursor: tuple[str, int] | None = None) -> Any:
    return describe_topic_partitions.DescribeTopicPartitionsRequest(
        topics=[describe_topic_partitions.TopicRequest(name=name) for name in names],
        response_partition_limit=limit,
        cursor=None
        if cursor is None
        else describe_topic_partitions.Cursor(topic_name=cursor[0], partition_index=cursor[1]),
    )


def resources(*kinds: int) -> Any:
    return list_config_resources.ListConfigResourcesRequest(resource_types=list(kinds))


def quotas(*components: tuple[str, int, str | None], strict: bool = False) -> Any:
    return describe_client_quotas.DescribeClientQuotasRequest(
        components=[
            describe_client_quotas.ComponentData(entity_type=kind, match_type=match_type, match=match)
            for kind, match_type, match in components
        ],
        strict=strict,
    )


def set_quota(*parts: tuple[str, str | None], remove: bool = False, validate_only: bool = False) -> Any:
    operation = alter_client_quotas.OpData(key="producer_byte_rate", value=1.0, remove=remove)
    entity = [alter_client_quotas.EntityData(entity_type=kind, entity_name=name) for kind, name in parts]
    return alter_client_quotas.AlterClientQuotasRequest(
        entries=[alter_client_quotas.EntryData(entity=entity, ops=[operation])], validate_only=validate_only
    )


def credentials(users: Sequence[str] | None) -> Any:
    return describe_user_scram_credentials.DescribeUserScramCredentialsRequest(
        users=None if users is None else [describe_user_scram_credentials.UserName(name=name) for name in users]
    )


def set_credentials(deletions: Sequence[tuple[str, int]] = (), upsertions: Sequence[tuple[str, int, int]] = ()) -> Any:
    return alter_user_scram_credentials.AlterUserScramCredentialsRequest(
        deletions=[
            alter_user_scram_credentials.ScramCredentialDeletion(name=name, mechanism=mechanism)
            for name, mechanism in deletions
        ],
        upsertions=[
            alter_user_scram_credentials.ScramCredentialUpsertion(
                name=name, mechanism=mechanism, iterations=iterations, salt=b"salt" * 4, salted_password=b"p" * 32
            )
            for name, mechanism, iterations in upsertions
        ],
    )


def move(*directories: tuple[str, Sequence[Partitions]]) -> Any:
    return alter_replica_log_dirs.AlterReplicaLogDirsRequest(
        dirs=[
            alter_replica_log_dirs.AlterReplicaLogDir(
                path=path,
                topics=[
                    alter_replica_log_dirs.AlterReplicaLogDirTopic(name=name, partitions=list(indexes))
                    for name, indexes in topics
                ],
            )
            for path, topics in directories
        ]
    )
