"""The classic group protocol against Apache Kafka 4.3: the same conversations with both brokers, and the same answers.

A conversation is what several members say, each on a connection of its own, since a JoinGroup or SyncGroup holds its
connection until the group got there. Answers are compared whole, member ids by the order they were given out in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from typing import Any, Final, Self

import pytest
from tests.support.classic_groups import heartbeat_request, leave_request, sync_request
from tests.support.classic_groups import join_request as join_request_of

from millstream.core.wire import APIS, ApiKey, ErrorCode, decode, parse_response_header
from millstream.core.wire.messages.describe_groups import DescribeGroupsRequest
from millstream.core.wire.messages.find_coordinator import FindCoordinatorRequest
from millstream.core.wire.messages.heartbeat import HeartbeatRequest
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse
from millstream.core.wire.messages.leave_group import LeaveGroupRequest
from millstream.core.wire.messages.list_groups import ListGroupsRequest
from millstream.core.wire.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from millstream.core.wire.messages.sync_group import SyncGroupRequest
from millstream.testing import broker
from millstream.testing.kafka import ApacheKafka, wait_until
from millstream.testing.raw import RawConnection

pytestmark = pytest.mark.java

WAIT_S: Final = 90.0
# Versions of JoinGroup at which something changes, and of the others that clients send along with them.
GENERATIONS_OF_CLIENTS: Final = ((0, 0, 0, 0), (3, 2, 2, 2), (5, 3, 3, 3), (9, 5, 4, 5))


class Conversation:
    """Members that speak to one broker; every answer is noted in `said`."""

    def __init__(self, bootstrap: str, group_id: str) -> None:
        self.group_id = group_id
        self.said: list[str] = []
        self._bootstrap = bootstrap
        self._connections: dict[str, RawConnection] = {}
        self._pool = ThreadPoolExecutor(8)
        self._ids: dict[str, str] = {}

    def __enter__(self) -> Self:
        def found() -> bool:
            answer = self._connection("").call(FindCoordinatorRequest(coordinator_keys=[self.group_id]))
            return bool(answer.coordinators[0].error_code == ErrorCode.NONE)

        wait_until(found, WAIT_S, "a coordinator")

        def answers() -> bool:
            request = heartbeat_request("nobody", 0, group_id=self.group_id)
            return bool(self._connection("").call(request).error_code == ErrorCode.UNKNOWN_MEMBER_ID)

        wait_until(answers, WAIT_S, "a coordinator that has loaded")
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections.values():
            connection.socket.close()
        self._pool.shutdown()

    def _connection(self, name: str) -> RawConnection:
        if name not in self._connections:
            self._connections[name] = RawConnection(self._bootstrap, timeout_s=WAIT_S)
        return self._connections[name]

    def say(self, name: str, request: Any, version: int | None = None) -> Any:
        """Ask and note the answer."""
        return self.hear(name, self.ask(name, request, version))

    def ask(self, name: str, request: Any, version: int | None = None) -> Future[Any]:
        """Ask; the answer is noted when it is heard. The request is sent when this returns."""
        connection = self._connection(name)
        version = APIS[ApiKey(request.__wire__.key)].version_max if version is None else version
        connection.send(connection.encode(request, version))
        return self._pool.submit(_answer, connection, ApiKey(request.__wire__.key), version)

    def hear(self, name: str, asked: Future[Any]) -> Any:
        """Note an answer."""
        answer = asked.result(WAIT_S)
        if isinstance(answer, JoinGroupResponse):
            # In no order; an id that was not heard of yet stands last.
            answer.members.sort(key=lambda member: self._ids.get(member.member_id, "~"))
        for member_id in _member_ids(answer):
            self._ids.setdefault(member_id, f"<id {len(self._ids)}>")
        text = repr(answer)
        for member_id, alias in self._ids.items():
            text = text.replace(member_id, alias)
        self.said.append(f"{name}: {text.replace(self.group_id, '<group>')}")
        return answer

    def until(self, name: str, request: Any, code: ErrorCode) -> None:
        """Ask until this is the answer; how often is not noted."""
        wait_until(lambda: self._connection(name).call(request).error_code == code, WAIT_S, code.name)

    def join(self, name: str, version: int = 9, **what: Any) -> Any:
        """Join, with the id that is given out where one is; waits for the generation."""
        return self.hear(name, self.ask_join(name, version, **what))

    def ask_join(self, name: str, version: int = 9, **what: Any) -> Future[Any]:
        """Join without waiting for the generation."""
        what = {"group_id": self.group_id, **what}
        if version >= 4 and "member_id" not in what and what.get("instance_id") is None:
            what["member_id"] = self.say(name, join_request(**what), version).member_id
        return self.ask(name, join_request(**what), version)

    def sync(self, member_id: str, generation: int, *given: tuple[str, bytes], **what: Any) -> SyncGroupRequest:
        what = {"protocol_type": "consumer", "protocol_name": "range", "group_id": self.group_id, **what}
        return sync_request(member_id, generation, given, **what)

    def heartbeat(self, member_id: str, generation: int, **what: Any) -> HeartbeatRequest:
        return heartbeat_request(member_id, generation, group_id=self.group_id, **what)

    def leave(self, *members: tuple[str, str | None]) -> LeaveGroupRequest:
        return leave_request(*members, group_id=self.group_id)

    def pause(self) -> None:
        """Let the broker take up what was sent: many requests that came later, on a connection of their own, are
        answered. Nothing that can be asked for shows that a member waits.
        """
        for _ in range(100):
            self._connection("").call(DescribeGroupsRequest(groups=[self.group_id]))

    def describe(self) -> None:
        """Note what DescribeGroups and ListGroups say of the group."""
        for version in range(APIS[ApiKey.DESCRIBE_GROUPS].version_max + 1):
            answer = self._connection("").call(DescribeGroupsRequest(groups=[self.group_id]), version)
            for group in answer.groups:
                group.members.sort(key=lambda member: self._ids[member.member_id])
            self.said.append(self._aliased(f"version {version}: {answer!r}"))
        listed = self._connection("").call(ListGroupsRequest()).groups
        self.said += [self._aliased(repr(group)) for group in listed if group.group_id == self.group_id]

    def _aliased(self, text: str) -> str:
        for member_id, alias in self._ids.items():
            text = text.replace(member_id, alias)
        return text.replace(self.group_id, "<group>")


def _answer(connection: RawConnection, key: ApiKey, version: int) -> Any:
    frame = connection.receive()
    _, position = parse_response_header(key, version, frame)
    return decode(APIS[key].response, version, frame, position)[0]


def join_request(member_id: str = "", *, session_ms: int = 120_000, **what: Any) -> JoinGroupRequest:
    """A JoinGroup of somebody who sends no heartbeats, and must not be missed on a slow machine."""
    return join_request_of(member_id, session_ms=session_ms, **what)


def _member_ids(answer: Any) -> Iterator[str]:
    """Ids that a broker made up, in an answer: they end in a UUID."""
    members = answer.members if isinstance(answer, JoinGroupResponse) else []
    found = [getattr(answer, "member_id", ""), *(member.member_id for member in members)]
    return (member_id for member_id in found if len(member_id) > 36 and member_id[-36:].count("-") == 4)


def refusals(talk: Conversation) -> None:
    """What is wrong from the start, in every version."""
    group = talk.group_id
    for version in range(10):
        talk.say("a", join_request(group_id=""), version)
        talk.say("a", join_request("whoever", group_id=""), version)
        talk.say("a", join_request(group_id=group, session_ms=1), version)
        talk.say("a", join_request("me", group_id=group, session_ms=2**31 - 1), version)
        talk.say("a", join_request("nobody", group_id=group), version)
        talk.say("a", join_request(group_id=group, protocol_type=""), version)
        talk.say("a", join_request(group_id=group, protocols=()), version)
        if version >= 5:
            talk.say("a", join_request("nobody", instance_id="i", group_id=group), version)
    for version in range(6):
        for group_id in ("", group):
            request = sync_request("nobody", 1, protocol_type="consumer", protocol_name="range", group_id=group_id)
            talk.say("a", request, version)
            if version == 5:
                talk.say("a", sync_request("nobody", 1, group_id=group_id), version)
    for version in range(5):
        talk.say("a", HeartbeatRequest(group_id="", member_id="nobody"), version)
        talk.say("a", HeartbeatRequest(group_id=group, member_id="nobody"), version)
    for version in range(3):
        talk.say("a", LeaveGroupRequest(group_id="", member_id="nobody"), version)
        talk.say("a", LeaveGroupRequest(group_id=group, member_id="nobody"), version)
    for version in range(3, 6):
        talk.say("a", leave_request(("nobody", None), ("", "i"), ("who", "i"), ("", None), group_id=group), version)
        talk.say("a", leave_request(group_id=group), version)
        talk.say("a", leave_request(("nobody", None), group_id=""), version)


def a_life(versions: tuple[int, int, int, int]) -> Callable[[Conversation], None]:
    """One member, then two, then none."""
    join, sync, beat, leave = versions

    def talk_about(talk: Conversation) -> None:
        a = talk.join("a", join)
        talk.describe()
        talk.say("a", talk.heartbeat(a.member_id, 1), beat)
        talk.say("a", talk.heartbeat(a.member_id, 0), beat)
        talk.say("a", talk.heartbeat(a.member_id, 2), beat)
        talk.say("a", talk.sync(a.member_id, 0), sync)
        talk.say("a", talk.sync("nobody", 1), sync)
        talk.say("a", talk.sync(a.member_id, 1, protocol_name="sticky"), max(sync, 5))
        talk.say("a", talk.sync(a.member_id, 1, protocol_type="connect"), max(sync, 5))
        talk.say("a", commit(talk, a.member_id, 1))
        talk.say("a", talk.sync(a.member_id, 1, (a.member_id, b"p0"), ("stranger", b"p9")), sync)
        talk.say("a", talk.sync(a.member_id, 1), sync)
        talk.describe()
        for member_id, generation in ((a.member_id, 1), (a.member_id, 0), ("nobody", 1), ("", -1), ("", 1)):
            talk.say("a", commit(talk, member_id, generation))

        asked = talk.ask_join("b", join)
        talk.until("a", talk.heartbeat(a.member_id, 1), ErrorCode.REBALANCE_IN_PROGRESS)
        talk.say("a", talk.sync(a.member_id, 1), sync)
        talk.say("a", commit(talk, a.member_id, 1))
        a = talk.join("a", join, member_id=a.member_id)
        b = talk.hear("b", asked)
        asked = talk.ask("b", talk.sync(b.member_id, 2), sync)
        talk.say("a", talk.sync(a.member_id, 2, (b.member_id, b"p1")), sync)
        talk.hear("b", asked)
        talk.describe()
        talk.say("b", join_request(b.member_id, group_id=talk.group_id), join)
        talk.say("b", join_request(b.member_id, group_id=talk.group_id, protocol_type="connect"), join)
        talk.say("b", join_request(b.member_id, group_id=talk.group_id, protocols=(("x", b""),)), join)
        talk.say("c", join_request(group_id=talk.group_id, protocol_type="connect"), join)
        talk.say("c", join_request(group_id=talk.group_id, protocols=(("x", b""),)), join)
        talk.say("c", join_request("stranger", group_id=talk.group_id), join)

        for member_id in (b.member_id, "stranger"):
            request = talk.leave((member_id, None))
            talk.say(
                "c", LeaveGroupRequest(group_id=talk.group_id, member_id=member_id) if leave < 3 else request, leave
            )
        talk.until("a", talk.heartbeat(a.member_id, 2), ErrorCode.REBALANCE_IN_PROGRESS)
        talk.say("b", talk.heartbeat(b.member_id, 2), beat)
        talk.describe()
        talk.say("c", talk.leave((a.member_id, None)))
        talk.describe()
        talk.say("a", talk.heartbeat(a.member_id, 2), beat)
        talk.say("a", join_request(a.member_id, group_id=talk.group_id), join)
        talk.say("a", commit(talk, a.member_id, 2))
        talk.say("a", commit(talk, "", -1))

    return talk_about


def static_members(talk: Conversation) -> None:
    """KIP-345 and KIP-814."""
    first = talk.join("a", instance_id="i1")
    asked = talk.ask_join("b", instance_id="i2")
    talk.until("a", talk.heartbeat(first.member_id, 1, instance_id="i1"), ErrorCode.REBALANCE_IN_PROGRESS)
    first = talk.join("a", instance_id="i1", member_id=first.member_id)
    second = talk.hear("b", asked)
    talk.say("b", join_request("stranger", instance_id="i2", group_id=talk.group_id))
    talk.say("b", join_request("stranger", instance_id="i3", group_id=talk.group_id))
    talk.say("b", talk.heartbeat("stranger", 2, instance_id="i2"))
    talk.say("b", talk.heartbeat(second.member_id, 2, instance_id="i3"))
    talk.say("b", talk.sync("stranger", 2, instance_id="i2"))
    talk.say("a", talk.sync(first.member_id, 2, (first.member_id, b"p0"), (second.member_id, b"p1"), instance_id="i1"))
    talk.say("b", talk.sync(second.member_id, 2, instance_id="i2"))
    for version in (5, 8, 9):
        known = second.member_id
        second = talk.join("b", version, instance_id="i2")
        talk.say("b", talk.heartbeat(known, 2, instance_id="i2"))
        talk.say("b", commit(talk, known, 2, "i2"))
        talk.say("b", commit(talk, second.member_id, 2, "i2"))
        talk.say("b", talk.sync(second.member_id, 2, instance_id="i2"))
        first = talk.join("a", version, instance_id="i1")
        talk.say("a", talk.sync(first.member_id, 2, instance_id="i1"))
        talk.describe()
    talk.say("c", talk.leave(("", "i2"), ("stranger", "i1"), ("", "i3"), (first.member_id, "i3")))
    talk.until("a", talk.heartbeat(first.member_id, 2, instance_id="i1"), ErrorCode.REBALANCE_IN_PROGRESS)
    talk.describe()
    # It comes back under another id while its former self waits for the one that asked for an id and went away.
    pending = talk.say("c", join_request(group_id=talk.group_id)).member_id
    asked = talk.ask_join("a", 6, instance_id="i1", member_id=first.member_id)
    talk.pause()
    again = talk.ask_join("d", instance_id="i1")
    talk.hear("a", asked)
    talk.say("c", talk.leave((pending, None)))
    talk.hear("d", again)
    talk.describe()


def asking_in_vain(talk: Conversation) -> None:
    """Ids that were given out, and any protocol type."""
    pending = talk.say("a", join_request(group_id=talk.group_id, protocol_type="connect")).member_id
    talk.say("a", join_request(pending, instance_id="i", group_id=talk.group_id, protocol_type="connect"))
    talk.say("a", talk.heartbeat(pending, 0))
    talk.say("a", talk.sync(pending, 0))
    talk.describe()
    protocols = (("v1", b"1"), ("v2", b"2"))
    a = talk.join("a", member_id=pending, protocol_type="connect", protocols=protocols)
    talk.say("a", talk.sync(a.member_id, 1, (a.member_id, b"t"), protocol_type="connect", protocol_name="v1"))
    talk.describe()
    talk.join("a", member_id=a.member_id, protocol_type="connect", protocols=protocols)
    talk.say(
        "a",
        talk.sync(
            a.member_id, 2, (a.member_id, b"1"), (a.member_id, b"2"), protocol_type="connect", protocol_name="v1"
        ),
    )
    other = talk.say("b", join_request(group_id=talk.group_id, protocol_type="connect", protocols=protocols)).member_id
    talk.say("a", talk.heartbeat(a.member_id, 2))
    talk.say("b", talk.leave((other, None), (other, None)))
    talk.say("a", talk.leave((a.member_id, None)))
    talk.describe()


def commit(talk: Conversation, member_id: str, generation: int, instance_id: str | None = None) -> OffsetCommitRequest:
    """Commit an offset of a topic that is there."""
    partition = OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    return OffsetCommitRequest(
        group_id=talk.group_id,
        generation_id_or_member_epoch=generation,
        member_id=member_id,
        group_instance_id=instance_id,
        retention_time_ms=-1,
        topics=[OffsetCommitRequestTopic(name="no-such-topic", partitions=[partition])],
    )


CONVERSATIONS: Final = {
    "refusals": refusals,
    **{f"a_life_{'_'.join(map(str, versions))}": a_life(versions) for versions in GENERATIONS_OF_CLIENTS},
    "static_members": static_members,
    "asking_in_vain": asking_in_vain,
}
_numbers = count()


@pytest.fixture(scope="module")
def millstream_bootstrap() -> Iterator[str]:
    with broker({"group.initial.rebalance.delay.ms": 0}) as running:
        yield running.bootstrap_servers


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_both_brokers_answer_the_same(name: str, millstream_bootstrap: str, apache_kafka: ApacheKafka) -> None:
    said = []
    for bootstrap in (millstream_bootstrap, apache_kafka.bootstrap_servers):
        with Conversation(bootstrap, f"group-{name}-{next(_numbers)}") as talk:
            CONVERSATIONS[name](talk)
        said.append(talk.said)
    ours, kafkas = said
    assert [pair for pair in zip(ours, kafkas, strict=True) if pair[0] != pair[1]] == []
