"""Reconciliation as stories: what members say, what they are told, and what goes to the log.

A story is a file in `stories/`, told as those of the classic protocol are (`pytest --rerecord` writes effects anew):

    > topics t=4 u=2     > pass MS     > fail     > describe     > migration disabled
    > NAME join [topics=t,u] [regex=R] [instance=I] [assignor=A]     > NAME beat [full]     > NAME ack
    > NAME leave [static]     > NAME epoch N     > NAME commit TOPIC-PARTITION [epoch]
    > NAME classic-join [topics=t]     > NAME sync     > NAME heartbeat     > NAME classic-leave

`ack` is a heartbeat that says that the member has what it was told to have.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.classic_groups import GROUP, heartbeat_request, join_request, leave_request, sync_request
from tests.support.consumer_groups import Consumer, ConsumerCoordinator

from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.consumer.member import MemberState
from millstream.core.groups.effects import Append, Effect
from millstream.core.groups.records import decode_record
from millstream.core.wire import KafkaError, error_code
from millstream.core.wire.embedded_protocol import (
    OwnedTopic,
    Subscription,
    decode_assignment,
    encode_subscription,
)

STORIES: Final = sorted((Path(__file__).parent / "stories").glob("*.txt"))
COMMAND: Final = "> "
SESSION_MS: Final = 45_000


class ClassicClient:
    """What a client of the classic protocol knows of its membership."""

    def __init__(self) -> None:
        self.member_id = ""
        self.generation = -1
        self.topics = ["t"]
        self.owned: dict[str, list[int]] = {}


class Teller:
    """Runs the commands of one story and says what happened."""

    def __init__(self) -> None:
        self.coordinator = ConsumerCoordinator({})
        self.coordinator.watch = self._see
        self.clients: dict[str, Consumer] = {}
        self.classics: dict[str, ClassicClient] = {}
        self._lines: list[str] = []
        self._state = "no group"

    def run(self, command: str) -> list[str]:
        self._lines = []
        first, *words = shlex.split(command)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        if first == "topics":
            self.coordinator.set_topics({name: int(count) for name, count in options.items()})
        elif first == "pass":
            self.coordinator.pass_ms(int(plain[0]))
        elif first == "fail":
            self.coordinator.fail()
        elif first == "describe":
            self._describe()
        elif first in ("migration", "interval"):
            change = {"consumer_migration_policy": plain[0]} if first == "migration" else {
                "consumer_assignment_interval_ms": int(plain[0])
            }  # fmt: skip
            self.coordinator.configs = replace(self.coordinator.configs, **change)  # type: ignore[arg-type]
            self.coordinator.shard.reconfigure(self.coordinator.configs)
        elif plain[0] in ("classic-join", "sync", "heartbeat", "classic-leave"):
            self._classic(first, plain[0], options)
        else:
            self._act(first, plain[0], plain[1:], options)
        self._note_state()
        return self._lines

    # Members of the consumer protocol

    def _act(self, name: str, verb: str, words: list[str], options: dict[str, str]) -> None:
        client = self.clients.get(name)
        if verb == "join":
            topics = options.get("topics")
            client = self.clients[name] = Consumer(
                self.coordinator,
                options.get("id", name),
                topics.split(",") if topics else None if "regex" in options else ("t",),
                regex=options.get("regex"),
                instance_id=options.get("instance"),
                assignor=options.get("assignor"),
            )
            self._answer(name, client.beat())
            return
        assert client is not None, name
        if verb == "ack":
            self._answer(name, client.acknowledge())
        elif verb == "beat":
            fields: dict[str, Any] = {}
            if "topics" in options:
                fields["subscribed_topic_names"] = options["topics"].split(",")
            self._answer(name, client.beat(full="full" in words, **fields))
        elif verb == "epoch":
            client.epoch = int(words[0])
        elif verb == "leave":
            client.epoch = -2 if words else -1
            self._answer(name, client.beat())
        else:
            assert verb == "commit", verb
            topic, _, partition = words[0].rpartition("-")
            epoch = int(words[1]) if len(words) > 1 else client.epoch
            self._tell(
                f"{name} commits {words[0]} in epoch {epoch}: {self._committed(client, topic, partition, epoch)}"
            )

    def _committed(self, client: Consumer, topic: str, partition: str, epoch: int) -> str:
        group = self.coordinator.shard.groups[GROUP]
        try:
            check = group.check_offset_commit(
                client.member_id, client.instance_id, epoch, api_version=9, transactional=False
            )
            if check is not None:
                check(topic, int(partition))
        except KafkaError as error:
            return error.code.name
        return "NONE"

    def _answer(self, name: str, answer: Any) -> None:
        if isinstance(answer, KafkaError):
            self._tell(f"{name}: {answer.code.name}")
            return
        told = "" if answer.assignment is None else " " + self._topics(
            {each.topic_id: each.partitions for each in answer.assignment.topic_partitions}
        )  # fmt: skip
        self._tell(f"{name}: epoch {answer.member_epoch}{told}")

    # Members of the classic protocol

    def _classic(self, name: str, verb: str, options: dict[str, str]) -> None:
        me = self.classics.setdefault(name, ClassicClient())
        coordinator = self.coordinator
        if verb == "classic-join":
            me.topics = options["topics"].split(",") if "topics" in options else me.topics
            owned = [OwnedTopic(topic=topic, partitions=each) for topic, each in me.owned.items()]
            metadata = encode_subscription(Subscription(topics=me.topics, owned_partitions=owned), 1)
            request = join_request(me.member_id, protocols=[("range", metadata)], session_ms=SESSION_MS)
            answer = coordinator.answers.get(
                number := coordinator.call("join_group", request, version=3, client_id=name)
            )
            if answer is None:
                coordinator.pass_ms(6_000)
                answer = coordinator.answers[number]
            if isinstance(answer, KafkaError) or answer.error_code:
                self._tell(f"{name}: {self._code(answer)}")
                return
            me.member_id, me.generation = answer.member_id, answer.generation_id
            self._tell(
                f"{name}: generation {answer.generation_id} {answer.protocol_name}, {len(answer.members)} members"
            )
        elif verb == "sync":
            number = coordinator.call(
                "sync_group",
                sync_request(me.member_id, me.generation, protocol_type="consumer", protocol_name="range"),
                version=5,
            )
            answer = coordinator.answers[number]
            if isinstance(answer, KafkaError) or answer.error_code:
                self._tell(f"{name}: {self._code(answer)}")
                return
            me.owned = {
                each.topic: each.partitions for each in decode_assignment(answer.assignment).assigned_partitions
            }
            self._tell(f"{name}: {' '.join(f'{topic}{each}' for topic, each in me.owned.items()) or 'nothing'}")
        elif verb == "heartbeat":
            number = coordinator.call("heartbeat", heartbeat_request(me.member_id, me.generation), version=4)
            self._tell(f"{name}: {self._code(coordinator.answers[number])}")
        else:
            number = coordinator.call("leave_group", leave_request((me.member_id, None)), version=4)
            self._tell(f"{name}: {self._code(coordinator.answers[number].members[0])}")

    def _code(self, answer: Any) -> str:
        return answer.code.name if isinstance(answer, KafkaError) else error_code(answer.error_code).name

    # What is seen

    def _tell(self, line: str) -> None:
        for name, me in self.classics.items():
            if me.member_id:
                line = line.replace(me.member_id, f"<{name}>")
        self._lines.append(f"{self.coordinator.now_ms:>7}  {line}")

    def _topics(self, partitions: Any) -> str:
        image = self.coordinator.image
        shown = sorted(
            f"{topic.name if (topic := image.topic_by_id(each)) else 'gone'}{sorted(indexes)}"
            for each, indexes in partitions.items()
        )
        return " ".join(shown) or "nothing"

    def _see(self, effect: Effect) -> None:
        if not isinstance(effect, Append):
            return
        for key, value in effect.records:
            decoded = decode_record(key, value)
            assert decoded is not None
            self._tell(f"log: {self._record(*decoded)}")

    def _record(self, key: Any, value: Any) -> str:
        kind = type(key).__name__.removeprefix("ConsumerGroup").removesuffix("Key")
        member_id = getattr(key, "member_id", "")
        what = f"{kind} {member_id}".rstrip()
        if value is None:
            return f"{what} deleted"
        if kind == "Metadata":
            return f"{what} epoch {value.epoch}"
        if kind == "TargetAssignmentMetadata":
            return f"{what} epoch {value.assignment_epoch}"
        if kind == "TargetAssignmentMember":
            return f"{what} {self._topics({each.topic_id: each.partitions for each in value.topic_partitions})}"
        if kind == "CurrentMemberAssignment":
            pending = self._topics({each.topic_id: each.partitions for each in value.partitions_pending_revocation})
            return (
                f"{what} epoch {value.member_epoch} {MemberState(value.state).name} "
                f"{self._topics({each.topic_id: each.partitions for each in value.assigned_partitions})}"
                + ("" if pending == "nothing" else f", to give up {pending}")
            )
        if kind == "RegularExpression":
            return f"{what} {key.regular_expression} {' '.join(value.topics)}"
        if kind == "MemberMetadata":
            return f"{what} {' '.join(value.subscribed_topic_names)} {value.subscribed_topic_regex}".rstrip()
        return f"{what} generation {value.generation} of {len(value.members)}"

    def _note_state(self) -> None:
        group = self.coordinator.shard.groups.get(GROUP)
        state = "no group" if group is None else f"{group.group_type} {group.state_name}"
        if state != self._state:
            self._state = state
            self._tell(f"-- {state}")

    def _describe(self) -> None:
        group = self.coordinator.shard.groups[GROUP]
        assert isinstance(group, ConsumerGroup)
        for member in group.members.values():
            self._tell(f"{member.member_id} epoch {member.member_epoch} {self._topics(member.assigned)}")


def tell(text: str) -> str:
    """A story with the effects that its commands have now."""
    teller = Teller()
    lines: list[str] = []
    effects = False
    for line in text.splitlines():
        if line.startswith(COMMAND):
            lines += [line, *teller.run(line[len(COMMAND) :])]
            effects = True
        elif effects and line[:7].strip().isdigit():
            continue
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_a_story_goes_as_it_is_told(path: Path, rerecord: bool) -> None:
    told = path.read_text()
    now = tell(told)
    if rerecord:
        path.write_text(now)
        told = now
    assert now == told
