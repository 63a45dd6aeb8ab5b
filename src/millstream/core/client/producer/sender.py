"""The sender: which batch goes out when, to which broker, and what its answer means. No I/O and no clock of its own.

Events go in (`poll`, `node_ready`, `node_failed`, `handle_response`, `handle_failure`, `handle_producer_id`,
`prepared`, `note_cluster`), effects come out of `take_effects`: connect to a node, send a request, compress or split a
batch, ask for a producer id, ask for metadata. Times are ms of any monotonic clock. Owned by one loop.

States: OPEN -> FATAL (an error after which nothing can be sent: authorization, a fenced producer). A producer id is
asked for when the first record waits. Transactions will stand between a partition's `candidate` and a request: a gate
of partitions added to the transaction, with the states of KIP-98 beside these.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from typing import Final

from millstream.core._kernels.record_accumulator import PartitionQueue, RecordAccumulator
from millstream.core.client.backoff import Backoff
from millstream.core.client.cluster import NO_NODE, Cluster, TopicPartition
from millstream.core.client.producer.batch import Batch, BatchState
from millstream.core.client.producer.effects import (
    AskMetadata,
    AskProducerId,
    Connect,
    Effect,
    GiveUp,
    Outcome,
    Prepare,
    SendRequest,
    Split,
)
from millstream.core.client.producer.errors import DeliveryTimeoutError
from millstream.core.client.producer.metrics import SenderMetrics
from millstream.core.client.producer.node import Node
from millstream.core.client.producer.partition import SendingPartition
from millstream.core.client.producer.refusals import FATAL, LEADER_MOVED, MAYBE_APPENDED, SEQUENCE_LOST, TOO_LARGE
from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.records import Compression
from millstream.core.records.header import NO_PRODUCER_EPOCH, NO_PRODUCER_ID
from millstream.core.wire import ErrorCode, KafkaError

NEVER_MS: Final = float("inf")
EPOCH_MAX: Final = 32_767
# Bytes that a batch takes in a request beside its own: the partition, and the topic's name where it is the first.
_REQUEST_OVERHEAD_BYTES: Final = 64


class Sender:
    """See the module."""

    def __init__(
        self,
        settings: ProducerSettings,
        accumulator: RecordAccumulator,
        *,
        metrics: SenderMetrics | None = None,
        generator: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._accumulator = accumulator
        self.metrics = metrics or SenderMetrics()
        self._backoff = Backoff(
            settings.retry_backoff_ms / 1000, settings.retry_backoff_max_ms / 1000, generator=generator
        )
        self._partitions: dict[TopicPartition, SendingPartition] = {}
        # Those with anything to send or to wait for; looked at in turns, so that a full request starves nobody.
        self._active: dict[TopicPartition, SendingPartition] = {}
        self._nodes: dict[int, Node] = {}
        self._cluster = Cluster()
        self._effects: list[Effect] = []
        self._producer_id = NO_PRODUCER_ID
        self._producer_epoch = NO_PRODUCER_EPOCH
        self._is_asking_id = False
        self._ask_id_at_ms = 0.0
        self._id_failures = 0
        # Topics whose metadata is wanted, and whether it is being asked for.
        self._stale_topics: set[str] = set()
        self._is_asking_metadata = False
        self._ask_metadata_at_ms = 0.0
        self._metadata_failures = 0
        self.fatal_error: KafkaError | None = None
        # Open batches are sent without waiting for their linger: flush, close, and senders that wait for room.
        self.is_hurried = False
        # When `poll` has something to do again, if nothing else happens first.
        self.wake_at_ms = NEVER_MS

    # What the driver asks.

    def forget(self, topic: str) -> bool:
        """Drop the state of a topic's partitions, where nothing of it is on its way; whether that could be."""
        mine = [tp for tp in self._partitions if tp.topic == topic]
        if any(tp in self._active for tp in mine) or not self._accumulator.forget(topic):
            return False
        for tp in mine:
            del self._partitions[tp]
        return True

    def refresh(self, topics: Iterable[str]) -> None:
        """Have the metadata of `topics` asked for: it is old, or somebody wants to send there."""
        self._stale_topics.update(topics)

    def take_effects(self) -> list[Effect]:
        """Return what is to be done, in order, and forget it."""
        effects, self._effects = self._effects, []
        return effects

    @property
    def is_idle(self) -> bool:
        """Whether every batch has ended that the sender has heard of."""
        return not self._active and not self._stale_topics

    @property
    def requests_in_flight(self) -> int:
        """Requests not answered yet."""
        return sum(len(node.in_flight) for node in self._nodes.values())

    def batches(self) -> list[Batch]:
        """Return every batch that has not ended, open ones too."""
        self._take_listed()
        found: list[Batch] = []
        for partition in self._active.values():
            found += partition.window
            found += partition.queued
            if partition.queue.open is not None:
                found.append(partition.queue.open)
        return [batch for batch in found if not batch.done]

    def queue_sizes(self, topic: str, partition_count: int, now_ms: float) -> list[tuple[int, int]]:
        """Return (partition, batches that wait) of the partitions that keyless records may go to (KIP-794).

        Read on sending threads too; a size that is a moment old does no harm.
        """
        found = []
        timeout_ms = self._settings.availability_timeout_ms
        for partition in range(partition_count):
            tp = TopicPartition(topic, partition)
            state = self._partitions.get(tp)
            leader = state.leader if state is not None else self._leader_of(tp)[0]
            if leader == NO_NODE:
                continue
            node = self._nodes.get(leader)
            since_ms = node.waits_since_ms if node is not None else 0.0
            if timeout_ms > 0 and since_ms and now_ms - since_ms > timeout_ms:
                continue
            found.append((partition, 0 if state is None else len(state.queued) + len(state.window)))
        return found

    # What happens.

    def poll(self, now_ms: float) -> None:
        """Do whatever may be done now; effects and `wake_at_ms` follow from it."""
        self.wake_at_ms = NEVER_MS
        if self.fatal_error is not None:
            self._take_listed()
            self.fail_all(self.fatal_error)
            return
        self._take_listed()
        for tp, partition in list(self._active.items()):
            self._collect(partition, now_ms)
            if partition.is_idle:
                del self._active[tp]
        if self._settings.is_idempotent and self._active:
            self._keep_epochs(now_ms)
        self._give_up(now_ms)
        self._send(now_ms)
        self._ask_metadata(now_ms)

    def note_cluster(self, cluster: Cluster, asked: Iterable[str]) -> None:
        """Take in metadata that was asked for."""
        self._cluster = cluster
        self._is_asking_metadata = False
        self._metadata_failures = 0
        self._stale_topics.difference_update(asked)
        for partition in self._partitions.values():
            leader, epoch = self._leader_of(partition.topic_partition)
            if leader != NO_NODE and epoch >= partition.leader_epoch:
                partition.leader, partition.leader_epoch = leader, epoch
            elif leader == NO_NODE:
                partition.leader = NO_NODE

    def metadata_failed(self, now_ms: float) -> None:
        """Metadata could not be had; it is asked for again after a pause."""
        self._is_asking_metadata = False
        self._metadata_failures += 1
        self._ask_metadata_at_ms = now_ms + self._pause_ms(self._metadata_failures)

    def node_ready(self, node: int) -> int:
        """A connection to the node is open; return its generation."""
        state = self._nodes[node]
        state.is_connecting, state.is_ready, state.is_paused, state.failures = False, True, False, 0
        state.generation += 1
        return state.generation

    def node_failed(self, node: int, now_ms: float) -> None:
        """The node could not be reached; it is tried again after a pause, or its partitions move."""
        state = self._nodes[node]
        state.is_connecting = False
        state.failures += 1
        state.blocked_until_ms = now_ms + self._pause_ms(state.failures)
        self._stale_topics.update(tp.topic for tp, each in self._active.items() if each.leader == node)

    def node_lost(self, node: int, generation: int) -> None:
        """The connection of `generation` to the node is gone; requests over it come back as failures."""
        state = self._nodes[node]
        if state.generation == generation:
            state.is_ready = False

    def set_paused(self, node: int, paused: bool) -> None:
        """The socket to the node is full, or no longer."""
        self._nodes[node].is_paused = paused

    def prepared(self, batch: Batch, payload: bytes | None, now_ms: float, error: KafkaError | None = None) -> None:
        """A batch was compressed; or could not be, and fails with `error`."""
        if batch.done:
            return
        if payload is None:
            self._lose(self._partition_of(batch), batch, error or KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR), now_ms)
            return
        plain_bytes = batch.size
        batch.take_compressed(payload, self._settings.compression)
        self._accumulator.recharge(batch, min(batch.charged_bytes, batch.size))
        self.metrics.note_compressed(plain_bytes, batch.size)
        batch.state = BatchState.READY

    def was_split(self, batch: Batch, parts: list[Batch], error: KafkaError | None, now_ms: float) -> None:
        """A batch that was too large has been split; with no parts it fails with `error`."""
        if batch.done:
            return
        partition = self._partition_of(batch)
        if not parts:
            self._lose(partition, batch, error or KafkaError(ErrorCode.MESSAGE_TOO_LARGE), now_ms)
            return
        share = batch.charged_bytes // len(parts)
        self._accumulator.recharge(batch, 0)
        for part in parts:
            self._accumulator.recharge(part, share)
        partition.replace(batch, parts)
        batch.split_into(parts)
        self.metrics.batch_splits += 1

    def handle_producer_id(self, producer_id: int, producer_epoch: int) -> None:
        """A producer id was given."""
        self._is_asking_id = False
        self._id_failures = 0
        self._producer_id, self._producer_epoch = producer_id, producer_epoch

    def producer_id_failed(self, error: KafkaError, now_ms: float) -> None:
        """No producer id was given: it is asked for again where that may help, else nothing can be sent any more."""
        self._is_asking_id = False
        if error.code.retriable:
            self._id_failures += 1
            self._ask_id_at_ms = now_ms + self._pause_ms(self._id_failures)
        else:
            self.become_fatal(error)

    def handle_response(
        self, request: SendRequest, outcomes: Mapping[TopicPartition, Outcome], throttle_ms: int, now_ms: float
    ) -> None:
        """Take in a broker's answer."""
        node = self._nodes[request.node]
        node.in_flight.remove(request)
        self.metrics.note_answered(now_ms - request.sent_ms, throttle_ms)
        if throttle_ms > 0:
            node.blocked_until_ms = max(node.blocked_until_ms, now_ms + throttle_ms)
        for batch in request.batches:
            tp = TopicPartition(batch.topic, batch.partition)
            outcome = outcomes.get(tp)
            if outcome is None:
                outcome = Outcome(KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"the broker said nothing of {tp}"))
            self._settle(batch, outcome, now_ms)

    def handle_failure(self, request: SendRequest, error: KafkaError, now_ms: float) -> None:
        """A request got no answer: nobody knows what became of its batches."""
        self._nodes[request.node].in_flight.remove(request)
        for batch in request.batches:
            self._settle(batch, Outcome(error), now_ms)

    def note_unanswered(self, request: SendRequest, now_ms: float) -> None:
        """A request of acks=0 was written: that is all there is to know."""
        self._nodes[request.node].in_flight.remove(request)
        for batch in request.batches:
            self._settle(batch, Outcome(None), now_ms)

    def fail_all(self, error: KafkaError) -> None:
        """End every batch with `error`: the time to close is up, or nothing can be sent any more."""
        self._take_listed()
        for partition in self._active.values():
            for batch in self._accumulator.take_closed(partition.queue, True):
                partition.queued.append(batch)
            for batch in (*partition.window, *partition.queued):
                if not batch.done:
                    self._end(batch, error)
            partition.window.clear()
            partition.queued.clear()
        self._active.clear()

    def become_fatal(self, error: KafkaError) -> None:
        """End every batch with `error`, and each that would follow."""
        self.fatal_error = error
        self._accumulator.ending = error
        self.fail_all(error)

    # Batches on their way in.

    def _take_listed(self) -> None:
        for queue in self._accumulator.take_listed():
            partition = queue.owner
            if partition is None:
                partition = queue.owner = self._new_partition(queue)
            self._active[partition.topic_partition] = partition

    def _new_partition(self, queue: PartitionQueue) -> SendingPartition:
        partition = SendingPartition(
            queue, is_idempotent=self._settings.is_idempotent, in_flight_max=self._settings.in_flight_max
        )
        partition.leader, partition.leader_epoch = self._leader_of(partition.topic_partition)
        self._partitions[partition.topic_partition] = partition
        return partition

    def _collect(self, partition: SendingPartition, now_ms: float) -> None:
        """Take what the accumulator has closed or has to close, and end what is too old."""
        settings = self._settings
        opened = partition.queue.open
        close_open = False
        if opened is not None:
            due_ms = opened.opened_ms + settings.linger_ms
            close_open = self.is_hurried or now_ms >= due_ms
            if not close_open:
                self._wake_at(due_ms)
        for batch in self._accumulator.take_closed(partition.queue, close_open):
            self.metrics.note_batch(batch.size, batch.count)
            if settings.compression is Compression.NONE:
                batch.state = BatchState.READY
            else:
                batch.state = BatchState.PREPARING
                self._effects.append(Prepare(batch))
            partition.queued.append(batch)
        # Neither queue is by age alone: a batch encoded by a caller may be opened late. So all are looked at.
        for batches in (partition.window, partition.queued):
            if batches:
                deadline_ms = batches[0].opened_ms + settings.delivery_timeout_ms
                if now_ms >= deadline_ms:
                    self._expire(partition, now_ms)
                    break
                self._wake_at(deadline_ms)

    def _expire(self, partition: SendingPartition, now_ms: float) -> None:
        limit_ms = self._settings.delivery_timeout_ms
        for batch in [*partition.window, *partition.queued]:
            if now_ms < batch.opened_ms + limit_ms:
                continue
            last = batch.last_error
            why = f"; the last try ended in {last}" if last is not None else ""
            if batch.state is BatchState.SENT:
                why = "; a request is not answered"
                batch.is_ambiguous = True
            elif last is None and partition.leader == NO_NODE:
                why = "; the partition has no leader"
            error = DeliveryTimeoutError(
                f"{partition.topic_partition}: {batch.count} records were not acknowledged within {limit_ms:g} ms{why}"
            )
            self._lose(partition, batch, error, now_ms)

    # Producer ids and epochs.

    def _keep_epochs(self, now_ms: float) -> None:
        """Give partitions their id and epoch: at first, and where their sequence is lost (KIP-360)."""
        if self._producer_id == NO_PRODUCER_ID:
            if not self._is_asking_id:
                if now_ms >= self._ask_id_at_ms:
                    self._is_asking_id = True
                    self._effects.append(AskProducerId())
                else:
                    self._wake_at(self._ask_id_at_ms)
            return
        for partition in self._active.values():
            if partition.needs_epoch and not partition.in_flight:
                held = (partition.producer_id, partition.producer_epoch)
                if held == (self._producer_id, self._producer_epoch):
                    if self._producer_epoch >= EPOCH_MAX:
                        self._producer_id, self._producer_epoch = NO_PRODUCER_ID, NO_PRODUCER_EPOCH
                        self._keep_epochs(now_ms)
                        return
                    self._producer_epoch += 1
                partition.begin_epoch(self._producer_id, self._producer_epoch)
            elif partition.producer_id == NO_PRODUCER_ID:
                partition.begin_epoch(self._producer_id, self._producer_epoch)

    # Requests on their way out.

    def _give_up(self, now_ms: float) -> None:
        """Give up connections whose oldest request waits for too long: every later answer would wait behind it."""
        for node_id, node in self._nodes.items():
            if node.in_flight:
                deadline_ms = node.in_flight[0].sent_ms + self._settings.request_timeout_ms
                if now_ms >= deadline_ms:
                    self._effects.append(GiveUp(node_id))
                else:
                    self._wake_at(deadline_ms)

    def _send(self, now_ms: float) -> None:
        by_node: dict[int, list[SendingPartition]] = {}
        for partition in self._active.values():
            if partition.leader == NO_NODE:
                if not partition.queue.open or partition.queued or partition.window:
                    self._stale_topics.add(partition.topic_partition.topic)
                continue
            if self._settings.is_idempotent and partition.producer_id == NO_PRODUCER_ID:
                continue
            by_node.setdefault(partition.leader, []).append(partition)
        for node_id, partitions in by_node.items():
            node = self._nodes.get(node_id)
            if node is None:
                node = self._nodes[node_id] = Node()
            self._send_to(node_id, node, partitions, now_ms)

    def _send_to(self, node_id: int, node: Node, partitions: list[SendingPartition], now_ms: float) -> None:
        connection = (node_id, node.generation)
        waiting = [
            (each, batch) for each in partitions if (batch := self._candidate(each, now_ms, connection)) is not None
        ]
        if not waiting:
            node.waits_since_ms = 0.0
            return
        node.waits_since_ms = node.waits_since_ms or now_ms
        if now_ms < node.blocked_until_ms:
            self._wake_at(node.blocked_until_ms)
            return
        if not node.is_ready:
            if not node.is_connecting:
                node.is_connecting = True
                self._effects.append(Connect(node_id))
            return
        while waiting and not node.is_paused and len(node.in_flight) < self._settings.in_flight_max:
            request = SendRequest(node_id, node.generation, [], now_ms)
            size = records = 0
            following: list[SendingPartition] = []
            left_out: list[tuple[SendingPartition, Batch]] = []
            for partition, batch in waiting:
                if request.batches and size + batch.size + _REQUEST_OVERHEAD_BYTES > self._settings.max_request_size:
                    left_out.append((partition, batch))
                    continue
                records += batch.count
                size += batch.size + _REQUEST_OVERHEAD_BYTES
                batch.attempts += 1
                batch.sent_on, batch.sent_ms = connection, now_ms
                if batch.attempts == 1:
                    self.metrics.note_queued(now_ms - batch.opened_ms)
                partition.note_sent(batch)
                request.batches.append(batch)
                following.append(partition)
            node.in_flight.append(request)
            # Nothing else may happen until an answer comes, and perhaps none does.
            self._wake_at(node.in_flight[0].sent_ms + self._settings.request_timeout_ms)
            node.waits_since_ms = 0.0
            self.metrics.note_request(records, size)
            self._effects.append(request)
            for partition in following:
                # To the end of the line, so that those left out come first the next time.
                self._active[partition.topic_partition] = self._active.pop(partition.topic_partition)
            waiting = left_out + [
                (each, batch)
                for each in following
                if (each.queued or len(each.window) > 1) and (batch := each.candidate(now_ms, connection)) is not None
            ]

    def _candidate(self, partition: SendingPartition, now_ms: float, connection: tuple[int, int]) -> Batch | None:
        """Return the batch that may go out now; where none may, `poll` is due when one that waits to be retried may."""
        candidate = partition.candidate(now_ms, connection)
        if candidate is None:
            for batch in partition.window:
                if batch.state is BatchState.RETRY and batch.retry_at_ms > now_ms:
                    self._wake_at(batch.retry_at_ms)
        return candidate

    # Answers.

    def _settle(self, batch: Batch, outcome: Outcome, now_ms: float) -> None:
        """Do what the answer to one batch asks for: it ends, or is sent again, or is split."""
        partition = self._partition_of(batch)
        error = outcome.error
        is_late = batch.done
        if error is None or error.code is ErrorCode.DUPLICATE_SEQUENCE_NUMBER:
            if is_late:
                partition.note_late_answer(batch)
                return
            partition.note_acknowledged(batch)
            if partition.is_idle:
                self._active.pop(partition.topic_partition, None)
            self._acknowledge(batch, outcome)
            return
        if error.code in MAYBE_APPENDED:
            batch.is_ambiguous = True
        if error.code in LEADER_MOVED:
            self._stale_topics.add(batch.topic)
        if is_late:
            return
        batch.last_error = error
        moved = self._follow(partition, outcome)
        if error.code in FATAL:
            self.become_fatal(error)
        elif error.code in TOO_LARGE and batch.count > 1:
            batch.state = BatchState.PREPARING
            self._effects.append(Split(batch))
        elif self._settings.is_idempotent and error.code in SEQUENCE_LOST:
            self._retry(batch, now_ms, at_once=False)
            partition.note_out_of_order(batch)
        elif error.code.retriable and batch.attempts <= self._settings.retries:
            self._retry(batch, now_ms, at_once=moved)
        else:
            self._lose(partition, batch, error, now_ms)

    def _retry(self, batch: Batch, now_ms: float, *, at_once: bool) -> None:
        batch.state = BatchState.RETRY
        batch.retry_at_ms = now_ms if at_once else now_ms + self._pause_ms(batch.attempts)
        self.metrics.retries += batch.count

    def _follow(self, partition: SendingPartition, outcome: Outcome) -> bool:
        """Take the leader that an answer names, if it is news and its address is known; whether it was."""
        if outcome.leader_epoch <= partition.leader_epoch or outcome.leader not in self._cluster.brokers:
            return False
        partition.leader, partition.leader_epoch = outcome.leader, outcome.leader_epoch
        return True

    def _acknowledge(self, batch: Batch, outcome: Outcome) -> None:
        self._accumulator.recharge(batch, 0)
        self.metrics.records_sent += batch.count
        batch.acknowledge(outcome.base_offset, outcome.log_append_time_ms)

    def _lose(self, partition: SendingPartition, batch: Batch, error: KafkaError, now_ms: float) -> None:
        partition.note_lost(batch)
        self._end(batch, error)
        self._wake_at(now_ms)

    def _end(self, batch: Batch, error: KafkaError) -> None:
        self._accumulator.recharge(batch, 0)
        self.metrics.errors += batch.count
        batch.fail(error)

    # Small things.

    def _ask_metadata(self, now_ms: float) -> None:
        if not self._stale_topics or self._is_asking_metadata:
            return
        if now_ms < self._ask_metadata_at_ms:
            self._wake_at(self._ask_metadata_at_ms)
            return
        self._is_asking_metadata = True
        # A leader that stays away is not asked about all the time.
        self._ask_metadata_at_ms = now_ms + self._settings.retry_backoff_ms
        self._effects.append(AskMetadata(frozenset(self._stale_topics)))

    def _partition_of(self, batch: Batch) -> SendingPartition:
        return self._partitions[TopicPartition(batch.topic, batch.partition)]

    def _leader_of(self, tp: TopicPartition) -> tuple[int, int]:
        info = self._cluster.topics.get(tp.topic)
        if info is not None and tp.partition < len(info.partitions):
            found = info.partitions[tp.partition]
            if found.leader in self._cluster.brokers:
                return found.leader, found.leader_epoch
        return NO_NODE, -1

    def _pause_ms(self, failures: int) -> float:
        return self._backoff.pause_s(failures) * 1000

    def _wake_at(self, time_ms: float) -> None:
        if time_ms < self.wake_at_ms:
            self.wake_at_ms = time_ms
