"""Where a consumer reads: pausing, seeking, positions and how far they are behind, and going on behind damage."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.delivery import Delivery
from millstream.core.client.consumer.engine import FetchEngine
from millstream.core.client.consumer.partition_state import Position
from millstream.core.client.consumer.queries import ClusterQueries
from millstream.core.client.consumer.settings import EARLIEST_RESET, LATEST_RESET
from millstream.core.client.consumer.step_over import find_behind_damage
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.client.group_offsets import CommittedOffset
from millstream.core.wire import KafkaError

_log = logging.getLogger(__name__)


class Positions(ClusterQueries):
    """The base of Consumer that moves it; on one that is not open yet it sets where reading will begin."""

    _subscription: SubscriptionState
    _engine: FetchEngine
    _delivery: Delivery

    @property
    def _is_running(self) -> bool:
        """Whether there is something to ask, and something buffered."""
        raise AssertionError("a consumer has its own")

    def pause(self, *partitions: TopicPartition) -> None:
        """Hand over nothing of these until `resume`; what is buffered stays."""
        for tp in partitions:
            self._subscription.get(TopicPartition.of(tp)).is_paused = True
        self._wake()

    def resume(self, *partitions: TopicPartition) -> None:
        """Undo `pause`."""
        for tp in partitions:
            self._subscription.get(TopicPartition.of(tp)).is_paused = False
        self._wake()

    def paused(self) -> frozenset[TopicPartition]:
        """The partitions paused now."""
        return frozenset(state.tp for state in self._subscription if state.is_paused)

    def seek(self, partition: TopicPartition, offset: int | CommittedOffset, *, until: int | None = None) -> None:
        """Go on reading at `offset`; with a CommittedOffset its leader epoch is checked against the log (KIP-320).

        `until` ends it, up to the next seek or until the partition is lost: the batch that holds the offset before it,
        or else the first one behind, is the last. It comes whole, so the position may move past `until`. Nothing comes
        where `until` is not behind `offset`, or not behind where a reset leads. Polls wait there as at the end of the
        log, those without a timeout for ever. Raises ValueError for a negative offset.
        """
        tp = TopicPartition.of(partition)
        state = self._subscription.get(tp)
        at = offset if isinstance(offset, CommittedOffset) else CommittedOffset(offset)
        if at.offset < 0:
            raise ValueError(f"{at.offset} is no offset to seek to; seek_to_beginning and seek_to_end find the ends")
        if until is not None and until < 0:
            raise ValueError(f"{until} is no offset to read until; None sets no end")
        self._drop(tp)
        state.stop_offset = until
        state.seek(Position(at.offset, at.leader_epoch))
        self._wake()

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Go to the first record there is; without partitions: in all assigned. The offset is asked for later."""
        for tp in partitions or self._subscription.assigned:
            state = self._subscription.get(TopicPartition.of(tp))
            self._drop(state.tp)
            state.stop_offset = None
            state.request_reset(EARLIEST_RESET)
        self._wake()

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Go behind the last record; with isolation_level=read_committed, of those that can be read."""
        for tp in partitions or self._subscription.assigned:
            state = self._subscription.get(TopicPartition.of(tp))
            self._drop(state.tp)
            state.stop_offset = None
            state.request_reset(LATEST_RESET)
        self._wake()

    async def seek_to_timestamp(self, timestamps: Mapping[TopicPartition, int]) -> None:
        """Go to the first record at or after a time, in milliseconds since 1970; to the end where none is as young."""
        for tp in timestamps:
            self._subscription.get(TopicPartition.of(tp))
        for tp, found in (await self.offsets_for_times(timestamps)).items():
            if tp not in self._subscription:
                continue
            if found is None:
                self.seek_to_end(tp)
            else:
                self.seek(tp, CommittedOffset(found.offset))

    def position(self, partition: TopicPartition) -> int | None:
        """The offset of the next record to be handed over; None while that is being found out."""
        state = self._subscription.get(TopicPartition.of(partition))
        self._settle()
        return state.position.offset if state.position is not None else None

    def reached(self, partition: TopicPartition) -> CommittedOffset | None:
        """As `position`, with the leader epoch of the batch before it (-1: not known): what a commit would say."""
        state = self._subscription.get(TopicPartition.of(partition))
        self._settle()
        return CommittedOffset(*state.position) if state.position is not None else None

    def current_lag(self, partition: TopicPartition) -> int | None:
        """Records between the position and the end, as of the last answer; None before one came."""
        state = self._subscription.get(TopicPartition.of(partition))
        self._settle()
        end = state.last_stable_offset if self._settings.read_committed else state.high_watermark
        return max(end - state.position.offset, 0) if state.position is not None and end >= 0 else None

    async def lag(self) -> dict[TopicPartition, int]:
        """Return for each assigned partition with a position how far its end is away now."""
        ends = await self.end_offsets(self._subscription.assigned)
        self._settle()
        positions = self._subscription.positions()
        return {tp: max(end - positions[tp].offset, 0) for tp, end in ends.items() if tp in positions}

    async def step_over(self, partition: TopicPartition) -> int:
        """Go on behind the damaged batch that a CorruptBatchError named; returns the offset.

        Where only the broker has seen the damage, its end is found by asking for what lies behind.
        """
        await self.start()
        tp = TopicPartition.of(partition)
        state = self._subscription.get(tp)
        found = self._engine.fetching.step_over(tp)
        if found is None:
            assert isinstance(state.error, KafkaError), state
            from_offset = getattr(state.error, "offset", 0)
            found = await find_behind_damage(self._client, tp, from_offset, self._settings)
            self._drop(tp)
            state.seek(Position(found))
            _log.warning("stepped over damage in %s, from offset %d to %d", tp, from_offset, found)
        self._wake()
        return found

    def _settle(self) -> None:
        if self._is_running:
            self._delivery.settle()

    def _drop(self, tp: TopicPartition) -> None:
        if self._is_running:
            self._delivery.drop(tp)

    def _wake(self) -> None:
        if self._is_running:
            self._engine.wake()
