"""sticky and cooperative-sticky: as even as can be, and then with as few moves as can be.

Who holds a partition keeps it, as long as the shares stay even: where all subscribe to the same topics no two shares
differ by more than one; where they don't, no chain of moves would make two shares more even. Of two who claim the same
partition the one of the later generation is right; two of the same generation both are not.

`sticky` gives up everything in a rebalance (eager), so its members tell what they had in their user data.
`cooperative-sticky` (KIP-429) keeps it: what one member is to get from another is given to nobody in this round, and
the one that loses it joins again once it has let go.

User data, without a version before it, big-endian:

    sticky              1: [(topic, [int32 partition])], int32 generation     0: the same without the generation
    cooperative-sticky  0: int32 generation
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Final, NamedTuple

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.membership.assignors.assignor import MemberSubscription, RebalanceProtocol, Topics
from millstream.core.client.membership.assignors.balance import balance
from millstream.core.wire import WireError, decode, encode
from millstream.core.wire.embedded_protocol import OwnedTopic
from millstream.core.wire.fields import field, int32, message

NO_GENERATION: Final = -1


@message(key=0, versions="0-1", flexible="none")
class StickyUserData:
    """What a member of a sticky group had."""

    previous_assignment: list[OwnedTopic] = field(factory=list)
    generation: int32 = field(versions="1+", default=NO_GENERATION)


@message(key=0, versions="0", flexible="none")
class CooperativeUserData:
    """The generation that a member's owned partitions are of; subscriptions 2 and later say so themselves."""

    generation: int32 = NO_GENERATION


class Claim(NamedTuple):
    """What a member says it has."""

    partitions: tuple[TopicPartition, ...]
    generation: int


class StickyAssignor:
    """See the module."""

    name: Final[str] = "sticky"
    protocols: Final[Collection[RebalanceProtocol]] = (RebalanceProtocol.EAGER,)

    def __init__(self) -> None:
        self._had: tuple[TopicPartition, ...] = ()
        self._generation = NO_GENERATION

    def user_data(self, _topics: Iterable[str]) -> bytes | None:
        """Return what this member had last; None where it never had anything."""
        if self._generation == NO_GENERATION:
            return None
        topics: dict[str, OwnedTopic] = {}
        for topic, partition in self._had:
            topics.setdefault(topic, OwnedTopic(topic=topic)).partitions.append(partition)
        return encode(StickyUserData(previous_assignment=list(topics.values()), generation=self._generation), 1)

    def on_assignment(self, partitions: Collection[TopicPartition], generation: int) -> None:
        """Remember it for the next time."""
        self._had = tuple(sorted(partitions))
        self._generation = generation

    def assign(self, members: Sequence[MemberSubscription], topics: Topics) -> dict[str, list[TopicPartition]]:
        """Share evenly, with few moves."""
        return balance(members, topics, _rightful({member.member_id: sticky_claim(member) for member in members}))


class CooperativeStickyAssignor:
    """See the module."""

    name: Final = "cooperative-sticky"
    protocols: Final = (RebalanceProtocol.COOPERATIVE, RebalanceProtocol.EAGER)

    def __init__(self) -> None:
        self._generation = NO_GENERATION

    def user_data(self, _topics: Iterable[str]) -> bytes:
        """Return the generation."""
        return encode(CooperativeUserData(generation=self._generation), 0)

    def on_assignment(self, _partitions: Collection[TopicPartition], generation: int) -> None:
        """Remember the generation."""
        self._generation = generation

    def assign(self, members: Sequence[MemberSubscription], topics: Topics) -> dict[str, list[TopicPartition]]:
        """Share evenly, with few moves, and leave out for now what another has to let go first."""
        claims = {member.member_id: cooperative_claim(member) for member in members}
        shares = balance(members, topics, _rightful(claims))
        holders: dict[TopicPartition, set[str]] = {}
        for member in members:
            for tp in member.owned:
                holders.setdefault(tp, set()).add(member.member_id)
        return {
            member_id: [tp for tp in share if tp not in holders or member_id in holders[tp]]
            for member_id, share in shares.items()
        }


def sticky_claim(member: MemberSubscription) -> Claim:
    """Return what a member says in its user data; bytes that are no such data say nothing."""
    data = member.user_data
    for version in (1, 0):
        try:
            had, end = decode(StickyUserData, version, data or b"")
        except WireError:
            continue
        if end == len(data or b""):
            had_partitions = tuple(
                TopicPartition(one.topic, each) for one in had.previous_assignment for each in one.partitions
            )
            return Claim(had_partitions, had.generation)
    return Claim((), NO_GENERATION)


def cooperative_claim(member: MemberSubscription) -> Claim:
    """Return what a member says it owns; one that does not say in which generation has it in its user data."""
    generation = member.generation
    if generation == NO_GENERATION and member.user_data:
        try:
            generation = decode(CooperativeUserData, 0, member.user_data)[0].generation
        except WireError:
            generation = NO_GENERATION
    return Claim(member.owned, generation)


def _rightful(claims: dict[str, Claim]) -> dict[str, list[TopicPartition]]:
    """Return who has what; of several claims to a partition the latest holds, and none of two of one generation."""
    owners: dict[TopicPartition, tuple[int, str | None]] = {}
    for member_id, claim in claims.items():
        for tp in claim.partitions:
            generation, other = owners.get(tp, (NO_GENERATION - 1, None))
            if claim.generation > generation:
                owners[tp] = claim.generation, member_id
            elif claim.generation == generation and other != member_id:
                owners[tp] = generation, None
    had: dict[str, list[TopicPartition]] = {member_id: [] for member_id in claims}
    for tp, (_, owner) in sorted(owners.items()):
        if owner is not None:
            had[owner].append(tp)
    return had
