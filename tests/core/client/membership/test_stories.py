"""Members as stories: what happens to one machine, and everything that it does about it.

A story is a file in `stories/`. Lines that begin with `> ` are what happens; those behind one are its effects,
each with the virtual time in milliseconds; the rest is commentary. `pytest --rerecord` writes the effects anew: read
the difference before it is committed.

    > classic ASSIGNORS [instance=I]      > consumer [instance=I]     what kind of member it is; comes first
    > subscribe TOPIC ...   > start   > leave   > rejoin REASON   > begin-poll   > end-poll   > pass MS   > called
    > joined ID GENERATION leader=ID [protocol=P]   > synced [T:0,1 ...]   > beaten   > left      answers to requests
    > told EPOCH [T:0,1 ...|-]            a heartbeat's answer in a consumer group; - for an empty assignment
    > refused CODE [id=ID]   > lost       the request, or the heartbeat, gets an error; no answer at all
    > topics [T=COUNT ...]   > names T ...                                             metadata
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.consumer_groups import topic_id

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership import (
    ClassicMember,
    ConsumerGroupMember,
    ConsumerProtocol,
    MemberConfig,
    TopicLayout,
)
from millstream.core.client.membership.assignors import assignors_named
from millstream.core.client.membership.effects import AskTopics, Call, Effect, Fail, ForgetCoordinator, Send
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.embedded_protocol import (
    ConsumerAssignment,
    OwnedTopic,
    Subscription,
    decode_assignment,
    decode_subscription,
    encode_assignment,
    encode_subscription,
)
from millstream.core.wire.messages.consumer_group_heartbeat import (
    Assignment,
    ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse,
    TopicPartitionsResponse,
)
from millstream.core.wire.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember
from millstream.core.wire.messages.leave_group import LeaveGroupRequest, LeaveGroupResponse
from millstream.core.wire.messages.sync_group import SyncGroupRequest, SyncGroupResponse

STORIES: Final = sorted((Path(__file__).parent / "stories").glob("*.txt"))
COMMAND: Final = "> "
NAMES: Final = ("t", "u")
_ANSWERS: Final[Mapping[type, type]] = {
    JoinGroupRequest: JoinGroupResponse,
    SyncGroupRequest: SyncGroupResponse,
    HeartbeatRequest: HeartbeatResponse,
    LeaveGroupRequest: LeaveGroupResponse,
    ConsumerGroupHeartbeatRequest: ConsumerGroupHeartbeatResponse,
}


class Teller:
    """Runs the commands of one story and says what happened."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.machine: ClassicMember | ConsumerGroupMember
        self.protocol: ConsumerProtocol | None = None
        # Requests that are not answered, the oldest first.
        self.sent: list[Send] = []
        self.asked: frozenset[str] = frozenset()
        self.seen: list[str] = []

    def tell(self, words: list[str]) -> list[str]:
        """Do what a command says; return the effects."""
        options = dict(word.split("=", 1) for word in words[1:] if "=" in word)
        plain = [word for word in words[1:] if "=" not in word]
        self.seen = []
        getattr(self, f"do_{words[0].replace('-', '_')}")(plain, options)
        self._look()
        return self.seen

    def _look(self) -> None:
        for effect in self.machine.take_effects():
            self.seen.append(f"{self.now_ms:8} {self._said(effect)}")

    def _said(self, effect: Effect) -> str:
        if isinstance(effect, Send):
            self.sent.append(effect)
            return f"send {type(effect.message).__name__.removesuffix('Request')}{_request(effect.message)}"
        if isinstance(effect, Call):
            return f"call {effect.kind.value} {_partitions(effect.what)}"
        if isinstance(effect, AskTopics):
            self.asked = effect.topics
            return f"ask for topics {' '.join(sorted(effect.topics))}"
        if isinstance(effect, ForgetCoordinator):
            return "forget the coordinator"
        if isinstance(effect, Fail):
            return f"fail: {effect.error}"
        return "ask for names of topics"

    # What happens.

    def do_classic(self, plain: list[str], options: dict[str, str]) -> None:
        config = MemberConfig("g", options.get("instance"), session_timeout_ms=10_000, max_poll_interval_ms=60_000)
        self.protocol = ConsumerProtocol(assignors_named(plain))
        self.machine = ClassicMember(config, self.protocol, random.Random(1))

    def do_consumer(self, _plain: list[str], options: dict[str, str]) -> None:
        config = MemberConfig("g", options.get("instance"), max_poll_interval_ms=60_000)
        self.machine = ConsumerGroupMember(config, random.Random(1))
        self.machine.learn_names({topic_id(name): name for name in NAMES[:1]})

    def do_subscribe(self, plain: list[str], _options: dict[str, str]) -> None:
        if isinstance(self.machine, ConsumerGroupMember):
            self.machine.subscribe(plain, None, self.now_ms)
        else:
            assert self.protocol is not None
            self.protocol.subscribe(plain)
            self.machine.handle_subscribed(self.now_ms)

    def do_start(self, _plain: list[str], _options: dict[str, str]) -> None:
        self.machine.start(self.now_ms)

    def do_leave(self, _plain: list[str], _options: dict[str, str]) -> None:
        self.machine.leave(self.now_ms)

    def do_rejoin(self, plain: list[str], _options: dict[str, str]) -> None:
        self.machine.rejoin(" ".join(plain), self.now_ms)

    def do_begin_poll(self, _plain: list[str], _options: dict[str, str]) -> None:
        self.machine.begin_poll(self.now_ms)

    def do_end_poll(self, _plain: list[str], _options: dict[str, str]) -> None:
        self.machine.end_poll(self.now_ms)

    def do_called(self, _plain: list[str], _options: dict[str, str]) -> None:
        self.machine.handle_called(self.now_ms)

    def do_pass(self, plain: list[str], _options: dict[str, str]) -> None:
        end_ms = self.now_ms + int(plain[0])
        while (due_ms := self.machine.next_deadline_ms) is not None and due_ms <= end_ms:
            self.now_ms = max(self.now_ms, due_ms)
            self.machine.handle_time(self.now_ms)
            self._look()
        self.now_ms = end_ms

    # Answers.

    def _answer(self, response: Any) -> None:
        number = next(index for index, send in enumerate(self.sent) if _ANSWERS[type(send.message)] is type(response))
        self.machine.handle_answer(self.sent.pop(number).number, response, self.now_ms)

    def do_joined(self, plain: list[str], options: dict[str, str]) -> None:
        member_id, generation = plain[0], int(plain[1])
        other = encode_subscription(Subscription(topics=["t"]), 3)
        mine = next(send.message for send in self.sent if isinstance(send.message, JoinGroupRequest)).protocols
        leads = options["leader"] == member_id
        members = [
            JoinGroupResponseMember(member_id=member_id, metadata=mine[0].metadata),
            JoinGroupResponseMember(member_id="other", metadata=other),
        ]
        self._answer(
            JoinGroupResponse(
                generation_id=generation,
                protocol_type="consumer",
                protocol_name=options.get("protocol", mine[0].name),
                leader=options["leader"],
                member_id=member_id,
                members=members if leads else [],
            )
        )

    def do_synced(self, plain: list[str], _options: dict[str, str]) -> None:
        topics = [OwnedTopic(topic=name, partitions=numbers) for name, numbers in _topics(plain)]
        self._answer(SyncGroupResponse(assignment=encode_assignment(ConsumerAssignment(assigned_partitions=topics), 3)))

    def do_beaten(self, _plain: list[str], _options: dict[str, str]) -> None:
        self._answer(HeartbeatResponse())

    def do_left(self, _plain: list[str], _options: dict[str, str]) -> None:
        self._answer(LeaveGroupResponse())

    def do_told(self, plain: list[str], _options: dict[str, str]) -> None:
        given = [
            TopicPartitionsResponse(topic_id=topic_id(name), partitions=numbers)
            for name, numbers in _topics(word for word in plain[1:] if word != "-")
        ]
        self._answer(
            ConsumerGroupHeartbeatResponse(
                member_epoch=int(plain[0]),
                heartbeat_interval_ms=5_000,
                assignment=Assignment(topic_partitions=given) if plain[1:] else None,
            )
        )

    def do_refused(self, plain: list[str], options: dict[str, str]) -> None:
        response = _ANSWERS[type(self.sent[0].message)](error_code=ErrorCode[plain[0]])
        if "id" in options:
            response.member_id = options["id"]
        self._answer(response)

    def do_lost(self, _plain: list[str], _options: dict[str, str]) -> None:
        error = KafkaError(ErrorCode.NETWORK_EXCEPTION, "the connection is gone")
        self.machine.handle_failure(self.sent.pop(0).number, error, self.now_ms)

    def do_topics(self, _plain: list[str], options: dict[str, str]) -> None:
        assert isinstance(self.machine, ClassicMember)
        layouts = {name: TopicLayout.of(int(count)) for name, count in options.items()}
        if self.machine.state.value == "stable":
            self.machine.handle_topics_seen(layouts, self.now_ms)
        else:
            self.machine.handle_topics(self.asked, layouts, self.now_ms)

    def do_names(self, plain: list[str], _options: dict[str, str]) -> None:
        assert isinstance(self.machine, ConsumerGroupMember)
        self.machine.handle_names({topic_id(name): name for name in plain}, self.now_ms)


def _topics(words: Iterable[str]) -> list[tuple[str, list[int]]]:
    split = [word.split(":") for word in words]
    return [(name, [int(each) for each in numbers.split(",")]) for name, numbers in split]


def _partitions(found: Iterable[TopicPartition]) -> str:
    return " ".join(map(str, sorted(found))) or "nothing"


def _request(message: Any) -> str:
    """What a request says, in short."""
    said = []
    if isinstance(message, JoinGroupRequest):
        told = decode_subscription(message.protocols[0].metadata)
        owned = [TopicPartition(one.topic, each) for one in told.owned_partitions for each in one.partitions]
        said += [
            f"member={message.member_id or '-'}",
            "protocols=" + ",".join(protocol.name for protocol in message.protocols),
            f"topics={','.join(told.topics)}",
            f"owned={_partitions(owned)} of {told.generation_id}" if owned else "",
            f"because {message.reason}" if message.reason else "",
        ]
    elif isinstance(message, SyncGroupRequest):
        said.append(f"member={message.member_id} generation={message.generation_id}")
        for share in message.assignments:
            given = decode_assignment(share.assignment).assigned_partitions
            partitions = [TopicPartition(one.topic, each) for one in given for each in one.partitions]
            said.append(f"{share.member_id}: {_partitions(partitions)};")
    elif isinstance(message, HeartbeatRequest):
        said.append(f"member={message.member_id} generation={message.generation_id}")
    elif isinstance(message, LeaveGroupRequest):
        (identity,) = message.members
        said.append(f"member={identity.member_id} because {identity.reason}")
    else:
        assert isinstance(message, ConsumerGroupHeartbeatRequest)
        ids = {topic_id(name): name for name in NAMES}
        said.append(f"epoch={message.member_epoch}")
        if message.subscribed_topic_names is not None:
            said.append(f"topics={','.join(message.subscribed_topic_names)}")
        if message.rebalance_timeout_ms != -1:
            said.append(f"rebalance={message.rebalance_timeout_ms}")
        if message.topic_partitions is not None:
            mine = [
                TopicPartition(ids[one.topic_id], each) for one in message.topic_partitions for each in one.partitions
            ]
            said.append(f"has {_partitions(mine)}")
    return "".join(f" {one}" for one in said if one)


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_story(path: Path, rerecord: bool) -> None:
    lines = path.read_text().splitlines()
    teller = Teller()
    told: list[str] = []
    for line in lines:
        if line.startswith(COMMAND):
            told += [line, *teller.tell(line.removeprefix(COMMAND).split())]
        elif not line[:1].isspace():
            told.append(line)
    if rerecord:
        path.write_text("\n".join(told) + "\n")
    assert told == lines


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8
