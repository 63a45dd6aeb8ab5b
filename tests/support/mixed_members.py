"""Clients of both protocols as they behave: what each believes it has, and what it says next.

One request at a time, whose answer may come late or never. A member of the classic protocol assigns where it leads, by
one rule whoever does it, so that groups settle; one that speaks `cooperative` alone keeps what it has over a rebalance
and gives up what it is not assigned again (KIP-429), any other gives up all before it joins.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, Final

from tests.support.classic_groups import (
    GROUP,
    REFUSED,
    heartbeat_request,
    join_request,
    leave_request,
    sync_request,
)
from tests.support.consumer_groups import Consumer, ConsumerCoordinator

from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.embedded_protocol import (
    ConsumerAssignment,
    OwnedTopic,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)

Partition = tuple[str, int]
COOPERATIVE: Final = "cooperative"
SESSION_MS: Final = 10_000
REBALANCE_MS: Final = 30_000
# What ends a member, and what ends a client: another one has its place, or the group takes none of its kind.
LOST: Final = (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.ILLEGAL_GENERATION, ErrorCode.FENCED_MEMBER_EPOCH)
ENDED: Final = (
    ErrorCode.FENCED_INSTANCE_ID,
    ErrorCode.UNRELEASED_INSTANCE_ID,
    ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
    ErrorCode.GROUP_MAX_SIZE_REACHED,
    ErrorCode.GROUP_ID_NOT_FOUND,
)


def code_of(answer: Any) -> ErrorCode:
    """What is wrong, according to any answer of a group's request."""
    if isinstance(answer, KafkaError):
        return answer.code
    return error_code(getattr(answer, "error_code", 0))


class Member:
    """What clients of both protocols have in common."""

    def __init__(
        self, coordinator: ConsumerCoordinator, name: str, topics: Sequence[str], instance_id: str | None
    ) -> None:
        self.coordinator = coordinator
        self.name = name
        self.topics = list(topics)
        self.instance_id = instance_id
        # The number of the request that is out, and its method.
        self.waits: tuple[int, str] | None = None
        # It takes answers and sends requests; a dead one still has what it had.
        self.is_alive = True
        # Whether it has asked to join since it was fenced last.
        self.has_begun_anew = False

    # The identity that it commits with, and what it believes to be its own.

    @property
    def member_id(self) -> str:
        raise AssertionError(self)

    @property
    def generation(self) -> int:
        raise AssertionError(self)

    @property
    def owned(self) -> set[Partition]:
        raise AssertionError(self)

    @property
    def is_confirmed(self) -> bool:
        """Whether it was told in its generation or epoch what it has, or has said so itself."""
        return True

    @property
    def is_joining(self) -> bool:
        """Whether it begins anew, and has forgotten what it was."""
        return self.generation <= 0

    def send(self, method: str, request: object, version: int) -> None:
        self.has_begun_anew |= self.is_joining
        self.waits = self.coordinator.call(method, request, version=version, client_id=self.name), method

    def take_answer(self) -> Any:
        """Take in the answer, if it has come; returns it."""
        if self.waits is None or self.waits[0] not in self.coordinator.answers:
            return None
        (number, method), self.waits = self.waits, None
        answer = self.coordinator.answers[number]
        self.take(method, answer)
        return answer

    def take(self, method: str, answer: Any) -> None:
        raise AssertionError(self, method, answer)

    def step(self) -> None:
        """What it does next."""
        raise AssertionError(self)

    def leave(self) -> None:
        raise AssertionError(self)

    def commit(self, offset: int) -> int:
        """Commit all that it has; returns the request's number."""
        topics: dict[str, list[OffsetCommitRequestPartition]] = {}
        for topic, partition in sorted(self.owned):
            topics.setdefault(topic, []).append(
                OffsetCommitRequestPartition(partition_index=partition, committed_offset=offset)
            )
        request = OffsetCommitRequest(
            group_id=GROUP,
            generation_id_or_member_epoch=self.generation,
            member_id=self.member_id,
            group_instance_id=self.instance_id,
            retention_time_ms=-1,
            topics=[OffsetCommitRequestTopic(name=name, partitions=each) for name, each in topics.items()],
        )
        return self.coordinator.call("offset_commit", request, version=9, client_id=self.name)

    def __repr__(self) -> str:
        return f"{self.name}({self.member_id}, {self.generation}, {sorted(self.owned)})"


class ClassicConsumer(Member):
    """A consumer of the classic protocol: out -> joined (it has a generation) -> stable (it has its assignment)."""

    def __init__(
        self,
        coordinator: ConsumerCoordinator,
        name: str,
        topics: Sequence[str],
        instance_id: str | None,
        *,
        protocols: Sequence[str],
        version: int,
    ) -> None:
        super().__init__(coordinator, name, topics, instance_id)
        self.protocols = protocols
        # Of JoinGroup; older ones know of no instance ids.
        self.version = version if instance_id is None else max(version, 5)
        self.phase = "out"
        self._id = ""
        self._generation = -1
        self._owned: set[Partition] = set()
        self._synced_generation = -1
        self._to_assign: dict[str, bytes] = {}
        # How many partitions there were of each topic when it assigned; None where it does not lead.
        self._counts: dict[str, int] | None = None

    @property
    def is_confirmed(self) -> bool:
        # A member whose session is over is taken in again under its id, as in Apache Kafka, by a group that is of the
        # consumer protocol by then, and learns by its SyncGroup that it has nothing any more.
        return self._generation == self._synced_generation

    @property
    def member_id(self) -> str:
        return self._id

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def owned(self) -> set[Partition]:
        return self._owned

    @property
    def is_cooperative(self) -> bool:
        return list(self.protocols) == [COOPERATIVE]

    def lose(self) -> None:
        """It is no member any more and has nothing."""
        self._id, self._generation, self._owned, self.phase = "", -1, set(), "out"

    def step(self) -> None:
        if self.waits is not None:
            return
        if self.phase == "stable" and self._counts not in (None, self._partition_counts()):
            self.phase = "out"  # a leader sees to it that what has come is read
        if self.phase == "out":
            self.join()
        elif self.phase == "joined":
            self.send(
                "sync_group",
                sync_request(self._id, self._generation, self._to_assign.items(), instance_id=self.instance_id),
                5,
            )
        else:
            self.send("heartbeat", heartbeat_request(self._id, self._generation, instance_id=self.instance_id), 4)

    def join(self) -> None:
        """Join, without what it has if it has to give that up."""
        if not self.is_cooperative:
            self._owned = set()
        metadata = encode_subscription(
            Subscription(topics=self.topics, owned_partitions=_by_topic(self._owned), generation_id=self._generation), 2
        )
        request = join_request(
            self._id,
            instance_id=self.instance_id,
            protocols=[(name, metadata) for name in self.protocols],
            session_ms=SESSION_MS,
            rebalance_ms=REBALANCE_MS,
        )
        self.send("join_group", request, self.version)

    def leave(self) -> None:
        self.send("leave_group", leave_request((self._id, self.instance_id)), 5)
        self.is_alive, self._owned = False, set()

    def take(self, method: str, answer: Any) -> None:
        if answer == REFUSED:
            # It looks for its coordinator and says the same again, but for a rebalance that has to begin anew.
            self.phase = "out" if method != "heartbeat" else self.phase
            return
        if method == "leave_group":
            return
        code = code_of(answer)
        if code is ErrorCode.MEMBER_ID_REQUIRED:
            self._id = answer.member_id
        elif code in ENDED:
            self.lose()
            self.is_alive = False
        elif code is ErrorCode.ILLEGAL_GENERATION:
            self._owned, self._generation, self.phase = set(), -1, "out"
        elif code in LOST:
            self.lose()
        elif code:
            self.phase = "out"
        elif method == "join_group":
            self._id, self._generation, self.phase = answer.member_id, answer.generation_id, "joined"
            leads = answer.leader == answer.member_id and not answer.skip_assignment
            self._to_assign = self._assign(answer) if leads else {}
            self._counts = self._partition_counts() if leads else None
        elif method == "sync_group":
            assigned = {
                (topic.topic, partition)
                for topic in decode_assignment(bytes(answer.assignment)).assigned_partitions
                for partition in topic.partitions
            }
            # What was taken from it others get once it has joined without.
            self.phase = "out" if self._owned - assigned else "stable"
            self._synced_generation = self._generation
            self._owned = assigned

    def _partition_counts(self) -> dict[str, int]:
        return {name: len(topic.partitions) for name, topic in self.coordinator.image.topics.items()}

    def _assign(self, answer: Any) -> dict[str, bytes]:
        members = {member.member_id: decode_subscription(bytes(member.metadata)) for member in answer.members}
        has = {
            member_id: {(topic.topic, each) for topic in told.owned_partitions for each in topic.partitions}
            for member_id, told in members.items()
        }
        given: dict[str, set[Partition]] = {member_id: set() for member_id in members}
        for name, topic in self.coordinator.image.topics.items():
            readers = sorted(member_id for member_id, told in members.items() if name in told.topics)
            for partition in range(len(topic.partitions) if readers else 0):
                reader = readers[partition % len(readers)]
                others = any((name, partition) in has[member_id] for member_id in members if member_id != reader)
                if not others or answer.protocol_name != COOPERATIVE:
                    given[reader].add((name, partition))
        return {
            member_id: encode_assignment(ConsumerAssignment(assigned_partitions=_by_topic(partitions)), 1)
            for member_id, partitions in given.items()
        }


class RudeConsumer(ClassicConsumer):
    """As long as it leads it assigns as it likes, to whom it likes, or what nobody can read."""

    def __init__(self, *args: Any, source: random.Random, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self._source = source

    def _assign(self, answer: Any) -> dict[str, bytes]:
        source = self._source
        names = [*(member.member_id for member in answer.members), "stranger"]
        return {
            member_id: source.choice(
                [
                    b"",
                    encode_assignment(
                        ConsumerAssignment(assigned_partitions=_by_topic({("t", source.randrange(9))})), 0
                    ),
                ]
            )
            for member_id in source.sample(names, source.randint(0, len(names)))
        }


class NewConsumer(Member):
    """A consumer of the consumer protocol."""

    def __init__(
        self,
        coordinator: ConsumerCoordinator,
        name: str,
        topics: Sequence[str],
        instance_id: str | None,
        *,
        regex: str | None,
        assignor: str | None,
    ) -> None:
        super().__init__(coordinator, name, topics, instance_id)
        self.client = Consumer(coordinator, name, topics, regex=regex, instance_id=instance_id, assignor=assignor)
        self._names = {each.topic_id: each.name for each in coordinator.image.topics.values()}

    @property
    def member_id(self) -> str:
        return self.client.member_id

    @property
    def generation(self) -> int:
        return self.client.epoch

    @property
    def owned(self) -> set[Partition]:
        topics = self.coordinator.image.topics.values()
        self._names.update((each.topic_id, each.name) for each in topics)
        return {
            (self._names[topic_id], partition)
            for topic_id, partitions in self.client.owned.items()
            for partition in partitions
        }

    def step(self) -> None:
        """Have what it was told to have, and say so."""
        if self.waits is None:
            client = self.client
            client.owned = {each: set(partitions) for each, partitions in client.assigned.items()}
            self.beat(owned=True)

    def beat(self, **fields: Any) -> None:
        """Send a heartbeat; without `owned` or `full` it says nothing of what it has."""
        self.send("consumer_group_heartbeat", self.client.request(**fields), 1)

    def subscribe(self, topics: Sequence[str], regex: str) -> None:
        """Read something else from now on."""
        self.client.topics, self.client.regex = list(topics), regex
        self.beat(full=True)

    def leave(self, *, will_be_back: bool = False) -> None:
        self.client.epoch = -2 if will_be_back else -1
        self.beat()
        self.is_alive, self.client.owned = False, {}

    def take(self, method: str, answer: Any) -> None:
        client = self.client
        if client.epoch < 0:
            return
        code = ErrorCode.NONE if answer == REFUSED else code_of(answer)
        if answer == REFUSED or code is ErrorCode.UNKNOWN_SERVER_ERROR:
            client.has_lost_an_answer = client.epoch != 0
        elif code in LOST:
            client.epoch, client.owned, client.assigned = 0, {}, {}
        elif code:
            assert code in ENDED, (method, answer)
            client.owned, self.is_alive = {}, False
        else:
            self._names.update((each.topic_id, each.name) for each in self.coordinator.image.topics.values())
            client.take(answer)


def _by_topic(partitions: set[Partition]) -> list[OwnedTopic]:
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    return [OwnedTopic(topic=name, partitions=indexes) for name, indexes in topics.items()]
