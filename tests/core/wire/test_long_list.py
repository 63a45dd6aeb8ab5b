"""A long list encoded piece by piece gives the bytes of the message encoded at once."""

from __future__ import annotations

from typing import Any

import pytest

from millstream.core.wire import APIS, ApiKey, ListEncoder, encode
from millstream.core.wire.messages.create_topics import (
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsResponse,
)
from millstream.core.wire.messages.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)


def metadata_topics(count: int) -> list[MetadataResponseTopic]:
    partition = MetadataResponsePartition(partition_index=7, leader_id=1, replica_nodes=[1, 2], isr_nodes=[2])
    return [
        MetadataResponseTopic(name=f"topic-{index}", topic_id=index.to_bytes(16, "big"), partitions=[partition] * 3)
        for index in range(count)
    ]


@pytest.mark.parametrize("count", [0, 1, 2, 99, 100, 101, 126, 127, 128, 300])
@pytest.mark.parametrize("version", APIS[ApiKey.METADATA].versions)
def test_metadata(version: int, count: int) -> None:
    topics = metadata_topics(count)
    brokers = [MetadataResponseBroker(node_id=1, host="here", port=9092, rack=None)]
    surroundings: dict[str, Any] = {
        "brokers": brokers,
        "cluster_id": "c",
        "controller_id": 1,
        "cluster_authorized_operations": 5,
    }
    encoder = ListEncoder(MetadataResponse(**surroundings), "topics", version)
    for topic in topics[: count // 2]:
        encoder.add([topic])
    encoder.add(topics[count // 2 :])
    assert encoder.body() == encode(MetadataResponse(topics=topics, **surroundings), version)


@pytest.mark.parametrize("version", APIS[ApiKey.CREATE_TOPICS].versions)
def test_items_with_tags_and_lists_of_their_own(version: int) -> None:
    config = CreatableTopicConfigs(name="a", value=None, config_source=5)
    topics = [CreatableTopicResult(name=f"t{n}", configs=[config] * n, topic_config_error_code=n) for n in range(200)]
    encoder = ListEncoder(CreateTopicsResponse(), "topics", version)
    encoder.add(topics)
    assert encoder.body() == encode(CreateTopicsResponse(topics=topics), version)


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 127, 128, 300])
@pytest.mark.parametrize("version", APIS[ApiKey.METADATA].versions)
def test_an_item_with_a_long_list_of_its_own(version: int, count: int) -> None:
    (topic,) = metadata_topics(1)
    partitions = [MetadataResponsePartition(partition_index=n, isr_nodes=[1] * (n % 3)) for n in range(count)]
    long = MetadataResponseTopic(name="long", is_internal=True, topic_authorized_operations=3)
    encoder = ListEncoder(MetadataResponse(cluster_id="c"), "topics", version)
    encoder.add([topic])
    inner = ListEncoder(long, "partitions", version, within=encoder)
    inner.add(partitions[: count // 3])
    inner.add(partitions[count // 3 :])
    encoder.add_body(inner.body())
    encoder.add([topic, topic])
    long.partitions = partitions
    whole = MetadataResponse(cluster_id="c", topics=[topic, long, topic, topic])
    assert encoder.body() == encode(whole, version)
