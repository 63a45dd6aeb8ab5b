"""What the members of a classic group tell each other: the coordinator passes it on and reads none of it.

`ConsumerProtocol` (consumer_protocol.py) is that of consumers. `CustomProtocol` takes it as bytes: workers that share
tasks, registries that choose a leader, anything with a protocol type of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from millstream.core.client.membership.assignors import Topics
from millstream.core.client.membership.effects import Call, CallKind


class JoinedMember(NamedTuple):
    """A member as the leader is told of it."""

    member_id: str
    instance_id: str | None
    metadata: bytes


class GroupProtocol(Protocol):
    """What a ClassicMember asks of the protocol spoken inside of its group. Calls are plain, quick and pure but for its
    own state.
    """

    @property
    def protocol_type(self) -> str:
        """Who can be in one group: `consumer`, `connect`, ..."""
        ...

    def offers(self) -> Sequence[tuple[str, bytes]]:
        """Return what this member speaks, best first, with what it says of itself in each."""
        ...

    def topics_to_know(self, name: str, members: Sequence[JoinedMember]) -> frozenset[str] | None:
        """Called on the leader: return the topics whose partitions `assign` needs; None for none."""
        ...

    def assign(self, name: str, members: Sequence[JoinedMember], topics: Topics) -> Mapping[str, bytes]:
        """Called on the leader: return by member id what each is to have."""
        ...

    def before_join(self, *, is_lost: bool) -> Call | None:
        """Return what is given up before a join; everything where the membership was lost. Called until it is None."""
        ...

    def before_leave(self, *, is_lost: bool) -> Call | None:
        """Return what is given up before leaving. Called until it is None."""
        ...

    def take(self, name: str, generation: int, assignment: bytes) -> Taken:
        """Return what it takes to have this assignment. Raises WireError for bytes that are none."""
        ...

    def handle_calling(self, call: Call) -> None:
        """A call is being made."""
        ...

    def handle_called(self, call: Call) -> None:
        """A call is done."""
        ...

    def wants_rejoin(self, topics: Topics | None, *, is_leader: bool) -> str | None:
        """Say why the group must share anew: it changed its own mind, or the topics changed under the leader's."""
        ...


class Taken(NamedTuple):
    """How an assignment is put in place: calls in their order, and why to join again at once, if so."""

    calls: tuple[Call, ...] = ()
    rejoin: str | None = None


Assign = Callable[[str, Sequence[JoinedMember]], Mapping[str, bytes]]


class CustomProtocol:
    """Any other protocol: what members say and get is bytes, which only they can read.

    `protocols` are (name, what this member says of itself), best first; set it anew and `rejoin` to say something else.
    `assign(name, members)` runs on the leader. With `is_incremental` an assignment holds on during a rebalance, and the
    owner compares the next one with it.
    """

    def __init__(
        self,
        protocol_type: str,
        protocols: Sequence[tuple[str, bytes]],
        assign: Assign,
        *,
        is_incremental: bool = False,
    ) -> None:
        self.protocol_type: Final = protocol_type
        self.protocols = tuple(protocols)
        self._assign = assign
        self._is_incremental = is_incremental
        # What it has now; None where it has nothing.
        self.assignment: bytes | None = None

    def offers(self) -> Sequence[tuple[str, bytes]]:
        """As it was given."""
        return self.protocols

    def topics_to_know(self, _name: str, _members: Sequence[JoinedMember]) -> None:
        """What it shares are no partitions."""

    def assign(self, name: str, members: Sequence[JoinedMember], _topics: Topics) -> Mapping[str, bytes]:
        """Ask the owner's function."""
        return self._assign(name, members)

    def before_join(self, *, is_lost: bool) -> Call | None:
        """Give up the assignment, unless it holds on."""
        if self.assignment is None or (self._is_incremental and not is_lost):
            return None
        return Call(CallKind.LOST if is_lost else CallKind.REVOKED, self.assignment)

    def before_leave(self, *, is_lost: bool) -> Call | None:
        """Give up the assignment."""
        if self.assignment is None:
            return None
        return Call(CallKind.LOST if is_lost else CallKind.REVOKED, self.assignment)

    def take(self, _name: str, _generation: int, assignment: bytes) -> Taken:
        """Have what was assigned."""
        return Taken((Call(CallKind.ASSIGNED, bytes(assignment)),))

    def handle_calling(self, call: Call) -> None:
        """From here on it has what it is told to have."""
        if call.kind is CallKind.ASSIGNED:
            self.assignment = call.what

    def handle_called(self, call: Call) -> None:
        """It has let go of what it was told to."""
        if call.kind is not CallKind.ASSIGNED:
            self.assignment = None

    def wants_rejoin(self, _topics: Topics | None, *, is_leader: bool) -> str | None:
        """Nothing but `rejoin` says so."""
        del is_leader
        return None
