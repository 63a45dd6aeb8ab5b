"""The consumer: reads partitions, given by hand or by a group, and hands over what they hold. On bytes, for asyncio.

    async with Consumer("127.0.0.1:9092", group_id="loaders", auto_offset_reset="earliest") as consumer:
        consumer.subscribe(["flights"])
        async for record in consumer:
            ...

Three faces over the same positions: `poll` gives fetched pieces (columns stand on them), `poll_records` lists of
records, `async for` one record at a time. Fetching goes on in the background within `buffer_memory`; `poll` is where
group callbacks run and errors are raised.

    fetching.py        what to ask which broker for, what answers mean        fetch_session.py   KIP-227
    offset_lookups.py  resets and validation (KIP-320)                        engine.py          sends what they plan
    subscription.py, partition_state.py   what is read, and where             fetch_buffer.py, memory.py   what waits
    delivery.py, records.py   from the buffer to the application              rebalances.py      group callbacks in poll
    positions.py, queries.py  seeking, pausing, lag; what else a cluster is asked
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from millstream.core._kernels.consumer_records import ConsumerRecord
from millstream.core.client.client import Client, bootstrap_addresses
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.consumer_metrics import PollMetrics, consumer_metrics
from millstream.core.client.consumer.delivery import Chunk, Delivery
from millstream.core.client.consumer.engine import FetchEngine
from millstream.core.client.consumer.errors import ConsumerStateError, CorruptBatchError, PinnedMemoryError
from millstream.core.client.consumer.fetched import FetchedRecords
from millstream.core.client.consumer.listeners import ConsumerInterceptor, RebalanceListener
from millstream.core.client.consumer.pattern_watch import PatternWatch
from millstream.core.client.consumer.positions import Positions
from millstream.core.client.consumer.rebalances import Rebalances
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.consumer.subscription import SubscriptionKind, SubscriptionState, TopicPattern
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.client.membership.coordinator import GroupCoordinator
from millstream.core.client.membership.offset_committer import OffsetCommitter
from millstream.core.client.unclosed import WarnsUnclosed
from millstream.core.config.client_config import ClientConfig, Given
from millstream.core.config.client_configs import CONSUMER_CONFIGS
from millstream.core.net import BufferPool
from millstream.core.wire import KafkaError

if TYPE_CHECKING:
    from millstream.core.client.membership.membership import GroupMetadata, Membership

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Polls that find something to give let others have a turn of the loop so often.
TURN_S: Final = 0.001

CommitCallback = Callable[[Mapping[TopicPartition, CommittedOffset], KafkaError | None], None]
Offsets = Mapping[TopicPartition, int | CommittedOffset]


class ConsumerState(Enum):
    """NEW -> OPEN (the first await) -> CLOSING -> CLOSED."""

    NEW = "new"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class Consumer(Positions, WarnsUnclosed):
    """A consumer; an async context manager. Owned by one event loop, and polled by one task at a time.

    Configs are Kafka's, as keywords in snake_case or in a mapping by their own names. `assignors` are objects beside
    the names in partition_assignment_strategy. Raises ConfigError.
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str] | Mapping[str, Given] | None = None,
        *,
        interceptors: Sequence[ConsumerInterceptor] = (),
        assignors: Sequence[Any] = (),
        ssl_context: ssl.SSLContext | None = None,
        sasl_token_provider: Any = None,
        buffer_pool: BufferPool | None = None,
        **configs: Given,
    ) -> None:
        """Read the configuration; the first await connects.

        What is fetched lies in buffers of `buffer_pool`, for consumers one after the other; without one in some of its
        own, which end with it.
        """
        self.config = ClientConfig.load(CONSUMER_CONFIGS, bootstrap_servers, configs)
        bootstrap_addresses(self.config)
        self._settings = ConsumerSettings.from_config(self.config)
        self._interceptors = tuple(interceptors)
        self._assignors = tuple(assignors)
        self._ssl_context = ssl_context
        self._sasl_token_provider = sasl_token_provider
        self._buffer_pool = buffer_pool
        self._state = ConsumerState.NEW
        self._subscription = SubscriptionState()
        self._is_polling = False
        self._poll_metrics = PollMetrics()
        # When polls last let others have a turn of the loop.
        self._turn_at = 0.0
        self._listener: RebalanceListener | None = None
        self._pattern_watch = PatternWatch(self._settings)

    # Also where the configuration was refused.
    _state = ConsumerState.NEW

    # Opening and closing.

    @property
    def state(self) -> ConsumerState:
        """Where it stands."""
        return self._state

    @property
    def is_open(self) -> bool:
        """Whether it has been started and not closed."""
        return self._state is ConsumerState.OPEN

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # After an error the application is not done with what it was last given.
        await self._close(None, is_done=error is None)

    async def start(self) -> None:
        """Make the machinery on the running loop; done by itself on first use. Connections follow when needed."""
        if self._is_running:
            return
        if self._state is not ConsumerState.NEW:
            raise ConsumerStateError("this consumer is closed")
        client = self._client = Client(
            self.config,
            ssl_context=self._ssl_context,
            sasl_token_provider=self._sasl_token_provider,
            buffer_pool=self._buffer_pool,
        )
        self._committer: OffsetCommitter | None = None
        self._membership: Membership | None = None
        group_id = self._settings.group_id
        if group_id is not None:
            self._coordinator = GroupCoordinator(client, group_id)
            self._committer = self._own_committer = OffsetCommitter(
                self._coordinator, self.config, consumed=self._consumed, backoff=client.backoff
            )
        self._engine = FetchEngine(
            client,
            self._settings,
            self._subscription,
            find_committed=self._find_committed if self._committer is not None else None,
        )
        self._delivery = Delivery(self._subscription, self._engine.fetching)
        self._rebalances = Rebalances(
            self._engine,
            self._subscription,
            self._delivery,
            commit_consumed=self._commit_consumed if self._settings.auto_commit else None,
        )
        self._state = ConsumerState.OPEN
        self._engine.start()
        self._apply_subscription()

    async def close(self, timeout_s: float | None = None) -> None:
        """Commit all that was handed over (with enable_auto_commit), leave the group, and end every connection.

        Takes at most about `timeout_s`. Leaving `async with` by an exception commits only what was handed over before
        the last poll, or record.
        """
        await self._close(timeout_s, is_done=True)

    async def _close(self, timeout_s: float | None, *, is_done: bool) -> None:
        if self._state is ConsumerState.NEW:
            self._state = ConsumerState.CLOSED
        if self._state in (ConsumerState.CLOSING, ConsumerState.CLOSED):
            return
        self._state = ConsumerState.CLOSING
        self._pattern_watch.stop()
        timeout_ms = self._timeout_ms(timeout_s)
        try:
            if is_done:
                self._delivery.begin_turn()
            await self._leave(timeout_ms)
        finally:
            try:
                await self._engine.close()
                self._delivery.close()
            finally:
                await self._client.close()
                self._state = ConsumerState.CLOSED
                self._close_interceptors()

    async def _leave(self, timeout_ms: int) -> None:
        # A poll that another task is in ends now, as the consumer is not open any more.
        self._engine.progress.set()
        await self._rebalances.run_at_once()
        try:
            if self._membership is not None:
                await self._membership.close(timeout_ms=timeout_ms)
            elif self._committer is not None and self._settings.auto_commit:
                await self._commit_consumed(timeout_ms=timeout_ms)
        except KafkaError as error:
            _log.warning("leaving the group: %s", error)
        if self._committer is not None:
            await self._own_committer.close(timeout_ms=timeout_ms)
            await self._coordinator.close()

    # What is read.

    def subscribe(
        self, topics: Iterable[str] | TopicPattern | re.Pattern[str], listener: RebalanceListener | None = None
    ) -> None:
        """Have the group assign partitions of `topics`, or of those that a pattern matches, now and later.

        A TopicPattern is RE2's syntax, a re.Pattern is matched here; both against whole names. Replaces an earlier
        subscription.
        """
        self._check_open()
        if self._settings.group_id is None:
            raise ConsumerStateError("subscribe needs group_id; assign reads partitions without a group")
        if isinstance(topics, str):
            raise TypeError("subscribe takes a list of topics, not one text")
        if isinstance(topics, TopicPattern | re.Pattern):
            self._subscription.subscribe_pattern(topics)
        else:
            self._subscription.subscribe_topics(topics)
        self._listener = listener
        if self._state is ConsumerState.OPEN:
            self._apply_subscription()

    def assign(self, partitions: Iterable[TopicPartition | tuple[str, int]]) -> None:
        """Read exactly these partitions, without asking a group. Those assigned before keep their position."""
        self._check_open()
        before = self._subscription.assigned
        self._subscription.assign_by_hand(TopicPartition.of(tp) for tp in partitions)
        if self._state is ConsumerState.OPEN:
            for tp in before - self._subscription.assigned:
                self._delivery.drop(tp)
            self._apply_subscription()

    async def unsubscribe(self) -> None:
        """Read nothing any more; a member leaves its group."""
        await self.start()
        self._pattern_watch.stop()
        self._delivery.begin_turn()
        if self._membership is not None:
            await self._rebalances.run_at_once()
            try:
                await self._membership.unsubscribe()
            finally:
                self._rebalances.runs_at_once = False
        elif self._settings.auto_commit and self._committer is not None and self._subscription.assigned:
            self._committer.stop_auto_commit()
            await self._commit_consumed()
        for tp in self._subscription.assigned:
            self._delivery.drop(tp)
        self._subscription.unsubscribe()

    def assignment(self) -> frozenset[TopicPartition]:
        """The partitions that are read now."""
        return self._subscription.assigned

    def subscription(self) -> frozenset[str]:
        """The topics subscribed to: those given, or those that the pattern matches."""
        if self._subscription.kind is SubscriptionKind.PATTERN and self._state is ConsumerState.OPEN:
            return frozenset(self._membership.topics) if self._membership is not None else frozenset()
        return self._subscription.topics

    # Reading.

    async def poll(self, timeout_s: float | None = 0.0, *, max_records: int | None = None) -> list[FetchedRecords]:
        """Return fetched pieces as soon as there are any, or an empty list after `timeout_s` (None: wait for ever).

        Each piece is of one partition and has records. Raises PartitionError for a partition that cannot go on,
        KafkaError for what else is wrong, and what a rebalance listener raises.
        """
        return list(await self._poll(timeout_s, lambda: self._intercepted(self._delivery.take_pieces(max_records))))

    async def poll_records(
        self, timeout_s: float | None = 0.0, max_records: int | None = None
    ) -> Sequence[ConsumerRecord]:
        """Return records as soon as there are any, at most `max_records` (or max_poll_records). Else as `poll`."""
        count = self._settings.poll_records_max if max_records is None else max_records
        if count < 1:
            raise ValueError(f"max_records must be at least 1, not {count}")
        return await self._poll(timeout_s, lambda: self._intercepted(self._delivery.take_records(count)))

    async def __aiter__(self) -> AsyncIterator[ConsumerRecord]:
        """Yield records for ever; leaving the loop keeps what was not yielded for later."""
        count = self._settings.poll_records_max
        if self._interceptors:
            while True:
                # One at a time: what was not yielded cannot be told from what they make of it.
                for record in await self.poll_records(None, 1):
                    yield record
        while True:
            chunk = await self.next_chunk(count)
            current = chunk.current
            records = current.records
            while current.index < len(records):
                record = records[current.index]
                current.index += 1
                yield record
                if chunk.is_over or current.records is not records:
                    break

    async def next_chunk(self, records_max: int) -> Chunk:
        """Return records to be handed over one at a time, for faces that iterate; see `Chunk`."""
        chunk = await self._poll(None, lambda: self._delivery.next_chunk(records_max))
        assert chunk is not None, "a poll without a timeout ends with records"
        return chunk

    def return_unread(self, offsets: Mapping[TopicPartition, int], error: CorruptBatchError | None = None) -> None:
        """Undo handing over from these offsets on: they are read again. For faces that could not pass on what they got.

        With `error`, damage at one of those offsets, that partition is not read again: the next polls raise the error.
        """
        for tp, offset in offsets.items():
            if tp not in self._subscription or self._state is not ConsumerState.OPEN:
                continue
            self.seek(tp, offset, until=self._subscription.get(tp).stop_offset)
            if error is not None and error.topic_partition == tp:
                state = self._subscription.get(tp)
                state.handle_unreadable(error)
                self._engine.fetching.maybe_drained(state)

    def enforce_rebalance(self, reason: str = "asked for by the application") -> None:
        """Have the group assign anew. Does nothing without a membership."""
        if self._state is ConsumerState.OPEN and self._membership is not None:
            self._membership.rejoin(reason)

    def group_metadata(self) -> GroupMetadata:
        """Who this member is in its group, for a transaction that commits offsets."""
        if not self._is_running or self._membership is None:
            raise ConsumerStateError("this consumer is no member of a group: subscribe and poll first")
        return self._membership.group_metadata()

    # Commits.

    async def commit(self, offsets: Offsets | None = None, *, timeout_s: float | None = None) -> None:
        """Commit `offsets`, or the positions behind everything handed over. Raises CommitFailedError, KafkaError."""
        await self.start()
        given = self._offsets(offsets)
        if given:
            await self._needed_committer().commit(given, timeout_ms=self._timeout_ms(timeout_s))
            self._note_commit(given)

    def commit_soon(self, offsets: Offsets | None = None, callback: CommitCallback | None = None) -> None:
        """Commit in the background, in order with other commits; `callback(offsets, error or None)` on the loop."""
        if not self._is_running:
            raise ConsumerStateError("commit_soon needs an open consumer: use `async with`, or poll first")
        given = self._offsets(offsets)

        def done(committed: Mapping[TopicPartition, CommittedOffset], error: KafkaError | None) -> None:
            if error is None:
                self._note_commit(committed)
            if callback is not None:
                callback(committed, error)

        self._needed_committer().commit_soon(given, done)

    async def committed(
        self, partitions: Iterable[TopicPartition], *, timeout_s: float | None = None
    ) -> dict[TopicPartition, CommittedOffset | None]:
        """Return what the group has committed for each partition, None where nothing."""
        await self.start()
        wanted = [TopicPartition.of(tp) for tp in partitions]
        found = await self._needed_committer().committed(wanted, timeout_ms=self._timeout_ms(timeout_s))
        return {tp: found.get(tp) for tp in wanted}

    # Watching.

    def metrics(self) -> dict[str, float]:
        """Kafka's consumer metrics by their names in snake_case; times in milliseconds, sizes in bytes."""
        if self._state is ConsumerState.NEW:
            return {}
        now_ms = time.monotonic() * 1000
        found = consumer_metrics(self._engine.fetching, self._engine.memory, self._subscription, self._settings)
        found |= self._poll_metrics.values(now_ms)
        if self._membership is not None:
            found |= self._membership.metrics.values(now_ms)
        if self._committer is not None:
            found |= self._committer.metrics(now_ms)
        return found

    def __repr__(self) -> str:
        group = f" of group {self._settings.group_id!r}" if self._settings.group_id is not None else ""
        return f"<Consumer{group}, {self._state.value}, {len(self._subscription)} partitions>"

    # Inside.

    async def _poll(self, timeout_s: float | None, take: Callable[[], T]) -> T:
        await self.start()
        if self._is_polling:
            raise ConsumerStateError("another task polls this consumer")
        if self._subscription.kind is SubscriptionKind.NONE:
            raise ConsumerStateError("nothing is subscribed to or assigned: call subscribe or assign first")
        self._is_polling = True
        self._poll_metrics.begin(time.monotonic() * 1000)
        if self._membership is not None:
            self._membership.begin_poll()
        try:
            self._delivery.begin_turn()
            if time.monotonic() - self._turn_at > TURN_S:
                # Whoever polls without ever waiting would keep fetches, heartbeats and everybody else from their turn.
                await asyncio.sleep(0)
                self._turn_at = time.monotonic()
            return await self._wait_for(timeout_s, take)
        finally:
            self._is_polling = False
            self._poll_metrics.end(time.monotonic() * 1000)
            if self._membership is not None:
                self._membership.end_poll()

    async def _wait_for(self, timeout_s: float | None, take: Callable[[], T]) -> T:
        engine = self._engine
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            await self._rebalances.run_waiting()
            engine.progress.clear()
            self._raise_failure()
            taken = take()
            # What was taken made room for more.
            engine.wake()
            if taken:
                return taken
            if (error := engine.take_error()) is not None:
                raise error
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                if timeout_s and engine.fetching.is_starved(engine.now_ms):
                    raise PinnedMemoryError(engine.memory.held_bytes, engine.memory.bound_bytes)
                # Let what is on its way come, for those who poll without waiting.
                await asyncio.sleep(0)
                return taken
            try:
                async with asyncio.timeout(left):
                    await engine.progress.wait()
            except TimeoutError:
                continue
            finally:
                self._turn_at = time.monotonic()

    def _raise_failure(self) -> None:
        if self._state is not ConsumerState.OPEN:
            raise ConsumerStateError("this consumer is closed")
        if self._membership is not None and self._membership.failure is not None:
            raise self._membership.failure

    def _apply_subscription(self) -> None:
        """Tell the membership what is subscribed to, or begin to read what is assigned by hand."""
        kind = self._subscription.kind
        self._pattern_watch.stop()
        self._rebalances.listener = self._listener or RebalanceListener()
        if kind in (SubscriptionKind.TOPICS, SubscriptionKind.PATTERN):
            membership = self._needed_membership()
            pattern = self._subscription.pattern
            if kind is SubscriptionKind.TOPICS:
                membership.subscribe(sorted(self._subscription.topics))
            elif isinstance(pattern, TopicPattern):
                membership.subscribe_pattern(pattern.pattern)
            else:
                assert pattern is not None
                self._pattern_watch.start(pattern, self.topics, membership.subscribe, self._engine.add_error)
        elif kind is SubscriptionKind.BY_HAND and self._settings.auto_commit and self._committer is not None:
            self._committer.start_auto_commit()
        self._engine.wake()

    def _needed_membership(self) -> Membership:
        if self._membership is None:
            from millstream.core.client.membership.membership import Membership

            self._membership = Membership(
                self._client,
                self.config,
                self._rebalances,
                assignors=self._assignors,
                consumed=self._consumed,
            )
            if self._committer is not None:
                self._committer.stop_auto_commit()
            self._committer = self._membership.committer
            if self._settings.auto_commit:
                self._committer.start_auto_commit()
        return self._membership

    def _needed_committer(self) -> OffsetCommitter:
        if self._committer is None:
            raise ConsumerStateError("commits need group_id")
        return self._committer

    async def _find_committed(self, partitions: Iterable[TopicPartition]) -> Mapping[TopicPartition, CommittedOffset]:
        return await self._needed_committer().committed(list(partitions))

    async def _commit_consumed(self, timeout_ms: int | None = None) -> None:
        committed = self._consumed()
        if await self._needed_committer().commit_consumed(timeout_ms=timeout_ms):
            self._note_commit(committed)

    def _consumed(self) -> dict[TopicPartition, CommittedOffset]:
        return {tp: CommittedOffset(at.offset, at.leader_epoch) for tp, at in self._delivery.consumed().items()}

    def _offsets(self, offsets: Offsets | None) -> dict[TopicPartition, CommittedOffset]:
        if offsets is None:
            self._settle()
            return {
                tp: CommittedOffset(at.offset, at.leader_epoch) for tp, at in self._subscription.positions().items()
            }
        return {
            TopicPartition.of(tp): at if isinstance(at, CommittedOffset) else CommittedOffset(at)
            for tp, at in offsets.items()
        }

    def _close_interceptors(self) -> None:
        for interceptor in self._interceptors:
            try:
                interceptor.close()
            except Exception as error:  # noqa: BLE001  an interceptor never stops its consumer
                _log.warning("an interceptor's close raised", exc_info=error)

    def _note_commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> None:
        for interceptor in self._interceptors:
            try:
                interceptor.on_commit(offsets)
            except Exception as error:  # noqa: BLE001  an interceptor never stops its consumer
                _log.warning("an interceptor's on_commit raised", exc_info=error)

    def _intercepted(self, records: Sequence[T]) -> Sequence[T]:
        if records:
            for interceptor in self._interceptors:
                try:
                    records = interceptor.on_consume(records)
                except Exception as error:  # noqa: BLE001  an interceptor never stops its consumer
                    _log.warning("an interceptor's on_consume raised", exc_info=error)
        return records

    @property
    def _is_running(self) -> bool:
        """Whether there is something to ask and to commit with: to the end of close, whose listener may do both."""
        return self._state in (ConsumerState.OPEN, ConsumerState.CLOSING)

    def _check_open(self) -> None:
        if self._state in (ConsumerState.CLOSING, ConsumerState.CLOSED):
            raise ConsumerStateError("this consumer is closed")
