"""A handler that fails as a whole: every API answers with the error where it has room, and closes where it has none."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker.error_answers import error_answer
from millstream.core.broker.handlers import HANDLERS
from millstream.core.wire import APIS, ApiKey, ErrorCode, KafkaError, encode
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.core.wire.messages.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from millstream.testing.raw import ClosedError, RawConnection

CODE = ErrorCode.KAFKA_STORAGE_ERROR
# Fetch had no place for an error of the whole before sessions, DescribeLogDirs none before its version 3.
SILENT = {(ApiKey.FETCH, version) for version in (4, 5, 6)} | {(ApiKey.DESCRIBE_LOG_DIRS, v) for v in (1, 2)}


def filled(cls: Any, version: int) -> Any:
    """A message with one item in each of its arrays."""
    made = cls()
    for field in cls.__wire__.fields:
        if version not in field.versions:
            continue
        if field.is_array:
            item = (
                filled(field.struct_class(), version) if field.kind == "struct" else "x" if field.kind == "str" else 7
            )
            setattr(made, field.name, [item])
        elif field.kind == "str":
            setattr(made, field.name, f"the {field.name}")
    return made


def codes(answer: Any) -> list[int]:
    found = [answer.error_code] if hasattr(answer, "error_code") else []
    for field in answer.__wire__.fields:
        if field.is_array and field.kind == "struct":
            found += [code for item in getattr(answer, field.name) for code in codes(item)]
    return found


CASES = [(key, version) for key in HANDLERS for version in APIS[key].versions]


@pytest.mark.parametrize(("key", "version"), CASES, ids=lambda part: getattr(part, "name", part))
def test_every_api_has_room_for_an_error(key: ApiKey, version: int) -> None:
    request = filled(APIS[key].request, version)
    answer: Any = error_answer(key, request, version, CODE, "said so")
    if (key, version) in SILENT:
        assert answer is None
        return
    assert CODE in codes(answer)
    encode(answer, version)
    if key is ApiKey.LIST_OFFSETS:
        (topic,) = answer.topics
        (partition,) = topic.partitions
        assert (topic.name, partition.offset, partition.error_code) == ("the name", -1, CODE)
    if key is ApiKey.DELETE_TOPICS and version < 6:
        assert [topic.name for topic in answer.responses] == ["x"]


def test_what_asks_for_no_item_has_no_place_for_one() -> None:
    assert error_answer(ApiKey.METADATA, MetadataRequest(topics=None), 12, CODE, "") is None
    assert error_answer(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(coordinator_keys=[]), 4, CODE, "") is None


def fail(*_: object) -> None:
    raise KafkaError(CODE, "said so")


def test_a_client_is_told_and_its_connection_stays(served: BrokerThread, raw: RawConnection) -> None:
    request = MetadataRequest(topics=[MetadataRequestTopic(name="a"), MetadataRequestTopic(name="b")])
    route: Any = served.call(lambda broker: broker.connections.routes.get(ApiKey.METADATA))
    handler, route.handler = route.handler, fail
    try:
        answer = raw.call(request)
    finally:
        route.handler = handler
    assert [(topic.name, topic.error_code) for topic in answer.topics] == [("a", CODE), ("b", CODE)]
    assert [topic.error_code for topic in raw.call(request).topics] != [CODE, CODE]


@pytest.mark.parametrize("acks", [0, 1])
def test_a_produce_that_expects_no_answer_gets_none(served: BrokerThread, acks: int) -> None:
    data = TopicProduceData(name="t", partition_data=[PartitionProduceData(index=0, records=b"")])
    route: Any = served.call(lambda broker: broker.connections.routes.get(ApiKey.PRODUCE))
    handler, route.handler = route.handler, fail
    try:
        with RawConnection(served.bootstrap_servers) as raw:
            raw.send(raw.encode(ProduceRequest(acks=acks, topic_data=[data])))
            if acks:
                assert raw.receive()
            else:
                with pytest.raises(ClosedError):
                    raw.receive()
    finally:
        route.handler = handler
