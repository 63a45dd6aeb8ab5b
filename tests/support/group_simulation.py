"""One group with members of both protocols, under a seed: what happens to it, and what always holds.

Members join, leave, die, fall silent, migrate the group to and fro; the log delays, fails, is taken away and compacted,
and has no room; topics come and go; operators delete and reconfigure. After every event `Simulation.check` asserts:

    one owner         at most one client has a partition, of those that confirmed what they have and could commit it
    forwards          generations and epochs never go back, neither the group's nor those that a client is told
    fenced            who was told that it is no member commits nothing
    the log           read from scratch, compacted or not, it says what is in memory
    nothing is left   no timers, counts or expressions of members that are gone

One line replays a seed: python -m tests.support.group_simulation SEED
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

from tests.support.classic_groups import GROUP, leave_request
from tests.support.consumer_groups import CONSUMER_CONFIGS, ConsumerCoordinator
from tests.support.mixed_members import (
    COOPERATIVE,
    ENDED,
    LOST,
    ClassicConsumer,
    Member,
    NewConsumer,
    Partition,
    RudeConsumer,
    code_of,
)

from millstream.core.groups.classic import ClassicGroup, ClassicState
from millstream.core.groups.consumer.group import ConsumerGroup
from millstream.core.groups.effects import KeyedRecord
from millstream.core.groups.group import Group
from millstream.core.groups.shard import APPEND_SIZE_BYTES_MAX, GroupShard
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)

STEPS: Final = 90
ALIVE_MAX: Final = 5
CLASSIC, NEW = "c", "n"  # what names of clients begin with
TOPICS: Final = ("s", "t", "u")
PROTOCOLS: Final = (("range",), ("range", COOPERATIVE), (COOPERATIVE, "range"), (COOPERATIVE,))
POLICIES: Final = ("bidirectional", "bidirectional", "upgrade", "downgrade", "disabled")
# Longer than any session, rebalance or wait of a new member; and than what offsets are kept.
SILENCE_MS: Final = 700_000
SETTLING_ROUNDS: Final = 250


class Fenced(NamedTuple):
    """An identity that was told that it is none."""

    member_id: str
    instance_id: str | None
    generation: int
    owned: frozenset[Partition]


class Simulation:
    """One seed. `rude`: leaders assign as they like, so that what they have says nothing of the coordinator."""

    def __init__(self, seed: int, *, rude: bool = False) -> None:
        self.random = random.Random(seed)
        self.rude = rude
        self.topics: dict[str, int] = {"s": 3, "t": 4}
        delay_ms = self.random.choice([0, 3_000])
        self.coordinator = ConsumerCoordinator(
            self.topics, replace(CONSUMER_CONFIGS, initial_rebalance_delay_ms=delay_ms), seed=seed
        )
        self.members: list[Member] = []
        self.log: list[str] = []
        # By whether a coordinator that takes over knows it as well.
        self.fenced: dict[str, tuple[Fenced, bool]] = {}
        self.committed: dict[Partition, int] = {}
        # What the group and each client came to: a kind of group with its generation or epoch.
        self._reached: tuple[str, int] = ("", 0)
        self._was_empty = True
        self._shard = self.coordinator.shard
        # (life of the group, generation or epoch) by client; an emptied group that is joined anew begins from nothing.
        self._told: dict[str, tuple[int, int]] = {}
        self._life = 0
        self._count = 0
        self._offset = 0
        self.coordinator.watch_settled = self._see_settled

    # What happens

    def run(self) -> None:
        """All of it."""
        for _ in range(STEPS):
            self.step()
        self.settle()
        self.end()

    def step(self) -> None:
        """One event, and what holds behind it."""
        event = self.random.choices(list(EVENTS), list(EVENTS.values()))[0]
        self.log.append(event.__name__)
        event(self)
        self.take_answers()
        self.check()

    def join_classic(self) -> None:
        if self._is_full():
            return
        source = self.random
        fields: dict[str, Any] = {"protocols": source.choice(PROTOCOLS), "version": source.choice([0, 3, 5, 9])}
        arguments = (self.coordinator, self._name(CLASSIC), self._some_topics(), self._instance())
        member = (
            RudeConsumer(*arguments, source=source, **fields) if self.rude else ClassicConsumer(*arguments, **fields)
        )
        self._begin(member)

    def join_new(self) -> None:
        if self._is_full():
            return
        source = self.random
        member = NewConsumer(
            self.coordinator,
            self._name(NEW),
            self._some_topics(),
            self._instance(),
            regex=source.choice([None, None, None, "", ".*", "[st]"]),
            assignor=source.choice([None, None, "uniform", "range"]),
        )
        self._begin(member)

    def _begin(self, member: Member) -> None:
        self.members.append(member)
        member.step()

    def one_steps(self) -> None:
        if alive := self.alive:
            self.random.choice(alive).step()

    def all_step(self) -> None:
        for member in self.alive:
            member.step()
            self.take_answers()

    def says_it_again(self) -> None:
        """A connection broke, and the same is asked on another one."""
        if waiting := [member for member in self.alive if member.waits is not None]:
            member = self.random.choice(waiting)
            member.waits = None
            if isinstance(member, NewConsumer):
                member.client.has_lost_an_answer = member.client.epoch != 0
            member.step()

    def beats(self) -> None:
        """A heartbeat that says nothing new, or all again."""
        if new := [each for each in self.alive if isinstance(each, NewConsumer) and each.waits is None]:
            self.random.choice(new).beat(full=self.random.random() < 0.3)

    def subscribes(self) -> None:
        if alive := [each for each in self.alive if each.waits is None]:
            member = self.random.choice(alive)
            topics = self._some_topics()
            if isinstance(member, NewConsumer):
                member.subscribe(topics, self.random.choice(["", "", ".*", "t"]))
            elif isinstance(member, ClassicConsumer):
                member.topics = topics
                member.phase = "out"

    def dies(self) -> None:
        if alive := self.alive:
            self.random.choice(alive).is_alive = False

    def leaves(self) -> None:
        if alive := [each for each in self.alive if each.waits is None and each.member_id]:
            member = self.random.choice(alive)
            if isinstance(member, NewConsumer) and member.instance_id is not None and self.random.random() < 0.5:
                member.leave(will_be_back=True)
            else:
                member.leave()

    def commits(self) -> None:
        """Whoever believes to have something commits, dead or not."""
        if owners := [each for each in self.members if each.owned]:
            member = self.random.choice(owners)
            owned = member.owned
            self._offset += 1
            answer = self.coordinator.answers.get(member.commit(self._offset))
            if answer is not None and not isinstance(answer, (KafkaError, str)):
                self.committed.update(dict.fromkeys(owned, self._offset))

    def time_goes_by(self) -> None:
        self.coordinator.pass_ms(self.random.choice([10, 10, 3_000, 3_000, 11_000, 46_000, 61_000, 310_000]))

    def log_delays(self) -> None:
        self.coordinator.holds = True

    def log_commits(self) -> None:
        """All that is written, or some of it."""
        coordinator = self.coordinator
        if self.random.random() < 0.5:
            for _ in range(self.random.randint(0, len(coordinator.written))):
                append = coordinator.written.pop(0)
                coordinator.log += append.records
                coordinator.shard.handle_committed(append.number)
        else:
            coordinator.holds = False
            coordinator.commit()

    def log_fails(self) -> None:
        """What is not committed is lost, and another coordinator reads the rest."""
        coordinator = self.coordinator
        coordinator.holds = False
        coordinator.fail()
        self.fenced = {name: (who, True) for name, (who, is_recorded) in self.fenced.items() if is_recorded}
        # A generation is recorded once it is stable, an epoch before anybody is told.
        self._told = {name: told for name, told in self._told.items() if name.startswith(NEW)}

    def log_has_no_room(self) -> None:
        self.coordinator.shard.append_size_bytes_max = self.random.choice([200, 500, 1_000, 2_000])

    def log_has_room(self) -> None:
        self.coordinator.shard.append_size_bytes_max = APPEND_SIZE_BYTES_MAX

    def compact(self) -> None:
        """The cleaner was here: of a part of the log only the last record of each key is left."""
        log = self.coordinator.log
        self.coordinator.log = compacted(log, self.random.randint(0, len(log)), self.random)

    def topics_change(self) -> None:
        name = self.random.choice(TOPICS)
        if name in self.topics and self.random.random() < 0.4:
            del self.topics[name]
            self.committed = {each: offset for each, offset in self.committed.items() if each[0] != name}
        else:
            self.topics[name] = self.topics.get(name, 0) + self.random.randint(1, 3)
        self.coordinator.set_topics(self.topics)

    def operator_configures(self) -> None:
        coordinator = self.coordinator
        coordinator.configs = replace(
            coordinator.configs,
            consumer_migration_policy=self.random.choice(POLICIES),
            classic_members_max=self.random.choice([2, 4, 100]),
            consumer_members_max=self.random.choice([2, 4, 100]),
            consumer_assignment_interval_ms=self.random.choice([0, 0, 1_000]),
        )
        coordinator.shard.reconfigure(coordinator.configs)

    def operator_asks(self) -> None:
        self.coordinator.call("describe_group", GROUP, version=6)
        self.coordinator.call("describe_consumer_group", GROUP)

    def operator_deletes(self) -> None:
        """The group, a member, or the offsets of a topic."""
        coordinator, source = self.coordinator, self.random
        chosen = source.random()
        if chosen < 0.3:
            if coordinator.answers.get(coordinator.call("delete_group", GROUP)) is ErrorCode.NONE:
                self.committed.clear()
        elif chosen < 0.7:
            coordinator.call("leave_group", leave_request(("", source.choice(["i1", "i2"]))), version=5)
        else:
            topic = source.choice(TOPICS)
            partitions = [OffsetDeleteRequestPartition(partition_index=each) for each in range(9)]
            asked = OffsetDeleteRequestTopic(name=topic, partitions=partitions)
            answer = coordinator.answers.get(
                coordinator.call("offset_delete", OffsetDeleteRequest(group_id=GROUP, topics=[asked]))
            )
            if answer is not None and code_of(answer) == 0 and not isinstance(answer, (KafkaError, str)):
                code = answer.topics[0].partitions[0].error_code
                if not code:
                    self.committed = {each: offset for each, offset in self.committed.items() if each[0] != topic}

    # The end

    def settle(self) -> None:
        """Nothing happens any more, and the clients that are left behave: they share all that they read."""
        coordinator = self.coordinator
        self.log.append("settle")
        self.log_has_room()
        coordinator.configs = replace(
            coordinator.configs,
            consumer_migration_policy="bidirectional",
            classic_members_max=100,
            consumer_members_max=100,
            consumer_assignment_interval_ms=0,
        )
        coordinator.shard.reconfigure(coordinator.configs)
        coordinator.holds = False
        coordinator.commit()
        self.take_answers()
        for number in range(SETTLING_ROUNDS):
            self.all_step()
            coordinator.pass_ms(2_000)
            self.take_answers()
            self.check(reads_log=number % 25 == 0)
        if self.rude:
            return
        group = self.group
        alive = self.alive
        if not alive:
            assert group is None or group.is_empty(), f"nobody is left, and the group is {group.state_name}"
            return
        assert group is not None
        assert group.state_name == "Stable", group.state_name
        assert isinstance(group, (ClassicGroup, ConsumerGroup))
        members = group.members
        assert members.keys() == {member.member_id for member in alive}, (members.keys(), alive)
        wanted = {
            (name, partition)
            for name, topic in coordinator.image.topics.items()
            if group.is_subscribed(name)
            for partition in range(len(topic.partitions))
        }
        owned = [partition for member in alive for partition in member.owned]
        assert sorted(owned) == sorted(wanted), f"{sorted(wanted)} are read, and had are {alive}"

    def end(self) -> None:
        """Everybody dies: nobody waits for ever, and in the end neither memory nor the log has anything of it."""
        coordinator = self.coordinator
        self.log.append("end")
        for member in self.members:
            member.is_alive = False
        coordinator.pass_ms(SILENCE_MS)
        self.check()
        assert not coordinator.unanswered, f"requests {coordinator.unanswered} wait for ever"
        assert coordinator.timers.next_deadline_ms is None, "a timer is left"
        coordinator.pass_ms(coordinator.configs.offsets_retention_ms)
        for _ in coordinator.shard.expire_offsets(coordinator.now_ms):
            coordinator.commit()
        coordinator.commit()
        assert not coordinator.shard.groups
        assert not coordinator.shard.offsets.count
        assert [key for key, value in _latest(coordinator.log).items() if value is not None] == []

    # What holds

    @property
    def group(self) -> Group | None:
        return self.coordinator.shard.groups.get(GROUP)

    @property
    def alive(self) -> list[Member]:
        return [member for member in self.members if member.is_alive]

    def take_answers(self) -> None:
        """Clients take in what has come; who is told that it is no member is fenced."""
        for member in self.members:
            if member.waits is None:
                continue
            was = Fenced(member.member_id, member.instance_id, member.generation, frozenset(member.owned))
            method = member.waits[1]
            answer = member.take_answer()
            if answer is None or isinstance(answer, str):
                continue
            code = code_of(answer)
            if code in (*LOST, *ENDED) and code not in (
                ErrorCode.GROUP_MAX_SIZE_REACHED,
                ErrorCode.INCONSISTENT_GROUP_PROTOCOL,
                ErrorCode.UNRELEASED_INSTANCE_ID,
            ):
                self._told.pop(member.name, None)
                if was.owned:
                    member.has_begun_anew = False
                    self.fenced[member.name] = was, isinstance(self.group, ConsumerGroup)
            elif not code and member.generation > 0 and method in ("join_group", "consumer_group_heartbeat"):
                self.fenced.pop(member.name, None)
                life, before = self._told.get(member.name, (0, 0))
                if was.generation > 0 and was.member_id == member.member_id and life == self._life:
                    assert member.generation >= before, f"{member} was told {before} before"
                self._told[member.name] = self._life, member.generation

    def _see_settled(self) -> None:
        # Behind every single timer and request: none may pass over a generation.
        self._check_forwards()

    def check(self, *, reads_log: bool = True) -> None:
        """What always holds; reading the log is most of the work."""
        self._check_forwards()
        if not self.rude:
            self._check_owners()
        self._check_fenced()
        self._check_leaks()
        if reads_log and not self.coordinator.written:
            self._check_log()

    def _check_forwards(self) -> None:
        group = self.group
        kind, number = _reached(group)
        before_kind, before = self._reached
        is_new = (self._was_empty and kind != before_kind) or self.coordinator.shard is not self._shard
        assert is_new or number >= before, f"the group went from {before_kind} {before} to {kind} {number}"
        self._life += self._was_empty and kind != before_kind
        self._reached = kind, number
        self._was_empty = group is None or group.is_empty()
        self._shard = self.coordinator.shard
        if isinstance(group, ConsumerGroup):
            assert group.assignment_epoch <= group.group_epoch

    def _may_commit(self, who: Member | Fenced, partition: Partition) -> bool:
        group = self.group
        if group is None or who.generation < 0:
            return False
        try:
            check = group.check_offset_commit(
                who.member_id, who.instance_id, who.generation, api_version=9, transactional=False
            )
            if check is not None:
                check(*partition)
        except KafkaError:
            return False
        return True

    def _check_owners(self) -> None:
        owners: dict[Partition, Member] = {}
        for member in self.members:
            for partition in member.owned if member.is_confirmed else ():
                if self._may_commit(member, partition):
                    other = owners.setdefault(partition, member)
                    assert other is member, f"{partition} is had by {other} and by {member}"

    def _check_fenced(self) -> None:
        for member in self.members:
            who, _ = self.fenced.get(member.name, (None, False))
            # One that begins anew under its old id may meet a group that counts from its beginning, too.
            for partition in () if who is None or member.has_begun_anew else who.owned:
                assert who is not None
                assert not self._may_commit(who, partition), f"{who} was fenced, and may commit {partition}"

    def _check_leaks(self) -> None:
        group = self.group
        by_regex = self.coordinator.shard.consumer._by_regex
        if isinstance(group, ConsumerGroup):
            assert group.timers.keys() <= group.members.keys()
            assert group.targets.keys() <= group.members.keys()
            assert group.resolved_regexes.keys() <= group.regexes.keys()
            assert (GROUP in by_regex) == bool(group.regexes)
            assert group.is_empty() or group.timers.keys() == group.members.keys()
            return
        assert GROUP not in by_regex
        if isinstance(group, ClassicGroup):
            assert group.pending_sync <= group.members.keys()
            assert not group.pending.keys() & group.members.keys()
            assert all(member.session is not None for member in group.members.values())
            assert (group.state in (ClassicState.EMPTY, ClassicState.PREPARING_REBALANCE)) or group.members
            assert (group.join_timer is None) or group.state is ClassicState.PREPARING_REBALANCE

    def _check_log(self) -> None:
        coordinator = self.coordinator
        now = _state(coordinator.shard)
        if now is None:
            return
        read = _state(self._loaded(coordinator.log))
        assert read == now, "the log says something else"
        short = compacted(coordinator.log, len(coordinator.log), self.random)
        assert _state(self._loaded(short)) == now, "the compacted log says something else"

    def _loaded(self, log: list[KeyedRecord]) -> GroupShard:
        # A group that is larger than it may be begins to rebalance where it is loaded.
        configs = replace(self.coordinator.configs, classic_members_max=CONSUMER_CONFIGS.classic_members_max)
        other = ConsumerCoordinator(configs=configs, image=self.coordinator.image)
        other.log = log
        return other._load()

    # Chances

    def _is_full(self) -> bool:
        return len(self.alive) >= ALIVE_MAX

    def _name(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count}"

    def _some_topics(self) -> list[str]:
        return self.random.sample(TOPICS, self.random.randint(1, 2))

    def _instance(self) -> str | None:
        return self.random.choice([None, None, None, "i1", "i2"])


def _reached(group: Group | None) -> tuple[str, int]:
    if isinstance(group, ConsumerGroup):
        return group.group_type, group.group_epoch
    if isinstance(group, ClassicGroup):
        return group.group_type, group.generation
    return "", 0


def _state(shard: GroupShard) -> dict[str, Any] | None:
    """All that the log has to say of a shard; None where a group runs ahead of its log in a rebalance."""
    group = shard.groups.get(GROUP)
    offsets = {
        (topic, partition): (offset.committed_offset, offset.commit_timestamp_ms)
        for topic, partitions in shard.offsets.of_group(GROUP).items()
        for partition, offset in partitions.items()
    }
    if isinstance(group, ConsumerGroup):
        return {"offsets": offsets, **consumer_snapshot(group)}
    if isinstance(group, ClassicGroup):
        if group.state not in (ClassicState.STABLE, ClassicState.EMPTY):
            return None
        # One without members that no record tells of is there for its offsets, and is forgotten some time behind them.
        if offsets or group.protocol_type or group.state_timestamp_ms != -1:
            return {"offsets": offsets, **classic_snapshot(group)}
    return {"offsets": offsets}


def consumer_snapshot(group: ConsumerGroup) -> dict[str, Any]:
    """All of a consumer group that its records must hold."""
    return {
        "epochs": (group.group_epoch, group.assignment_epoch, group.assignment_timestamp_ms, group.metadata_hash),
        "members": group.members,
        "static": group.static_members,
        "targets": group.targets,
        "regexes": group.resolved_regexes,
        "counts": (group.names, group.regexes, group.server_assignors, group.classic_protocols, group.classic_count),
        "owners": {
            (topic_id, partition): owner
            for topic_id, owners in group._owners.items()
            for partition, owner in owners.items()
        },
    }


def classic_snapshot(group: ClassicGroup) -> dict[str, Any]:
    """All of a classic group that its record must hold."""
    return {
        "generation": group.generation,
        "protocol": (group.protocol_type, group.protocol_name),
        "leader": group.leader_id,
        "since": group.state_timestamp_ms,
        "members": {
            member.member_id: (
                member.instance_id,
                member.client_id,
                member.client_host,
                member.session_timeout_ms,
                member.rebalance_timeout_ms,
                member.metadata(group.protocol_name),
                member.assignment,
            )
            for member in group.members.values()
        },
    }


def _latest(log: list[KeyedRecord]) -> Mapping[bytes, bytes | None]:
    return dict(log)


def compacted(log: list[KeyedRecord], end: int, source: random.Random) -> list[KeyedRecord]:
    """A log whose first `end` records were cleaned: the last of each key in its place, some deletions gone as well."""
    last = {key: position for position, (key, _) in enumerate(log[:end])}
    kept = [
        record
        for position, record in enumerate(log[:end])
        if last[record[0]] == position and (record[1] is not None or source.random() < 0.5)
    ]
    return kept + log[end:]


EVENTS: Final[dict[Callable[[Simulation], None], int]] = {
    Simulation.join_classic: 14,
    Simulation.join_new: 9,
    Simulation.one_steps: 30,
    Simulation.all_step: 22,
    Simulation.says_it_again: 3,
    Simulation.beats: 4,
    Simulation.subscribes: 4,
    Simulation.dies: 3,
    Simulation.leaves: 6,
    Simulation.commits: 12,
    Simulation.time_goes_by: 12,
    Simulation.log_delays: 3,
    Simulation.log_commits: 8,
    Simulation.log_fails: 3,
    Simulation.log_has_no_room: 1,
    Simulation.log_has_room: 2,
    Simulation.compact: 2,
    Simulation.topics_change: 3,
    Simulation.operator_configures: 2,
    Simulation.operator_asks: 2,
    Simulation.operator_deletes: 3,
}


def simulate(seed: int) -> None:
    """Run one seed; every fourth is rude. Raises AssertionError with a note on how to replay it."""
    simulation = Simulation(seed, rude=seed % 4 == 3)
    try:
        simulation.run()
    except BaseException as error:
        error.add_note(f"python -m tests.support.group_simulation {seed}   ended behind: {simulation.log[-12:]}")
        raise


if __name__ == "__main__":
    for text in sys.argv[1:]:
        simulate(int(text))
