"""What a Metadata answer says of leaders, and the sentences where there is none."""

from __future__ import annotations

import pytest

from millstream.core.client import Cluster, TopicPartition
from millstream.core.net import Address
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)


def answer(*topics: MetadataResponseTopic) -> MetadataResponse:
    return MetadataResponse(
        cluster_id="c",
        controller_id=2,
        brokers=[MetadataResponseBroker(node_id=2, host="h", port=1)],
        topics=list(topics),
    )


def topic(name: str, leaders: list[int], error: ErrorCode = ErrorCode.NONE) -> MetadataResponseTopic:
    partitions = [
        MetadataResponsePartition(partition_index=index, leader_id=leader, replica_nodes=[2], isr_nodes=[2])
        for index, leader in enumerate(leaders)
    ]
    return MetadataResponseTopic(name=name, error_code=error, partitions=partitions[::-1])


def test_leaders_and_addresses() -> None:
    cluster = Cluster().updated(answer(topic("t", [2, 2, -1])), all_topics=False)
    assert cluster.brokers[2].address == Address("h", 1)
    assert [info.partition for info in cluster.topic("t").partitions] == [0, 1, 2]
    assert cluster.leader(TopicPartition("t", 1)) == 2


@pytest.mark.parametrize(
    ("partition", "code", "sentence"),
    [
        (TopicPartition("t", 2), ErrorCode.LEADER_NOT_AVAILABLE, "t-2 has no leader now"),
        (TopicPartition("t", 3), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "no partition 3: it has 3, from 0 on"),
        (TopicPartition("u", 0), ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "there is no topic 'u'"),
        (TopicPartition("d", 0), ErrorCode.TOPIC_AUTHORIZATION_FAILED, "topic 'd': "),
    ],
)
def test_what_cannot_be_led_is_said(partition: TopicPartition, code: ErrorCode, sentence: str) -> None:
    cluster = Cluster().updated(
        answer(topic("t", [2, 2, -1]), topic("d", [], ErrorCode.TOPIC_AUTHORIZATION_FAILED)), all_topics=False
    )
    with pytest.raises(KafkaError) as raised:
        cluster.leader(partition)
    assert raised.value.code is code
    assert sentence in raised.value.message


def test_topics_are_kept_unless_all_were_asked_for() -> None:
    first = Cluster().updated(answer(topic("a", [2])), all_topics=False)
    assert set(first.updated(answer(topic("b", [2])), all_topics=False).topics) == {"a", "b"}
    assert set(first.updated(answer(topic("b", [2])), all_topics=True).topics) == {"b"}
