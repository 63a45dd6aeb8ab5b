"""Rebalances as stories: what is asked in each, and everything that the coordinator does about it.

A story is a file in `stories/`. Lines that begin with `> ` are what happens; those behind one are its effects, each
with the virtual time in milliseconds; the rest is commentary. `pytest --rerecord` writes the effects anew: read the
difference before it is committed.

    > NAME join [version=9] [instance=I] [type=T] [protocols=p:metadata,q] [session=MS] [rebalance=MS] [id=NAME/N]
    > NAME sync [a=assignment ...] [generation=N] [type=T] [protocol=P] [id=NAME/N]
    > NAME heartbeat [generation=N] [instance=I]     > NAME commit [generation=N]     > NAME leave
    > admin leave I ...     > pass MS     > group.max.size N     > hold     > commit     > fail     > describe

The member that a name stands for is the one its last answer gave an id to; `a/1` is the first id made for `a`.
"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.classic_groups import (
    GROUP,
    REFUSED,
    Coordinator,
    heartbeat_request,
    join_request,
    leave_request,
    sync_request,
)

from millstream.core.groups.effects import Append, Effect
from millstream.core.groups.records import GroupMetadataKey, decode_record
from millstream.core.wire import KafkaError, error_code
from millstream.core.wire.messages.heartbeat import HeartbeatResponse
from millstream.core.wire.messages.join_group import JoinGroupResponse
from millstream.core.wire.messages.leave_group import LeaveGroupResponse
from millstream.core.wire.messages.sync_group import SyncGroupResponse

STORIES: Final = sorted((Path(__file__).parent / "stories").glob("*.txt"))
COMMAND: Final = "> "


class Member:
    """What a client knows of its membership."""

    def __init__(self) -> None:
        self.member_id = ""
        self.generation = -1
        self.instance_id: str | None = None
        self.protocols: tuple[tuple[str, bytes], ...] = (("range", b"topics"),)


class Teller:
    """Runs the commands of one story and says what happened."""

    def __init__(self) -> None:
        self.coordinator = Coordinator()
        self.coordinator.watch = self._see
        self.coordinator.watch_settled = self._note_state
        self._lines: list[str] = []
        self._members: dict[str, Member] = {}
        self._names: dict[str, str] = {}
        self._ids: dict[str, str] = {}
        self._callers: dict[int, tuple[str, str]] = {}
        self._calling: tuple[str, str] = ("", "")
        self._state = "no group"

    def run(self, command: str) -> list[str]:
        """The effects of one command, a line each."""
        self._lines = []
        first, *words = shlex.split(command)
        options = dict(word.split("=", 1) for word in words if "=" in word)
        plain = [word for word in words if "=" not in word]
        if first in ("pass", "hold", "commit", "fail", "describe", "group.max.size"):
            self._control(first, plain)
        else:
            self._act(first, plain[0], plain[1:], options)
        self._note_state()
        return self._lines

    def _control(self, verb: str, words: list[str]) -> None:
        coordinator = self.coordinator
        if verb == "pass":
            coordinator.pass_ms(int(words[0]))
        elif verb == "hold":
            coordinator.holds = True
        elif verb == "commit":
            coordinator.holds = False
            coordinator.commit()
        elif verb == "fail":
            coordinator.fail()
        elif verb == "group.max.size":
            coordinator.configs = replace(coordinator.configs, classic_members_max=int(words[0]))
            coordinator.shard.reconfigure(coordinator.configs)
        else:
            self._describe()

    def _act(self, name: str, verb: str, words: list[str], options: dict[str, str]) -> None:
        me = self._members.setdefault(name, Member())
        coordinator = self.coordinator
        if "instance" in options:
            me.instance_id = options.pop("instance") or None
        member_id = self._ids[options.pop("id")] if options.get("id") else options.pop("id", me.member_id)
        generation = int(options.pop("generation", me.generation))
        version = int(options.pop("version", 9))
        self._calling = (name, verb)
        request: Any
        if verb == "join":
            if "protocols" in options:
                pairs = (pair.partition(":") for pair in options["protocols"].split(","))
                me.protocols = tuple((protocol, metadata.encode()) for protocol, _, metadata in pairs if protocol)
            request = join_request(
                member_id,
                instance_id=me.instance_id,
                protocols=me.protocols,
                protocol_type=options.get("type", "consumer"),
                session_ms=int(options.get("session", 10_000)),
                rebalance_ms=int(options.get("rebalance", 60_000)),
            )
        elif verb == "sync":
            kind, protocol = options.pop("type", None), options.pop("protocol", None)
            given = [(self._members[other].member_id, data.encode()) for other, data in options.items()]
            request = sync_request(
                member_id, generation, given, instance_id=me.instance_id, protocol_type=kind, protocol_name=protocol
            )
        elif verb == "heartbeat":
            request = heartbeat_request(member_id, generation, instance_id=me.instance_id)
        elif verb == "leave":
            leaving = [("", instance) for instance in words] if words else [(member_id, me.instance_id)]
            request = leave_request(*leaving)
        else:
            self._commit(name, me, generation)
            return
        method = verb if verb == "heartbeat" else f"{verb}_group"
        number = coordinator.call(method, request, version=version, client_id=name)
        if number in coordinator.unanswered:
            self._callers[number] = self._calling
            self._tell(f"{name} waits")

    def _commit(self, name: str, me: Member, generation: int) -> None:
        group = self.coordinator.group
        assert group is not None
        try:
            group.check_offset_commit(me.member_id, me.instance_id, generation, api_version=9, transactional=False)
        except KafkaError as error:
            self._tell(f"{name} may not commit: {error.code.name}")
        else:
            self._tell(f"{name} may commit")

    # What is seen.

    def _tell(self, line: str) -> None:
        group = self.coordinator.group
        for member in () if group is None else group.members.values():
            self._learn(member.client_id, member.member_id)
        for member_id, name in self._names.items():
            line = line.replace(member_id, name)
        self._lines.append(f"{self.coordinator.now_ms:>7}  {line}")

    def _see(self, effect: Effect) -> None:
        self._note_state()
        if isinstance(effect, Append):
            for key, value in effect.records:
                decoded = decode_record(key, value)
                assert decoded is not None
                for member in () if value is None else decoded[1].members:
                    self._learn(member.client_id, member.member_id)
                self._tell(f"log: {self._record(*decoded)}")
            return
        assert isinstance(effect.reply, int)
        name, verb = self._callers.pop(effect.reply, self._calling)
        self._tell(f"{name} {verb}: {self._answer(name, effect.response)}")

    def _record(self, key: object, value: Any) -> str:
        assert isinstance(key, GroupMetadataKey)
        if value is None:
            return "deleted"
        members = "".join(
            f" {member.member_id}[{member.subscription.decode()}]={member.assignment.decode()}"
            for member in value.members
        )
        return f"generation {value.generation} {value.protocol_type!r} {value.protocol} leader {value.leader}{members}"

    def _answer(self, name: str, response: Any) -> str:
        if response == REFUSED:
            return REFUSED
        if isinstance(response, LeaveGroupResponse):
            return ", ".join(
                f"{member.group_instance_id or member.member_id} {error_code(member.error_code).name}"
                for member in response.members
            )
        code = error_code(response.error_code).name
        if isinstance(response, HeartbeatResponse):
            return code
        if isinstance(response, SyncGroupResponse):
            return code if response.error_code else f"{response.protocol_name} {response.assignment.decode()!r}"
        assert isinstance(response, JoinGroupResponse)
        me = self._members[name]
        if response.member_id:
            self._learn(name, response.member_id)
        if response.error_code:
            if code == "MEMBER_ID_REQUIRED":
                me.member_id = response.member_id
            elif code == "UNKNOWN_MEMBER_ID":
                me.member_id = ""
            return f"{code} {response.member_id}".rstrip()
        me.member_id, me.generation = response.member_id, response.generation_id
        members = "".join(f" {member.member_id}[{member.metadata.decode()}]" for member in response.members)
        skip = " skip" if response.skip_assignment else ""
        return (
            f"{response.member_id} generation {response.generation_id} {response.protocol_name} "
            f"leader {response.leader}{skip}{members}"
        )

    def _learn(self, name: str, member_id: str) -> None:
        if member_id not in self._names:
            count = sum(known.startswith(f"{name}/") for known in self._names.values())
            self._names[member_id] = f"{name}/{count + 1}"
            self._ids[f"{name}/{count + 1}"] = member_id

    def _note_state(self) -> None:
        group = self.coordinator.group
        state = "no group" if group is None else f"{group.state_name}, {len(group.members)} members"
        if state != self._state:
            self._state = state
            self._tell(f"-- {state}")

    def _describe(self) -> None:
        group = self.coordinator.group
        if group is None:
            return
        described = group.describe()
        self._tell(f"{GROUP} {described.group_state} {described.protocol_type!r} {described.protocol_data!r}")
        for member in described.members:
            self._tell(
                f"  {member.member_id} {member.group_instance_id} {member.client_id} {member.client_host} "
                f"{member.member_metadata!r} {member.member_assignment!r}"
            )


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
