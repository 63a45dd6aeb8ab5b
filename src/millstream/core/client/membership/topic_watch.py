"""What a member has to know of topics: how those look that it assigns, which match a pattern, what ids are called.

Metadata is asked for when a leader assigns, every metadata.max.age.ms while somebody needs it, and sooner while a topic
is missing that somebody subscribes to. Owned by the loop.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any

from millstream.core.client.client import Client
from millstream.core.client.cluster import Cluster, TopicInfo
from millstream.core.client.membership.assignors import TopicLayout, Topics
from millstream.core.config.definition import ConfigError
from millstream.core.wire import ErrorCode
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic, MetadataResponse


class TopicWatch:
    """Asks for metadata and reads it as members need it."""

    def __init__(self, client: Client, *, auto_create: bool, excludes_internal: bool) -> None:
        self._client = client
        self._auto_create = auto_create
        self._excludes_internal = excludes_internal

    async def layouts(self, topics: Collection[str]) -> Topics:
        """Return how these topics look now; one that is not there is left out. Raises KafkaError."""
        if not topics:
            return {}
        cluster = await self._client.metadata(topics, auto_create=self._auto_create)
        return {name: layout_of(cluster, cluster.topics[name]) for name in topics if _is_there(cluster, name)}

    async def matching(self, pattern: re.Pattern[str]) -> frozenset[str]:
        """Return the topics there are that match a pattern from end to end. Raises KafkaError."""
        cluster = await self._client.metadata(None)
        return frozenset(
            name
            for name, info in cluster.topics.items()
            if pattern.fullmatch(name)
            and not (info.is_internal and self._excludes_internal)
            and _is_there(cluster, name)
        )

    def known_names(self, topic_ids: Collection[bytes]) -> dict[bytes, str]:
        """Return the names of those ids that are known without asking."""
        wanted = set(topic_ids)
        return {info.topic_id: name for name, info in self._client.cluster.topics.items() if info.topic_id in wanted}

    async def names(self, topic_ids: Iterable[bytes]) -> dict[bytes, str]:
        """Ask what ids are called; one that no topic has is left out. Raises KafkaError."""
        request = MetadataRequest(
            topics=[MetadataRequestTopic(topic_id=topic_id, name=None) for topic_id in topic_ids],
            allow_auto_topic_creation=False,
        )
        response: MetadataResponse = await self._client.request(request)
        return {topic.topic_id: topic.name for topic in response.topics if topic.name and not topic.error_code}


@lru_cache(maxsize=64)
def compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern of topic names, in the syntax that brokers read (RE2). Raises ConfigError."""
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        matcher: Any = re2.compile(pattern, options=options)
    except re2.error as error:
        raise ConfigError(f"{pattern!r} is no regular expression of RE2: {_told(error)}") from error
    return matcher  # type: ignore[no-any-return]  # it has the same methods


def _told(error: Exception) -> str:
    reason = error.args[0] if error.args else error
    return reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)


def layout_of(cluster: Cluster, topic: TopicInfo) -> TopicLayout:
    """Return a topic as assignors see it."""
    racks = {node: broker.rack for node, broker in cluster.brokers.items()}
    return TopicLayout(
        tuple(
            frozenset(rack for node in partition.replicas if (rack := racks.get(node)) is not None)
            for partition in topic.partitions
        )
    )


def _is_there(cluster: Cluster, name: str) -> bool:
    info = cluster.topics.get(name)
    return info is not None and info.error is ErrorCode.NONE and bool(info.partitions)
