"""What consumers of a classic group tell each other, and what a leader does with what it is told."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import pytest

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership import (
    Assignor,
    ConsumerProtocol,
    CooperativeStickyAssignor,
    JoinedMember,
    MemberSubscription,
    RangeAssignor,
    RebalanceProtocol,
    TopicLayout,
    Topics,
)
from millstream.core.client.membership.effects import Call, CallKind
from millstream.core.config.definition import ConfigError
from millstream.core.wire import KafkaError, WireError
from millstream.core.wire.embedded_protocol import (
    ConsumerAssignment,
    OwnedTopic,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)
TWO: Topics = {"t": TopicLayout.of(2)}


def joined(name: str, version: int = 3, owned: Sequence[int] = (), rack: str | None = None) -> JoinedMember:
    """A member that reads t."""
    subscription = Subscription(
        topics=["t"],
        owned_partitions=[OwnedTopic(topic="t", partitions=list(owned))] if owned else [],
        rack_id=rack,
        generation_id=1 if owned else -1,
    )
    return JoinedMember(name, None, encode_subscription(subscription, version))


def shares(found: Mapping[str, bytes]) -> dict[str, list[TopicPartition]]:
    return {
        name: [
            TopicPartition(one.topic, each)
            for one in decode_assignment(data).assigned_partitions
            for each in one.partitions
        ]
        for name, data in found.items()
    }


class Faulty:
    """An assignor that gives whatever the test wants."""

    name = "faulty"

    def __init__(self, gives: Mapping[str, Sequence[TopicPartition]], protocol: RebalanceProtocol) -> None:
        self.protocols = (protocol,)
        self._gives = gives

    def user_data(self, topics: Iterable[str]) -> bytes | None:
        return ",".join(sorted(topics)).encode()

    def assign(self, members: Sequence[MemberSubscription], topics: Topics) -> Mapping[str, Sequence[TopicPartition]]:
        del members, topics
        return self._gives

    def on_assignment(self, partitions: Collection[TopicPartition], generation: int) -> None:
        del partitions, generation


def test_members_of_every_version_are_read_and_one_that_cannot_be_gets_nothing() -> None:
    protocol = ConsumerProtocol([RangeAssignor()])
    members = [
        joined("a", 0),
        joined("b", 1),
        JoinedMember("c", None, b"\xff\xff rubbish"),
        JoinedMember("d", None, b""),
    ]
    assert protocol.topics_to_know("range", members) == {"t"}
    assert shares(protocol.assign("range", members, TWO)) == {"a": [T0], "b": [T1], "c": [], "d": []}


def test_what_a_member_says_of_itself() -> None:
    protocol = ConsumerProtocol([CooperativeStickyAssignor(), RangeAssignor()], rack="r1")
    protocol.subscribe(["u", "t"])
    assert not protocol.is_cooperative
    assert [name for name, _ in protocol.offers()] == ["cooperative-sticky", "range"]
    told = decode_subscription(protocol.offers()[1][1])
    assert (told.topics, told.user_data, told.owned_partitions, told.generation_id, told.rack_id) == (
        ["t", "u"],
        None,
        [],
        -1,
        "r1",
    )


def test_an_assignment_is_taken_by_what_changes() -> None:
    protocol = ConsumerProtocol([CooperativeStickyAssignor()])
    protocol.subscribe(["t"])

    def given(*numbers: int) -> bytes:
        topics = [OwnedTopic(topic="t", partitions=list(numbers))] if numbers else []
        return encode_assignment(ConsumerAssignment(assigned_partitions=topics), 1)

    def take(generation: int, assignment: bytes) -> list[Call]:
        taken = protocol.take("cooperative-sticky", generation, assignment)
        for call in taken.calls:
            protocol.handle_calling(call)
            protocol.handle_called(call)
        assert (taken.rejoin is not None) == any(call.kind is CallKind.REVOKED for call in taken.calls)
        return list(taken.calls)

    assert take(1, given(0)) == [Call(CallKind.ASSIGNED, frozenset({T0}))]
    told = decode_subscription(protocol.offers()[0][1])
    assert told.generation_id == 1
    assert told.owned_partitions == [OwnedTopic(topic="t", partitions=[0])]
    assert take(2, given(1)) == [Call(CallKind.REVOKED, frozenset({T0})), Call(CallKind.ASSIGNED, frozenset({T1}))]
    assert take(3, b"") == [Call(CallKind.REVOKED, frozenset({T1})), Call(CallKind.ASSIGNED, frozenset())]
    with pytest.raises(WireError):
        protocol.take("cooperative-sticky", 4, b"\0")


@pytest.mark.parametrize(
    ("gives", "protocol", "message"),
    [
        ({"a": [T0], "b": [T0]}, RebalanceProtocol.EAGER, "gives t-0 to two members"),
        ({"z": [T0]}, RebalanceProtocol.EAGER, "'z', who is no member"),
        ({"b": [T0]}, RebalanceProtocol.COOPERATIVE, "before a has let go of it"),
    ],
)
def test_a_faulty_assignor_is_caught(
    gives: Mapping[str, Sequence[TopicPartition]], protocol: RebalanceProtocol, message: str
) -> None:
    faulty: Assignor = Faulty(gives, protocol)
    consumer = ConsumerProtocol([faulty])
    members = [joined("a", owned=[0]), joined("b")]
    consumer.topics_to_know("faulty", members)
    with pytest.raises(KafkaError, match=message):
        consumer.assign("faulty", members, TWO)


def test_racks_of_topics_count_only_where_members_have_some() -> None:
    with_racks: Topics = {"t": TopicLayout((frozenset({"r1"}), frozenset({"r2"})))}
    for rack, reason in ((None, None), ("r1", "partitions of topic t have changed")):
        protocol = ConsumerProtocol([RangeAssignor()])
        members = [joined("a", rack=rack)]
        protocol.topics_to_know("range", members)
        protocol.assign("range", members, TWO)
        assert protocol.wants_rejoin(with_racks, is_leader=True) == reason
        assert protocol.wants_rejoin({}, is_leader=True) == "partitions of topic t have changed"
        assert protocol.wants_rejoin({}, is_leader=False) is None


def test_assignors_have_to_go_together() -> None:
    cooperative_only: Assignor = Faulty({}, RebalanceProtocol.COOPERATIVE)
    for assignors, message in (
        ([], "needs an assignor"),
        ([RangeAssignor(), RangeAssignor()], "the same name"),
        ([cooperative_only, RangeAssignor()], "no way to rebalance in common"),
    ):
        with pytest.raises(ConfigError, match=message):
            ConsumerProtocol(assignors)
    with pytest.raises(KafkaError, match="the group chose assignor 'other'"):
        ConsumerProtocol([RangeAssignor()]).assign("other", [joined("a")], TWO)
