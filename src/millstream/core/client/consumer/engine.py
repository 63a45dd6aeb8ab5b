"""The consumer's asyncio shell: sends what the machines plan, and tells them what came. Owned by one event loop.

`pump` is the only place where something is begun: it looks at the machines and starts what they want, as tasks that
call `wake` when they end. Whatever changes something (an answer, a seek, memory given back, time) wakes it; several
wakes in one pass of the loop are one pump. `progress` is set when something came about that a poll may be waiting for.

Each broker has one Fetch in flight, on a connection of its own, since it waits at the broker; where that is given up
because of a seek, the next one goes over another. Lookups and metadata go over the shared connection. Compressed pieces
are opened on worker threads, one piece each.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any, Final

from millstream.core.client.client import Client
from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.errors import CorruptBatchError, PartitionError, RefusedTopicError
from millstream.core.client.consumer.fetched import FetchedRecords
from millstream.core.client.consumer.fetching import VERSION_BY_NAME_MAX, Fetching, FetchPlan
from millstream.core.client.consumer.memory import FetchMemory
from millstream.core.client.consumer.offset_lookups import LookupPlan, OffsetLookups
from millstream.core.client.consumer.partition_state import AssignedPartition, FetchState, Position
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.client.unforeseen import unforeseen
from millstream.core.wire import ErrorCode, KafkaError

_log = logging.getLogger(__name__)

FETCH_LANES: Final = ("fetch", "fetch again")
# Pieces opened at a time: codecs run without the interpreter's lock, so more than one thread helps.
OPENERS_MAX: Final = 2
_CLOSE_SESSIONS_S: Final = 1.0
_ERRORS_MAX: Final = 100
_TOPIC_ERRORS: Final = frozenset({ErrorCode.TOPIC_AUTHORIZATION_FAILED, ErrorCode.INVALID_TOPIC_EXCEPTION})

FindCommitted = Callable[[Iterable[TopicPartition]], Awaitable[Mapping[TopicPartition, CommittedOffset]]]


class FetchEngine:
    """Runs the machines of one consumer.

    States: new -> RUNNING (start) -> CLOSED (close: tasks are cancelled and awaited, sessions closed).
    """

    def __init__(
        self,
        client: Client,
        settings: ConsumerSettings,
        subscription: SubscriptionState,
        *,
        find_committed: FindCommitted | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = client
        self._settings = settings
        self._subscription = subscription
        self._find_committed = find_committed
        self._clock = clock
        self._wall_clock = wall_clock
        self._loop = asyncio.get_running_loop()
        self.memory = FetchMemory(settings.memory_bytes_max)
        self.fetching = Fetching(settings, subscription, self.memory)
        self.buffer = self.fetching.buffer
        self.lookups = OffsetLookups(settings, subscription, self.buffer)
        self.progress = asyncio.Event()
        # Errors that no partition stands for, for polls to raise once each; the oldest go first.
        self._errors: deque[KafkaError] = deque(maxlen=_ERRORS_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        # Those of them that were given up here.
        self._cancelled: set[asyncio.Task[None]] = set()
        # The Fetch on its way by node, and how many were given up: that says over which lane the next one goes.
        self._fetches: dict[int, asyncio.Task[None]] = {}
        self._given_up: dict[int, int] = {}
        self._is_running = False
        self._is_pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._seen_cluster: object = None
        # Topics whose metadata came, and those of the last question.
        self._topics_heard: frozenset[str] = frozenset()
        self._topics_asked: frozenset[str] = frozenset()
        self._metadata_at_ms: int | None = None
        self._metadata_retry_at_ms = 0
        self._is_refreshing = False
        self._openers = 0
        # Partitions whose committed offset is being asked for, and since when a failed question may be repeated.
        self._finding: set[tuple[TopicPartition, int]] = set()

    @property
    def now_ms(self) -> int:
        """Milliseconds of the monotonic clock."""
        return int(self._clock() * 1000)

    def start(self) -> None:
        """Begin to fetch what is assigned."""
        self._is_running = True
        self.memory.on_room = self._handle_room
        self.wake()

    async def close(self) -> None:
        """Stop: cancel what is on its way, drop what is buffered, have brokers forget the sessions."""
        self._is_running = False
        self.memory.on_room = None
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.buffer.clear()
        plans = self.fetching.close_sessions()
        if plans:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SESSIONS_S):
                    await asyncio.gather(*map(self._close_session, plans))

    def wake(self) -> None:
        """Have the machines looked at in this pass of the loop."""
        if self._is_running and not self._is_pump_due:
            self._is_pump_due = True
            self._loop.call_soon(self._pump)

    def take_error(self) -> Exception | None:
        """Return an error that polls are to raise now: of the client, of a topic, or of a partition that has failed."""
        for errors in (self._errors, self.lookups.errors, self.fetching.errors):
            if errors:
                return errors.popleft()
        for state in self._subscription:
            if state.state is FetchState.FAILED and not self.buffer.has(state.tp) and not state.is_held:
                return state.error
        return None

    def add_error(self, error: KafkaError) -> None:
        """Have polls raise `error`, once, however often it came since the last of them."""
        if not any((known.code, known.message) == (error.code, error.message) for known in self._errors):
            self._errors.append(error)
        self.progress.set()

    def _handle_room(self) -> None:
        # On any thread, and inside garbage collection.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.wake)

    def _pump(self) -> None:
        self._is_pump_due = False
        if not self._is_running:
            return
        now_ms = self.now_ms
        try:
            self._begin_what_is_due(now_ms)
            self._set_timer(now_ms)
        except Exception as error:  # noqa: BLE001  whatever it is, polls say it
            self._note_unforeseen("planning what to fetch", error)
            self._set_alarm(self._pause_ms / 1000)

    def _begin_what_is_due(self, now_ms: int) -> None:
        self._take_cluster()
        cluster = self._client.cluster
        # One look at all partitions for what few of them want.
        unsettled = [state for state in self._subscription if state.state is not FetchState.FETCHING]
        if unsettled:
            self._maybe_find_committed(now_ms, unsettled)
            for lookup in self.lookups.plan(cluster, now_ms, int(self._wall_clock() * 1000), unsettled):
                self._spawn(self._look_up(lookup))
        for plan in self.fetching.obsolete(now_ms):
            self._give_up(plan)
        for plan in self.fetching.plan(cluster, now_ms):
            self._fetches[plan.node] = self._spawn(self._fetch(plan))
        while self._openers < OPENERS_MAX and (piece := self.buffer.next_to_open()) is not None:
            self._openers += 1
            self._spawn(self._open(piece))
        self._maybe_refresh(now_ms)

    def _take_cluster(self) -> None:
        cluster = self._client.cluster
        assigned = self._subscription.assigned
        if cluster is self._seen_cluster and assigned is self._seen_assigned:
            return
        self._seen_cluster, self._seen_assigned = cluster, assigned
        missing = self._subscription.handle_cluster(cluster)
        if missing:
            self.fetching.metadata_wanted = True
        for topic in sorted(self._subscription.assigned_topics):
            info = cluster.topics.get(topic)
            if info is not None and info.error in _TOPIC_ERRORS:
                self.add_error(RefusedTopicError(info.error, topic))

    _seen_assigned: frozenset[TopicPartition] = frozenset()

    def _maybe_find_committed(self, now_ms: int, states: Iterable[AssignedPartition]) -> None:
        wanted = [
            state
            for state in states
            if state.state is FetchState.INITIALIZING
            and not state.is_held
            and state.retry_at_ms <= now_ms
            and (state.tp, state.version) not in self._finding
        ]
        if not wanted:
            return
        if self._find_committed is None:
            for state in wanted:
                state.request_reset(self._settings.reset)
            self.progress.set()
            return
        asked = {state.tp: state.version for state in wanted}
        self._finding.update(asked.items())
        self._spawn(self._find(self._find_committed, asked))

    async def _find(self, find: FindCommitted, asked: Mapping[TopicPartition, int]) -> None:
        error: KafkaError | None = None
        found: Mapping[TopicPartition, CommittedOffset] = {}
        try:
            found = await find(list(asked))
        except Exception as raised:  # noqa: BLE001  whatever it is, polls say it
            error = unforeseen("looking for committed offsets", raised)
        finally:
            self._finding.difference_update(asked.items())
        for tp, version in asked.items():
            state = self._subscription.find(tp)
            if state is None or state.version != version or state.state is not FetchState.INITIALIZING:
                continue
            if error is not None:
                state.retry_at_ms = self.now_ms + self._pause_ms
            elif (committed := found.get(tp)) is not None:
                state.seek(Position(committed.offset, committed.leader_epoch))
            else:
                state.request_reset(self._settings.reset)
        if error is None:
            return
        if error.code.retriable and self._metadata_at_ms is not None:
            _log.warning("committed offsets could not be had: %s", error)
        else:
            self.add_error(error)

    def _maybe_refresh(self, now_ms: int) -> None:
        topics = self._subscription.assigned_topics
        if not topics or self._is_refreshing:
            return
        is_old = self._metadata_at_ms is None or now_ms - self._metadata_at_ms >= self._settings.metadata_age_ms_max
        is_wanted = self.fetching.metadata_wanted or self.lookups.metadata_wanted
        if not (is_old or is_wanted or not topics <= self._topics_heard):
            return
        if now_ms < self._metadata_retry_at_ms and topics <= self._topics_asked:
            return
        self.fetching.metadata_wanted = self.lookups.metadata_wanted = False
        self._is_refreshing = True
        self._topics_asked = topics
        self._spawn(self._refresh(topics))

    async def _refresh(self, topics: frozenset[str]) -> None:
        try:
            await self._client.metadata(topics, auto_create=self._settings.auto_create_topics)
            self._topics_heard = topics
            self._metadata_at_ms = self.now_ms
        except Exception as raised:  # noqa: BLE001  whatever it is, polls say it
            error = unforeseen("asking for metadata", raised)
            self.fetching.metadata_wanted = True
            if self._metadata_at_ms is None or not error.code.retriable:
                # Once the cluster was there, its absence is waited out; before that, its user should hear at once.
                self.add_error(error)
            else:
                _log.warning("metadata could not be had: %s", error)
        finally:
            self._is_refreshing = False
            self._metadata_retry_at_ms = self.now_ms + self._pause_ms

    def _give_up(self, plan: FetchPlan) -> None:
        task = self._fetches.pop(plan.node, None)
        if task is not None and task.cancel():
            self._cancelled.add(task)
            self._given_up[plan.node] = self._given_up.get(plan.node, 0) + 1

    async def _fetch(self, plan: FetchPlan) -> None:
        lane = FETCH_LANES[self._given_up.get(plan.node, 0) % len(FETCH_LANES)]
        try:
            started = self._clock()
            connection = await self._client.connection(plan.node, lane=lane)
            response = await connection.request(
                plan.request,
                timeout_s=(self._settings.fetch_wait_ms_max + self._settings.request_timeout_ms) / 1000,
                version_max=None if plan.by_id else VERSION_BY_NAME_MAX,
            )
            latency_ms = (self._clock() - started) * 1000
            self.fetching.handle_response(plan, response, self.now_ms, latency_ms)
        except Exception as error:  # noqa: BLE001  whatever it is, polls say it
            _log.debug("fetch from broker %d: %r", plan.node, error)
            self.fetching.handle_failure(plan, unforeseen(f"a fetch from broker {plan.node}", error), self.now_ms)
        except BaseException:
            self.fetching.abandon(plan)
            raise
        self.progress.set()

    async def _look_up(self, plan: LookupPlan) -> None:
        try:
            connection = await self._client.connection(plan.node)
            response = await connection.request(plan.request, timeout_s=self._settings.request_timeout_ms / 1000)
            self.lookups.handle_response(plan, response, self.now_ms)
        except Exception as error:  # noqa: BLE001  whatever it is, polls say it
            asked = unforeseen(f"looking for offsets at broker {plan.node}", error)
            self.lookups.handle_failure(plan, asked, self.now_ms)
        self.progress.set()

    async def _open(self, piece: FetchedRecords) -> None:
        try:
            rest = await self._loop.run_in_executor(None, piece.open, self.buffer.opened_bytes_max, self._client.pool)
        except CorruptBatchError as error:
            self._handle_unreadable(piece, error)
        except Exception as error:  # noqa: BLE001  whatever it is (memory may be short), polls say it
            _log.warning("%r could not be opened", piece, exc_info=error)
            self._handle_unreadable(piece, _unopened(piece, error))
        else:
            self.buffer.handle_opened(piece, rest)
        finally:
            self._openers -= 1
        self.progress.set()

    def _handle_unreadable(self, piece: FetchedRecords, error: PartitionError) -> None:
        if self.buffer.handle_unopened(piece) and (state := self._subscription.find(piece.topic_partition)):
            state.handle_unreadable(error)
            self.fetching.maybe_drained(state)

    async def _close_session(self, plan: FetchPlan) -> None:
        with contextlib.suppress(KafkaError):
            connection = await self._client.connection(plan.node)
            await connection.request(
                plan.request, timeout_s=_CLOSE_SESSIONS_S, version_max=None if plan.by_id else VERSION_BY_NAME_MAX
            )

    def _set_timer(self, now_ms: int) -> None:
        times = [self.fetching.next_retry_ms(now_ms)]
        if self._subscription.assigned_topics and not self._is_refreshing:
            if self.fetching.metadata_wanted or self.lookups.metadata_wanted:
                times.append(self._metadata_retry_at_ms)
            if self._metadata_at_ms is not None:
                times.append(self._metadata_at_ms + self._settings.metadata_age_ms_max)
        due = min((at for at in times if at is not None), default=None)
        # A millisecond more, as times are cut to whole ones.
        self._set_alarm(None if due is None else max(due - now_ms, 0) / 1000 + 0.001)

    def _set_alarm(self, pause_s: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if pause_s is not None:
            self._timer = self._loop.call_later(pause_s, self.wake)

    @property
    def _pause_ms(self) -> int:
        return max(self._settings.retry_backoff_ms, 1)

    def _note_unforeseen(self, what: str, error: BaseException) -> None:
        """Ours, or what the machine has no room for: polls say it instead of waiting for ever."""
        _log.error("%s failed", what, exc_info=error)
        self.add_error(unforeseen(what, error))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._handle_done)
        return task

    def _handle_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() and task.cancelling() and task not in self._cancelled:
            # Somebody else did it: the loop ends, and whatever was begun now would never be finished.
            self._is_running = False
        self._cancelled.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note_unforeseen("a consumer's task", error)
        self.wake()


def _unopened(piece: FetchedRecords, error: Exception) -> PartitionError:
    return PartitionError(
        ErrorCode.UNKNOWN_SERVER_ERROR,
        f"what was fetched of {piece.topic_partition} from offset {piece.offset} on could not be opened: {error!r}; "
        "seek there to try it again",
        piece.topic,
        piece.partition,
        piece.offset,
    )
