"""What the admin handlers do where Apache Kafka is no measure: who may do nothing, our loggers, our own strictness."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker.context import AllowAll, Operation, ResourceType
from millstream.core.broker.producer_ids import ProducerIds
from millstream.core.cluster import EmbeddedStore
from millstream.core.cluster.store import StoreWriteError
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages import (
    alter_configs,
    create_partitions,
    create_topics,
    delete_records,
    delete_topics,
    describe_cluster,
    describe_configs,
    describe_log_dirs,
    describe_producers,
    incremental_alter_configs,
    init_producer_id,
)
from millstream.testing.raw import RawConnection

TOPIC, BROKER, BROKER_LOGGER = 2, 4, 8
SET, DELETE = 0, 1


class DenyAll:
    """Nobody may do anything."""

    def permits(self, principal: str, host: str, operation: Operation, resource: ResourceType, name: str) -> bool:
        """No."""
        return False


@pytest.fixture
def denied(served: BrokerThread) -> Iterator[None]:
    def set_authorizer(authorizer: Any) -> None:
        served.call(lambda broker: setattr(broker, "authorizer", authorizer))

    set_authorizer(DenyAll())
    yield
    set_authorizer(AllowAll())


def requests(name: str, topic_id: bytes) -> dict[str, tuple[Any, Callable[[Any], list[int]]]]:
    """Every admin request on a topic, and where its answer has error codes."""
    topic = create_topics.CreatableTopic(name="new-one", num_partitions=1, replication_factor=1)
    growth = create_partitions.CreatePartitionsTopic(name=name, count=9, assignments=None)
    records = delete_records.DeleteRecordsTopic(
        name=name, partitions=[delete_records.DeleteRecordsPartition(partition_index=0, offset=-1)]
    )
    kinds = ((TOPIC, name), (BROKER, "1"), (BROKER_LOGGER, "1"))
    return {
        "create": (
            create_topics.CreateTopicsRequest(topics=[topic], timeout_ms=1000),
            lambda answer: [each.error_code for each in answer.topics],
        ),
        "delete": (
            delete_topics.DeleteTopicsRequest(
                topics=[delete_topics.DeleteTopicState(name=name), delete_topics.DeleteTopicState(topic_id=topic_id)],
                timeout_ms=1000,
            ),
            lambda answer: [each.error_code for each in answer.responses],
        ),
        "grow": (
            create_partitions.CreatePartitionsRequest(topics=[growth], timeout_ms=1000),
            lambda answer: [each.error_code for each in answer.results],
        ),
        "delete records": (
            delete_records.DeleteRecordsRequest(topics=[records], timeout_ms=1000),
            lambda answer: [part.error_code for each in answer.topics for part in each.partitions],
        ),
        "describe configs": (
            describe_configs.DescribeConfigsRequest(
                resources=[
                    describe_configs.DescribeConfigsResource(resource_type=kind, resource_name=resource)
                    for kind, resource in kinds
                ]
            ),
            lambda answer: [each.error_code for each in answer.results],
        ),
        "alter configs": (
            alter_configs.AlterConfigsRequest(
                resources=[
                    alter_configs.AlterConfigsResource(resource_type=kind, resource_name=resource)
                    for kind, resource in kinds
                ]
            ),
            lambda answer: [each.error_code for each in answer.responses],
        ),
        "edit configs": (
            incremental_alter_configs.IncrementalAlterConfigsRequest(
                resources=[
                    incremental_alter_configs.AlterConfigsResource(resource_type=kind, resource_name=resource)
                    for kind, resource in kinds
                ]
            ),
            lambda answer: [each.error_code for each in answer.responses],
        ),
        "log directories": (
            describe_log_dirs.DescribeLogDirsRequest(topics=None),
            lambda answer: [answer.error_code],
        ),
        "producers": (
            describe_producers.DescribeProducersRequest(
                topics=[describe_producers.TopicRequest(name=name, partition_indexes=[0])]
            ),
            lambda answer: [part.error_code for each in answer.topics for part in each.partitions],
        ),
    }


def test_who_may_do_nothing_does_nothing(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], request: pytest.FixtureRequest
) -> None:
    name = new_name()
    raw.create_topic(name, 2)
    topic_id = served.call(lambda broker: broker.metadata.image.topics[name].topic_id)
    before = served.call(lambda broker: broker.metadata.image.version)
    request.getfixturevalue("denied")
    refusals = {ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.CLUSTER_AUTHORIZATION_FAILED}

    # A new connection: the authorizer is asked anew for each request, and nothing is kept from before.
    with RawConnection(served.bootstrap_servers) as other:
        for what, (message, codes_of) in requests(name, topic_id).items():
            codes = codes_of(other.call(message))
            assert codes, what
            assert set(codes) <= refusals, f"{what}: {codes}"
        cluster = other.call(describe_cluster.DescribeClusterRequest(include_cluster_authorized_operations=True))
        assert cluster.cluster_authorized_operations == 0
    assert served.call(lambda broker: broker.metadata.image.version) == before


def test_a_metadata_store_that_takes_nothing_is_answered_and_keeps_the_connection(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a file system that is full: each request has its error, and the next one on the connection is served."""
    name = new_name()
    raw.create_topic(name, 2)

    async def full(*_arguments: object, **_options: object) -> None:
        raise StoreWriteError("database or disk is full")

    monkeypatch.setattr(EmbeddedStore, "commit", full)
    change = incremental_alter_configs.AlterableConfig(name="retention.ms", config_operation=SET, value="1")
    other = incremental_alter_configs.AlterableConfig(name="no.such", config_operation=SET, value="1")
    edits = incremental_alter_configs.IncrementalAlterConfigsRequest(
        resources=[
            incremental_alter_configs.AlterConfigsResource(resource_type=TOPIC, resource_name=name, configs=[change]),
            incremental_alter_configs.AlterConfigsResource(resource_type=TOPIC, resource_name="n", configs=[other]),
        ]
    )
    for what in ("create", "delete", "grow"):
        message, codes_of = requests(name, bytes(15) + b"x")[what]
        answer = raw.call(message)
        assert codes_of(answer)[-1] == ErrorCode.KAFKA_STORAGE_ERROR, what
    codes = [answer.error_code for answer in raw.call(edits).responses]
    assert codes == [ErrorCode.KAFKA_STORAGE_ERROR, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
    served.call(lambda broker: setattr(broker, "producer_ids", ProducerIds(broker.metadata)))
    answer = raw.call(init_producer_id.InitProducerIdRequest(transactional_id=None))
    assert answer.error_code == ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
    monkeypatch.undo()
    assert raw.call(edits).responses[0].error_code == 0
    assert raw.new_producer_id() >= 0


@pytest.mark.parametrize(("kind", "shown"), [(16, "CLIENT_METRICS"), (99, "Unknown resource type 99")])
def test_resources_that_do_not_exist_here_say_so(raw: RawConnection, kind: int, shown: str) -> None:
    resource = describe_configs.DescribeConfigsResource(resource_type=kind, resource_name="g")
    (answer,) = raw.call(describe_configs.DescribeConfigsRequest(resources=[resource])).results
    assert answer.error_code == ErrorCode.INVALID_REQUEST
    assert shown in (answer.error_message or "")


def edit_logger(raw: RawConnection, name: str, operation: int, level: str | None) -> tuple[int, str | None]:
    config = incremental_alter_configs.AlterableConfig(name=name, config_operation=operation, value=level)
    resource = incremental_alter_configs.AlterConfigsResource(
        resource_type=BROKER_LOGGER, resource_name="1", configs=[config]
    )
    (answer,) = raw.call(incremental_alter_configs.IncrementalAlterConfigsRequest(resources=[resource])).responses
    return answer.error_code, answer.error_message


def levels(raw: RawConnection) -> dict[str, str]:
    resource = describe_configs.DescribeConfigsResource(
        resource_type=BROKER_LOGGER, resource_name="1", configuration_keys=None
    )
    (result,) = raw.call(describe_configs.DescribeConfigsRequest(resources=[resource])).results
    return {config.name: config.value for config in result.configs}


def test_loggers_are_shown_and_set(raw: RawConnection) -> None:
    name = "millstream.core.broker.log_tasks"
    before = levels(raw)
    assert before["root"] == "WARN"
    assert before[name] == "WARN"
    try:
        assert edit_logger(raw, name, SET, "DEBUG") == (0, None)
        assert logging.getLogger(name).isEnabledFor(logging.DEBUG)
        assert levels(raw) == before | {name: "DEBUG"}
        assert edit_logger(raw, name, DELETE, None) == (0, None)
        assert levels(raw) == before
    finally:
        logging.getLogger(name).setLevel(logging.NOTSET)

    code, message = edit_logger(raw, name, SET, "LOUD")
    assert code == ErrorCode.INVALID_CONFIG
    assert "Valid log levels are TRACE, DEBUG, INFO, WARN, ERROR, FATAL" in (message or "")
    assert edit_logger(raw, "root", DELETE, None)[0] == ErrorCode.INVALID_REQUEST
    assert levels(raw) == before


def test_two_topics_of_one_request_cannot_share_a_metric_name(raw: RawConnection) -> None:
    topics = [
        create_topics.CreatableTopic(name=name, num_partitions=1, replication_factor=1)
        for name in ("three.names", "three_names")
    ]
    answer = raw.call(create_topics.CreateTopicsRequest(topics=topics, timeout_ms=30_000))
    assert [topic.error_code for topic in answer.topics] == [0, ErrorCode.INVALID_TOPIC_EXCEPTION]
    assert "three_names" not in raw.topics()


def test_deletion_can_be_switched_off(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("kept") / "data"
    with (
        BrokerThread(folder, {"delete.topic.enable": "false"}) as served,
        RawConnection(served.bootstrap_servers) as raw,
    ):
        raw.create_topic("kept")
        by_name = delete_topics.DeleteTopicsRequest(topic_names=["kept"], timeout_ms=1000)
        assert raw.call(by_name, 1).responses[0].error_code == ErrorCode.INVALID_REQUEST
        assert raw.call(by_name, 5).responses[0].error_code == ErrorCode.TOPIC_DELETION_DISABLED
        assert raw.topics() == {"kept": 1}
