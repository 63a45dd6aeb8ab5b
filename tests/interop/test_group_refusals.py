"""Requests of members, strangers and operators to groups in every state: Millstream and Apache Kafka answer alike.

A table: for each state a group is brought into it anew per API, and then asked all that the API's cases say, in every
version that is served: wrong and right members, instances, generations and epochs, protocols. Answers are compared
whole. A case that changes the group changes it on both, and the cases behind it see that.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count, product
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import pytest
from tests.support.classic_groups import heartbeat_request, join_request, leave_request, sync_request

from millstream.core.wire import APIS, ApiKey, ErrorCode
from millstream.core.wire.embedded_protocol import Subscription, encode_subscription
from millstream.core.wire.messages.consumer_group_describe import ConsumerGroupDescribeRequest
from millstream.core.wire.messages.consumer_group_heartbeat import ConsumerGroupHeartbeatRequest
from millstream.core.wire.messages.delete_groups import DeleteGroupsRequest
from millstream.core.wire.messages.describe_groups import DescribeGroupsRequest
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.leave_group import LeaveGroupRequest
from millstream.core.wire.messages.list_groups import ListGroupsRequest
from millstream.core.wire.messages.metadata import MetadataRequest, MetadataRequestTopic
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from millstream.core.wire.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, wait_until
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

WAIT_S: Final = 60.0
CONFIGS: Final = {
    # Both assign with every epoch, so that no answer depends on how much time went by.
    "group.consumer.assignment.interval.ms": "0",
    "group.consumer.min.assignment.interval.ms": "0",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
}
READ, OTHER = "refusals-read", "refusals-other"
SUBSCRIPTION: Final = encode_subscription(Subscription(topics=[READ]), 1)
PROTOCOLS: Final = (("range", SUBSCRIPTION),)
SESSION_MS: Final = 300_000
# Each request in each of its versions, or in one of them, which goes round.
EVERY_VERSION: Final = os.environ.get("MILLSTREAM_SOAK") == "1"
# Of those that a broker makes up.
ID_LENGTH_MIN: Final = 20


class Known(NamedTuple):
    """A group in its state, and who is in it."""

    group: str
    member_id: str = "nobody"
    instance_id: str | None = None
    # Its generation or member epoch.
    epoch: int = 1


class Talk:
    """One broker. Answers are noted as texts, with made up ids by the order they were met in."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._pool = ThreadPoolExecutor(4)
        self._connections: dict[str, RawConnection] = {}
        self._aliases: dict[str, str] = {}
        self.raw = self._connection("")

    def __enter__(self) -> Self:
        for topic in (READ, OTHER):
            self.raw.create_topic(topic, 2)

        def answers() -> bool:
            self.raw.call(FindCoordinatorRequest(coordinator_keys=["g"]))
            return bool(
                self.raw.call(heartbeat_request("nobody", 0, group_id="g")).error_code == ErrorCode.UNKNOWN_MEMBER_ID
            )

        wait_until(answers, WAIT_S, "a coordinator")
        topics = [MetadataRequestTopic(name=READ), MetadataRequestTopic(name=OTHER)]
        for topic in self.raw.call(MetadataRequest(topics=topics)).topics:
            self._aliases[repr(topic.topic_id)] = f"<{topic.name}>"
            self.ids = {**getattr(self, "ids", {}), topic.name: topic.topic_id}
        return self

    def __exit__(self, *_: object) -> None:
        self.begin("")
        self.raw.close()
        self._pool.shutdown()

    def _connection(self, name: str) -> RawConnection:
        if name not in self._connections:
            self._connections[name] = RawConnection(self._bootstrap, timeout_s=WAIT_S)
        return self._connections[name]

    def begin(self, name: str) -> None:
        """Speak of another group."""
        self.group = name
        self._aliases = {text: alias for text, alias in self._aliases.items() if not alias.startswith("<id")}
        for held in [each for each in self._connections if each]:
            # The thread that waits for its answer ends by this.
            connection = self._connections.pop(held)
            connection.socket.shutdown(socket.SHUT_RDWR)
            connection.close()

    def ask(self, name: str, request: Any, version: int | None = None) -> Future[Any]:
        """Ask on a connection of its own, which may wait for the answer."""
        return self._pool.submit(self._connection(name).call, request, version)

    def shown(self, answer: Any) -> str:
        """An answer as text."""
        for each in (answer, *getattr(answer, "groups", ())):
            if hasattr(each, "members"):
                each.members.sort(key=lambda member: self._aliases.get(member.member_id, f"~{member.member_id}"))
        for member_id in _made_up_ids(answer):
            self._aliases.setdefault(member_id, f"<id {len(self._aliases)}>")
        text = repr(answer)
        for known, alias in self._aliases.items():
            text = text.replace(known, alias)
        return text.replace(self.group, "<group>")


def _members(group: Any) -> list[Any]:
    return getattr(group, "members", [])


def _made_up_ids(answer: Any) -> Iterator[str]:
    groups = getattr(answer, "groups", ())
    for each in (answer, *getattr(answer, "members", ()), *(each for group in groups for each in _members(group))):
        member_id = getattr(each, "member_id", None)
        if member_id is not None and len(member_id) > ID_LENGTH_MIN:
            yield member_id


# States


def unknown(talk: Talk) -> Known:
    return Known(talk.group)


def offsets_alone(talk: Talk) -> Known:
    assert talk.raw.call(commit(Known(talk.group), "", None, -1)).topics[0].partitions[0].error_code == 0
    return Known(talk.group)


def id_given_out(talk: Talk) -> Known:
    member_id = talk.raw.call(join_request(group_id=talk.group, protocols=PROTOCOLS, session_ms=SESSION_MS)).member_id
    talk.shown(talk.raw.call(heartbeat_request("nobody", 0, group_id=talk.group)))
    talk._aliases[member_id] = "<id>"
    return Known(talk.group, member_id, epoch=0)


def joined(talk: Talk, *, instance_id: str | None = None, protocol_type: str = "consumer") -> Known:
    """One member, of a group that waits for its assignment."""
    request = join_request(
        group_id=talk.group,
        protocols=PROTOCOLS,
        instance_id=instance_id,
        session_ms=SESSION_MS,
        protocol_type=protocol_type,
    )
    if instance_id is None:
        request.member_id = talk.raw.call(request).member_id
    answer = talk.raw.call(request)
    assert answer.error_code == 0, answer
    talk._aliases[answer.member_id] = "<id>"
    return Known(talk.group, answer.member_id, instance_id, answer.generation_id)


def stable(talk: Talk, *, instance_id: str | None = None, protocol_type: str = "consumer") -> Known:
    known = joined(talk, instance_id=instance_id, protocol_type=protocol_type)
    request = sync_request(
        known.member_id,
        known.epoch,
        [(known.member_id, b"\0\0\0\0\0\0\xff\xff\xff\xff")],
        instance_id=instance_id,
        protocol_type=protocol_type,
        protocol_name="range",
        group_id=talk.group,
    )
    answer = talk.raw.call(request)
    assert answer.error_code == 0, answer
    return known


def static(talk: Talk) -> Known:
    return stable(talk, instance_id="i")


def connect(talk: Talk) -> Known:
    return stable(talk, protocol_type="connect")


def preparing(talk: Talk) -> Known:
    """One member has not joined again, for another one that waits."""
    known = stable(talk)
    talk.ask("waits", join_request(group_id=talk.group, protocols=PROTOCOLS, session_ms=SESSION_MS), 3)
    beat = heartbeat_request(known.member_id, known.epoch, group_id=talk.group)
    wait_until(lambda: talk.raw.call(beat).error_code == ErrorCode.REBALANCE_IN_PROGRESS, WAIT_S, "a rebalance")
    return known


def emptied(talk: Talk) -> Known:
    known = stable(talk)
    assert talk.raw.call(leave_request((known.member_id, None), group_id=talk.group)).members[0].error_code == 0
    return known


def emptied_with_offsets(talk: Talk) -> Known:
    known = stable(talk)
    assert talk.raw.call(commit(known, known.member_id, None, known.epoch)).topics[0].partitions[0].error_code == 0
    assert talk.raw.call(leave_request((known.member_id, None), group_id=talk.group)).members[0].error_code == 0
    return known


def deleted(talk: Talk) -> Known:
    known = emptied(talk)
    assert talk.raw.call(DeleteGroupsRequest(groups_names=[talk.group])).results[0].error_code == 0
    return known


def consumer(talk: Talk, *, member_id: str = "m", instance_id: str | None = None) -> Known:
    answer = talk.raw.call(beat(talk.group, member_id, 0, instance_id))
    assert answer.error_code == 0, answer
    return Known(talk.group, member_id, instance_id, answer.member_epoch)


def consumer_static(talk: Talk) -> Known:
    return consumer(talk, instance_id="i")


def consumer_static_away(talk: Talk) -> Known:
    known = consumer(talk, instance_id="i")
    assert talk.raw.call(beat(talk.group, "m", -2, "i")).error_code == 0
    return known


def consumer_revoking(talk: Talk) -> Known:
    """The member has been told to give up a partition, and has not."""
    known = consumer(talk)
    consumer(talk, member_id="other")
    assert talk.raw.call(beat(talk.group, "m", known.epoch)).error_code == 0
    return known


def consumer_emptied(talk: Talk) -> Known:
    known = consumer(talk)
    assert talk.raw.call(beat(talk.group, "m", -1)).error_code == 0
    return known


def consumer_deleted(talk: Talk) -> Known:
    known = consumer_emptied(talk)
    assert talk.raw.call(DeleteGroupsRequest(groups_names=[talk.group])).results[0].error_code == 0
    return known


def upgraded(talk: Talk) -> Known:
    """Known is the member of the classic protocol."""
    known = stable(talk)
    consumer(talk)
    return known


def upgraded_static(talk: Talk) -> Known:
    known = static(talk)
    consumer(talk)
    return known


def upgraded_and_caught_up(talk: Talk) -> Known:
    known = upgraded(talk)
    again = join_request(known.member_id, group_id=talk.group, protocols=PROTOCOLS, session_ms=SESSION_MS)
    answer = talk.raw.call(again)
    assert answer.error_code == 0, answer
    return known._replace(epoch=answer.generation_id)


STATES: Final[dict[str, Callable[[Talk], Known]]] = {
    state.__name__: state
    for state in (
        unknown, offsets_alone, id_given_out, joined, stable, static, connect, preparing, emptied, emptied_with_offsets,
        deleted, consumer, consumer_static, consumer_static_away, consumer_revoking, consumer_emptied, consumer_deleted,
        upgraded, upgraded_static, upgraded_and_caught_up,
    )
}  # fmt: skip

# Cases: requests with the versions they are sent in


def commit(known: Known, member_id: str, instance_id: str | None, epoch: int) -> OffsetCommitRequest:
    partitions = [OffsetCommitRequestPartition(partition_index=each, committed_offset=1) for each in range(2)]
    return OffsetCommitRequest(
        group_id=known.group,
        generation_id_or_member_epoch=epoch,
        member_id=member_id,
        group_instance_id=instance_id,
        retention_time_ms=-1,
        topics=[OffsetCommitRequestTopic(name=READ, partitions=partitions)],
    )


def beat(group: str, member_id: str, epoch: int, instance_id: str | None = None) -> ConsumerGroupHeartbeatRequest:
    request = ConsumerGroupHeartbeatRequest(
        group_id=group, member_id=member_id, member_epoch=epoch, instance_id=instance_id
    )
    if epoch == 0:
        request.rebalance_timeout_ms = 300_000
        request.subscribed_topic_names = [READ]
        request.topic_partitions = []
    return request


Cases = Iterator[tuple[Any, Sequence[int]]]


def versions(key: ApiKey, first: int = 0) -> range:
    """All that are served, from `first` on."""
    api = APIS[key]
    return range(max(api.version_min, first), api.version_max + 1)


def identities(known: Known, *, known_last: bool = False) -> Iterator[tuple[str, str | None, bool]]:
    """(member id, instance id, whether the instance id is given) of members that are there and are not."""
    member_ids = ["stranger", "", known.member_id] if known_last else [known.member_id, "stranger", ""]
    instance_ids = ["other", "i", None] if known_last else [None, "i", "other"]
    for member_id, instance_id in product(member_ids, instance_ids):
        yield member_id, instance_id, instance_id is not None


def heartbeats(known: Known) -> Cases:
    for member_id, instance_id, is_static in identities(known):
        for epoch in (known.epoch, known.epoch - 1, known.epoch + 1, -1):
            request = heartbeat_request(member_id, epoch, instance_id=instance_id, group_id=known.group)
            yield request, versions(ApiKey.HEARTBEAT, 3 if is_static else 0)


def syncs(known: Known) -> Cases:
    protocols = [("consumer", "range"), (None, "range"), ("consumer", None), ("connect", "range"), ("consumer", "x")]
    for member_id, instance_id, is_static in identities(known, known_last=True):
        for epoch in (known.epoch - 1, known.epoch + 1, -1, known.epoch):
            for protocol_type, name in reversed(protocols):
                request = sync_request(
                    member_id,
                    epoch,
                    instance_id=instance_id,
                    protocol_type=protocol_type,
                    protocol_name=name,
                    group_id=known.group,
                )
                is_first = (protocol_type, name) == protocols[0]
                yield request, versions(ApiKey.SYNC_GROUP, 3 if is_static else 0) if is_first else [5]


def joins(known: Known) -> Cases:
    def request(member_id: str, **fields: Any) -> Any:
        return join_request(
            member_id, group_id=known.group, **{"protocols": PROTOCOLS, "session_ms": SESSION_MS, **fields}
        )

    every = versions(ApiKey.JOIN_GROUP)
    wrong: list[dict[str, Any]] = [
        {"session_ms": 1},
        {"session_ms": 2**31 - 1},
        {"protocol_type": ""},
        {"protocol_type": "other"},
        {"protocols": ()},
        {"protocols": (), "session_ms": 1},
        {"protocols": (), "protocol_type": ""},
        {"protocols": [("unheard-of", SUBSCRIPTION)]},
        {"protocols": [("unheard-of", SUBSCRIPTION)], "instance_id": "i"},
    ]
    for fields in wrong:
        for member_id in (known.member_id, "stranger", ""):
            # Whoever may make a group makes one for itself, and the rest would be asked of that.
            if member_id or fields.keys() & {"session_ms"} or fields.get("protocol_type") == "":
                yield request(member_id, **fields), [each for each in every if each >= 5 or "instance_id" not in fields]
    yield request("stranger"), every
    for member_id, instance_id in (("stranger", "i"), ("stranger", "other"), (known.member_id, "other")):
        yield request(member_id, instance_id=instance_id), every[5:]


def joins_again(known: Known) -> Cases:
    """Those that are let in, one behind the other."""
    for version in versions(ApiKey.JOIN_GROUP):
        yield (
            join_request(
                known.member_id,
                group_id=known.group,
                protocols=PROTOCOLS,
                session_ms=SESSION_MS,
                instance_id=known.instance_id if version >= 5 else None,
            ),
            [version],
        )


def joins_anew(known: Known) -> Cases:
    """A static member, and one that is asked to come back with an id."""
    request = join_request(group_id=known.group, protocols=PROTOCOLS, session_ms=SESSION_MS)
    yield request, versions(ApiKey.JOIN_GROUP, 4)
    yield DescribeGroupsRequest(groups=[known.group]), [5, 6]
    if known.instance_id is not None:
        request = join_request(
            group_id=known.group, protocols=PROTOCOLS, session_ms=SESSION_MS, instance_id=known.instance_id
        )
        yield request, versions(ApiKey.JOIN_GROUP, 5)
        yield DescribeGroupsRequest(groups=[known.group]), [5, 6]


def leaves(known: Known) -> Cases:
    for member_id, instance_id, is_static in identities(known, known_last=True):
        if not is_static:
            yield LeaveGroupRequest(group_id=known.group, member_id=member_id), versions(ApiKey.LEAVE_GROUP)[:3]
        yield (
            leave_request((member_id, instance_id), ("nobody-else", None), group_id=known.group),
            versions(ApiKey.LEAVE_GROUP, 3),
        )
    yield from describes(known)


def commits(known: Known) -> Cases:
    for member_id, instance_id, is_static in identities(known):
        for epoch in (known.epoch, known.epoch - 1, known.epoch + 1, -1, -2, 0):
            yield (
                commit(known, member_id, instance_id, epoch),
                versions(ApiKey.OFFSET_COMMIT, 7 if is_static else 0),
            )
    yield from fetches(known)


def fetches(known: Known) -> Cases:
    for names in (None, [READ, OTHER]):
        for member_id in (None, known.member_id, "stranger", ""):
            # Without a member id Apache Kafka fails at any epoch (UNKNOWN_SERVER_ERROR); here nobody is no member.
            for epoch in (-1, known.epoch, known.epoch - 1, known.epoch + 1) if member_id is not None else (-1,):
                group = OffsetFetchRequestGroup(
                    group_id=known.group,
                    member_id=member_id,
                    member_epoch=epoch,
                    topics=None if names is None else [_asked(OffsetFetchRequestTopics, name) for name in names],
                )
                yield OffsetFetchRequest(groups=[group], require_stable=epoch >= 0), [9]
        topics = None if names is None else [_asked(OffsetFetchRequestTopic, name) for name in names]
        request = OffsetFetchRequest(group_id=known.group, topics=topics)
        # From version 8 on a request is about several groups.
        yield request, versions(ApiKey.OFFSET_FETCH, 2 if names is None else 0)[:-2]


def _asked(kind: Any, name: str) -> Any:
    return kind(name=name, partition_indexes=[0, 1])


def offset_deletes(known: Known) -> Cases:
    for names in ([READ], [OTHER], [READ, OTHER], ["refusals-nowhere"], []):
        topics = [
            OffsetDeleteRequestTopic(
                name=name, partitions=[OffsetDeleteRequestPartition(partition_index=each) for each in (0, 7)]
            )
            for name in names
        ]
        yield OffsetDeleteRequest(group_id=known.group, topics=topics), [0]
    yield from fetches(known)


def deletes(known: Known) -> Cases:
    yield DeleteGroupsRequest(groups_names=[known.group]), versions(ApiKey.DELETE_GROUPS)
    yield from describes(known)


def describes(known: Known) -> Cases:
    yield DescribeGroupsRequest(groups=[known.group]), versions(ApiKey.DESCRIBE_GROUPS)
    yield (
        DescribeGroupsRequest(groups=[known.group], include_authorized_operations=True),
        versions(ApiKey.DESCRIBE_GROUPS, 3),
    )
    yield ConsumerGroupDescribeRequest(group_ids=[known.group]), versions(ApiKey.CONSUMER_GROUP_DESCRIBE)
    yield (
        ConsumerGroupDescribeRequest(group_ids=[known.group], include_authorized_operations=True),
        versions(ApiKey.CONSUMER_GROUP_DESCRIBE),
    )
    yield ListGroupsRequest(), versions(ApiKey.LIST_GROUPS)


def beats(known: Known) -> Cases:
    every = versions(ApiKey.CONSUMER_GROUP_HEARTBEAT)
    for member_id, instance_id, _ in identities(known, known_last=True):
        for epoch in (known.epoch + 1, known.epoch - 1, known.epoch):
            if epoch > 0:
                yield beat(known.group, member_id, epoch, instance_id), every
        for epoch in (-3, -2):
            yield beat(known.group, member_id, epoch, instance_id), every
        # A member that takes another instance id keeps the first from everybody in Apache Kafka, here it gives it up.
        changes_instance = member_id == known.member_id and instance_id not in {None, known.instance_id}
        if known.instance_id is None or not changes_instance:
            yield beat(known.group, member_id, 0, instance_id), every[1:]
        yield beat(known.group, member_id, -1, instance_id), every
    yield from describes(known)


API_CASES: Final[dict[str, Callable[[Known], Cases]]] = {
    cases.__name__: cases
    for cases in (
        heartbeats, syncs, joins, joins_again, joins_anew, leaves, commits, fetches, offset_deletes, deletes, describes,
        beats,
    )
}  # fmt: skip
# A member that joins again waits for one that does not.
WAITING: Final = frozenset({("preparing", "joins_again")})
# Groups that nothing has been written of. Apache Kafka shows one that it only holds in memory once something else of
# the same partition has been written, which is chance.
UNWRITTEN: Final = frozenset({"unknown", "offsets_alone", "id_given_out", "deleted", "consumer_deleted"})
_numbers = count()


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory, jars: Path) -> Iterator[tuple[Talk, Talk]]:
    """Millstream and Apache Kafka."""
    with (
        ApacheKafka(tmp_path_factory.mktemp("kafka") / "kafka", properties=CONFIGS, jars=jars) as kafka,
        broker(CONFIGS) as ours,
        Talk(ours.bootstrap_servers) as first,
        Talk(kafka.bootstrap_servers) as second,
    ):
        yield first, second


def without_chance(text: str, *, is_mixed: bool) -> str:
    """An answer without what differs by intention.

    Which partitions a member gets is for the assignor to say, which goes by member ids. Of a static member that has
    left Apache Kafka says in some places that its instance id is unknown, in others that it is no member.
    """
    text = re.sub(r"TopicPartitions(Response)?\([^()]*\)(, )?", "", text)
    text = re.sub(r"(Instance id \S+ is unknown|Member \S* ?is not a member of group <group>)\.", "<no member>", text)
    return re.sub(r"assignment=b'[^']*'", "<assignment>", text) if is_mixed else text


def said(talk: Talk, state: str, cases: str, group: str) -> list[str]:
    """Bring a group into a state and ask; what was asked and answered."""
    talk.begin(group)
    known = STATES[state](talk)
    lines = []
    for number, (request, in_versions) in enumerate(API_CASES[cases](known)):
        if cases == "joins_anew" and state in UNWRITTEN and isinstance(request, DescribeGroupsRequest):
            continue
        for version in in_versions if EVERY_VERSION else [in_versions[number % len(in_versions)]]:
            answer = talk.raw.call(request, version)
            if isinstance(request, ListGroupsRequest):
                answer.groups = [each for each in answer.groups if each.group_id == group]
            shown = without_chance(talk.shown(answer), is_mixed=state.startswith("upgraded") or cases == "beats")
            lines.append(f"{talk.shown(request)} in version {version}: {shown}")
    return lines


@pytest.mark.parametrize("state", STATES)
def test_both_answer_alike(brokers: tuple[Talk, Talk], state: str) -> None:
    differences = []
    for cases in API_CASES:
        if (state, cases) not in WAITING:
            group = f"refusals-{next(_numbers)}-{state}"
            ours, theirs = (said(talk, state, cases, group) for talk in brokers)
            differences += [
                f"{cases}: {mine}\n  Kafka: {other}" for mine, other in zip(ours, theirs, strict=True) if mine != other
            ]
    assert not differences, "\n".join(differences)
