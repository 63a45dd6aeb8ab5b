"""A shard with groups of the consumer protocol on a log in memory, under virtual time, in a cluster with topics."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from tests.support.classic_groups import CONFIGS, GROUP, HOST, Coordinator

from millstream.core.cluster import ClusterImage, PartitionState, TopicImage
from millstream.core.groups.configs import GroupConfigs
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.group import Caller
from millstream.core.wire import KafkaError
from millstream.core.wire.messages.consumer_group_heartbeat import (
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)

# Every request may bring a new assignment, unless a test says otherwise.
CONSUMER_CONFIGS: Final = replace(CONFIGS, consumer_assignment_interval_ms=0)
REBALANCE_MS: Final = 60_000

_PARTITION: Final = PartitionState(leader=1, leader_epoch=0, replicas=(1,), isr=(1,), partition_epoch=0)


def topic_id(name: str, generation: int = 0) -> bytes:
    """An id that a test can know; a topic that was created again has another."""
    return random.Random(f"{name}/{generation}").randbytes(16)


def topic(name: str, partitions: int, generation: int = 0) -> TopicImage:
    """A topic of this many partitions."""
    return TopicImage(name, topic_id(name, generation), (_PARTITION,) * partitions, {})


def image_of(topics: Mapping[str, int], version: int = 1, **fields: Any) -> ClusterImage:
    """A cluster with these topics, by name and number of partitions."""
    return ClusterImage.of([topic(name, count) for name, count in topics.items()], version=version, **fields)


class ConsumerCoordinator(Coordinator):
    """As `Coordinator`, in a cluster with topics; a refused request has the KafkaError in `answers`."""

    def __init__(
        self,
        topics: Mapping[str, int] | None = None,
        configs: GroupConfigs = CONSUMER_CONFIGS,
        *,
        seed: int = 0,
        image: ClusterImage | None = None,
    ) -> None:
        super().__init__(configs, seed=seed, image=image if image is not None else image_of(topics or {}))

    @property
    def consumer_group(self) -> ConsumerGroup:
        """The group `g`."""
        found = self.shard.groups[GROUP]
        assert isinstance(found, ConsumerGroup), found
        return found

    def call(
        self, method: str, request: object, *, version: int = 1, client_id: str = "client", caller: Caller | None = None
    ) -> int:
        """Send a request; returns its number in `answers`."""
        self._requests += 1
        number = self._requests
        self.unanswered.add(number)
        try:
            getattr(self.shard, method)(request, caller or Caller(client_id, HOST, version), number, self.now_ms)
        except KafkaError as error:
            # As the broker has it: it may come of what is not committed yet.
            self.shard.outbox.respond(number, error)
        self._settle()
        return number

    def beat(self, request: ConsumerGroupHeartbeatRequest, *, version: int = 1, client_id: str = "client") -> Any:
        """Send a ConsumerGroupHeartbeat; returns the response, or the KafkaError."""
        number = self.call("consumer_group_heartbeat", request, version=version, client_id=client_id)
        return self.answers.get(number)

    def set_topics(self, topics: Mapping[str, int], **fields: Any) -> None:
        """The cluster has these topics now."""
        self.image = image_of(topics, self.image.version + 1, **fields)
        self.shard.handle_image(self.image, self.now_ms)
        self._settle()


class Consumer:
    """A client of the consumer protocol: what it knows, and the heartbeats that it sends."""

    def __init__(
        self,
        coordinator: ConsumerCoordinator,
        member_id: str,
        topics: Iterable[str] | None = ("t",),
        *,
        regex: str | None = None,
        instance_id: str | None = None,
        assignor: str | None = None,
        group_id: str = GROUP,
    ) -> None:
        self.coordinator = coordinator
        self.member_id = member_id
        self.topics = None if topics is None else list(topics)
        self.regex = regex
        self.instance_id = instance_id
        self.assignor = assignor
        self.group_id = group_id
        self.epoch = 0
        # Then it says all of itself with the next heartbeat.
        self.has_lost_an_answer = False
        # What it was told to have, and what it has: it gives up what it is told to when `acknowledge` is called.
        self.assigned: dict[bytes, set[int]] = {}
        self.owned: dict[bytes, set[int]] = {}

    def request(self, *, full: bool = False, owned: bool = False, **fields: Any) -> ConsumerGroupHeartbeatRequest:
        """A heartbeat as a client sends it: all of it where it joins, what changed otherwise."""
        joins = self.epoch == 0
        full = full or self.has_lost_an_answer
        request = ConsumerGroupHeartbeatRequest(
            group_id=self.group_id, member_id=self.member_id, member_epoch=self.epoch, instance_id=self.instance_id
        )
        if joins or full:
            request.rebalance_timeout_ms = REBALANCE_MS
            request.subscribed_topic_names = self.topics
            request.subscribed_topic_regex = self.regex
            request.server_assignor = self.assignor
        if joins:
            request.topic_partitions = []
        elif full or owned:
            request.topic_partitions = [
                TopicPartitions(topic_id=each, partitions=sorted(partitions))
                for each, partitions in self.owned.items()
                if partitions
            ]
        for name, value in fields.items():
            setattr(request, name, value)
        return request

    def beat(self, **fields: Any) -> Any:
        """Send a heartbeat and take in the answer; returns it."""
        return self.take(self.coordinator.beat(self.request(**fields), client_id=self.member_id))

    def take(self, answer: Any) -> Any:
        """Take in an answer."""
        if isinstance(answer, ConsumerGroupHeartbeatResponse):
            self.epoch = answer.member_epoch
            self.has_lost_an_answer = False
            if answer.assignment is not None:
                self.assigned = {each.topic_id: set(each.partitions) for each in answer.assignment.topic_partitions}
        return answer

    def acknowledge(self) -> Any:
        """Have what it was told to have, and say so."""
        self.owned = {each: set(partitions) for each, partitions in self.assigned.items()}
        return self.beat(owned=True)

    @property
    def partitions(self) -> int:
        """How many partitions it was told to have."""
        return sum(map(len, self.assigned.values()))
