"""Incremental fetch sessions (KIP-227): the broker remembers what a consumer fetches, and each side sends what changed.

    session id  epoch   the request
    0           -1      a plain fetch of all it names
    any         0       names all it fetches and wants a session; an old one of that id ends
    id          -1      the same without a session; the one of that id ends
    id          n > 0   only changes since epoch n - 1; answered with partitions that have something new

Sessions take one of `max.incremental.fetch.session.cache.slots`, and their partitions are bounded together; when all is
taken, one unused for `min.incremental.fetch.session.eviction.ms` gives way, else a smaller one of that age, else the
client goes on without. Owned by the event loop.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Final, NamedTuple

from millstream.core.broker.fetch_codec import TOPIC_IDS_FROM_VERSION, Asked, AskedFetch, TargetKey
from millstream.core.wire import ErrorCode

NO_SESSION_ID: Final = 0
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
# Partitions remembered by all sessions together.
SESSION_PARTITIONS_COUNT_MAX: Final = 500_000

_EPOCH_MAX: Final = 2**31 - 1


class FetchTarget:
    """One partition that a client fetches, by topic name (up to version 12) or topic id, and where it stands there.

    The `sent_` fields are what the client was last told; -1 where it must be told again.
    """

    __slots__ = (
        "current_leader_epoch",
        "fetch_offset",
        "key",
        "last_fetched_epoch",
        "max_bytes",
        "sent_high_watermark",
        "sent_log_start_offset",
    )

    def __init__(self, key: TargetKey, asked: Asked) -> None:
        self.key = key
        _, self.current_leader_epoch, self.fetch_offset, self.last_fetched_epoch, self.max_bytes = asked
        self.sent_high_watermark = -1
        self.sent_log_start_offset = -1


class FetchSession:
    """What one client fetches; `epoch` is the one its next request must carry."""

    __slots__ = ("by_topic_id", "created_ms", "epoch", "id", "last_used_ms", "targets")

    def __init__(
        self, session_id: int, targets: dict[TargetKey, FetchTarget], *, by_topic_id: bool, now_ms: int
    ) -> None:
        self.id = session_id
        self.targets = targets
        self.by_topic_id = by_topic_id
        self.epoch = 1
        self.created_ms = now_ms
        self.last_used_ms = now_ms


class FetchPlan(NamedTuple):
    """What a request comes to: an error for all of it, or the partitions to read and how to answer.

    `session` is the one whose id the answer carries; with `incremental` partitions without news are left out.
    """

    error: ErrorCode
    targets: dict[TargetKey, FetchTarget]
    session: FetchSession | None
    incremental: bool


class FetchSessions:
    """All sessions of the broker."""

    def __init__(
        self,
        slots_max: int,
        eviction_ms: int,
        *,
        partitions_max: int = SESSION_PARTITIONS_COUNT_MAX,
        source: random.Random | None = None,
    ) -> None:
        self._slots_max = slots_max
        self._eviction_ms = eviction_ms
        self._partitions_max = partitions_max
        self._random = source or random.Random()
        # By id, the least recently used first.
        self._sessions: dict[int, FetchSession] = {}
        # Invariant: the sum of len(session.targets), and at most _partitions_max.
        self.partitions_count = 0
        self.evictions_count = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def plan(self, request: AskedFetch, version: int, now_ms: int) -> FetchPlan:
        """Take a request's changes into its session, or make one, or none."""
        session_id, epoch = request.session_id, request.session_epoch
        by_topic_id = version >= TOPIC_IDS_FROM_VERSION
        if epoch in {INITIAL_EPOCH, FINAL_EPOCH}:
            if session_id != NO_SESSION_ID:
                self._remove(session_id)
            targets: dict[TargetKey, FetchTarget] = {}
            _update(targets, request)
            session = None
            if epoch == INITIAL_EPOCH:
                session = self._maybe_create(targets, by_topic_id, now_ms)
            return FetchPlan(ErrorCode.NONE, targets, session, False)
        session = self._sessions.get(session_id)
        if session is None:
            return _failed(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
        if session.by_topic_id != by_topic_id:
            return _failed(ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR)
        if session.epoch != epoch:
            return _failed(ErrorCode.INVALID_FETCH_SESSION_EPOCH)
        before = len(session.targets)
        _update(session.targets, request)
        for topic, indexes in request.forgotten:
            for index in indexes:
                session.targets.pop((topic, index), None)
        self.partitions_count += len(session.targets) - before
        if not session.targets or self.partitions_count > self._partitions_max:
            # An empty session ends as Kafka's does; one that grows past the bound starts anew without its memory.
            overfull = bool(session.targets)
            self._remove(session_id)
            return (
                _failed(ErrorCode.FETCH_SESSION_ID_NOT_FOUND)
                if overfull
                else FetchPlan(ErrorCode.NONE, {}, None, False)
            )
        session.epoch = 1 if session.epoch == _EPOCH_MAX else session.epoch + 1
        session.last_used_ms = now_ms
        self._sessions[session_id] = self._sessions.pop(session_id)
        return FetchPlan(ErrorCode.NONE, session.targets, session, True)

    def _maybe_create(
        self, targets: dict[TargetKey, FetchTarget], by_topic_id: bool, now_ms: int
    ) -> FetchSession | None:
        size = len(targets)
        while len(self._sessions) >= self._slots_max or self.partitions_count + size > self._partitions_max:
            if not self._evict(size, now_ms):
                return None
        session_id = NO_SESSION_ID
        while session_id == NO_SESSION_ID or session_id in self._sessions:
            session_id = self._random.randint(1, _EPOCH_MAX)
        session = FetchSession(session_id, targets, by_topic_id=by_topic_id, now_ms=now_ms)
        self._sessions[session_id] = session
        self.partitions_count += size
        return session

    def _evict(self, size: int, now_ms: int) -> bool:
        """Make room for a session of `size` partitions; whether one gave way."""
        oldest = next(iter(self._sessions.values()), None)
        if oldest is None:
            return False
        if now_ms - oldest.last_used_ms > self._eviction_ms:
            chosen = oldest
        else:
            aged = [session for session in self._sessions.values() if now_ms - session.created_ms > self._eviction_ms]
            smallest = min(aged, key=lambda session: len(session.targets), default=None)
            if smallest is None or len(smallest.targets) >= size:
                return False
            chosen = smallest
        self._remove(chosen.id)
        self.evictions_count += 1
        return True

    def _remove(self, session_id: int) -> None:
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self.partitions_count -= len(session.targets)


def _failed(error: ErrorCode) -> FetchPlan:
    return FetchPlan(error, {}, None, False)


def _update(targets: dict[TargetKey, FetchTarget], request: AskedFetch) -> None:
    """Add the partitions that a request names, or move those that are there."""
    for topic, partitions in request.topics:
        for asked in partitions:
            key = (topic, asked[0])
            target = targets.get(key)
            if target is None:
                targets[key] = FetchTarget(key, asked)
            else:
                _, target.current_leader_epoch, target.fetch_offset, target.last_fetched_epoch, target.max_bytes = asked


def move_to_end(targets: dict[TargetKey, FetchTarget], served: Iterable[TargetKey]) -> None:
    """Put partitions that sent records behind the others, so that none starves under the response's size limit."""
    for key in served:
        if key in targets:
            targets[key] = targets.pop(key)
