"""What a metadata store promises; the embedded one and ZooKeeper keep it, and one conformance kit holds both to it.

A store holds one `ClusterImage` at a version that each commit counts up by one. A commit names the version it was
planned on and either happens whole or not at all. Its outcome may be unknown (the session broke while it was on its
way): then the token that was sent with it tells, in `changes` after a new start, whether it happened.

The session ends once (`session_lost`); after that every call raises SessionLostError, and the holder opens a new store.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from millstream.core.cluster.image import ClusterImage
from millstream.core.cluster.operations import Operation


class CommitResult(Enum):
    """How a commit ended."""

    COMMITTED = "committed"
    # Another commit came first: plan again on the newer image.
    CONFLICT = "conflict"
    # It may or may not have happened; look for its token in `changes`.
    UNKNOWN = "unknown"


class SessionLostError(Exception):
    """The store's session has ended; what it held is still there for a new session."""


class StoreWriteError(Exception):
    """The store could not write, a full disk for one; nothing was changed and the session lives on."""


class ChangesGoneError(Exception):
    """The store no longer holds the changes from that version on; load the whole image."""


class Change(NamedTuple):
    """One commit: the version it made, the token of who made it, its operations."""

    version: int
    token: bytes
    operations: tuple[Operation, ...]


class MetadataStore(Protocol):
    """Where the metadata lives. All methods are called on the event loop and never block it."""

    @property
    def session_lost(self) -> bool:
        """Whether the session has ended. Never becomes false again."""

    async def load(self) -> tuple[ClusterImage, int]:
        """Return the whole image and its version; an empty store gives version 0."""

    async def commit(self, expected_version: int, operations: Sequence[Operation], *, token: bytes) -> CommitResult:
        """Make `operations` true, in order, if the store is at `expected_version`; all of them or none.

        Raises StoreWriteError when nothing was written, SessionLostError when nothing was sent.
        """

    async def changes(self, from_version: int) -> Sequence[Change]:
        """Return the commits after `from_version`, oldest first; raises ChangesGoneError where they are not held."""

    async def close(self) -> None:
        """End the session and let go of files and threads."""
