"""Commits of one group's offsets by one consumer, in order, and what is committed.

Commits stand in a queue and one request is under way at a time, so that no older offset ever comes after a newer one,
and callbacks come in the order of their commits. What waits meanwhile goes together in the next request.

A commit counts for the membership that it was made in. Made before a rebalance and not sent when that begins, it fails
with RebalanceInProgressError, as Kafka's consumer has it: another member may have the partition, and go on from there.
In a consumer group (KIP-848) the epoch moves on while partitions stay; there a commit is sent again in the new epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from millstream.core.client.averages import Average, Rate
from millstream.core.client.backoff import Backoff
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.client.membership.commits import (
    ASK_AGAIN,
    LOOK_UP_AGAIN,
    STABLE_VERSION,
    Offsets,
    commit_error,
    commit_request,
    fetch_request,
    judge_commit,
    read_committed,
)
from millstream.core.client.membership.coordinator import GroupCoordinator
from millstream.core.client.membership.errors import CommitFailedError
from millstream.core.client.membership.machine import NO_GENERATION, Identity
from millstream.core.client.unforeseen import unforeseen
from millstream.core.config.client_config import ClientConfig
from millstream.core.wire import ApiKey, ErrorCode, KafkaError

_logger: Final = logging.getLogger(__name__)

Callback = Callable[[Offsets, KafkaError | None], None]
# Commits that were asked for and are not answered.
COMMITS_WAITING_MAX: Final = 10_000
OUTSIDE: Final = Identity()
# A commit that fails at its deadline says why, which takes its sender another turn.
_LAST_ANSWER_S: Final = 0.1


class CommitsAs:
    """Whom offsets are committed as: nobody in particular, for a consumer that is no member of the group.

    `Membership` has one of its own.
    """

    is_consumer_group = False

    def identity(self) -> Identity | KafkaError:
        """As whom offsets are committed now, or why none can be."""
        return OUTSIDE

    def holds(self, partitions: Collection[TopicPartition]) -> bool:
        """Whether these partitions are the member's to commit, still."""
        del partitions
        return True

    def refused(self, code: ErrorCode, identity: Identity) -> None:
        """A commit was refused in a way that says something of the member."""


class _Commit:
    """One that was asked for. Ends by `settle`, once."""

    __slots__ = ("callback", "deadline", "future", "identity", "offsets")

    def __init__(
        self,
        offsets: Offsets,
        identity: Identity | KafkaError,
        deadline: float,
        future: asyncio.Future[None] | None,
        callback: Callback | None,
    ) -> None:
        self.offsets = offsets
        self.identity = identity
        self.deadline = deadline
        self.future = future
        self.callback = callback

    def settle(self, error: KafkaError | None) -> None:
        if self.future is not None and not self.future.done():
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)
        if self.callback is not None:
            try:
                self.callback(self.offsets, error)
            except Exception:
                _logger.exception("the callback of a commit failed")


class OffsetCommitter:
    """Commits and reads offsets of one group; owned by the loop."""

    def __init__(
        self,
        coordinator: GroupCoordinator,
        config: ClientConfig,
        *,
        commits_as: CommitsAs | None = None,
        consumed: Callable[[], Offsets] = dict,
        backoff: Backoff,
    ) -> None:
        """`consumed` returns what auto commit commits: how far the application is done with what it holds."""
        self._coordinator = coordinator
        self._commits_as = commits_as or CommitsAs()
        self._consumed = consumed
        self._backoff = backoff
        self._group_id = coordinator.group_id
        self._request_timeout_s = config.seconds("request.timeout.ms")
        self._api_timeout_ms = config.integer("default.api.timeout.ms")
        self._auto_interval_s = config.seconds("auto.commit.interval.ms")
        self._requires_stable = config.string("isolation.level") == "read_committed"
        self._waiting: deque[_Commit] = deque()
        # Those in the request under way, and the task that sends them.
        self._sending: list[_Commit] = []
        self._sender: asyncio.Task[None] | None = None
        self._auto_timer: asyncio.TimerHandle | None = None
        self._is_auto_committing = False
        self._commits = Rate()
        self._commit_ms = Average()

    def metrics(self, now_ms: float) -> dict[str, float]:
        """Return what is counted, by Kafka's names in snake_case; times in milliseconds."""
        return {
            "commit_rate": self._commits.per_s(now_ms),
            "commit_total": self._commits.total,
            "commit_latency_avg": self._commit_ms.mean,
            "commit_latency_max": self._commit_ms.most,
        }

    # Commits.

    async def commit(self, offsets: Offsets, *, timeout_ms: int | None = None) -> None:
        """Commit, after all that were asked for before. Raises KafkaError: CommitFailedError if the group went on."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        commit = self._add(offsets, timeout_ms, future, None)
        try:
            # One that goes before it may take longer than this one has.
            async with asyncio.timeout_at(commit.deadline + _LAST_ANSWER_S):
                await future
        except TimeoutError as error:
            if commit in self._waiting:
                self._waiting.remove(commit)
            raise KafkaError(
                ErrorCode.REQUEST_TIMED_OUT, f"offsets were not committed in group {self._group_id!r} in time"
            ) from error

    def commit_soon(self, offsets: Offsets, callback: Callback | None = None) -> None:
        """Commit without waiting. `callback(offsets, error or None)` is called on the loop, in the order of commits."""
        self._add(offsets, None, None, callback)

    async def flush(self, *, timeout_ms: int | None = None) -> None:
        """Wait until every commit that was asked for has ended; those that have not by then go on."""
        if not self._waiting and not self._sending:
            return
        ended = asyncio.Event()
        self._waiting.append(_Commit({}, OUTSIDE, self._deadline(None), None, lambda _offsets, _error: ended.set()))
        timeout_s = (self._api_timeout_ms if timeout_ms is None else timeout_ms) / 1000
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), timeout_s)

    async def commit_consumed(self, *, timeout_ms: int | None = None) -> bool:
        """Commit what was consumed, as auto commit does before partitions go; failures are logged and return False."""
        offsets = dict(self._consumed())
        if not offsets:
            return True
        try:
            await self.commit(offsets, timeout_ms=timeout_ms)
        except KafkaError as error:
            _logger.warning("auto commit in group %r failed: %s", self._group_id, error)
            return False
        return True

    def start_auto_commit(self) -> None:
        """Commit what was consumed every `auto.commit.interval.ms` from now on, while the membership lasts."""
        if self._auto_timer is None:
            loop = asyncio.get_running_loop()
            self._auto_timer = loop.call_later(self._auto_interval_s, self._auto_commit)

    def stop_auto_commit(self) -> None:
        """Commit nothing by itself any more."""
        if self._auto_timer is not None:
            self._auto_timer.cancel()
            self._auto_timer = None

    def _auto_commit(self) -> None:
        self._auto_timer = None
        self.start_auto_commit()
        if self._is_auto_committing or isinstance(self._commits_as.identity(), KafkaError):
            return  # the rebalance under way commits by itself
        offsets = dict(self._consumed())
        if offsets:
            self._is_auto_committing = True
            self.commit_soon(offsets, self._auto_committed)

    def _auto_committed(self, _offsets: Offsets, error: KafkaError | None) -> None:
        self._is_auto_committing = False
        if error is not None:
            _logger.warning("auto commit in group %r failed: %s", self._group_id, error)

    def _now_ms(self) -> float:
        return asyncio.get_running_loop().time() * 1000

    def _deadline(self, timeout_ms: int | None) -> float:
        timeout_ms = self._api_timeout_ms if timeout_ms is None else timeout_ms
        return asyncio.get_running_loop().time() + timeout_ms / 1000

    def _add(
        self,
        offsets: Offsets,
        timeout_ms: int | None,
        future: asyncio.Future[None] | None,
        callback: Callback | None,
    ) -> _Commit:
        identity = self._commits_as.identity()
        if len(self._waiting) >= COMMITS_WAITING_MAX:
            identity = CommitFailedError(
                ErrorCode.REQUEST_TIMED_OUT, f"{COMMITS_WAITING_MAX} commits wait already for the coordinator"
            )
        commit = _Commit(dict(offsets), identity, self._deadline(timeout_ms), future, callback)
        self._waiting.append(commit)
        if self._sender is None:
            self._sender = asyncio.create_task(self._send_all(), name=f"commits of {self._group_id}")
        return commit

    async def _send_all(self) -> None:
        try:
            while self._waiting:
                first = self._waiting.popleft()
                if isinstance(first.identity, KafkaError):
                    first.settle(first.identity)
                    continue
                self._sending = [first]
                while self._waiting and self._waiting[0].identity == first.identity:
                    self._sending.append(self._waiting.popleft())
                try:
                    await self._send_together(first.identity)
                except Exception as error:
                    _logger.exception("a commit in group %r failed", self._group_id)
                    sending, self._sending = self._sending, []
                    for commit in sending:
                        commit.settle(unforeseen("the commit", error))
        finally:
            self._sender = None

    async def _send_together(self, identity: Identity) -> None:
        """Send what stands in `_sending` until each has ended."""
        loop = asyncio.get_running_loop()
        failures = 0
        # Why each partition is not committed yet; the later of two commits of one counts.
        codes: dict[TopicPartition, ErrorCode] = {}
        left: dict[TopicPartition, CommittedOffset] = {}
        for commit in self._sending:
            left.update(commit.offsets)
        while left:
            now_as = self._identity_for(identity, left)
            if isinstance(now_as, KafkaError):
                self._settle(codes, left, now_as)
                return
            identity = now_as
            timeout_s = min(self._request_timeout_s, max(commit.deadline for commit in self._sending) - loop.time())
            codes |= await self._attempt(identity, left, max(timeout_s, 0.001))
            left = {tp: offset for tp, offset in left.items() if codes[tp] in ASK_AGAIN}
            if left:
                failures += 1
                first = min(commit.deadline for commit in self._sending)
                await asyncio.sleep(max(min(self._backoff.pause_s(failures), first - loop.time()), 0.0))
                self._drop_overdue(codes, loop.time())
                wanted = {tp for commit in self._sending for tp in commit.offsets}
                left = {tp: offset for tp, offset in left.items() if tp in wanted}
        self._settle(codes, left, None)

    def _identity_for(self, identity: Identity, offsets: Offsets) -> Identity | KafkaError:
        """Return as whom a commit that was made as `identity` is sent now, or why it can't be."""
        now_as = self._commits_as.identity()
        if now_as == identity or identity.generation == NO_GENERATION or isinstance(now_as, KafkaError):
            return identity if identity.generation == NO_GENERATION else now_as
        if self._commits_as.is_consumer_group and now_as.member_id == identity.member_id:
            if self._commits_as.holds(offsets.keys()):
                return now_as
            return commit_error(ErrorCode.STALE_MEMBER_EPOCH, next(iter(offsets)), self._group_id)
        return commit_error(ErrorCode.REBALANCE_IN_PROGRESS, next(iter(offsets)), self._group_id)

    async def _attempt(
        self, identity: Identity, offsets: Offsets, timeout_s: float
    ) -> Mapping[TopicPartition, ErrorCode]:
        request = commit_request(self._group_id, identity, offsets)
        asked_ms = self._now_ms()
        try:
            response = await self._coordinator.request(request, timeout_s=timeout_s)
        except KafkaError as error:
            if error.code.retriable:
                self._coordinator.forget()
            return dict.fromkeys(offsets, error.code)
        self._commits.note(self._now_ms())
        self._commit_ms.add(self._now_ms() - asked_ms)
        verdict = judge_commit(response, offsets)
        if not LOOK_UP_AGAIN.isdisjoint(verdict.codes.values()):
            self._coordinator.forget()
        if verdict.refusal is not None:
            self._commits_as.refused(verdict.refusal, identity)
        return verdict.codes

    def _drop_overdue(self, codes: Mapping[TopicPartition, ErrorCode], now: float) -> None:
        kept = []
        for commit in self._sending:
            if now < commit.deadline:
                kept.append(commit)
            else:
                commit.settle(self._error_of(commit, codes))
        self._sending = kept

    def _settle(self, codes: Mapping[TopicPartition, ErrorCode], left: Offsets, error: KafkaError | None) -> None:
        """End those in `_sending`; `error` is that of the partitions left."""
        sending, self._sending = self._sending, []
        for commit in sending:
            if error is not None and not left.keys().isdisjoint(commit.offsets):
                commit.settle(error)
            else:
                commit.settle(self._error_of(commit, codes))

    def _error_of(self, commit: _Commit, codes: Mapping[TopicPartition, ErrorCode]) -> KafkaError | None:
        for tp in commit.offsets:
            code = codes.get(tp, ErrorCode.NONE)
            if code is not ErrorCode.NONE:
                return commit_error(code, tp, self._group_id)
        return None

    # What is committed.

    async def committed(
        self,
        partitions: Iterable[TopicPartition],
        *,
        timeout_ms: int | None = None,
        require_stable: bool | None = None,
    ) -> dict[TopicPartition, CommittedOffset]:
        """Return what the group committed; a partition without is left out. Raises KafkaError.

        With `require_stable` (by default with isolation.level=read_committed) it waits for transactions that are about
        to commit other offsets (KIP-447).
        """
        wanted = list(partitions)
        if not wanted:
            return {}
        stable = self._requires_stable if require_stable is None else require_stable
        loop = asyncio.get_running_loop()
        deadline = self._deadline(timeout_ms)
        failures = 0
        while True:
            timeout_s = min(self._request_timeout_s, max(deadline - loop.time(), 0.001))
            try:
                return await self._fetch(wanted, timeout_s, stable=stable)
            except KafkaError as error:
                failures += 1
                pause_s = self._backoff.pause_s(failures)
                again = error.code in ASK_AGAIN or error.code.retriable
                if not again or loop.time() + pause_s >= deadline:
                    raise
                if error.code in LOOK_UP_AGAIN:
                    self._coordinator.forget()
            await asyncio.sleep(pause_s)

    async def _fetch(
        self, wanted: list[TopicPartition], timeout_s: float, *, stable: bool
    ) -> dict[TopicPartition, CommittedOffset]:
        if stable and await self._coordinator.version(ApiKey.OFFSET_FETCH, timeout_s=timeout_s) < STABLE_VERSION:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION,
                "the broker can't tell offsets that transactions may change: use isolation.level=read_uncommitted",
            )
        identity = self._commits_as.identity() if self._commits_as.is_consumer_group else OUTSIDE
        member = identity if isinstance(identity, Identity) and identity.generation > 0 else None
        request = fetch_request(self._group_id, wanted, member=member, require_stable=stable)
        return read_committed(await self._coordinator.request(request, timeout_s=timeout_s), self._group_id)

    # The end.

    async def close(self, *, timeout_ms: int | None = None) -> None:
        """Wait for the commits under way; those that have not ended by then fail."""
        self.stop_auto_commit()
        await self.flush(timeout_ms=timeout_ms)
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        error = CommitFailedError(ErrorCode.REQUEST_TIMED_OUT, "the consumer was closed before the commit was answered")
        ended, self._sending = [*self._sending, *self._waiting], []
        self._waiting.clear()
        for commit in ended:
            commit.settle(error)
