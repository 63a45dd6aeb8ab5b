"""One member of a classic group: who it is, what it can speak, and which of its requests wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from millstream.core.groups.records import MemberMetadata

if TYPE_CHECKING:
    from millstream.core.groups.classic.session import Session

# (name, metadata) in the member's order of preference, each name once.
Protocols = tuple[tuple[str, bytes], ...]


class HeldJoin(NamedTuple):
    """A JoinGroup that waits for the join phase to end."""

    reply: object
    api_version: int


class ClassicMember:
    """A member as the group's record knows it, and what ends with the shard: its session and its waiting requests."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "instance_id",
        "is_new",
        "join",
        "member_id",
        "protocols",
        "rebalance_timeout_ms",
        "session",
        "session_timeout_ms",
        "sync",
    )

    def __init__(
        self,
        member_id: str,
        *,
        instance_id: str | None,
        client_id: str,
        client_host: str,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        protocols: Protocols,
        assignment: bytes = b"",
    ) -> None:
        self.member_id = member_id
        # Set for static members (KIP-345).
        self.instance_id = instance_id
        self.client_id = client_id
        self.client_host = client_host
        self.session_timeout_ms = session_timeout_ms
        self.rebalance_timeout_ms = rebalance_timeout_ms
        # From a record only the protocol that was chosen then; all of them once the member joins again.
        self.protocols = protocols
        # What the leader gave it in the last generation that became stable.
        self.assignment = assignment
        # Whether it has never been answered: it can send no heartbeat then, and expires even while it waits.
        self.is_new = False
        # Set by the group's owner when the member is added; None only in between.
        self.session: Session | None = None
        # The JoinGroup that waits for the others. Changed by ClassicGroup only, which counts them.
        self.join: HeldJoin | None = None
        # The SyncGroup that waits for the leader's.
        self.sync: object | None = None

    @classmethod
    def from_record(cls, data: MemberMetadata, protocol_name: str | None) -> ClassicMember:
        """Return the member a GroupMetadata record holds."""
        timeout_ms = data.session_timeout
        return cls(
            data.member_id,
            instance_id=data.group_instance_id,
            client_id=data.client_id,
            client_host=data.client_host,
            session_timeout_ms=timeout_ms,
            # Records of version 0 know of one timeout only.
            rebalance_timeout_ms=timeout_ms if data.rebalance_timeout == -1 else data.rebalance_timeout,
            protocols=((protocol_name or "", data.subscription),),
            assignment=data.assignment,
        )

    def to_record(self, protocol_name: str | None, assignment: bytes) -> MemberMetadata:
        """Return what a GroupMetadata record says of it."""
        return MemberMetadata(
            member_id=self.member_id,
            group_instance_id=self.instance_id,
            client_id=self.client_id,
            client_host=self.client_host,
            rebalance_timeout=self.rebalance_timeout_ms,
            session_timeout=self.session_timeout_ms,
            subscription=self.metadata(protocol_name),
            assignment=assignment,
        )

    @property
    def is_excused(self) -> bool:
        """Whether a waiting request stands for its heartbeats."""
        return not self.is_new and (self.join is not None or self.sync is not None)

    def extend_session(self, now_ms: int) -> None:
        """It showed that it is there."""
        assert self.session is not None, f"{self.member_id} has no session yet"
        self.session.extend(now_ms, self.session_timeout_ms)

    def metadata(self, protocol_name: str | None) -> bytes:
        """Return its metadata for a protocol; empty for one it does not speak."""
        for name, metadata in self.protocols:
            if name == protocol_name:
                return metadata
        return b""
