"""Metadata, ApiVersions, FindCoordinator, InitProducerId, ListOffsets, OffsetForLeaderEpoch over a socket."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import HANDLERS
from millstream.core.records import BatchBuilder
from millstream.core.wire import APIS, ZERO_UUID, ApiKey, ErrorCode
from millstream.core.wire.messages.api_versions import ApiVersionsRequest
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.init_producer_id import InitProducerIdRequest
from millstream.core.wire.messages.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse
from millstream.core.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from millstream.testing.raw import RawConnection


def metadata(
    raw: RawConnection, names: list[str] | None, *, version: int = 12, create: bool = False
) -> MetadataResponse:
    topics = None if names is None else [MetadataRequestTopic(name=name) for name in names]
    response: MetadataResponse = raw.call(MetadataRequest(topics=topics, allow_auto_topic_creation=create), version)
    return response


@pytest.mark.parametrize("version", range(4, 13))
def test_metadata_says_where_to_go(
    served: BrokerThread, raw: RawConnection, new_name: Callable[[], str], version: int
) -> None:
    name = new_name()
    raw.create_topic(name, 3)
    response = metadata(raw, [name], version=version)
    host, _, port = served.bootstrap_servers.rpartition(":")
    assert [(broker.node_id, broker.host, broker.port) for broker in response.brokers] == [
        (served.broker.config.node_id, host, int(port))
    ]
    (topic,) = response.topics
    assert (topic.error_code, topic.name) == (0, name)
    assert [p.partition_index for p in topic.partitions] == [0, 1, 2]
    assert {p.leader_id for p in topic.partitions} == {response.brokers[0].node_id}
    if version >= 10:
        assert topic.topic_id != ZERO_UUID
        by_id = raw.call(
            MetadataRequest(topics=[MetadataRequestTopic(topic_id=topic.topic_id, name=None)]), max(version, 12)
        )
        assert by_id.topics[0].name == name


def test_all_topics_or_none(raw: RawConnection, new_name: Callable[[], str]) -> None:
    names = {new_name(), new_name()}
    for name in names:
        raw.create_topic(name)
    assert names <= {topic.name for topic in metadata(raw, None).topics}
    assert metadata(raw, []).topics == []
    assert names <= {topic.name for topic in metadata(raw, [], version=0).topics}


def test_the_kept_answer_follows_changes(raw: RawConnection, new_name: Callable[[], str]) -> None:
    name = new_name()
    for _ in range(2):
        assert metadata(raw, [name]).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    raw.create_topic(name, 2)
    for _ in range(2):
        assert len(metadata(raw, [name]).topics[0].partitions) == 2


@pytest.mark.parametrize("version", [0, 3, 4, 12])
def test_a_topic_comes_into_being_by_being_asked_for(
    raw: RawConnection, new_name: Callable[[], str], version: int
) -> None:
    name = new_name()
    (topic,) = metadata(raw, [name], version=version, create=True).topics
    assert (topic.error_code, len(topic.partitions)) == (0, 1)
    builder = BatchBuilder()
    builder.append(1_700_000_000_000, None, b"v")
    assert raw.produce(name, 0, bytes(builder.build())).error_code == 0


def test_it_does_not_where_nobody_asked_for_it_or_it_cannot(
    raw: RawConnection, new_name: Callable[[], str], tmp_path: Path
) -> None:
    name = new_name()
    assert metadata(raw, [name], create=False).topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert metadata(raw, ["a b"], create=True).topics[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    off = {"auto.create.topics.enable": "false"}
    with BrokerThread(tmp_path, off) as other, RawConnection(other.bootstrap_servers) as connection:
        unknown = metadata(connection, [name], create=True).topics[0]
        assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def test_each_listener_tells_its_own_address(tmp_path: Path) -> None:
    settings = {
        "listeners": "PLAINTEXT://127.0.0.1:0,INSIDE://127.0.0.1:0",
        "advertised.listeners": "INSIDE://inside.example:1234",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT",
    }
    with BrokerThread(tmp_path, settings) as served:
        host, port = served.broker.addresses["PLAINTEXT"]
        with RawConnection(f"{host}:{port}") as raw:
            assert [(b.host, b.port) for b in metadata(raw, []).brokers] == [(host, port)]
        assert served.broker.addresses["INSIDE"] == ("inside.example", 1234)


@pytest.mark.parametrize("version", range(5))
def test_the_apis_with_a_handler_are_listed(raw: RawConnection, version: int) -> None:
    response = raw.call(ApiVersionsRequest(), version)
    assert response.error_code == 0
    listed = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys}
    assert listed == {key: (APIS[key].advertised_min, APIS[key].version_max) for key in HANDLERS}
    assert listed[ApiKey.PRODUCE][0] == 0


@pytest.mark.parametrize("version", range(1, 7))
def test_nobody_coordinates_transactions_yet(raw: RawConnection, version: int) -> None:
    response = raw.call(FindCoordinatorRequest(key="k", key_type=1, coordinator_keys=["k"]), version)
    answer = response if version < 4 else response.coordinators[0]
    assert (answer.error_code, answer.node_id) == (ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, -1)


@pytest.mark.parametrize("version", range(5))
def test_producer_ids_are_given_once(tmp_path: Path, version: int) -> None:
    request = InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=1000)
    seen: list[int] = []
    for _ in range(2):
        with BrokerThread(tmp_path) as served, RawConnection(served.bootstrap_servers) as raw:
            raw.send(b"".join(raw.encode(request, version) for _ in range(1200)))
            for _ in range(1200):
                raw.receive()
            response = raw.call(request, version)
            assert (response.error_code, response.producer_epoch) == (0, 0)
            seen.append(response.producer_id)
    assert seen[1] > seen[0] + 1200


def test_a_transactional_id_is_refused_for_good(raw: RawConnection) -> None:
    answer = raw.call(InitProducerIdRequest(transactional_id="tx", transaction_timeout_ms=1000))
    assert answer.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    empty = raw.call(InitProducerIdRequest(transactional_id="", transaction_timeout_ms=1000))
    assert empty.error_code == ErrorCode.INVALID_REQUEST


@pytest.fixture
def timed(raw: RawConnection, new_name: Callable[[], str]) -> str:
    """Offsets 0..4 with the timestamps 1000, 3000, 2000, 5000, 4000."""
    name = new_name()
    raw.create_topic(name)
    for timestamp in (1000, 3000, 2000, 5000, 4000):
        builder = BatchBuilder()
        builder.append(timestamp, None, b"v")
        assert raw.produce(name, 0, bytes(builder.build())).error_code == 0
    return name


@pytest.mark.parametrize("version", range(1, 9))
def test_offsets_by_end_and_by_timestamp(raw: RawConnection, timed: str, version: int) -> None:
    def listed(timestamp: int, epoch: int = -1) -> tuple[int, int, int]:
        asked = ListOffsetsPartition(timestamp=timestamp, current_leader_epoch=epoch)
        request = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic(name=timed, partitions=[asked])])
        answer = raw.call(request, version).topics[0].partitions[0]
        return answer.error_code, answer.offset, answer.timestamp

    assert listed(-1) == (0, 5, -1)
    assert listed(-2) == (0, 0, -1)
    assert listed(0) == (0, 0, 1000)
    assert listed(1500) == (0, 1, 3000)
    assert listed(3001) == (0, 3, 5000)
    assert listed(5001) == (0, -1, -1)
    if version >= 7:
        assert listed(-3) == (0, 3, 5000)
    else:
        assert listed(-3)[0] == ErrorCode.UNSUPPORTED_VERSION
    assert listed(-4)[0] == (0 if version >= 8 else ErrorCode.UNSUPPORTED_VERSION)
    if version >= 4:
        assert listed(-1, 1000)[0] == ErrorCode.UNKNOWN_LEADER_EPOCH


@pytest.mark.parametrize("version", range(2, 5))
def test_the_end_of_a_leader_epoch(raw: RawConnection, timed: str, version: int) -> None:
    current = metadata(raw, [timed]).topics[0].partitions[0].leader_epoch

    def ended(epoch: int, index: int = 0) -> tuple[int, int, int]:
        asked = OffsetForLeaderPartition(partition=index, leader_epoch=epoch, current_leader_epoch=-1)
        request = OffsetForLeaderEpochRequest(topics=[OffsetForLeaderTopic(topic=timed, partitions=[asked])])
        answer = raw.call(request, version).topics[0].partitions[0]
        return answer.error_code, answer.leader_epoch, answer.end_offset

    assert ended(current) == (0, current, 5)
    assert ended(current + 1) == (0, -1, -1)
    assert ended(current, 9)[0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
