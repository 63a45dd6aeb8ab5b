"""What to fetch from which broker now, and what an answer means: the consumer's fetch machine. Sans-I/O.

`plan` makes one Fetch for each broker that has none in flight and leads, or follows for, partitions that want data; the
shell sends it and calls `handle_response` or `handle_failure`. What comes is checked and queued in the FetchBuffer,
from which the shell takes for the application.

Memory. Bytes held (buffered, or still in the hands of the application) and bytes asked for stay within a bound; each
broker is asked for its share of it, so that one which has nothing to say does not keep others from being asked. A
partition that has its own share buffered is left out until some of that has been taken.

Fairness. Partitions that got data go to the end of the order in which they are asked for; a broker fills an answer in
the order of the request, or keeps such an order itself for a session.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from millstream.core._kernels.consumer_records import survey_batches
from millstream.core.client.cluster import NO_NODE, Cluster, TopicPartition
from millstream.core.client.consumer.errors import CorruptBatchError, OffsetOutOfRangeError, RefusedPartitionError
from millstream.core.client.consumer.fetch_buffer import READY_BYTES_MAX, FetchBuffer
from millstream.core.client.consumer.fetch_session import FetchSession, SessionPlan, WantedPartition
from millstream.core.client.consumer.fetched import FetchedRecords
from millstream.core.client.consumer.memory import FetchMemory, Lease
from millstream.core.client.consumer.partition_state import AssignedPartition, FetchState, Position
from millstream.core.client.consumer.settings import ConsumerSettings
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.records import find_batch, read_header
from millstream.core.wire import ZERO_UUID, ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.fetch import (
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)

_log = logging.getLogger(__name__)

# The last version that names topics; from the next on they go by id.
VERSION_BY_NAME_MAX: Final = 12
# A partition's share of the bound is between one and so many answers of it.
_SHARE_ANSWERS_MAX: Final = 8
# Answers that the bound has room for: one is being worked on while others wait or are on their way.
_ANSWERS_HELD: Final = 4
# Of the bound, what opened batches that wait may take.
_READY_SHARE: Final = 8
# After an error that waiting may mend and metadata does not (an ACL, a server's own failure).
_SLOW_RETRY_MS: Final = 1_000
_ERRORS_MAX: Final = 100
_OFFSET_MAX: Final = 2**63 - 1

_STALE_METADATA: Final = frozenset(
    {
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.REPLICA_NOT_AVAILABLE,
        ErrorCode.KAFKA_STORAGE_ERROR,
        ErrorCode.FENCED_LEADER_EPOCH,
        ErrorCode.OFFSET_NOT_AVAILABLE,
        ErrorCode.LEADER_NOT_AVAILABLE,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.INCONSISTENT_TOPIC_ID,
    }
)


class _Asked(NamedTuple):
    """What was asked of a partition, to be held against what it has become when the answer is there."""

    version: int
    offset: int


@dataclass(slots=True)
class FetchPlan:
    """One Fetch for one broker, and what its answer is to be held against."""

    node: int
    request: FetchRequest
    session: SessionPlan
    asked: Mapping[TopicPartition, _Asked]
    by_id: bool
    reserved_bytes: int
    names: Mapping[bytes, str]


@dataclass(slots=True)
class FetchCounters:
    """Sums since the start; `metrics` makes Kafka's names of them."""

    fetches: int = 0
    fetch_bytes: int = 0
    records: int = 0
    latency_ms_sum: float = 0.0
    latency_ms_max: float = 0.0
    throttle_ms_sum: int = 0
    throttle_ms_max: int = 0


class Fetching:
    """The fetch machine of one consumer; owned by its loop. Times are milliseconds of a clock that never jumps."""

    def __init__(self, settings: ConsumerSettings, subscription: SubscriptionState, memory: FetchMemory) -> None:
        self.buffer = FetchBuffer(ready_bytes_max=max(min(READY_BYTES_MAX, memory.bound_bytes // _READY_SHARE), 1))
        self.counters = FetchCounters()
        # Set when an answer said that leaders have moved; the shell asks for metadata and clears it.
        self.metadata_wanted = False
        # Errors of partitions that may mend by themselves, for polls to raise once each; the oldest go first.
        self.errors: deque[KafkaError] = deque(maxlen=_ERRORS_MAX)
        self._settings = settings
        self._subscription = subscription
        self._memory = memory
        self._sessions: dict[int, FetchSession] = {}
        # One plan by node. Invariant: _reserved_bytes is the sum of theirs.
        self._in_flight: dict[int, FetchPlan] = {}
        self._reserved_bytes = 0
        # Nodes not to be asked before a time: the connection to them failed.
        self._node_retry_at_ms: dict[int, int] = {}

    @property
    def in_flight(self) -> frozenset[int]:
        """Nodes with a Fetch on its way."""
        return frozenset(self._in_flight)

    def is_starved(self, now_ms: int) -> bool:
        """Whether nothing of what is wanted may be asked for, as the application holds all that there is room for."""
        return (
            not self._in_flight
            and not len(self.buffer)
            and self._room() < self._room_min(1)
            and self._memory.held_bytes > 0
            and any(state.is_fetchable(now_ms) for state in self._subscription)
        )

    def plan(self, cluster: Cluster, now_ms: int) -> list[FetchPlan]:
        """Return a Fetch for each broker that is to be asked now, and take them as sent."""
        by_node = self._wanted_by_node(cluster, now_ms)
        nodes = len(by_node.keys() | self._in_flight.keys())
        plans = []
        for node, states in by_node.items():
            if node in self._in_flight or self._node_retry_at_ms.get(node, 0) > now_ms:
                continue
            size_bytes_max = self._size_to_ask(len(states), nodes)
            if size_bytes_max:
                plans.append(self._plan_for(node, states, size_bytes_max))
        return plans

    def obsolete(self, now_ms: int) -> list[FetchPlan]:
        """Return Fetches on their way that nobody waits for any more, while their brokers have others to be asked for.

        A Fetch waits at the broker when there is nothing to say. After a seek or a new assignment it would hold up, for
        as long as that, the one that is wanted now.
        """
        unwanted = [
            plan
            for plan in self._in_flight.values()
            if not any(self._is_awaited(tp, asked) for tp, asked in plan.asked.items())
        ]
        if not unwanted:
            return []
        wanted = {state.read_replica(now_ms) for state in self._subscription if state.is_fetchable(now_ms)}
        return [plan for plan in unwanted if plan.node in wanted]

    def next_retry_ms(self, now_ms: int) -> int | None:
        """Return when something that is being waited for may be tried again, None where nothing is."""
        times = [at for at in self._node_retry_at_ms.values() if at > now_ms]
        times += [state.retry_at_ms for state in self._subscription if state.retry_at_ms > now_ms]
        return min(times, default=None)

    def handle_response(self, plan: FetchPlan, response: FetchResponse, now_ms: int, latency_ms: float = 0.0) -> None:
        """Take the answer to `plan`: queue records, move positions, note errors."""
        self._end(plan)
        session = self._sessions[plan.node]
        code = error_code(response.error_code)
        answers = list(self._answers(plan, response))
        answered = {tp for tp, _ in answers}
        counters = self.counters
        counters.fetches += 1
        counters.latency_ms_sum += latency_ms
        counters.latency_ms_max = max(counters.latency_ms_max, latency_ms)
        counters.throttle_ms_sum += response.throttle_time_ms
        counters.throttle_ms_max = max(counters.throttle_ms_max, response.throttle_time_ms)
        if response.throttle_time_ms > 0:
            # A broker that answers before it throttles is to be left alone for so long (KIP-219).
            self._node_retry_at_ms[plan.node] = now_ms + response.throttle_time_ms
        if not session.handle_response(code, response.session_id, answered, plan.session):
            self._handle_session_error(plan, code, now_ms)
            return
        size = sum(len(data.records) for _, data in answers if data.records)
        counters.fetch_bytes += size
        lease = self._memory.lease(size) if size else None
        try:
            for tp, data in answers:
                asked = plan.asked.get(tp)
                state = self._subscription.find(tp)
                if asked is None or state is None or state.version != asked.version:
                    continue
                if state.state is FetchState.FETCHING:
                    self._handle_partition(state, asked, data, plan.node, now_ms, lease)
        finally:
            if lease is not None:
                lease.release_unshared()

    def handle_failure(self, plan: FetchPlan, error: KafkaError, now_ms: int) -> None:
        """Take it that no answer to `plan` comes."""
        self._end(plan)
        self._sessions[plan.node].handle_failure()
        self._node_retry_at_ms[plan.node] = now_ms + self._settings.retry_backoff_ms
        for tp in plan.asked:
            state = self._subscription.find(tp)
            if state is not None and state.preferred_replica == plan.node:
                state.preferred_replica = NO_NODE
        self.metadata_wanted = True
        if not error.code.retriable:
            self.errors.append(error)

    def abandon(self, plan: FetchPlan) -> None:
        """Take it that `plan` was given up by the shell."""
        self._end(plan)
        self._sessions[plan.node].handle_failure()

    def close_sessions(self) -> list[FetchPlan]:
        """Return the requests by which brokers forget this consumer's sessions."""
        plans = []
        for node, session in self._sessions.items():
            if (final := session.final()) is not None and node not in self._in_flight:
                plans.append(self._make_plan(node, final, {}, {}, 0))
        return plans

    def step_over(self, tp: TopicPartition) -> int | None:
        """Go on behind the batch that made `tp` fail. Returns where, None where the batch's end is not known.

        Raises KafkaError where the partition has not failed by a corrupt batch.
        """
        state = self._subscription.get(tp)
        error = state.error
        if not isinstance(error, CorruptBatchError):
            raise KafkaError(ErrorCode.INVALID_REQUEST, f"{tp} has no damaged batch to step over")
        if error.next_offset is None:
            return None
        self.buffer.drop(tp)
        state.seek(Position(error.next_offset))
        _log.warning("stepped over a damaged batch of %s, from offset %d to %d", tp, error.offset, error.next_offset)
        return error.next_offset

    def maybe_drained(self, state: AssignedPartition) -> None:
        """Do for a partition what waited until nothing of it is buffered, if that is so."""
        if not self.buffer.has(state.tp):
            state.handle_drained(self._settings.reset)

    def _wanted_by_node(self, cluster: Cluster, now_ms: int) -> dict[int, list[AssignedPartition]]:
        partitions = max(len(self._subscription), 1)
        one_answer = self._settings.partition_bytes_max
        share = min(max(self._memory.bound_bytes // (2 * partitions), one_answer), _SHARE_ANSWERS_MAX * one_answer)
        by_node: dict[int, list[AssignedPartition]] = {}
        for state in self._subscription:
            if not state.is_fetchable(now_ms) or self.buffer.bytes_of(state.tp) >= share:
                continue
            node = state.read_replica(now_ms)
            if node not in cluster.brokers and state.preferred_replica != NO_NODE:
                state.preferred_replica = NO_NODE
                node = state.leader
            if node not in cluster.brokers:
                self.metadata_wanted = True
                continue
            by_node.setdefault(node, []).append(state)
        return by_node

    def _room(self) -> int:
        bound_bytes = self._memory.bound_bytes - self.buffer.opening_bytes
        return bound_bytes - self._memory.held_bytes - self._reserved_bytes

    def _room_min(self, nodes: int) -> int:
        return max(min(self._settings.partition_bytes_max, self._memory.bound_bytes // (2 * nodes)), 1)

    def _size_to_ask(self, partitions: int, nodes: int) -> int:
        """Return how many bytes a broker may be asked for now, 0 for none."""
        settings = self._settings
        share = max(self._memory.bound_bytes // (_ANSWERS_HELD * nodes), 1)
        wanted = min(settings.fetch_bytes_max, max(partitions * settings.partition_bytes_max, 1), share)
        room = self._room()
        if room < self._room_min(nodes):
            # With nothing held, asking is the only way on, however small the bound.
            return wanted if self._memory.held_bytes + self._reserved_bytes <= 0 else 0
        return max(min(wanted, room), 1)

    def _plan_for(self, node: int, states: Iterable[AssignedPartition], size_bytes_max: int) -> FetchPlan:
        wanted: dict[TopicPartition, WantedPartition] = {}
        asked: dict[TopicPartition, _Asked] = {}
        for state in states:
            assert state.fetch_position is not None, state
            offset = state.fetch_position.offset
            partition_max = min(self._settings.partition_bytes_max, size_bytes_max)
            wanted[state.tp] = WantedPartition(offset, state.leader_epoch, partition_max, state.topic_id or ZERO_UUID)
            asked[state.tp] = _Asked(state.version, offset)
        session = self._sessions.setdefault(node, FetchSession()).plan(wanted)
        plan = self._make_plan(node, session, wanted, asked, size_bytes_max)
        self._in_flight[node] = plan
        self._reserved_bytes += plan.reserved_bytes
        return plan

    def _make_plan(
        self,
        node: int,
        session: SessionPlan,
        wanted: Mapping[TopicPartition, WantedPartition],
        asked: Mapping[TopicPartition, _Asked],
        size_bytes_max: int,
    ) -> FetchPlan:
        settings = self._settings
        topics: dict[tuple[str, bytes], FetchTopic] = {}
        for tp, want in session.sent.items():
            topic = topics.get((tp.topic, want.topic_id))
            if topic is None:
                topic = topics[tp.topic, want.topic_id] = FetchTopic(topic=tp.topic, topic_id=want.topic_id)
            topic.partitions.append(
                FetchPartition(
                    partition=tp.partition,
                    current_leader_epoch=want.leader_epoch,
                    fetch_offset=want.offset,
                    partition_max_bytes=want.size_bytes_max,
                )
            )
        forgotten: dict[tuple[str, bytes], ForgottenTopic] = {}
        for tp, topic_id in session.forgotten:
            key = (tp.topic, topic_id)
            entry = forgotten.setdefault(key, ForgottenTopic(topic=tp.topic, topic_id=topic_id))
            entry.partitions.append(tp.partition)
        request = FetchRequest(
            max_wait_ms=settings.fetch_wait_ms_max,
            min_bytes=settings.fetch_bytes_min,
            max_bytes=size_bytes_max,
            isolation_level=1 if settings.read_committed else 0,
            session_id=session.session_id,
            session_epoch=session.epoch,
            topics=list(topics.values()),
            forgotten_topics_data=list(forgotten.values()),
            rack_id=settings.client_rack,
        )
        ids = [want.topic_id for want in wanted.values()] + [topic_id for _, topic_id in session.forgotten]
        return FetchPlan(
            node=node,
            request=request,
            session=session,
            asked=asked,
            by_id=ZERO_UUID not in ids,
            reserved_bytes=size_bytes_max,
            names={want.topic_id: tp.topic for tp, want in wanted.items()},
        )

    def _answers(self, plan: FetchPlan, response: FetchResponse) -> Iterable[tuple[TopicPartition, PartitionData]]:
        for topic in response.responses:
            # Versions that go by id have no name, and the others no id.
            name = topic.topic or plan.names.get(topic.topic_id)
            if name is None:
                # A topic that is not wanted any more: the session drops it with this request or the next.
                continue
            for data in topic.partitions:
                yield TopicPartition(name, data.partition_index), data

    def _is_awaited(self, tp: TopicPartition, asked: _Asked) -> bool:
        state = self._subscription.find(tp)
        return state is not None and state.version == asked.version and state.state is FetchState.FETCHING

    def _end(self, plan: FetchPlan) -> None:
        if self._in_flight.get(plan.node) is plan:
            del self._in_flight[plan.node]
            self._reserved_bytes -= plan.reserved_bytes

    def _handle_session_error(self, plan: FetchPlan, code: ErrorCode, now_ms: int) -> None:
        if code in (ErrorCode.NONE, ErrorCode.FETCH_SESSION_ID_NOT_FOUND, ErrorCode.INVALID_FETCH_SESSION_EPOCH):
            return
        self._node_retry_at_ms[plan.node] = now_ms + self._settings.retry_backoff_ms
        if code in (
            ErrorCode.UNKNOWN_TOPIC_ID,
            ErrorCode.INCONSISTENT_TOPIC_ID,
            ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR,
        ):
            self.metadata_wanted = True
        elif not code.retriable:
            self.errors.append(KafkaError(code, f"fetch from broker {plan.node}: {code.sentence}"))

    def _handle_partition(
        self, state: AssignedPartition, asked: _Asked, data: PartitionData, node: int, now_ms: int, lease: Lease | None
    ) -> None:
        assert state.fetch_position is not None, state
        if state.fetch_position.offset != asked.offset:
            # Its leader moved while this was on its way, and the new one was asked and has answered already.
            return
        code = error_code(data.error_code)
        if code is not ErrorCode.NONE:
            self._handle_error(state, code, data, node, now_ms)
            return
        if data.diverging_epoch is not None and data.diverging_epoch.end_offset >= 0:
            diverging = data.diverging_epoch
            reset = self._settings.reset
            if state.handle_divergence(asked.version, diverging.epoch, diverging.end_offset, reset):
                self.buffer.drop(state.tp)
            return
        state.high_watermark = data.high_watermark
        state.last_stable_offset = data.last_stable_offset
        state.log_start_offset = data.log_start_offset
        if data.preferred_read_replica != NO_NODE:
            state.prefer(data.preferred_read_replica, now_ms + self._settings.metadata_age_ms_max)
        if data.records:
            self._queue(state, data, now_ms, lease)

    def _queue(self, state: AssignedPartition, data: PartitionData, now_ms: int, lease: Lease | None) -> None:
        """Check what came and queue it; note where it is damaged."""
        assert state.fetch_position is not None, state
        offset = state.fetch_position.offset
        records = memoryview(data.records or b"")
        stop = state.stop_offset
        start, end, next_offset, epoch, count, kinds, corrupt, _ = survey_batches(
            records, offset, self._settings.check_crcs
        )
        if stop is not None and next_offset > stop:
            # A broker fills its answer; what lies behind the batch that reaches the stop is not wanted.
            cut = _end_of_batch(records, start, end, stop - 1)
            start, end, next_offset, epoch, count, kinds, _, _ = survey_batches(records[:cut], offset, False)
        if end > start:
            view = records[start:end]
            if lease is not None:
                lease.share(view)
            aborted: list[tuple[int, int]] = []
            if self._settings.read_committed and data.aborted_transactions:
                aborted = sorted((one.first_offset, one.producer_id) for one in data.aborted_transactions)
            self.buffer.add(
                FetchedRecords(
                    state.tp,
                    view,
                    offset=offset,
                    next_offset=next_offset,
                    leader_epoch=epoch,
                    kinds=kinds,
                    record_count=count,
                    high_watermark=data.high_watermark,
                    last_stable_offset=data.last_stable_offset,
                    log_start_offset=data.log_start_offset,
                    aborted=aborted,
                    lease=lease,
                )
            )
            state.handle_fetched(Position(next_offset, epoch))
            state.suspect_offset = -1
            self._subscription.move_to_end(state.tp)
        if corrupt >= 0 and end == start:
            if state.suspect_offset != offset:
                # It may have been damaged on its way: what the log has is asked for once more.
                state.suspect_offset = offset
                state.retry_at_ms = now_ms + self._settings.retry_backoff_ms
                return
            state.error = CorruptBatchError(
                state.tp, offset, _behind(records, corrupt, offset), "a batch fails its CRC or is no batch"
            )
            self.maybe_drained(state)

    def _handle_error(
        self, state: AssignedPartition, code: ErrorCode, data: PartitionData, node: int, now_ms: int
    ) -> None:
        assert state.fetch_position is not None, state
        tp, offset = state.tp, state.fetch_position.offset
        state.retry_at_ms = now_ms + self._settings.retry_backoff_ms
        if code in _STALE_METADATA:
            self.metadata_wanted = True
            state.preferred_replica = NO_NODE
            current = data.current_leader
            if current is not None and current.leader_epoch > state.leader_epoch and current.leader_id != NO_NODE:
                # KIP-951: the broker knows who leads now.
                state.retry_at_ms = 0
                state.handle_leader(current.leader_id, current.leader_epoch)
        elif code is ErrorCode.UNKNOWN_LEADER_EPOCH:
            _log.debug("broker %d does not know the leader epoch of %s yet", node, tp)
        elif code is ErrorCode.OFFSET_OUT_OF_RANGE:
            if state.preferred_replica != NO_NODE:
                # A follower may be behind, or ahead with its start: the leader decides.
                state.preferred_replica = NO_NODE
                state.retry_at_ms = 0
                return
            _log.info("offset %d of %s is out of range; the policy is %s", offset, tp, self._settings.reset.kind.value)
            state.handle_out_of_range(OffsetOutOfRangeError(tp, offset), self._settings.reset)
            self.maybe_drained(state)
        elif code is ErrorCode.CORRUPT_MESSAGE:
            # The broker found it and does not say how far it reaches.
            state.error = CorruptBatchError(tp, offset, None, "the broker found its batch damaged")
            self.maybe_drained(state)
        else:
            state.retry_at_ms = now_ms + max(_SLOW_RETRY_MS, self._settings.retry_backoff_ms)
            if code.retriable or code is ErrorCode.UNKNOWN_SERVER_ERROR:
                _log.warning("fetch of %s at offset %d from broker %d: %s", tp, offset, node, code.sentence)
            else:
                self.errors.append(RefusedPartitionError(code, f"fetch of {tp} at offset {offset}", tp, offset))


def _end_of_batch(records: memoryview, start: int, end: int, offset: int) -> int:
    """Return where the first of the whole batches records[start:end] ends that holds `offset` or lies behind it."""
    while start < end:
        header = read_header(records, start)
        start += header.size_bytes
        if header.last_offset >= offset:
            break
    return start


def _behind(records: memoryview, position: int, offset: int) -> int | None:
    """Return where to go on behind the damaged batch at `position`; its own length is not to be trusted alone."""
    found = find_batch(records, position + 1, len(records), offset + 1, _OFFSET_MAX)
    if found >= 0:
        return int.from_bytes(records[found : found + 8], "big")
    if len(records) - position < 61:
        return None
    base = int.from_bytes(records[position : position + 8], "big", signed=True)
    length = int.from_bytes(records[position + 8 : position + 12], "big", signed=True)
    delta = int.from_bytes(records[position + 23 : position + 27], "big", signed=True)
    # A record takes seven bytes at least; a compacted batch may reach further than what it holds.
    is_sane = base <= offset <= base + delta and 61 <= length + 12 <= len(records) - position
    return base + delta + 1 if is_sane else None
