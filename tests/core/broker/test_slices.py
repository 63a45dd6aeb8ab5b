"""Requests about many topics never hold the loop for all of them: others run between any two."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.support.broker_thread import BrokerThread

from millstream.core.broker import Broker
from millstream.core.broker.context import AllowAll, RequestContext
from millstream.core.broker.handlers import load_handler
from millstream.core.broker.handlers import metadata as metadata_handler
from millstream.core.cluster import slices
from millstream.core.cluster.configs import ResourceType
from millstream.core.log import TopicPartition
from millstream.core.wire import APIS, ApiKey, decode
from millstream.core.wire.long_list import ITEMS_PER_PIECE_MAX
from millstream.core.wire.messages.create_topics import CreatableTopic, CreateTopicsRequest
from millstream.core.wire.messages.delete_topics import DeleteTopicsRequest, DeleteTopicState
from millstream.core.wire.messages.describe_configs import DescribeConfigsRequest, DescribeConfigsResource
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse

TOPICS_COUNT = 40
NAMES = [f"sliced-{number}" for number in range(TOPICS_COUNT)]


@pytest.fixture(autouse=True)
def slices_of_one_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "SLICE_S", 0.0)
    monkeypatch.setattr(metadata_handler, "ONE_STEP_COUNT_MAX", 10)


class Passes:
    """Counts the passes of a loop."""

    def __init__(self) -> None:
        self.count = 0
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_soon(self._tick)

    def _tick(self) -> None:
        self.count += 1
        self._handle = self._loop.call_soon(self._tick)

    def stop(self) -> None:
        self._handle.cancel()


def context(api_key: ApiKey) -> RequestContext:
    version = APIS[api_key].version_max
    return RequestContext(
        authorizer=AllowAll(), listener="PLAINTEXT", host="127.0.0.1", api_key=api_key, api_version=version
    )


async def answer(broker: Broker, api_key: ApiKey, request: Any) -> Any:
    done = broker.loop.create_future()
    load_handler(api_key)(broker, request, context(api_key)).on_complete(
        lambda delayed: done.set_result(delayed.result())
    )
    return await done


async def passes_of(broker: Broker, api_key: ApiKey, request: Any) -> int:
    """How many passes the loop makes until the answer to a request that waits for nothing."""
    passes = Passes()
    await answer(broker, api_key, request)
    passes.stop()
    return passes.count


def creation(*, validate_only: bool = False) -> CreateTopicsRequest:
    topics = [CreatableTopic(name=name, num_partitions=1, replication_factor=1) for name in NAMES]
    return CreateTopicsRequest(topics=topics, timeout_ms=30_000, validate_only=validate_only)


def descriptions() -> DescribeConfigsRequest:
    return DescribeConfigsRequest(
        resources=[
            DescribeConfigsResource(resource_type=ResourceType.TOPIC, resource_name=name, configuration_keys=None)
            for name in NAMES
        ]
    )


@pytest.fixture
def with_topics(served: BrokerThread) -> Iterator[BrokerThread]:
    served.wait(lambda broker: answer(broker, ApiKey.CREATE_TOPICS, creation()))
    yield served
    request = DeleteTopicsRequest(topics=[DeleteTopicState(name=name) for name in NAMES], timeout_ms=30_000)
    served.wait(lambda broker: answer(broker, ApiKey.DELETE_TOPICS, request))


def test_planning_topics_and_their_answers(served: BrokerThread) -> None:
    request = creation(validate_only=True)
    # Checked, planned and answered, each topic in passes of its own.
    assert served.wait(lambda broker: passes_of(broker, ApiKey.CREATE_TOPICS, request)) >= 3 * TOPICS_COUNT


@pytest.mark.parametrize(
    ("api_key", "request_of"),
    [(ApiKey.DESCRIBE_CONFIGS, descriptions), (ApiKey.METADATA, lambda: MetadataRequest(topics=None))],
    ids=["DescribeConfigs", "Metadata"],
)
def test_answers_about_many_topics(with_topics: BrokerThread, api_key: ApiKey, request_of: Callable[[], Any]) -> None:
    assert with_topics.wait(lambda broker: passes_of(broker, api_key, request_of())) >= TOPICS_COUNT


def test_an_answer_about_one_large_topic(served: BrokerThread, new_name: Callable[[], str]) -> None:
    name, count = new_name(), 5 * ITEMS_PER_PIECE_MAX
    topic = CreatableTopic(name=name, num_partitions=count, replication_factor=1)
    served.wait(
        lambda broker: answer(broker, ApiKey.CREATE_TOPICS, CreateTopicsRequest(topics=[topic], timeout_ms=30_000))
    )
    request = MetadataRequest(topics=[MetadataRequestTopic(name=name)])
    found = served.wait(lambda broker: answer(broker, ApiKey.METADATA, request)).body
    (described,) = decode(MetadataResponse, APIS[ApiKey.METADATA].version_max, found)[0].topics
    assert [partition.partition_index for partition in described.partitions] == list(range(count))
    other = MetadataRequest(topics=request.topics, include_topic_authorized_operations=True)  # that answer was kept
    assert served.wait(lambda broker: passes_of(broker, ApiKey.METADATA, other)) >= count // ITEMS_PER_PIECE_MAX
    deletion = DeleteTopicsRequest(topics=[DeleteTopicState(name=name)], timeout_ms=30_000)
    served.wait(lambda broker: answer(broker, ApiKey.DELETE_TOPICS, deletion))


def test_a_small_answer_is_made_at_once(served: BrokerThread) -> None:
    async def whole(broker: Broker) -> bool:
        request = MetadataRequest(topics=[])
        return hasattr(load_handler(ApiKey.METADATA)(broker, request, context(ApiKey.METADATA)), "body")

    assert served.wait(whole)


def test_partitions_go_one_by_one(with_topics: BrokerThread, monkeypatch: pytest.MonkeyPatch) -> None:
    async def delete(broker: Broker) -> list[int]:
        passes = Passes()
        at: list[int] = []
        remove = broker.partitions.remove

        def noted(tp: TopicPartition) -> None:
            at.append(passes.count)
            remove(tp)

        monkeypatch.setattr(broker.partitions, "remove", noted)
        states = [DeleteTopicState(name=name) for name in NAMES]
        await answer(broker, ApiKey.DELETE_TOPICS, DeleteTopicsRequest(topics=states, timeout_ms=30_000))
        passes.stop()
        return at

    at = with_topics.wait(delete)
    assert len(set(at)) == len(at) == TOPICS_COUNT
