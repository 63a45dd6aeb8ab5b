"""Asking leaders where to read: resets (ListOffsets) and validation after a leader change (OffsetForLeaderEpoch).

Sans-I/O: `plan` gives the requests to send now, one for each broker and kind; the shell calls `handle_response` or
`handle_failure`. An answer counts only for a partition that still waits for just that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from millstream.core.client.cluster import Cluster, TopicPartition
from millstream.core.client.consumer.errors import RefusedPartitionError
from millstream.core.client.consumer.fetch_buffer import FetchBuffer
from millstream.core.client.consumer.partition_state import AssignedPartition, FetchState, Position
from millstream.core.client.consumer.settings import ConsumerSettings, OffsetReset, ResetKind
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.client.offsets import EARLIEST, LATEST
from millstream.core.wire import ErrorCode, KafkaError, error_code
from millstream.core.wire.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from millstream.core.wire.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)

# Where a log's first record is younger than the time asked for, or none is as young, the end of it is meant.
_NO_OFFSET: Final = -1
_SLOW_RETRY_MS: Final = 1_000
_ERRORS_MAX: Final = 100


@dataclass(slots=True)
class LookupPlan:
    """One request to one broker; `versions` says for which state of each partition it was made."""

    node: int
    request: ListOffsetsRequest | OffsetForLeaderEpochRequest
    versions: Mapping[TopicPartition, int]


class OffsetLookups:
    """The lookups of one consumer. Times: `now_ms` never jumps, `wall_ms` is since 1970."""

    def __init__(self, settings: ConsumerSettings, subscription: SubscriptionState, buffer: FetchBuffer) -> None:
        # Set when an answer said that leaders have moved; the shell asks for metadata and clears it.
        self.metadata_wanted = False
        # For polls to raise once each; the oldest go first.
        self.errors: deque[KafkaError] = deque(maxlen=_ERRORS_MAX)
        self._settings = settings
        self._subscription = subscription
        self._buffer = buffer
        # What is being asked about, with the version of the state it is asked for.
        self._asked: set[tuple[TopicPartition, int]] = set()

    def plan(
        self, cluster: Cluster, now_ms: int, wall_ms: int, states: Iterable[AssignedPartition] | None = None
    ) -> list[LookupPlan]:
        """Return what is to be asked now, and take it as sent. `states` are those to look at, all by default."""
        resets: dict[int, list[AssignedPartition]] = {}
        validations: dict[int, list[AssignedPartition]] = {}
        for state in self._subscription if states is None else states:
            if state.state is FetchState.AWAIT_RESET:
                by_node = resets
            elif state.state is FetchState.AWAIT_VALIDATION:
                by_node = validations
            else:
                continue
            if state.retry_at_ms > now_ms or (state.tp, state.version) in self._asked:
                continue
            if state.leader not in cluster.brokers:
                self.metadata_wanted = True
                continue
            by_node.setdefault(state.leader, []).append(state)
        plans = [self._plan_resets(node, states, wall_ms) for node, states in resets.items()]
        plans += [self._plan_validations(node, states) for node, states in validations.items()]
        for plan in plans:
            self._asked.update(plan.versions.items())
        return plans

    def handle_response(
        self, plan: LookupPlan, response: ListOffsetsResponse | OffsetForLeaderEpochResponse, now_ms: int
    ) -> None:
        """Take an answer."""
        self._asked.difference_update(plan.versions.items())
        if isinstance(response, ListOffsetsResponse):
            for topic in response.topics:
                for partition in topic.partitions:
                    found = self._wanted(plan, TopicPartition(topic.name, partition.partition_index))
                    if found is not None and self._is_right(found, error_code(partition.error_code), "offset", now_ms):
                        self._take_offset(found, plan, partition.offset, partition.leader_epoch, now_ms)
            return
        for result in response.topics:
            for end in result.partitions:
                found = self._wanted(plan, TopicPartition(result.topic, end.partition))
                if found is not None and self._is_right(found, error_code(end.error_code), "leader epoch", now_ms):
                    version = plan.versions[found.tp]
                    if found.handle_epoch_end(version, end.leader_epoch, end.end_offset, self._settings.reset):
                        self._buffer.drop(found.tp)

    def handle_failure(self, plan: LookupPlan, error: KafkaError, now_ms: int) -> None:
        """Take it that no answer comes."""
        self._asked.difference_update(plan.versions.items())
        if error.code is ErrorCode.UNSUPPORTED_VERSION and isinstance(plan.request, OffsetForLeaderEpochRequest):
            for tp in plan.versions:
                if (state := self._wanted(plan, tp)) is not None:
                    state.skip_validation()
            return
        self.metadata_wanted = True
        for tp in plan.versions:
            if (state := self._wanted(plan, tp)) is not None:
                state.retry_at_ms = now_ms + self._settings.retry_backoff_ms
        if not error.code.retriable:
            self.errors.append(error)

    def _plan_resets(self, node: int, states: list[AssignedPartition], wall_ms: int) -> LookupPlan:
        topics: dict[str, ListOffsetsTopic] = {}
        for state in states:
            assert state.reset is not None, state
            topic = topics.setdefault(state.tp.topic, ListOffsetsTopic(name=state.tp.topic))
            topic.partitions.append(
                ListOffsetsPartition(
                    partition_index=state.tp.partition,
                    current_leader_epoch=state.leader_epoch,
                    timestamp=_timestamp(state.reset, wall_ms),
                )
            )
        request = ListOffsetsRequest(
            replica_id=-1, isolation_level=1 if self._settings.read_committed else 0, topics=list(topics.values())
        )
        return LookupPlan(node, request, {state.tp: state.version for state in states})

    def _plan_validations(self, node: int, states: list[AssignedPartition]) -> LookupPlan:
        topics: dict[str, OffsetForLeaderTopic] = {}
        for state in states:
            assert state.fetch_position is not None, state
            topic = topics.setdefault(state.tp.topic, OffsetForLeaderTopic(topic=state.tp.topic))
            topic.partitions.append(
                OffsetForLeaderPartition(
                    partition=state.tp.partition,
                    current_leader_epoch=state.leader_epoch,
                    leader_epoch=state.fetch_position.leader_epoch,
                )
            )
        request = OffsetForLeaderEpochRequest(replica_id=-1, topics=list(topics.values()))
        return LookupPlan(node, request, {state.tp: state.version for state in states})

    def _wanted(self, plan: LookupPlan, tp: TopicPartition) -> AssignedPartition | None:
        state = self._subscription.find(tp)
        return state if state is not None and plan.versions.get(tp) == state.version else None

    def _is_right(self, state: AssignedPartition, code: ErrorCode, what: str, now_ms: int) -> bool:
        if code is ErrorCode.NONE:
            return True
        state.retry_at_ms = now_ms + self._settings.retry_backoff_ms
        if code.retriable:
            self.metadata_wanted = True
        else:
            state.retry_at_ms = now_ms + max(_SLOW_RETRY_MS, self._settings.retry_backoff_ms)
            at = -1 if state.fetch_position is None else state.fetch_position.offset
            self.errors.append(RefusedPartitionError(code, f"the {what} of {state.tp} was refused", state.tp, at))
        return False

    def _take_offset(
        self, state: AssignedPartition, plan: LookupPlan, offset: int, leader_epoch: int, now_ms: int
    ) -> None:
        if offset != _NO_OFFSET:
            state.handle_reset_offset(plan.versions[state.tp], Position(offset, leader_epoch))
            return
        # No record is as young as the duration says: what comes from now on is.
        assert state.reset is not None, state
        state.reset = OffsetReset(ResetKind.LATEST)
        state.retry_at_ms = now_ms


def _timestamp(reset: OffsetReset, wall_ms: int) -> int:
    if reset.kind is ResetKind.EARLIEST:
        return EARLIEST
    if reset.kind is ResetKind.LATEST:
        return LATEST
    assert reset.kind is ResetKind.BY_DURATION, reset
    return max(wall_ms - reset.duration_ms, 0)
