"""A cluster for the producer's sender in virtual time: brokers, connections that break, and everything that goes wrong.

Brokers keep what Kafka's do of a producer: its epoch, and its last five batches of each partition. Requests of one
connection are handled in order, and so are their answers. A broken connection loses requests, or answers of requests
that are handled all the same, some of them after the next connection is open.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from millstream.core._kernels.record_accumulator import Appender, RecordAccumulator, RecordHandle
from millstream.core.client.cluster import BrokerNode, Cluster, PartitionInfo, TopicInfo, TopicPartition
from millstream.core.client.producer.batch import Batch
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
from millstream.core.client.producer.errors import BufferFullError, ProducerClosedError
from millstream.core.client.producer.preparing import compressed, split
from millstream.core.client.producer.sender import Sender
from millstream.core.client.producer.settings import ProducerSettings
from millstream.core.net import Address
from millstream.core.records import iter_records, read_header
from millstream.core.wire import ErrorCode, KafkaError

TOPIC = "flights"
BATCHES_KEPT = 5
POISON = b"poison"

_PLAIN_FAULTS = (
    ErrorCode.NOT_ENOUGH_REPLICAS,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    ErrorCode.REQUEST_TIMED_OUT,
    ErrorCode.CORRUPT_MESSAGE,
    ErrorCode.KAFKA_STORAGE_ERROR,
    ErrorCode.LEADER_NOT_AVAILABLE,
)


@dataclass
class Log:
    """One partition: its records, and what is known of producers."""

    leader: int = 0
    leader_epoch: int = 0
    values: list[bytes] = field(default_factory=list)
    # producer id -> epoch, and (base sequence, count, base offset) of the last batches.
    producers: dict[int, tuple[int, deque[tuple[int, int, int]]]] = field(default_factory=dict)

    def append(self, data: memoryview, size_max: int) -> Outcome:
        """Take a batch as a leader does."""
        header = read_header(data)
        values = [record.value or b"" for record in iter_records(bytes(data))]
        assert len(values) == header.count
        if len(data) > size_max:
            return Outcome(KafkaError(ErrorCode.MESSAGE_TOO_LARGE))
        if POISON in values:
            return Outcome(KafkaError(ErrorCode.INVALID_RECORD))
        if header.producer_id >= 0:
            epoch, batches = self.producers.get(header.producer_id, (-1, deque(maxlen=BATCHES_KEPT)))
            if header.producer_epoch < epoch:
                return Outcome(KafkaError(ErrorCode.INVALID_PRODUCER_EPOCH))
            if header.producer_epoch == epoch:
                for sequence, count, offset in batches:
                    if (sequence, count) == (header.base_sequence, header.count):
                        return Outcome(None, offset)
                if batches and header.base_sequence != (batches[-1][0] + batches[-1][1]) & 0x7FFFFFFF:
                    return Outcome(KafkaError(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER))
            elif epoch >= 0 and header.base_sequence:
                return Outcome(KafkaError(ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER))
            else:
                batches = deque(maxlen=BATCHES_KEPT)
            batches.append((header.base_sequence, header.count, len(self.values)))
            self.producers[header.producer_id] = (header.producer_epoch, batches)
        self.values += values
        return Outcome(None, len(self.values) - header.count)


class Simulation:
    """One producer, `nodes` brokers, `partitions` partitions, and faults by the seed until `calm_at_ms`."""

    def __init__(
        self,
        seed: int,
        settings: ProducerSettings,
        *,
        nodes: int = 3,
        partitions: int = 4,
        records: int = 400,
        fault_rate: float = 0.15,
        calm_at_ms: float = 20_000,
        batch_bytes_max: int = 1 << 20,
        poison_rate: float = 0.0,
        late_rate: float = 0.0,
    ) -> None:
        self.random = random.Random(seed)
        self.settings = settings
        self.now_ms = 0.0
        self.fault_rate = fault_rate
        self.late_rate = late_rate
        self.calm_at_ms = calm_at_ms
        self.batch_bytes_max = batch_bytes_max
        self.nodes = nodes
        self.logs = [Log(leader=self.random.randrange(nodes)) for _ in range(partitions)]
        self.sent: list[tuple[int, bytes, RecordHandle]] = []
        self.refused = 0
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._next_producer_id = 1000
        # Of each node's connection: the sender's generation of it, None while there is none; and until when answers
        # are on their way.
        self._live: list[int | None] = [None] * nodes
        self._answered_until = [0.0] * nodes
        self.accumulator = RecordAccumulator(
            lambda topic, partition, buffer: Batch(topic, partition, buffer, self.now_ms, -1),
            lambda _topic: self.random.randrange(partitions),
            lambda: None,
            lambda size: KafkaError(ErrorCode.MESSAGE_TOO_LARGE, f"{size} bytes"),
            buffer_memory=settings.buffer_memory,
            batch_size=settings.batch_size,
            record_size_max=settings.max_request_size,
        )
        self.accumulator.set_partitions(TOPIC, partitions)
        self._send = Appender(self.accumulator, self._stalled).send
        self.sender = Sender(settings, self.accumulator, generator=random.Random(seed + 1))
        at_ms = 0.0
        for number in range(records):
            at_ms += self.random.expovariate(1 / 20)
            poison = self.random.random() < poison_rate
            self._at(at_ms, self._sending(number, poison=poison))
        self.last_send_ms = at_ms

    # Running.

    def run(self) -> None:
        """Run until everything has ended. An assertion fails where that does not happen in time."""
        deadline_ms = max(self.last_send_ms, self.calm_at_ms) + 2 * self.settings.delivery_timeout_ms + 60_000
        while True:
            self.sender.poll(self.now_ms)
            for effect in self.sender.take_effects():
                self._carry_out(effect)
            self._check_bounds()
            at_ms = min(self.sender.wake_at_ms, self._events[0][0] if self._events else float("inf"))
            if at_ms == float("inf"):
                break
            assert at_ms < deadline_ms, f"something never ends: {self.sender.batches()}"
            self.now_ms = max(self.now_ms, at_ms)
            while self._events and self._events[0][0] <= self.now_ms:
                heapq.heappop(self._events)[2]()

    def close(self) -> None:
        """End what is left, as a producer does whose time to close is up."""
        self.sender.fail_all(ProducerClosedError())

    def _check_bounds(self) -> None:
        assert 0 <= self.accumulator.used_bytes <= self.settings.buffer_memory
        for state in self.sender._nodes.values():
            assert len(state.in_flight) <= self.settings.in_flight_max

    def _at(self, at_ms: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (at_ms, next(self._numbers), event))

    def _soon(self, event: Callable[[], None], *, longest_ms: float = 30) -> None:
        self._at(self.now_ms + self.random.uniform(0, longest_ms), event)

    def _is_unlucky(self) -> bool:
        return self.now_ms < self.calm_at_ms and self.random.random() < self.fault_rate

    # The user.

    def _sending(self, number: int, *, poison: bool) -> Callable[[], None]:
        def send() -> None:
            value = POISON if poison else b"%d:" % number + self.random.randbytes(self.random.randrange(300))
            key = b"%d" % self.random.randrange(50) if self.random.random() < 0.5 else None
            try:
                handle = self._send(TOPIC, value, key=key, timestamp_ms=1_000_000 + number)
            except BufferFullError:
                self.refused += 1
                return
            self.sent.append((handle.partition, value, handle))

        return send

    def _stalled(self, topic: str, partition: int, lacking_bytes: int) -> None:
        assert (topic, partition) == (TOPIC, -1)
        assert lacking_bytes
        raise BufferFullError("full")

    # The cluster.

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case AskMetadata(topics):
                self._soon(lambda: self._tell_metadata(topics))
            case AskProducerId():
                self._soon(self._tell_producer_id)
            case Connect(node):
                self._soon(lambda: self._connected(node))
            case Prepare(batch):
                self._soon(lambda: self._compress(batch))
            case Split(batch):
                self._soon(lambda: self._split(batch))
            case GiveUp(node):
                self._live[node] = None
                self.sender.node_lost(node, self.sender._nodes[node].generation)
            case SendRequest():
                self._handle(effect)

    def _tell_metadata(self, topics: frozenset[str]) -> None:
        if self._is_unlucky():
            self.sender.metadata_failed(self.now_ms)
            return
        cluster = Cluster(
            brokers={node: BrokerNode(node, Address("broker", 9000 + node)) for node in range(self.nodes)},
            topics={
                TOPIC: TopicInfo(
                    TOPIC,
                    bytes(16),
                    is_internal=False,
                    partitions=tuple(
                        PartitionInfo(index, log.leader, log.leader_epoch, (), (), ())
                        for index, log in enumerate(self.logs)
                    ),
                )
            },
        )
        self.sender.note_cluster(cluster, topics)

    def _tell_producer_id(self) -> None:
        if self._is_unlucky():
            self.sender.producer_id_failed(KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS), self.now_ms)
            return
        self._next_producer_id += 1
        self.sender.handle_producer_id(self._next_producer_id, 0)

    def _connected(self, node: int) -> None:
        if self._is_unlucky():
            self.sender.node_failed(node, self.now_ms)
            return
        self.sender.node_ready(node)
        self._live[node] = self.sender._nodes[node].generation
        self._answered_until[node] = self.now_ms

    def _compress(self, batch: Batch) -> None:
        if batch.buffer is None:
            return
        self.sender.prepared(batch, compressed(batch, self.settings.compression, None), self.now_ms)

    def _split(self, batch: Batch) -> None:
        if batch.buffer is None:
            return
        parts = []
        for data, records in split(batch.stamped(), None):
            part = Batch(batch.topic, batch.partition, bytearray(data), batch.opened_ms, -1)
            part.size, part.count = len(data), len(records)
            part.base_timestamp = records[0].timestamp
            part.max_timestamp = max(record.timestamp for record in records)
            part.compression = batch.compression
            parts.append(part)
        self.sender.was_split(batch, parts, None, self.now_ms)

    def _handle(self, request: SendRequest) -> None:
        node = request.node
        # What is written now stays as it is, whatever the producer does with its buffers.
        written = [(batch.partition, memoryview(bytes(batch.stamped()))) for batch in request.batches]
        if self.random.random() < 0.1 and self.now_ms < self.calm_at_ms:
            self._move_something()
        if self.settings.acks == 0:
            self.sender.note_unanswered(request, self.now_ms)
            if not self._is_unlucky():
                for partition, data in written:
                    self.logs[partition].append(data, self.batch_bytes_max)
            return
        cut = self._is_unlucky()
        arrives_ms = max(self.now_ms + self.random.uniform(1, 15), self._answered_until[node])
        self._answered_until[node] = arrives_ms
        self._at(arrives_ms, lambda: self._arrive(request, written, cut=cut))

    def _arrive(self, request: SendRequest, written: list[tuple[int, memoryview]], *, cut: bool) -> None:
        node = request.node
        if cut and request.generation == self._live[node]:
            # The connection goes, with this request and all behind it.
            self._live[node] = None
            self.sender.node_lost(node, request.generation)
        if request.generation == self._live[node]:
            outcomes = self._append_all(request, written)
            throttle_ms = 50 if self._is_unlucky() else 0
            self.sender.handle_response(request, outcomes, throttle_ms, self.now_ms)
            return
        fate = self.random.random()
        if fate < 0.4:
            self._append_all(request, written)
        elif fate < 0.4 + self.late_rate:
            self._soon(lambda: self._append_late(request, written), longest_ms=200)
        error = KafkaError(ErrorCode.REQUEST_TIMED_OUT if fate < 0.2 else ErrorCode.NETWORK_EXCEPTION)
        self.sender.handle_failure(request, error, self.now_ms)

    def _append_late(self, request: SendRequest, written: list[tuple[int, memoryview]]) -> None:
        self._append_all(request, written)

    def _append_all(self, request: SendRequest, written: list[tuple[int, memoryview]]) -> dict[TopicPartition, Outcome]:
        return {
            TopicPartition(TOPIC, partition): self._append(request.node, partition, data) for partition, data in written
        }

    def _append(self, node: int, partition: int, data: memoryview) -> Outcome:
        log = self.logs[partition]
        if log.leader != node:
            hint = self.random.random() < 0.5
            return Outcome(
                KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER),
                leader=log.leader if hint else -1,
                leader_epoch=log.leader_epoch if hint else -1,
            )
        if self._is_unlucky():
            code = self.random.choice(_PLAIN_FAULTS)
            if code in {ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND, ErrorCode.REQUEST_TIMED_OUT}:
                outcome = log.append(data, self.batch_bytes_max)
                return outcome if outcome.error is not None else Outcome(KafkaError(code))
            return Outcome(KafkaError(code))
        return log.append(data, self.batch_bytes_max)

    def _move_something(self) -> None:
        log = self.random.choice(self.logs)
        log.leader = self.random.randrange(self.nodes)
        log.leader_epoch += 1

    # What must hold at the end.

    def check(self, *, exactly_once: bool, in_order: bool) -> None:
        """Assert what a user is promised."""
        assert self.accumulator.used_bytes == 0
        assert self.sender.is_idle
        for partition, value, handle in self.sent:
            assert handle.done(), f"{handle} never ended"
            if handle.exception() is None and self.settings.acks != 0:
                metadata: Any = handle.result()
                if metadata.offset >= 0:
                    assert self.logs[partition].values[metadata.offset] == value, handle
                else:
                    assert value in self.logs[partition].values, handle
        for partition, log in enumerate(self.logs):
            numbers = [int(value.split(b":")[0]) for value in log.values]
            if exactly_once:
                assert len(set(numbers)) == len(numbers), f"partition {partition} has duplicates"
            if in_order:
                assert numbers == sorted(numbers), f"partition {partition} is out of order"
