"""Every API asks for permission: with an authorizer that denies everything none of them shows or changes anything."""

from collections.abc import Iterator
from typing import Any

import pytest
from tests.core.broker.admin_requests import (
    credentials,
    elect,
    move,
    page,
    quotas,
    reassign,
    reassignments,
    resources,
    set_credentials,
    set_quota,
)
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import HANDLERS
from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ApiKey, ErrorCode
from millstream.core.wire.messages import (
    alter_configs,
    consumer_group_describe,
    consumer_group_heartbeat,
    create_partitions,
    create_topics,
    delete_groups,
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_groups,
    describe_log_dirs,
    describe_producers,
    fetch,
    find_coordinator,
    heartbeat,
    incremental_alter_configs,
    init_producer_id,
    join_group,
    leave_group,
    list_groups,
    list_offsets,
    metadata,
    offset_commit,
    offset_delete,
    offset_fetch,
    offset_for_leader_epoch,
    produce,
    sync_group,
)
from millstream.testing.raw import RawConnection

TOPIC = "secret"
TOPIC_RESOURCE = 2
BROKER_RESOURCE = 4
DENIED = {
    ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ErrorCode.CLUSTER_AUTHORIZATION_FAILED,
    ErrorCode.GROUP_AUTHORIZATION_FAILED,
    ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
}


class DenyAll:
    def permits(self, *_question: object) -> bool:
        return False


def batch() -> bytes:
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, b"k", b"v")
    return bytes(builder.build())


REQUESTS: dict[ApiKey, Any] = {
    ApiKey.PRODUCE: produce.ProduceRequest(
        acks=1,
        topic_data=[
            produce.TopicProduceData(
                name=TOPIC, partition_data=[produce.PartitionProduceData(index=0, records=batch())]
            )
        ],
    ),
    ApiKey.FETCH: fetch.FetchRequest(
        session_epoch=-1,
        topics=[fetch.FetchTopic(topic=TOPIC, partitions=[fetch.FetchPartition(partition_max_bytes=1000)])],
    ),
    ApiKey.LIST_OFFSETS: list_offsets.ListOffsetsRequest(
        replica_id=-1,
        topics=[
            list_offsets.ListOffsetsTopic(name=TOPIC, partitions=[list_offsets.ListOffsetsPartition(timestamp=-1)])
        ],
    ),
    ApiKey.METADATA: metadata.MetadataRequest(
        topics=[metadata.MetadataRequestTopic(name=TOPIC), metadata.MetadataRequestTopic(name="new")]
    ),
    ApiKey.FIND_COORDINATOR: find_coordinator.FindCoordinatorRequest(coordinator_keys=["group"]),
    ApiKey.OFFSET_COMMIT: offset_commit.OffsetCommitRequest(
        group_id="group",
        topics=[
            offset_commit.OffsetCommitRequestTopic(
                name=TOPIC, partitions=[offset_commit.OffsetCommitRequestPartition(committed_offset=1)]
            )
        ],
    ),
    ApiKey.OFFSET_FETCH: offset_fetch.OffsetFetchRequest(
        group_id="group",
        topics=[offset_fetch.OffsetFetchRequestTopic(name=TOPIC, partition_indexes=[0])],
        groups=[offset_fetch.OffsetFetchRequestGroup(group_id="group", topics=None)],
    ),
    ApiKey.OFFSET_DELETE: offset_delete.OffsetDeleteRequest(
        group_id="group",
        topics=[
            offset_delete.OffsetDeleteRequestTopic(
                name=TOPIC, partitions=[offset_delete.OffsetDeleteRequestPartition()]
            )
        ],
    ),
    ApiKey.JOIN_GROUP: join_group.JoinGroupRequest(
        group_id="group",
        session_timeout_ms=10_000,
        protocol_type="consumer",
        protocols=[join_group.JoinGroupRequestProtocol(name="range", metadata=b"")],
    ),
    ApiKey.SYNC_GROUP: sync_group.SyncGroupRequest(
        group_id="group", member_id="member", protocol_type="consumer", protocol_name="range"
    ),
    ApiKey.HEARTBEAT: heartbeat.HeartbeatRequest(group_id="group", member_id="member"),
    ApiKey.LEAVE_GROUP: leave_group.LeaveGroupRequest(group_id="group", member_id="member"),
    ApiKey.CONSUMER_GROUP_HEARTBEAT: consumer_group_heartbeat.ConsumerGroupHeartbeatRequest(
        group_id="group", member_id="member", subscribed_topic_names=[TOPIC], rebalance_timeout_ms=1000
    ),
    ApiKey.CONSUMER_GROUP_DESCRIBE: consumer_group_describe.ConsumerGroupDescribeRequest(group_ids=["group"]),
    ApiKey.DESCRIBE_GROUPS: describe_groups.DescribeGroupsRequest(groups=["group"]),
    ApiKey.LIST_GROUPS: list_groups.ListGroupsRequest(),
    ApiKey.DELETE_GROUPS: delete_groups.DeleteGroupsRequest(groups_names=["group"]),
    ApiKey.CREATE_TOPICS: create_topics.CreateTopicsRequest(
        topics=[create_topics.CreatableTopic(name="new", num_partitions=1, replication_factor=1)], timeout_ms=1000
    ),
    ApiKey.DELETE_TOPICS: delete_topics.DeleteTopicsRequest(
        topics=[delete_topics.DeleteTopicState(name=TOPIC)], topic_names=[TOPIC], timeout_ms=1000
    ),
    ApiKey.DELETE_RECORDS: delete_records.DeleteRecordsRequest(
        topics=[
            delete_records.DeleteRecordsTopic(
                name=TOPIC, partitions=[delete_records.DeleteRecordsPartition(partition_index=0, offset=-1)]
            )
        ],
        timeout_ms=1000,
    ),
    ApiKey.INIT_PRODUCER_ID: init_producer_id.InitProducerIdRequest(transactional_id=None),
    ApiKey.OFFSET_FOR_LEADER_EPOCH: offset_for_leader_epoch.OffsetForLeaderEpochRequest(
        topics=[
            offset_for_leader_epoch.OffsetForLeaderTopic(
                topic=TOPIC, partitions=[offset_for_leader_epoch.OffsetForLeaderPartition()]
            )
        ]
    ),
    ApiKey.DESCRIBE_CONFIGS: describe_configs.DescribeConfigsRequest(
        resources=[
            describe_configs.DescribeConfigsResource(
                resource_type=TOPIC_RESOURCE, resource_name=TOPIC, configuration_keys=None
            ),
            describe_configs.DescribeConfigsResource(
                resource_type=BROKER_RESOURCE, resource_name="1", configuration_keys=None
            ),
        ]
    ),
    ApiKey.ALTER_CONFIGS: alter_configs.AlterConfigsRequest(
        resources=[
            alter_configs.AlterConfigsResource(
                resource_type=TOPIC_RESOURCE,
                resource_name=TOPIC,
                configs=[alter_configs.AlterableConfig(name="retention.ms", value="1")],
            )
        ]
    ),
    ApiKey.INCREMENTAL_ALTER_CONFIGS: incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[
            incremental_alter_configs.AlterConfigsResource(
                resource_type=TOPIC_RESOURCE,
                resource_name=TOPIC,
                configs=[incremental_alter_configs.AlterableConfig(name="retention.ms", value="1")],
            )
        ]
    ),
    ApiKey.DESCRIBE_LOG_DIRS: describe_log_dirs.DescribeLogDirsRequest(topics=None),
    ApiKey.CREATE_PARTITIONS: create_partitions.CreatePartitionsRequest(
        topics=[create_partitions.CreatePartitionsTopic(name=TOPIC, count=5, assignments=None)], timeout_ms=1000
    ),
    ApiKey.ALTER_REPLICA_LOG_DIRS: move(("/nowhere", [(TOPIC, [0])])),
    ApiKey.ELECT_LEADERS: elect(0, [(TOPIC, [0])]),
    ApiKey.ALTER_PARTITION_REASSIGNMENTS: reassign((TOPIC, [(0, [1])])),
    ApiKey.LIST_PARTITION_REASSIGNMENTS: reassignments([(TOPIC, [0])]),
    ApiKey.DESCRIBE_CLIENT_QUOTAS: quotas(),
    ApiKey.ALTER_CLIENT_QUOTAS: set_quota(("user", "a"), remove=True),
    ApiKey.DESCRIBE_USER_SCRAM_CREDENTIALS: credentials(["a"]),
    ApiKey.ALTER_USER_SCRAM_CREDENTIALS: set_credentials(deletions=[("a", 1)]),
    ApiKey.LIST_CONFIG_RESOURCES: resources(),
    ApiKey.DESCRIBE_TOPIC_PARTITIONS: page(TOPIC),
    ApiKey.DESCRIBE_CLUSTER: describe_cluster.DescribeClusterRequest(include_cluster_authorized_operations=True),
    ApiKey.DESCRIBE_PRODUCERS: describe_producers.DescribeProducersRequest(
        topics=[describe_producers.TopicRequest(name=TOPIC, partition_indexes=[0])]
    ),
}
# ApiVersions tells everybody what the broker speaks; DescribeCluster is open in Kafka, and tells what one may do.
OPEN = {ApiKey.API_VERSIONS, ApiKey.DESCRIBE_CLUSTER}


@pytest.fixture(scope="module")
def denying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerThread]:
    """A broker that has a topic and denies everything from then on."""
    with BrokerThread(tmp_path_factory.mktemp("denying")) as served:
        with RawConnection(served.bootstrap_servers) as raw:
            raw.create_topic(TOPIC)
            assert raw.produce(TOPIC, 0, batch()).error_code == 0
            raw.call(REQUESTS[ApiKey.FIND_COORDINATOR])
            assert raw.call(REQUESTS[ApiKey.OFFSET_COMMIT]).topics[0].partitions[0].error_code == 0
        served.call(lambda broker: setattr(broker, "authorizer", DenyAll()))
        yield served


def codes(message: Any) -> Iterator[int]:
    """Every error code in a response, at any depth."""
    for field in message.__wire__.fields:
        value = getattr(message, field.name)
        if field.name == "error_code":
            yield value
        for item in value if isinstance(value, list) else [value]:
            if hasattr(item, "__wire__"):
                yield from codes(item)


def shows_nothing(key: ApiKey, response: Any) -> bool:
    """Whether it is one of the answers that leave out, without an error, what may not be seen."""
    if key is ApiKey.DESCRIBE_LOG_DIRS:
        return not any(directory.topics for directory in response.results)
    return key is ApiKey.LIST_GROUPS and not response.groups


def test_every_api_has_a_case() -> None:
    assert set(REQUESTS) | OPEN == set(HANDLERS)


@pytest.mark.parametrize("key", sorted(set(REQUESTS) - OPEN))
def test_nothing_is_shown_or_done(denying: BrokerThread, key: ApiKey) -> None:
    versions = [version for version in APIS[key].versions if not (key is ApiKey.FETCH and version > 12)]
    before = denying.call(lambda broker: broker.metadata.image)
    with RawConnection(denying.bootstrap_servers) as raw:
        for version in versions:
            response = raw.call(REQUESTS[key], version)
            found = set(codes(response))
            refused = found and found <= DENIED | {ErrorCode.NONE} and found & DENIED
            assert refused or shows_nothing(key, response), response
            assert b"v" not in [getattr(p, "records", None) for p in getattr(response, "responses", [])]
    assert denying.call(lambda broker: broker.metadata.image) is before
    partition = denying.broker.partitions.get(TOPIC, 0)
    assert partition is not None
    assert denying.call(lambda broker: (partition.log_start_offset, partition.log_end_offset)) == (0, 1)


def test_all_topics_are_none_for_who_may_see_none(denying: BrokerThread) -> None:
    with RawConnection(denying.bootstrap_servers) as raw:
        assert raw.call(metadata.MetadataRequest(topics=None)).topics == []


def test_an_id_does_not_tell_the_name(denying: BrokerThread) -> None:
    topic_id = denying.call(lambda broker: broker.metadata.image.topics[TOPIC].topic_id)
    request = metadata.MetadataRequest(topics=[metadata.MetadataRequestTopic(topic_id=topic_id, name=None)])
    with RawConnection(denying.bootstrap_servers) as raw:
        (topic,) = raw.call(request, 12).topics
    assert (topic.error_code, topic.name) == (ErrorCode.UNKNOWN_TOPIC_ID, None)


def test_the_cluster_tells_that_nothing_is_allowed(denying: BrokerThread) -> None:
    with RawConnection(denying.bootstrap_servers) as raw:
        assert raw.call(REQUESTS[ApiKey.DESCRIBE_CLUSTER]).cluster_authorized_operations == 0
