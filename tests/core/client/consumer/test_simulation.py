"""The consumer's machines against a cluster that does everything a cluster may do, in virtual time.

What has to hold: each record that is in the log is handed over once and in order, unless the log itself was cut below
what had been read. A failing seed is replayed by
`MILLSTREAM_SEED=N pytest tests/core/client/consumer/test_simulation.py`.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.support.model_cluster import ModelCluster

from millstream.core.client.cluster import TopicPartition
from millstream.core.client.consumer.delivery import Delivery
from millstream.core.client.consumer.errors import LogTruncationError
from millstream.core.client.consumer.fetched import FetchedRecords
from millstream.core.client.consumer.fetching import Fetching
from millstream.core.client.consumer.memory import FetchMemory
from millstream.core.client.consumer.offset_lookups import OffsetLookups
from millstream.core.client.consumer.partition_state import AssignedPartition, FetchState, Position
from millstream.core.client.consumer.settings import EARLIEST_RESET, ConsumerSettings, OffsetReset, ResetKind
from millstream.core.client.consumer.subscription import SubscriptionState
from millstream.core.records import Compression, RecordColumns
from millstream.core.wire import ErrorCode, KafkaError
from millstream.core.wire.messages.list_offsets import ListOffsetsRequest

SEEDS = [int(os.environ["MILLSTREAM_SEED"])] if "MILLSTREAM_SEED" in os.environ else list(range(1, 13))
STEPS = 600
MEMORY_BYTES = 6_000


class Simulation:
    """One consumer of a model cluster; every step is drawn from the seed."""

    def __init__(self, seed: int, *, reset: OffsetReset) -> None:
        self.source = random.Random(seed)
        self.cluster = ModelCluster(4, self.source)
        self.settings = ConsumerSettings(
            reset=reset,
            read_committed=bool(seed % 2),
            partition_bytes_max=700,
            fetch_bytes_max=2_000,
            memory_bytes_max=MEMORY_BYTES,
            retry_backoff_ms=10,
            metadata_age_ms_max=500,
        )
        self.now_ms = 0
        self.subscription = SubscriptionState()
        self.memory = FetchMemory(MEMORY_BYTES)
        self.fetching = Fetching(self.settings, self.subscription, self.memory)
        self.lookups = OffsetLookups(self.settings, self.subscription, self.fetching.buffer)
        self.delivery = Delivery(self.subscription, self.fetching)
        self.subscription.assign_by_hand(self.cluster.logs)
        for state in self.subscription:
            state.request_reset(EARLIEST_RESET)
        self.known = self.cluster.metadata()
        self.subscription.handle_cluster(self.known)
        self.pending: list[tuple[int, Callable[[], None]]] = []
        self.is_refreshing = False
        self.is_quiet = False
        # What the application has got, by offset; what a cut took back is taken out.
        self.view: dict[TopicPartition, dict[int, bytes]] = {tp: {} for tp in self.cluster.logs}
        self.next_offset = dict.fromkeys(self.cluster.logs, 0)
        # How often each log was cut; the consumer may go back no more often.
        self.cuts: Counter[TopicPartition] = Counter()
        self.kept: list[FetchedRecords] = []
        self.handed_over = 0
        self.went_back = 0
        # How often reading came to a stop that was set.
        self.stopped = 0

    def run(self) -> None:
        """Let everything happen, then let the consumer catch up, and look at what it has got."""
        for _ in range(STEPS):
            self.disturb()
            self.step()
        self.is_quiet = True
        self.cluster.recommends = False
        for state in self.subscription:
            state.is_paused = False
            self.seek_on(state, None)
        for _ in range(20_000):
            self.step()
            if self.is_caught_up():
                break
        assert self.is_caught_up(), (list(self.subscription), self.cluster.logs)
        for tp, log in self.cluster.logs.items():
            for offset, value in log.values().items():
                assert self.view[tp].get(offset) == value, (tp, offset)
        self.release_kept()
        self.delivery.close()
        assert self.memory.held_bytes == 0
        assert self.handed_over > 100
        assert self.stopped > 0

    def is_caught_up(self) -> bool:
        return all(
            state.position is not None and state.position.offset >= self.cluster.logs[state.tp].end_offset
            for state in self.subscription
        )

    def disturb(self) -> None:
        """Something happens in the cluster."""
        source = self.source
        tp, log = source.choice(list(self.cluster.logs.items()))
        kind = source.random()
        if kind < 0.5:
            values = [
                b"%s@%d/%d" % (tp.topic.encode(), log.end_offset + n, log.epoch) for n in range(source.randint(1, 12))
            ]
            log.append(values, source.choice(list(Compression)))
        elif kind < 0.58:
            values = [b"c@%d/%d" % (log.end_offset + n, log.epoch) for n in range(10)]
            log.append(values, Compression.NONE, keep=set(source.sample(range(10), source.randint(1, 5))))
        elif kind < 0.62:
            log.append([b"\x00\x00\x00\x00\x00\x00"], Compression.NONE, control=True)
        elif kind < 0.66:
            log.lead(source.choice(self.cluster.nodes), log.epoch + 1)
        elif kind < 0.68 and log.end_offset > log.log_start_offset:
            log.lead(
                source.choice(self.cluster.nodes),
                log.epoch + 1,
                cut_to=source.randint(max(log.log_start_offset, log.end_offset - 30), log.end_offset),
            )
            self.cuts[tp] += 1
        elif kind < 0.69:
            log.log_start_offset = source.randint(log.log_start_offset, log.end_offset)
        elif kind < 0.72 and self.cluster.sessions:
            del self.cluster.sessions[source.choice(list(self.cluster.sessions))]
        elif kind < 0.75:
            state = source.choice(list(self.subscription))
            state.is_paused = not state.is_paused
        elif kind < 0.77:
            self.cluster.recommends = not self.cluster.recommends

    def step(self) -> None:
        """Time passes: answers come, the machines plan, the application takes."""
        self.now_ms += self.source.randint(1, 8)
        due = [work for at, work in self.pending if at <= self.now_ms]
        self.pending = [(at, work) for at, work in self.pending if at > self.now_ms]
        for work in due:
            work()
        self.plan()
        self.take()
        assert self.memory.held_bytes <= MEMORY_BYTES + 3 * 2_000 + 40_000

    def plan(self) -> None:
        for plan in self.lookups.plan(self.known, self.now_ms, self.now_ms):
            self.later(partial(self.answer_lookup, plan))
        for fetch in self.fetching.plan(self.known, self.now_ms):
            self.later(partial(self.answer_fetch, fetch))
        while (piece := self.fetching.buffer.next_to_open()) is not None:
            self.later(partial(self.open, piece))
        is_wanted = self.fetching.metadata_wanted or self.lookups.metadata_wanted
        if (is_wanted or self.source.random() < 0.02) and not self.is_refreshing:
            self.fetching.metadata_wanted = self.lookups.metadata_wanted = False
            self.is_refreshing = True
            # An answer may be older than what happens before it comes.
            answer = self.cluster.metadata()
            self.later(partial(self.refresh, answer))

    def later(self, work: Callable[[], Any]) -> None:
        self.pending.append((self.now_ms + self.source.randint(1, 30), work))

    def open(self, piece: FetchedRecords) -> None:
        self.fetching.buffer.handle_opened(piece, piece.open(300))

    def refresh(self, answer: Any) -> None:
        self.is_refreshing = False
        self.known = answer
        self.subscription.handle_cluster(answer)

    def answer_fetch(self, plan: Any) -> None:
        if not self.is_quiet and self.source.random() < 0.05:
            if self.source.random() < 0.5:
                self.cluster.fetch(plan.node, plan.request)
            self.fetching.handle_failure(plan, KafkaError(ErrorCode.NETWORK_EXCEPTION), self.now_ms)
            return
        before = {state.tp: state.fetch_position for state in self.subscription}
        self.fetching.handle_response(plan, self.cluster.fetch(plan.node, plan.request), self.now_ms)
        for state in self.subscription:
            self.check_stop(state, before[state.tp])

    def check_stop(self, state: AssignedPartition, before: Position | None) -> None:
        """Nothing is fetched behind the first batch that reaches the stop."""
        stop, at = state.stop_offset, state.fetch_position
        if stop is None or before is None or at is None or at.offset <= before.offset:
            return
        reaching = [batch for batch in self.cluster.logs[state.tp].batches if batch.last_offset >= stop - 1]
        assert not reaching or at.offset <= reaching[0].last_offset + 1, (state, stop)

    def answer_lookup(self, plan: Any) -> None:
        if not self.is_quiet and self.source.random() < 0.1:
            self.lookups.handle_failure(plan, KafkaError(ErrorCode.NETWORK_EXCEPTION), self.now_ms)
        elif isinstance(plan.request, ListOffsetsRequest):
            self.lookups.handle_response(plan, self.cluster.list_offsets(plan.node, plan.request), self.now_ms)
        else:
            self.lookups.handle_response(plan, self.cluster.epoch_ends(plan.node, plan.request), self.now_ms)

    def take(self) -> None:
        """The application polls, by one face or another, or does not."""
        source = self.source
        if self.kept and source.random() < 0.3:
            self.release_kept()
        kind = source.random()
        self.delivery.begin_turn()
        if kind < 0.3:
            for record in self.delivery.take_records(source.choice([1, 3, 50])):
                self.got(TopicPartition(record.topic, record.partition), record.offset, record.value or b"")
        elif kind < 0.5:
            columns = RecordColumns(4)
            for piece in self.delivery.take_pieces(source.choice([None, 2, 7])):
                for located in piece.locate(columns):
                    for row in range(located.start, located.end):
                        at, size = columns.value_positions[row], columns.value_sizes[row]
                        self.got(piece.topic_partition, columns.offsets[row], bytes(located.buffer[at : at + size]))
                self.kept.append(piece)
        elif kind < 0.7 and (chunk := self.delivery.next_chunk(20)) is not None:
            current = chunk.current
            for _ in range(source.randint(0, 6)):
                if current.index == len(current.records):
                    break
                record = current.records[current.index]
                current.index += 1
                self.got(TopicPartition(record.topic, record.partition), record.offset, record.value or b"")
        for state in self.subscription:
            if state.state is FetchState.FAILED and not self.fetching.buffer.has(state.tp):
                self.mend(state)
            elif state.is_at_stop and not self.fetching.buffer.has(state.tp):
                self.stopped += 1
                self.seek_on(state, source.choice([None, source.randint(0, 30)]))
        if not self.is_quiet and source.random() < 0.02:
            self.seek_on(source.choice(list(self.subscription)), source.randint(0, 30))

    def seek_on(self, state: AssignedPartition, count: int | None) -> None:
        """The application seeks to where it is, to read about `count` offsets, or all there are."""
        self.delivery.drop(state.tp)
        if state.position is not None and state.state is not FetchState.FAILED:
            state.stop_offset = None if count is None else state.position.offset + count
            state.seek(state.position)

    def mend(self, state: AssignedPartition) -> None:
        """What an application does that is not to be reset: it seeks."""
        log = self.cluster.logs[state.tp]
        to = Position(log.log_start_offset)
        if isinstance(state.error, LogTruncationError) and state.error.divergent_offset is not None:
            # With the epoch, or a second cut below that offset would not be noticed.
            to = Position(state.error.divergent_offset, state.error.divergent_epoch)
        self.delivery.drop(state.tp)
        state.seek(to)

    def got(self, tp: TopicPartition, offset: int, value: bytes) -> None:
        self.handed_over += 1
        if offset < self.next_offset[tp]:
            assert self.cuts[tp] > 0, f"{tp}: offset {offset} came after {self.next_offset[tp] - 1}"
            self.cuts[tp] -= 1
            self.went_back += 1
            self.view[tp] = {at: old for at, old in self.view[tp].items() if at < offset}
        self.view[tp][offset] = value
        self.next_offset[tp] = offset + 1

    def release_kept(self) -> None:
        for piece in self.kept:
            piece.release()
        self.kept.clear()


@pytest.mark.parametrize("reset", [EARLIEST_RESET, OffsetReset(ResetKind.NONE)], ids=["earliest", "none"])
@pytest.mark.parametrize("seed", SEEDS)
def test_every_record_comes_once_and_in_order(seed: int, reset: OffsetReset) -> None:
    Simulation(seed, reset=reset).run()


@pytest.mark.slow
def test_many_seeds(soak: bool) -> None:
    went_back = 0
    for seed in range(1_000, 1_400 if soak else 1_010):
        simulation = Simulation(seed, reset=EARLIEST_RESET)
        try:
            simulation.run()
        except BaseException as error:
            error.add_note(f"MILLSTREAM_SEED={seed}")
            raise
        went_back += simulation.went_back
    # The simulation would prove little if no log were ever cut below a reader.
    assert went_back > 0
