"""Clients that join, sync, leave, fall silent and come back, on a log that delays and fails: what always holds.

Generations never go back; who was told that it is no member, and who is of a generation that is over, commits nothing;
each request is answered once and none waits for ever; a stable group has one leader and each member its assignment;
and whatever happened before, clients that behave end in one stable group.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from tests.support.classic_groups import (
    CONFIGS,
    GROUP,
    REFUSED,
    Coordinator,
    heartbeat_request,
    join_request,
    leave_request,
    sync_request,
)
from tests.support.group_simulation import classic_snapshot

from millstream.core.groups.classic import ClassicGroup, ClassicState
from millstream.core.groups.classic.rebalances import NEW_MEMBER_JOIN_TIMEOUT_MS
from millstream.core.groups.effects import Append, Effect
from millstream.core.groups.records import GroupMetadataValue, decode_record
from millstream.core.wire import ErrorCode, KafkaError

# Names of clients, and the instance ids of those that are static: two of them are the same instance, run twice.
INSTANCES: Final = {"a": None, "b": None, "c": None, "d": "i1", "e": "i1", "f": "i2"}
PROTOCOLS: Final = (
    (("range", b"1"),),
    (("range", b"2"), ("sticky", b"2")),
    (("sticky", b"3"), ("range", b"3")),
)
SESSION_MS: Final = 10_000
REBALANCE_MS: Final = 30_000
ENOUGH_MS: Final = NEW_MEMBER_JOIN_TIMEOUT_MS + 10 * (SESSION_MS + REBALANCE_MS)

names = st.sampled_from(sorted(INSTANCES))


class Client:
    """One client, and what it believes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.instance_id = INSTANCES[name]
        self.protocols: tuple[tuple[str, bytes], ...] = PROTOCOLS[0]
        self.version = 9
        self.forget()

    def forget(self) -> None:
        """It starts from nothing."""
        self.member_id = ""
        self.generation = -1
        # out -> joined (it has a generation and no assignment) -> stable; gone: fenced, it does nothing any more.
        self.phase = "out"
        self.to_assign: list[str] = []
        self.waits: tuple[str, int] | None = None


class GroupMachine(RuleBasedStateMachine):
    """See the module."""

    @initialize(delay_ms=st.sampled_from([0, 3_000]), members_max=st.sampled_from([3, 100]), seed=st.integers(0, 99))
    def begin(self, delay_ms: int, members_max: int, seed: int) -> None:
        configs = replace(CONFIGS, initial_rebalance_delay_ms=delay_ms, classic_members_max=members_max)
        self.coordinator = Coordinator(configs, seed=seed)
        self.coordinator.watch = self._see
        self.clients = {name: Client(name) for name in INSTANCES}
        self.generation = 0
        self.last_record: GroupMetadataValue | None = None
        # Ids that were told they are no members, by this coordinator.
        self.dismissed: set[str] = set()

    def _see(self, effect: Effect) -> None:
        if isinstance(effect, Append):
            for key, data in effect.records:
                decoded = decode_record(key, data)
                assert decoded is not None
                self.last_record = decoded[1]

    # What clients do.

    def _send(self, client: Client, method: str, request: object) -> None:
        version = client.version if method == "join_group" else 9
        number = self.coordinator.call(method, request, version=version, client_id=client.name)
        client.waits = (method, number)
        self._take_answers()

    def _take_answers(self) -> None:
        for client in self.clients.values():
            if client.waits is not None and client.waits[1] in self.coordinator.answers:
                method, number = client.waits
                client.waits = None
                self._take(client, method, self.coordinator.answers[number])

    def _take(self, client: Client, method: str, answer: Any) -> None:
        if answer == REFUSED:
            if method != "heartbeat":
                client.phase = "out"
            return
        if method == "leave_group":
            if not answer.members[0].error_code:
                self.dismissed.add(client.member_id)
            client.forget()
            return
        code = answer.error_code
        if code == ErrorCode.MEMBER_ID_REQUIRED:
            client.member_id = answer.member_id
        elif code in (ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID):
            self.dismissed.add(client.member_id)
            client.forget()
            client.phase = "gone" if code == ErrorCode.FENCED_INSTANCE_ID else "out"
        elif code in (ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION):
            client.phase = "out"
        elif code in (ErrorCode.INCONSISTENT_GROUP_PROTOCOL, ErrorCode.GROUP_MAX_SIZE_REACHED):
            client.forget()
            client.phase = "gone"
        else:
            assert not code, answer
            self._go_on(client, method, answer)

    def _go_on(self, client: Client, method: str, answer: Any) -> None:
        if method == "join_group":
            client.member_id, client.generation, client.phase = answer.member_id, answer.generation_id, "joined"
            leads = answer.leader == answer.member_id and not answer.skip_assignment
            client.to_assign = [member.member_id for member in answer.members] if leads else []
        elif method == "sync_group":
            client.phase = "stable"

    def _join(self, client: Client) -> None:
        request = join_request(
            client.member_id,
            instance_id=client.instance_id,
            protocols=client.protocols,
            session_ms=SESSION_MS,
            rebalance_ms=REBALANCE_MS,
        )
        self._send(client, "join_group", request)

    def _sync(self, client: Client) -> None:
        given = [(member_id, member_id.encode()) for member_id in client.to_assign]
        request = sync_request(client.member_id, client.generation, given, instance_id=client.instance_id)
        self._send(client, "sync_group", request)

    def _heartbeat(self, client: Client) -> None:
        request = heartbeat_request(client.member_id, client.generation, instance_id=client.instance_id)
        self._send(client, "heartbeat", request)

    def _step(self, client: Client) -> None:
        """What a client that behaves does next."""
        if client.waits is not None or client.phase == "gone":
            return
        {"out": self._join, "joined": self._sync, "stable": self._heartbeat}[client.phase](client)

    @rule(name=names, protocols=st.sampled_from(PROTOCOLS), version=st.sampled_from([0, 3, 8, 9]))
    def start(self, name: str, protocols: tuple[tuple[str, bytes], ...], version: int) -> None:
        client = self.clients[name]
        client.forget()
        # Older versions have no instance ids on the wire.
        client.protocols, client.version = protocols, version if client.instance_id is None else max(version, 5)
        self._join(client)

    @rule(name=names, repeated=st.booleans())
    def step(self, name: str, repeated: bool) -> None:
        client = self.clients[name]
        if client.waits is not None and repeated:
            # Its connection broke: it asks again, on another one.
            client.waits = None
        self._step(client)

    @rule(name=names)
    def join_again(self, name: str) -> None:
        if self.clients[name].waits is None:
            self._join(self.clients[name])

    @rule(name=names)
    def leave(self, name: str) -> None:
        client = self.clients[name]
        if client.waits is None and client.member_id:
            self._send(client, "leave_group", leave_request((client.member_id, client.instance_id)))

    @rule(duration_ms=st.sampled_from([10, 1_000, 3_000, 9_000, 31_000, 310_000]))
    def pass_time(self, duration_ms: int) -> None:
        self.coordinator.pass_ms(duration_ms)
        self._take_answers()

    @rule()
    def everybody_steps(self) -> None:
        for client in self.clients.values():
            self._step(client)

    @rule()
    def hold(self) -> None:
        self.coordinator.holds = True

    @rule()
    def commit(self) -> None:
        self.coordinator.holds = False
        self.coordinator.commit()
        self._take_answers()

    @rule()
    def fail(self) -> None:
        self.coordinator.holds = False
        self.coordinator.fail()
        self.dismissed.clear()
        self.last_record = None
        for key, data in self.coordinator.log:
            decoded = decode_record(key, data)
            assert decoded is not None
            self.last_record = decoded[1]
        group = self.coordinator.group
        self.generation = 0 if group is None else group.generation
        self._take_answers()

    # What always holds.

    @invariant()
    def generations_go_up(self) -> None:
        group = self.coordinator.group
        if group is not None:
            assert group.generation >= self.generation
            self.generation = group.generation

    @invariant()
    def strangers_commit_nothing(self) -> None:
        group = self.coordinator.group
        if group is None:
            return
        attempts = [(member_id, group.generation) for member_id in self.dismissed]
        attempts += [(member_id, group.generation - 1) for member_id in group.members if group.generation]
        for member_id, generation in attempts:
            with pytest.raises(KafkaError):
                group.check_offset_commit(member_id, None, generation, api_version=9, transactional=False)

    @invariant()
    def a_stable_group_is_whole(self) -> None:
        group = self.coordinator.group
        if group is None or group.state is not ClassicState.STABLE:
            return
        record = self.last_record
        assert group.leader_id in group.members
        assert record is not None
        assert (record.generation, record.leader, record.protocol) == (
            group.generation,
            group.leader_id,
            group.protocol_name,
        )
        assert {member.member_id: member.assignment for member in record.members} == {
            member.member_id: member.assignment for member in group.members.values()
        }

    @invariant()
    def the_log_says_the_same(self) -> None:
        """A coordinator that took over now would know a group between two rebalances as it is."""
        coordinator = self.coordinator
        group = coordinator.group
        if group is None or coordinator.written or group.state not in (ClassicState.STABLE, ClassicState.EMPTY):
            return
        again = Coordinator(coordinator.configs)
        again.log = coordinator.log
        loaded = again._load().groups[GROUP]
        assert isinstance(loaded, ClassicGroup)
        assert classic_snapshot(loaded) == classic_snapshot(group)

    @invariant()
    def what_is_counted_is_there(self) -> None:
        group = self.coordinator.group
        if group is None:
            return
        members = group.members.values()
        assert group.joined_count == sum(member.join is not None for member in members)
        assert group.pending_sync <= set(group.members)
        assert not group.pending.keys() & group.members.keys()
        assert (group.leader_id in group.members) == bool(group.members)
        assert group.is_empty() == (not group.members and group.state is ClassicState.EMPTY)
        for member in members:
            assert member.instance_id is None or group.static_member(member.instance_id) is member
        if members:
            spoken = set.intersection(*({name for name, _ in member.protocols} for member in members))
            assert spoken
            assert all(group.speaks(group.protocol_type, [name]) for name in spoken)
            assert group.choose_protocol() in spoken

    @invariant()
    def who_waits_is_known(self) -> None:
        group = self.coordinator.group
        if self.coordinator.holds:
            return
        held: set[object] = set()
        for member in () if group is None else group.members.values():
            held |= {member.join.reply} if member.join is not None else set()
            held |= {member.sync} if member.sync is not None else set()
        assert held == self.coordinator.unanswered

    def _everybody_behaves(self) -> None:
        """Clients that behave, one of each instance, end in one stable group."""
        for client in self.clients.values():
            if client.waits is None:
                client.forget()
        self.clients["e"].phase = "gone"
        for _ in range(40):
            for client in self.clients.values():
                self._step(client)
            self.coordinator.pass_ms(1_000)
            self._take_answers()
        group = self.coordinator.group
        alive = [client for client in self.clients.values() if client.phase != "gone"]
        if not alive:
            return
        assert group is not None
        assert group.state is ClassicState.STABLE
        assert {client.phase for client in alive} == {"stable"}
        assert {client.generation for client in alive} == {group.generation}
        assert {client.member_id for client in alive} <= set(group.members)

    def teardown(self) -> None:
        if not hasattr(self, "coordinator"):
            return
        self.commit()
        self.coordinator.pass_ms(ENOUGH_MS)
        self._take_answers()
        assert not self.coordinator.unanswered, "somebody waits for ever"
        group = self.coordinator.group
        assert group is None or group.is_empty(), group
        assert group is None or not group.pending
        self._everybody_behaves()


def test_whatever_clients_do(soak: bool) -> None:
    run_state_machine_as_test(
        GroupMachine,
        settings=settings(
            max_examples=2_000 if soak else 60,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
