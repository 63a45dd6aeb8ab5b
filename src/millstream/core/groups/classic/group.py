"""One group of the classic protocol.

What a GroupMetadata record holds is the generation that last became stable, or that the group was emptied: protocol,
leader, members with what they subscribe to and what they were assigned. `replay` puts it in place, at load and right
after it was appended. In a rebalance the group runs ahead of that record: members come and go and the generation is
counted up in memory, until the leader's assignment makes the next record. A shard that ends in between forgets it,
and the members rebalance again under the coordinator that follows.

Owned by its shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

from millstream.core.groups.classic.member import ClassicMember, HeldJoin, Protocols
from millstream.core.groups.group import OffsetExpiry, Record
from millstream.core.groups.records import GroupMetadataKey, GroupMetadataValue, MemberMetadata
from millstream.core.wire import ErrorCode, KafkaError, WireError, decode
from millstream.core.wire.embedded_protocol import CONSUMER_PROTOCOL_TYPE, Subscription, embedded_version
from millstream.core.wire.messages.describe_groups import DescribedGroup, DescribedGroupMember

if TYPE_CHECKING:
    from millstream.core.groups.classic.session import Session
    from millstream.core.groups.timer_wheel import Timer

_UNKNOWN_TIMESTAMP: Final = -1
# Of the int16 that a consumer's metadata begins with.
_VERSION_SIZE: Final = 2


class ClassicState(Enum):
    """See ClassicGroup; the values are Kafka's names."""

    EMPTY = "Empty"
    PREPARING_REBALANCE = "PreparingRebalance"
    COMPLETING_REBALANCE = "CompletingRebalance"
    STABLE = "Stable"
    DEAD = "Dead"


_EMPTY = ClassicState.EMPTY
_PREPARING = ClassicState.PREPARING_REBALANCE
_COMPLETING = ClassicState.COMPLETING_REBALANCE
_STABLE = ClassicState.STABLE
_DEAD = ClassicState.DEAD


class ClassicGroup:
    """Members, their votes, and where the group stands.

    States: EMPTY -> PREPARING_REBALANCE (a member joins)
            PREPARING_REBALANCE -> COMPLETING_REBALANCE (all have joined, or the time for it is up: next generation)
                                 | EMPTY (nobody is left; recorded)
            COMPLETING_REBALANCE -> STABLE (the leader assigned; recorded)
                                 | PREPARING_REBALANCE (a member came, went, changed, or never synced)
            STABLE -> PREPARING_REBALANCE (the same causes)
            any -> DEAD (close: deleted, replaced by a group of the other protocol, or the shard ended)
    """

    def __init__(self, group_id: str) -> None:
        self.group_id = group_id
        self.state = _EMPTY
        # The state before this one: a join phase that began from EMPTY waits longer for further members.
        self.previous_state = _EMPTY
        # When the state was entered, as a record says it; -1 where nothing says it.
        self.state_timestamp_ms = _UNKNOWN_TIMESTAMP
        # Counts completed join phases. Moves up only, while the shard lives.
        self.generation = 0
        # `consumer`, `connect`, ...; the first member's. Empty until one joined: the group only has offsets then.
        self.protocol_type = ""
        # What the members of this generation speak; None without members.
        self.protocol_name: str | None = None
        # Invariant: a member's id wherever there are members.
        self.leader_id: str | None = None
        self.members: dict[str, ClassicMember] = {}
        # Ids given out with MEMBER_ID_REQUIRED and not used yet (KIP-394), the oldest first.
        self.pending: dict[str, Session] = {}
        # Members of this generation that have not synced yet.
        self.pending_sync: set[str] = set()
        # Whether somebody joined since the initial rebalance was last put off.
        self.joined_since_delay = False
        # Ends the join phase, or the wait for syncs.
        self.join_timer: Timer | None = None
        self.sync_timer: Timer | None = None
        # Member ids of static members, by instance id.
        self._static: dict[str, str] = {}
        # How many members hold a JoinGroup, and how many speak each protocol: kept so that a join costs the same
        # however many members there are.
        self._joined_count = 0
        self._speakers: dict[str, int] = {}
        # The topics of this generation once somebody asked, and whether they are known at all.
        self._topics: frozenset[str] | None = None
        self._topics_asked = False

    # What ListGroups and DescribeGroups say.

    @property
    def state_name(self) -> str:
        return self.state.value

    @property
    def group_type(self) -> str:
        return "Classic"

    def is_empty(self) -> bool:
        return self.state is _EMPTY

    def describe(self) -> DescribedGroup:
        """Return its part of a DescribeGroups answer; what members subscribe to is shown of a stable group only."""
        stable = self.state is _STABLE
        name = self.protocol_name or ""
        return DescribedGroup(
            group_id=self.group_id,
            group_state=self.state_name,
            protocol_type=self.protocol_type,
            protocol_data=name if stable else "",
            members=[
                DescribedGroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    member_metadata=member.metadata(name) if stable else b"",
                    member_assignment=member.assignment,
                )
                for member in self.members.values()
            ],
        )

    # Members.

    @property
    def is_consumer(self) -> bool:
        """Whether its members are consumers, so that the coordinator may read their subscriptions."""
        return self.protocol_type == CONSUMER_PROTOCOL_TYPE

    @property
    def joined_count(self) -> int:
        """How many members wait for the join phase to end."""
        return self._joined_count

    @property
    def all_joined(self) -> bool:
        """Whether nobody is missing: every member waits, and every id given out was used."""
        return self._joined_count == len(self.members) and not self.pending

    @property
    def rebalance_timeout_ms(self) -> int:
        """The longest that any member asked for."""
        return max((member.rebalance_timeout_ms for member in self.members.values()), default=0)

    def static_member(self, instance_id: str) -> ClassicMember | None:
        """Return the member of an instance id."""
        member_id = self._static.get(instance_id)
        return None if member_id is None else self.members[member_id]

    def member_error(self, member_id: str, instance_id: str | None) -> ErrorCode:
        """Say whether a request comes from a member: NONE, UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID."""
        if instance_id is not None:
            known_id = self._static.get(instance_id)
            if known_id is None:
                return ErrorCode.UNKNOWN_MEMBER_ID
            if known_id != member_id:
                return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.NONE if member_id in self.members else ErrorCode.UNKNOWN_MEMBER_ID

    def speaks(self, protocol_type: str, names: Sequence[str]) -> bool:
        """Whether one who speaks these protocols may join: there must be one that everybody speaks."""
        if self.state is _EMPTY:
            return bool(protocol_type) and bool(names)
        if protocol_type != self.protocol_type:
            return False
        count = len(self.members)
        for name in names:  # noqa: SIM110  a generator costs more than the loop
            if self._speakers.get(name, 0) == count:
                return True
        return False

    def add(self, member: ClassicMember, protocol_type: str) -> None:
        """Take a member in; the first one says what the group's protocol type is, and leads."""
        if not self.members:
            self.protocol_type = protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        self.members[member.member_id] = member
        if member.instance_id is not None:
            self._static[member.instance_id] = member.member_id
        self._count(member.protocols, 1)
        if member.join is not None:
            self._joined_count += 1

    def remove(self, member: ClassicMember) -> None:
        """Let a member go. Its waiting requests must have been answered."""
        assert (member.join, member.sync) == (None, None), f"{member.member_id} of {self.group_id} still waits"
        del self.members[member.member_id]
        self._count(member.protocols, -1)
        if member.instance_id is not None and self._static.get(member.instance_id) == member.member_id:
            del self._static[member.instance_id]
        if self.leader_id == member.member_id:
            self.leader_id = next(iter(self.members), None)
        self.pending_sync.discard(member.member_id)
        if member.session is not None:
            member.session.cancel()

    def replace(self, old: ClassicMember, new: ClassicMember) -> None:
        """Put `new` in the place of `old`, who has the same instance id: leader where `old` led."""
        led = self.leader_id == old.member_id
        self.remove(old)
        self.add(new, self.protocol_type)
        if led:
            self.leader_id = new.member_id

    def hold_join(self, member: ClassicMember, join: HeldJoin) -> None:
        """Let a member's JoinGroup wait; what waited before must have been answered."""
        assert member.join is None, f"{member.member_id} of {self.group_id} waits twice"
        member.join = join
        self._joined_count += 1

    def take_join(self, member: ClassicMember) -> HeldJoin | None:
        """Return the JoinGroup that waits, if one does, for it to be answered."""
        join = member.join
        if join is not None:
            member.join = None
            self._joined_count -= 1
        return join

    def set_protocols(self, member: ClassicMember, protocols: Protocols) -> None:
        """A member joined again with these."""
        self._count(member.protocols, -1)
        member.protocols = protocols
        self._count(protocols, 1)

    def elect_leader(self) -> bool:
        """Keep the leader if it has joined, else take another one who has; False where nobody has."""
        leader = self.members.get(self.leader_id or "")
        if leader is not None and leader.join is not None:
            return True
        joined = next((member for member in self.members.values() if member.join is not None), None)
        if joined is None:
            return False
        self.leader_id = joined.member_id
        return True

    def choose_protocol(self) -> str:
        """Return the protocol with the most votes; each member's is for its first one that everybody speaks.

        Of equal votes, those of the members who came first decide.
        """
        count = len(self.members)
        common = {name for name, speakers in self._speakers.items() if speakers == count}
        votes: dict[str, int] = {}
        for member in self.members.values():
            for name, _ in member.protocols:
                if name in common:
                    votes[name] = votes.get(name, 0) + 1
                    break
        assert votes, f"no protocol is common to the {count} members of {self.group_id}"
        return max(votes, key=votes.__getitem__)

    def _count(self, protocols: Protocols, step: int) -> None:
        for name, _ in protocols:
            speakers = self._speakers.get(name, 0) + step
            if speakers:
                self._speakers[name] = speakers
            else:
                del self._speakers[name]

    # States.

    def enter(self, state: ClassicState, now_ms: int) -> None:
        """Go to a state; the causes are listed at the class."""
        assert self.state is not _DEAD, f"{self.group_id} is dead and cannot become {state.value}"
        self.previous_state, self.state = self.state, state
        self.state_timestamp_ms = now_ms

    def begin_generation(self, now_ms: int) -> None:
        """Everybody who is to come has joined: the leader assigns next."""
        self.generation += 1
        self.protocol_name = self.choose_protocol()
        self._topics_asked = False
        self.pending_sync = set(self.members)
        self.enter(_COMPLETING, now_ms)

    def close(self) -> None:
        """Cancel all timers. Requests that wait were answered, or are refused by whoever runs the shard."""
        self.state = _DEAD
        for timer in (self.join_timer, self.sync_timer):
            if timer is not None:
                timer.cancel()
        for session in self._sessions():
            session.cancel()

    def _sessions(self) -> Iterator[Session]:
        yield from self.pending.values()
        for member in self.members.values():
            if member.session is not None:
                yield member.session

    # Records.

    def stable_record(self, assignments: dict[str, bytes], now_ms: int) -> GroupMetadataValue:
        """Return the record of this generation with these assignments, by member id; a missing one is empty."""
        name = self.protocol_name
        return GroupMetadataValue(
            protocol_type=self.protocol_type,
            generation=self.generation,
            protocol=name,
            leader=self.leader_id,
            current_state_timestamp=now_ms,
            members=[
                member.to_record(name, assignments.get(member.member_id, b"")) for member in self.members.values()
            ],
        )

    def empty_record(self, generation: int, now_ms: int) -> GroupMetadataValue:
        """Return the record of the group without members."""
        return GroupMetadataValue(
            protocol_type=self.protocol_type,
            generation=generation,
            protocol=None,
            leader=None,
            current_state_timestamp=now_ms,
        )

    def replay(self, value: GroupMetadataValue) -> None:
        """Take what a record holds. Members that are here already keep their sessions and all they speak."""
        gone = dict(self.members)
        self.protocol_type = value.protocol_type
        self.protocol_name = value.protocol
        for data in value.members:
            member = gone.pop(data.member_id, None)
            if member is None:
                self.add(ClassicMember.from_record(data, value.protocol), value.protocol_type)
            else:
                member.assignment = data.assignment
                self._refresh(member, data, value.protocol)
        for member in gone.values():
            self.remove(member)
        self.generation = value.generation
        if value.leader in self.members or not self.members:
            self.leader_id = value.leader
        self._topics_asked = False
        self.previous_state, self.state = self.state, _STABLE if self.members else _EMPTY
        self.state_timestamp_ms = value.current_state_timestamp

    def _refresh(self, member: ClassicMember, data: MemberMetadata, protocol_name: str | None) -> None:
        """Take what a later record says of a member; in a load that is news, right after an append it is not."""
        told = ClassicMember.from_record(data, protocol_name)
        if member.metadata(protocol_name) != data.subscription:
            self.set_protocols(member, told.protocols)
        member.session_timeout_ms = told.session_timeout_ms
        member.rebalance_timeout_ms = told.rebalance_timeout_ms
        member.client_id = told.client_id
        member.client_host = told.client_host

    def tombstones(self) -> list[Record]:
        """Return the record that deletes it."""
        return [(GroupMetadataKey(group=self.group_id), None)]

    # What the offset store asks.

    def check_offset_commit(
        self, member_id: str, instance_id: str | None, generation: int, *, api_version: int, transactional: bool
    ) -> None:
        """Raise KafkaError unless a member of this generation commits, or the group is empty and nobody needs to be.

        UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION; REBALANCE_IN_PROGRESS from a member that has not
        synced yet; COORDINATOR_NOT_AVAILABLE of a dead group.
        """
        del api_version  # this protocol's errors are the same in all of them
        if self.state is _DEAD:
            raise KafkaError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        if generation < 0 and self.state is _EMPTY:
            return
        if generation >= 0 or member_id or instance_id is not None:
            error = self.member_error(member_id, instance_id)
            if error:
                raise KafkaError(error)
            if generation != self.generation:
                raise KafkaError(
                    ErrorCode.ILLEGAL_GENERATION,
                    f"{member_id} commits in generation {generation}; {self.group_id} is in {self.generation}",
                )
        elif not transactional:
            # A consumer that takes no part in the group would overwrite its members' offsets.
            raise KafkaError(ErrorCode.UNKNOWN_MEMBER_ID)
        if not transactional and self.state is _COMPLETING:
            raise KafkaError(ErrorCode.REBALANCE_IN_PROGRESS)

    def check_offset_fetch(self, member_id: str | None, member_epoch: int) -> None:
        """Raise KafkaError unless offsets may be read: anybody may, while the group lives."""
        del member_id, member_epoch
        self._check_alive()

    def check_offset_delete(self) -> None:
        """Raise KafkaError unless offsets may be deleted: with members only where one can tell what they read."""
        self._check_alive()
        if self.state is not _EMPTY and not self.is_consumer:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)

    def check_delete(self) -> None:
        """Raise KafkaError unless the group has no members."""
        self._check_alive()
        if self.state is not _EMPTY:
            raise KafkaError(ErrorCode.NON_EMPTY_GROUP)

    def _check_alive(self) -> None:
        if self.state is _DEAD:
            raise KafkaError(ErrorCode.GROUP_ID_NOT_FOUND, f"Group {self.group_id} is dead.")

    def is_subscribed(self, topic: str) -> bool:
        """Whether a member reads this topic; True for consumers whose subscriptions cannot be read."""
        topics = self._subscribed_topics()
        return self.is_consumer if topics is None else topic in topics

    def offset_expiry(self) -> OffsetExpiry | None:
        """Return when its offsets begin to expire (KIP-211)."""
        if not self.protocol_type:
            # No member ever joined: offsets of consumers that assign themselves. Each counts from its commit.
            return OffsetExpiry(lambda commit_timestamp_ms: commit_timestamp_ms)
        if self.state is _EMPTY:
            since_ms = self.state_timestamp_ms
            if since_ms == _UNKNOWN_TIMESTAMP:
                return OffsetExpiry(lambda commit_timestamp_ms: commit_timestamp_ms)
            return OffsetExpiry(lambda _: since_ms)
        if self.state is _STABLE and self.is_consumer and self._subscribed_topics() is not None:
            # The store asks is_subscribed for each topic as well.
            return OffsetExpiry(lambda commit_timestamp_ms: commit_timestamp_ms)
        return None

    def _subscribed_topics(self) -> frozenset[str] | None:
        """Return the topics the members of this generation read; None where that cannot be told."""
        if not self._topics_asked:
            self._topics = self._read_topics()
            self._topics_asked = True
        return self._topics

    def _read_topics(self) -> frozenset[str] | None:
        if not self.is_consumer:
            return None
        topics: set[str] = set()
        try:
            for member in self.members.values():
                metadata = member.metadata(self.protocol_name)
                embedded_version(metadata)
                # Every version begins as version 0 does, and what follows is the clients' own business.
                topics.update(decode(Subscription, 0, metadata, _VERSION_SIZE)[0].topics)
        except WireError:
            return None
        return frozenset(topics)
